"""Whose mail windows pass over, and until when: asked by flow, looked at as waits come to an end.

Ten thousand campaigns can wait at one destination. So nobody walks all of them for a pull: a wait
is put down once and holds until its time, and a window asks for those flows only that it comes to.
Decides no wait; that is `flows`.
"""

import heapq
from typing import Final

from engine.delivery.throttles import Throttle
from protocols.records import FlowWait

# So many waits that are over are looked at before a pull; the others do not pass over meanwhile.
LOOKS_MAX: Final = 256

Whose = tuple[int, str | None]


class PassedFlows:
    """The waits of one actor. A window's thread asks while the actor that changes them waits."""

    def __init__(self) -> None:
        # Of an account or campaign each limit: it may have one of its own and one for each place.
        self._limits: dict[Whose, tuple[Throttle, ...]] = {}
        self._until: dict[Throttle, int] = {}
        # (until, order, limit), the earliest first; what is no longer so in `_until` says nothing.
        self._ends: list[tuple[int, int, Throttle]] = []
        self._order = 0
        # Until when all limited mail is passed over, as enough of it is here; 0 if it is not.
        self.all_until_unix_ms = 0

    @property
    def has_any(self) -> bool:
        """Whether anybody may be passed over."""
        return bool(self._until) or self.all_until_unix_ms > 0

    def meet(self, throttle: Throttle, whose: FlowWait) -> None:
        """Know whose mail a limit is about."""
        key = (whose.account_id, whose.campaign)
        self._limits[key] = (*self._limits.get(key, ()), throttle)

    def put(self, throttle: Throttle, until_unix_ms: int) -> None:
        """Have mail with this limit wait; 0 ends its wait."""
        if until_unix_ms == 0:
            self._until.pop(throttle, None)
        elif self._until.get(throttle) != until_unix_ms:
            self._until[throttle] = until_unix_ms
            self._order += 1
            heapq.heappush(self._ends, (until_unix_ms, self._order, throttle))
            if len(self._ends) > 2 * len(self._until) + LOOKS_MAX:
                self._ends = [each for each in self._ends if self._until.get(each[2]) == each[0]]
                heapq.heapify(self._ends)

    def over(self, now_unix_ms: int) -> dict[Throttle, None]:
        """Return limits whose wait is over. Each is told once, and waits on only if it is put."""
        over: dict[Throttle, None] = {}
        while self._ends and self._ends[0][0] <= now_unix_ms and len(over) < LOOKS_MAX:
            until_unix_ms, _, throttle = heapq.heappop(self._ends)
            if self._until.get(throttle) == until_unix_ms:
                del self._until[throttle]
                over[throttle] = None
        return over

    def until_unix_ms(self, account_id: int, campaign: str | None) -> int:
        """Return until when a flow is passed over: 0, or what is over, if it is not."""
        until_unix_ms = 0
        for key in ((account_id, None), (account_id, campaign)):
            for throttle in self._limits.get(key, ()):
                until_unix_ms = max(
                    until_unix_ms, self.all_until_unix_ms, self._until.get(throttle, 0)
                )
        return until_unix_ms
