"""What may go now: rates, connection ceilings, and how many connections have earned their place.

Pure values; time is an argument, in wall milliseconds, because a bucket outlives the
process. All limits on a mail's path are asked first and charged afterwards, with no
`await` in between; `binding_limit` is that question, and explain asks the same one.
Nothing here knows a destination's mail, opens a connection or waits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from engine.config_values import Rate
from protocols.records import DestinationRecord

# The instant of a limit that no passing of time lifts, only somebody's giving back.
NOT_BY_WAITING: Final = math.inf
# Throttled is not resident: what cannot act for longer than this rests on the agenda.
RESIDENT_WAIT_MS: Final = 2000
# Two show whether a second one helps at all; one would make every slow first session decide alone.
CONNECTIONS_AT_START: Final = 2
# A cohort is so many deliveries on each connection. Postfix takes one; but our pipe is full, and
# on a near host hundreds of mails are through before a further connection is up.
COHORT_MAILS_PER_CONNECTION: Final = 3
# A receiver that refused one more is asked again after twice as many cohorts each time, up to
# this many: a few times a minute where mail flows, not a few times a second.
PATIENCE_COHORTS_MAX: Final = 64
# Who waits for tokens does so every two seconds at least, or rests; twice that is a pause.
REFUSALS_APART_MS_MAX: Final = 4000
# Rounding can leave a bucket a hair under one token for ever; a millionth of a mail is no breach.
LEVEL_ROUNDING: Final = 1e-6


class Limit(Protocol):
    """One thing that can hold mail back, named as explain names it."""

    @property
    def code(self) -> str: ...

    @property
    def scope(self) -> str: ...

    @property
    def key(self) -> str: ...

    def ready_at_unix_ms(self, now_unix_ms: int) -> float:
        """Return from when one more may pass, now or later; take nothing."""
        ...


def binding_limit(path: Sequence[Limit], now_unix_ms: int) -> tuple[Limit | None, float]:
    """Return the limit on `path` that frees last and when; (None, now) if all agree now.

    Asking is apart from charging because a mail passes several limits: one that was
    charged before another refused would be spent on nothing.
    """
    binding: Limit | None = None
    at_unix_ms: float = now_unix_ms
    for limit in path:
        ready = limit.ready_at_unix_ms(now_unix_ms)
        if ready > at_unix_ms:
            binding, at_unix_ms = limit, ready
    return binding, at_unix_ms


@dataclass(slots=True)
class TokenBucket:
    """At most `burst` at once and `rate_per_s` in the long run; kept as (level, at).

    A new one is full. `level` counts messages, whole and in parts; it belongs to the
    instant `at_unix_ms` and is brought forward by whoever charges.
    """

    scope: str
    key: str
    rate_per_s: float
    burst: int
    level: float
    at_unix_ms: int
    # The reply that taught this rate, and when; a rate from a rule has none.
    reply: str = ""
    since_unix_ms: int = 0

    @property
    def code(self) -> str:
        return "rate_limit"

    def level_at(self, now_unix_ms: int) -> float:
        """Return how many may pass at `now_unix_ms`, in parts."""
        # A clock that was set back gives nothing for the time that it repeats.
        elapsed_s = max(0, now_unix_ms - self.at_unix_ms) / 1000.0
        return min(float(self.burst), self.level + elapsed_s * self.rate_per_s)

    def whole_at(self, now_unix_ms: int) -> int:
        """Return how many whole messages may pass at `now_unix_ms`."""
        return int(self.level_at(now_unix_ms) + LEVEL_ROUNDING)

    def ready_at_unix_ms(self, now_unix_ms: int, messages: int = 1) -> float:
        """Return from when `messages` (at most a burst) may pass together; take nothing."""
        missing = min(messages, self.burst) - self.level_at(now_unix_ms)
        if missing <= LEVEL_ROUNDING:
            return now_unix_ms
        # Whole milliseconds, upwards: a wait shorter than the clock's tick is a busy loop.
        return now_unix_ms + max(1, math.ceil(missing / self.rate_per_s * 1000.0))

    def charge(self, messages: int, now_unix_ms: int) -> None:
        """Take what was asked for before, at the same `now_unix_ms`."""
        level = self.level_at(now_unix_ms) - messages
        assert level >= -2 * LEVEL_ROUNDING, (self.key, level)
        self.level = max(0.0, level)
        self.at_unix_ms = now_unix_ms

    def change_rate(self, rate: Rate, now_unix_ms: int) -> None:
        """Go on with another rate from now; what was earned until now stays earned."""
        self.level = min(self.level_at(now_unix_ms), float(rate.burst))
        self.at_unix_ms = now_unix_ms
        self.rate_per_s, self.burst = rate.per_s, rate.burst


@dataclass(slots=True)
class Refusals:
    """Since when somebody has had to wait for a limit, again and again."""

    since_unix_ms: int = 0
    last_unix_ms: int = 0

    def note(self, now_unix_ms: int) -> None:
        if now_unix_ms - self.last_unix_ms > REFUSALS_APART_MS_MAX:
            self.since_unix_ms = now_unix_ms
        self.last_unix_ms = now_unix_ms

    def since(self, now_unix_ms: int) -> int | None:
        """Return when it began; None if it is over."""
        is_over = now_unix_ms - self.last_unix_ms > REFUSALS_APART_MS_MAX
        return None if is_over else self.since_unix_ms


def restored_bucket(
    destination: str,
    rate: Rate,
    record: DestinationRecord,
    *,
    started_unix_ms: int,
    now_unix_ms: int,
) -> TokenBucket:
    """Return a destination's bucket as its record left it.

    `started_unix_ms` is when this process began. A stamp from before may be followed by
    charges that a crash kept from the disk, so that bucket starts empty; else a process
    that is restarted again and again would let a burst pass each time.
    """
    level, at_unix_ms = record.bucket_level, record.bucket_unix_ms
    if at_unix_ms == 0:
        level, at_unix_ms = float(rate.burst), now_unix_ms
    elif at_unix_ms <= started_unix_ms:
        # In the very millisecond of the start, too: a crash and a restart fit into one.
        level, at_unix_ms = 0.0, started_unix_ms
    bucket = TokenBucket("destination", destination, rate.per_s, rate.burst, level, at_unix_ms)
    # A lower burst than the one it was stored under holds at once.
    bucket.level = min(level, float(rate.burst))
    return bucket


@dataclass(slots=True)
class ConnectionLimit:
    """At most `ceiling` connections at once; `open` counts them.

    `reply` is the one that taught it; a ceiling from a rule has none.
    """

    scope: str
    key: str
    ceiling: int
    open: int = 0
    reply: str = ""

    @property
    def code(self) -> str:
        return "connection_limit"

    def ready_at_unix_ms(self, now_unix_ms: int) -> float:
        return now_unix_ms if self.open < self.ceiling else NOT_BY_WAITING


@dataclass(slots=True)
class Concurrency:
    """How many connections a destination has earned, between one and `ceiling`.

    Postfix' feedback: a delivery adds a part of a connection, so that one is added for a
    whole cohort; a connection that fails or is refused takes one away. Refused recipients
    say nothing about the connection.
    """

    ceiling: int
    earned: float = float(CONNECTIONS_AT_START)
    # How many fitted when one more did not, and how many cohorts it takes to try that again.
    fitted: int | None = None
    patience: int = 1

    @property
    def allowed(self) -> int:
        return max(1, min(int(self.earned), self.ceiling))

    def delivered(self, messages: int) -> None:
        if self.earned >= self.ceiling:
            return
        gained = messages / (COHORT_MAILS_PER_CONNECTION * self.earned)
        if self.fitted is not None and self.earned >= self.fitted:
            if self.earned >= self.fitted + 2:
                # Two more than fitted then do so now: the receiver has changed its mind.
                self.fitted, self.patience = None, 1
            gained /= self.patience
        self.earned = min(self.earned + gained, float(self.ceiling))

    def failed(self, still_open: int) -> None:
        """Note a failed connection while `still_open` others live: those have been shown to fit."""
        self.earned = max(1.0, min(self.earned - 1.0, float(max(still_open, 1))))
        if still_open:
            # A single failure far below what fitted may be chance; several bring it down.
            self.fitted = max(still_open, (self.fitted or 0) - 1)
            self.patience = min(self.patience * 2, PATIENCE_COHORTS_MAX)
