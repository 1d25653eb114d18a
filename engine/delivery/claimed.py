"""What one destination has claimed and has no content of in memory yet, in the order it will go.

Owns which of it is fetched next, and the wait for room in memory: what needs the room that an
earlier load waits for stays behind it, everything else passes. Fetches nothing itself, and knows
no limit and no server.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from engine.delivery import filling
from engine.delivery.content_room import LOAD_BYTES, ContentBudget, ContentRoom, Share
from engine.spool.interface import Finish
from protocols.records import Envelope


@dataclass(frozen=True, slots=True)
class Load:
    """Envelopes whose content is to be fetched now, and the octets that `room` has for it."""

    envelopes: list[Envelope]
    room: ContentRoom
    octets: int


@dataclass(eq=False, slots=True)
class _Parked:
    """Envelopes whose content is fetched as soon as there is room for it."""

    envelopes: deque[Envelope]
    room: ContentRoom
    share: Share


class Claimed:
    """Envelopes without content, the next one first; those that wait for room count as well."""

    def __init__(self, budget: ContentBudget, may_load_again: Callable[[], None]) -> None:
        """`may_load_again` is called when there is room for content that had to wait for it."""
        self._budget = budget
        self._may_load_again = may_load_again
        self._waiting: deque[Envelope] = deque()
        # Loads that wait for room; what needs the same room waits behind them.
        self._parked: list[_Parked] = []

    def __len__(self) -> int:
        count = len(self._waiting)
        for parked in self._parked:
            count += len(parked.envelopes)
        return count

    def __iter__(self) -> Iterator[Envelope]:
        for parked in self._parked:
            yield from parked.envelopes
        yield from self._waiting

    def add(self, envelopes: Iterable[Envelope]) -> None:
        """Put what was just claimed behind what is here."""
        self._waiting.extend(envelopes)
        self._let_others_pass()

    def put_back(self, envelopes: Sequence[Envelope]) -> None:
        """Put what could not be loaded, in its order, before what is here."""
        self._waiting.extendleft(reversed(envelopes))

    def take_all(self) -> list[Envelope]:
        """Return everything, which is here no more; nothing of it waits for room."""
        self.unpark()
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def may_load(self, held_bytes: int) -> bool:
        """Say whether `next_load` has something to do for who holds so much content already.

        Whoever has to wait has mail here or with a server, and is heard of when that has gone.
        """
        if self._parked and any(each.share.is_granted for each in self._parked):
            return True
        if not self._waiting:
            return False
        size = filling.size_in_memory(self._waiting[0].fixed)
        return not self._is_waited_for(self._budget.room_for(size)) and self._budget.may_ask(
            size, held=held_bytes
        )

    def next_load(self, now_unix_ms: int, finishes: list[Finish]) -> Load | None:
        """Take the next part to be fetched; None if there is none, or it has to wait for room.

        What was found too old on the way is added to `finishes`.
        """
        parked = next((each for each in self._parked if each.share.is_granted), None)
        if parked is not None:
            self._parked.remove(parked)
            return Load(list(parked.envelopes), parked.room, parked.share.octets)
        batch, size = self._next_batch(now_unix_ms, finishes)
        if not batch:
            return None
        room = self._budget.room_for(size)
        share = room.ask(size, self._may_load_again)
        if share.is_granted:
            return Load(batch, room, share.octets)
        self._parked.append(_Parked(deque(batch), room, share))
        self._let_others_pass()
        return None

    def unpark(self) -> None:
        """Wait for no room any more, and leave what was granted to others."""
        for parked in reversed(self._parked):
            self.put_back(parked.envelopes)
            parked.room.withdraw(parked.share)
        self._parked.clear()

    def drop_old(self, now_unix_ms: int, finishes: list[Finish]) -> float:
        """End what is too old; return when the first of the others will be (wall ms)."""
        expires_unix_ms = drop_old(self._waiting, now_unix_ms, finishes)
        for parked in self._parked[:]:
            first = drop_old(parked.envelopes, now_unix_ms, finishes)
            expires_unix_ms = min(expires_unix_ms, first)
            if not parked.envelopes:
                self._parked.remove(parked)
                parked.room.withdraw(parked.share)
        return expires_unix_ms

    def _is_waited_for(self, room: ContentRoom) -> bool:
        return any(parked.room is room for parked in self._parked)

    def _let_others_pass(self) -> None:
        """Put what would have to wait behind parked mail after what need not."""
        room_for = self._budget.room_for

        def has_to_wait(envelope: Envelope) -> bool:
            return self._is_waited_for(room_for(filling.size_in_memory(envelope.fixed)))

        if self._parked:
            self._waiting = deque(sorted(self._waiting, key=has_to_wait))

    def _next_batch(self, now_unix_ms: int, finishes: list[Finish]) -> tuple[list[Envelope], int]:
        """Take a load out of what waits, and what is too old before it; with its octets."""
        batch: list[Envelope] = []
        size = 0
        seen: set[int] = set()
        while self._waiting and size < LOAD_BYTES:
            envelope = self._waiting[0]
            fixed = envelope.fixed
            if envelope.state.expires_unix_ms <= now_unix_ms:
                self._waiting.popleft()
                finishes.append(filling.ended_by_age(envelope, now_unix_ms))
                continue
            if fixed.variables is not None or fixed.content_id not in seen:
                if batch and size + filling.size_in_memory(fixed) > LOAD_BYTES:
                    break
                seen.add(fixed.content_id)
                size += filling.size_in_memory(fixed)
            self._waiting.popleft()
            batch.append(envelope)
        return batch, size


def drop_old(waiting: deque[Envelope], now_unix_ms: int, finishes: list[Finish]) -> float:
    """Take what is too old out of `waiting`, with its end added to `finishes`.

    Returns when the first of what is kept will be too old (wall ms), infinity if nothing is.
    """
    expires_unix_ms = math.inf
    kept: list[Envelope] = []
    for envelope in waiting:
        if envelope.state.expires_unix_ms <= now_unix_ms:
            finishes.append(filling.ended_by_age(envelope, now_unix_ms))
        else:
            expires_unix_ms = min(expires_unix_ms, envelope.state.expires_unix_ms)
            kept.append(envelope)
    waiting.clear()
    waiting.extend(kept)
    return expires_unix_ms
