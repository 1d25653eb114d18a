"""What is with the server of one connection, since when that is silent, and its end by age.

Mail whose time is over is not handed to anybody any more. Until its final dot is sent no server has
it (RFC 5321 4.1.1.4: the dot hands it over), so a silent server loses it then: the connection is
broken off, and all that was under way on it gets its outcome. After the dot the server may have
taken it, and an end by age could be a lie: the time that RFC 5321 4.5.3.2.6 asks for is waited out.
Decides no status.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import trio

from engine.clock import Clock
from engine.delivery.connection import Connection

# Servers take that long over a command without anything being wrong.
SILENT_S: Final = 3.0
# Mail that is too old, and whose server is not silent yet or may have it, is looked at this often.
LOOK_AGAIN_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Silence:
    """A server that owes an answer: since when, and until when it is waited for (wall ms)."""

    since_unix_ms: int
    until_unix_ms: int


class UnderWay:
    """The envelopes that one connection has no outcome of. `watch` runs beside their delivery."""

    __slots__ = ("_alarm", "_alarm_unix_ms", "_clock", "_connection", "_expires")

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        # Envelope id -> when it is too old (wall ms).
        self._expires: dict[int, int] = {}
        self._alarm = trio.CancelScope()
        self._alarm_unix_ms: float = math.inf

    def __contains__(self, envelope_id: int) -> bool:
        return envelope_id in self._expires

    def took(self, envelopes: Iterable[tuple[int, int]]) -> None:
        """Envelopes are handed to the connection: ids, and when they are too old."""
        first = math.inf
        for envelope_id, expires_unix_ms in envelopes:
            self._expires[envelope_id] = expires_unix_ms
            first = min(first, expires_unix_ms)
        if first < self._alarm_unix_ms:
            self._set_alarm(first)

    def landed(self, envelope_id: int) -> None:
        del self._expires[envelope_id]

    def silence(self) -> Silence | None:
        """Return the server's silence; None if it owes nothing, or not for long."""
        waited = self._connection.waited_s()
        if waited is None or waited[0] < SILENT_S:
            return None
        now_unix_ms = self._clock.now_unix_ms()
        for_s, left_s = waited
        return Silence(now_unix_ms - round(for_s * 1000), now_unix_ms + round(left_s * 1000))

    async def watch(self) -> None:
        """Break off what is too old, as soon as that is safe; until cancelled."""
        while True:
            with self._alarm:
                await trio.sleep_forever()
            # A scope serves once; what is taken from here on sets the next one.
            self._alarm = trio.CancelScope()
            self._set_alarm(self._cut())

    def _cut(self) -> float:
        """Break the connection off if that is right; return when to look again (wall ms)."""
        now_unix_ms = self._clock.now_unix_ms()
        first = min(self._expires.values(), default=math.inf)
        if first > now_unix_ms:
            return first
        if self.silence() is not None:
            self._connection.abandon("no answer before the mail's time was over")
        return now_unix_ms + LOOK_AGAIN_MS

    def _set_alarm(self, at_unix_ms: float) -> None:
        self._alarm_unix_ms = at_unix_ms
        wait_s = (at_unix_ms - self._clock.now_unix_ms()) / 1000.0
        self._alarm.deadline = trio.current_time() + wait_s
