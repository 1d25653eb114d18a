"""How many a second, lately. Two counters, no list: it is fed for every mail."""

from typing import Final

# Long enough for a steady figure, short enough that a page shows a stop within seconds.
SLOT_S: Final = 5.0


class Meter:
    """A rate over the last five to ten seconds. Times are trio's clock."""

    __slots__ = ("_before", "_now", "_slot")

    def __init__(self) -> None:
        self._slot = 0
        self._now = 0
        self._before = 0

    def count(self, now_s: float) -> None:
        self._move_to(now_s)
        self._now += 1

    def rate_per_s(self, now_s: float) -> float:
        self._move_to(now_s)
        into_slot = now_s / SLOT_S - self._slot
        return (self._before * (1.0 - into_slot) + self._now) / SLOT_S

    def _move_to(self, now_s: float) -> None:
        slot = int(now_s / SLOT_S)
        if slot != self._slot:
            self._before = self._now if slot == self._slot + 1 else 0
            self._now = 0
            self._slot = slot
