"""What waits, in the `memory:` adapter; see `engine.spool.waiting_calls`."""

from collections.abc import Sequence

import trio

from engine.spool.memory_data import MemoryData
from engine.spool.waiting_calls import FirstReleases
from engine.spool.waiting_sample import some_of_queue
from protocols.records import Envelope, Status


class MemoryWaiting:
    """A part of `MemorySpool`, which sets `_data`."""

    _data: MemoryData

    async def waiting_at(
        self, destination: str, *, account_id: int | None, campaign: str | None, limit: int
    ) -> Sequence[Envelope]:
        await trio.lowlevel.checkpoint()
        data = self._data
        named = {number: name for name, number in data.flows.items()}

        def is_wanted(flow: int) -> bool:
            owner_id, name = named[flow]
            return account_id in (None, owner_id) and campaign in (None, name)

        ids = some_of_queue(data.rows_of(destination), is_wanted, limit)
        return [Envelope(data.fixed[each], data.states[each]) for each in ids]

    async def first_releases(
        self, *, account_id: int | None, campaign: str | None, looked_at_max: int
    ) -> FirstReleases:
        await trio.lowlevel.checkpoint()
        first: dict[str, int] = {}
        for envelope in self._data.envelopes(lambda state: state.status is Status.PAUSED):
            fixed, due_unix_ms = envelope.fixed, envelope.state.due_unix_ms
            if account_id in (None, fixed.account_id) and campaign in (None, fixed.campaign):
                known = first.get(fixed.destination, due_unix_ms)
                first[fixed.destination] = min(known, due_unix_ms)
        return FirstReleases(first, None)
