"""Holds in the `memory:` adapter; see `engine.spool.hold_calls`."""

from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec
import trio

from engine.spool.hold_calls import Hold
from engine.spool.holds import Holds
from engine.spool.interface import CommitNotice
from engine.spool.memory_data import MemoryData
from engine.spool.telling import Telling
from protocols.records import Envelope


class MemoryHolds(Telling):
    """A part of `MemorySpool`, which sets these."""

    _data: MemoryData
    _claimed: set[int]

    async def put_hold(self, hold: Hold) -> Hold:
        await trio.lowlevel.checkpoint()
        data = self._data
        data.holds.check_room(hold.owner_id)
        put = msgspec.structs.replace(hold, hold_id=data.hold_id_high + 1, is_lifted=False)
        data.holds = data.holds.with_row(put)
        data.hold_id_high = put.hold_id
        self._tell(CommitNotice((), (), holds_changed=True))
        return put

    async def lift_holds(self, hold_ids: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()
        lifted = [self._data.holds.rows[each] for each in hold_ids if each in self._data.holds.rows]
        if lifted:
            self._end_holds(lifted)

    def holds(self) -> Sequence[Hold]:
        return self._data.holds.at(self.now_unix_ms())

    def hold_of_destination(self, destination: str, site: str) -> Hold | None:
        return self._data.holds.of_destination(destination, site, self.now_unix_ms())

    def hold_of(self, envelope: Envelope, site: str) -> Hold | None:
        return self._data.holds.of(envelope, site, self.now_unix_ms())

    def in_flight(self, envelope_ids: Iterable[int]) -> frozenset[int]:
        return frozenset(self._claimed.intersection(envelope_ids))

    def next_hold_end_unix_ms(self) -> int | None:
        return self._data.holds.next_end_unix_ms(self.now_unix_ms())

    def end_what_is_over(self) -> None:
        """Forget the holds whose end has come."""
        over = self._data.holds.over_at(self.now_unix_ms())
        if over:
            self._end_holds(over)

    def _end_holds(self, ended: Sequence[Hold]) -> None:
        data, now_unix_ms = self._data, self.now_unix_ms()
        data.holds = Holds(row for row in data.holds.rows.values() if row not in ended)
        held = chain.from_iterable(data.names_at_places_of(each) for each in ended)
        names = list(dict.fromkeys(held))
        for name in names:
            data.reconsider(name, now_unix_ms)
        due = [
            name
            for name in names
            if name in data.agenda and data.agenda[name].wake_unix_ms <= now_unix_ms
        ]
        if due:
            self._tell(CommitNotice((), due))
