"""Answers that take long to find: found once for all who ask meanwhile, and kept for a while.

What took longer than a tenth of a second is kept for twenty times the rest, so that whoever asks
again and again, or many at once, cannot have the engine do nothing else; all else is never old.
Whoever is answered is told how old the answer is. Failures are not kept.
"""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import trio

# Whoever changes something and asks at once wants to see it: this is no time to mind.
QUICK_S: Final = 0.1
COST_SHARE: Final = 20.0
# Nothing is told that is older.
KEPT_S_MAX: Final = 10.0
# Answers that are kept; the oldest goes first.
ANSWERS_MAX: Final = 64

T = TypeVar("T")


@dataclass(slots=True)
class _Look(Generic[T]):
    """One answer that is being found, or was at `at_s`; `done` without one means that it failed."""

    done: trio.Event = field(default_factory=trio.Event)
    at_s: float = 0.0
    until_s: float = 0.0
    answer: T | None = None


class LongLooks(Generic[T]):
    """Kept answers by what was asked: the key says all that the answer depends on."""

    def __init__(self) -> None:
        self._looks: dict[Hashable, _Look[T]] = {}

    async def answer(
        self, key: Hashable, find: Callable[[], Awaitable[T | None]]
    ) -> tuple[T | None, int]:
        """Return the answer and its age in whole seconds; None if `find` has none."""
        while (look := self._looks.get(key)) is not None:
            await look.done.wait()
            if look.answer is not None and trio.current_time() < look.until_s:
                return look.answer, int(trio.current_time() - look.at_s)
            if self._looks.get(key) is look:
                del self._looks[key]
        return await self._found(key, find), 0

    async def _found(self, key: Hashable, find: Callable[[], Awaitable[T | None]]) -> T | None:
        look = self._looks[key] = _Look[T]()
        began_s = trio.current_time()
        try:
            look.answer = await find()
        finally:
            # Those who wait for it look for themselves if there is nothing.
            look.at_s = trio.current_time()
            kept_s = (look.at_s - began_s - QUICK_S) * COST_SHARE
            look.until_s = look.at_s + min(max(kept_s, 0.0), KEPT_S_MAX)
            look.done.set()
        if look.answer is None:
            del self._looks[key]
        while len(self._looks) > ANSWERS_MAX:
            del self._looks[next(iter(self._looks))]
        return look.answer
