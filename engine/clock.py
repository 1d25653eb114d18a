"""Wall time behind one seam, and the stamp that never runs backwards.

The only module that imports `time`. Two clocks are never mixed: due times outlive the process and
are wall time in milliseconds (`..._unix_ms`, from here); throttles and timeouts must not jump and
are `trio.current_time()` (`..._s`). Nothing here sleeps.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

import trio

# A stamp that is ahead of wall time walks at this share of its pace until wall time has caught up.
# At full pace it would stay ahead for ever; standing still, every retry would wait for the clock.
CATCH_UP_PACE: Final = 0.95


class Clock(Protocol):
    """Where wall time comes from."""

    def now_unix_ms(self) -> int:
        """Return the milliseconds since 1970-01-01T00:00:00Z."""
        ...


class SystemClock:
    """The machine's wall clock. It may step in both directions; see `Stamp`."""

    def now_unix_ms(self) -> int:
        return time.time_ns() // 1_000_000


class VirtualClock:
    """Wall time derived from trio's clock, for runs under `trio.testing.MockClock`.

    The start is an argument and a mock clock begins at zero, so that two runs with one seed see the
    same times to the millisecond.
    """

    def __init__(self, start_unix_ms: int) -> None:
        self._start_unix_ms = start_unix_ms

    def now_unix_ms(self) -> int:
        return self._start_unix_ms + int(trio.current_time() * 1000.0)


class Stamp:
    """A clock for keys and due times: wall time, but never before what was already given out.

    Ids and due times are ordered on disk. If the machine's clock steps back, wall time would sort
    new rows before a cursor that has passed; if the stamp just stood still, a retry of five minutes
    would take as long as the step. So it goes on with the monotonic clock, a little slower, until
    wall time is level again.

    `high_water_unix_ms` is what the spool remembered of an earlier run. Called from the loop only.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        high_water_unix_ms: int = 0,
        monotonic_s: Callable[[], float] = trio.current_time,
    ) -> None:
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._at_unix_ms: float = high_water_unix_ms
        # Since when the stamp walks by itself; None while it is wall time.
        self._walks_since_s: float | None = monotonic_s()

    def now_unix_ms(self) -> int:
        """Return a time that is at least every time returned before."""
        wall_unix_ms = self._clock.now_unix_ms()
        if self._walks_since_s is None and wall_unix_ms >= self._at_unix_ms:
            # The everyday case, three times for each mail: without the other clock it is half the
            # price. So after a step back the stamp stands still until it is asked for once.
            self._at_unix_ms = wall_unix_ms
            return wall_unix_ms
        now_s = self._monotonic_s()
        if self._walks_since_s is not None:
            walked_s = max(0.0, now_s - self._walks_since_s)
            self._at_unix_ms += walked_s * 1000.0 * CATCH_UP_PACE
        self._walks_since_s = now_s
        if wall_unix_ms >= self._at_unix_ms:
            self._at_unix_ms = wall_unix_ms
            self._walks_since_s = None
        return int(self._at_unix_ms)

    @property
    def ahead_ms(self) -> int:
        """How far the stamp is ahead of wall time now: how far the clock was set back."""
        return max(0, self.now_unix_ms() - self._clock.now_unix_ms())
