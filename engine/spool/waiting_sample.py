"""Which mails of a long queue are looked at by whoever wants to know what they wait for? Pure."""

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from engine.spool.fair_turns import LANES, QueueRows

# A destination can have thousands of flows; to find out whose each one is costs a small read.
FLOWS_LOOKED_AT_MAX: Final = 1000


class RowsFromBehind(QueueRows, Protocol):
    """The queue rows of one destination, which can be walked from behind."""

    def flow_rows_from_behind(self, lane: int, flow: int) -> Iterator[int]:
        """Return the envelope ids of a flow, those that are due last first."""
        ...


def some_of_queue(rows: RowsFromBehind, is_wanted: Callable[[int], bool], limit: int) -> list[int]:
    """Return up to `limit` ids of the flows that are wanted, of each in turn the one due last."""
    walks: list[Iterator[int]] = []
    looked_at = 0
    for lane in LANES:
        flow = rows.first_flow(lane, 0)
        while flow is not None and len(walks) < limit and looked_at < FLOWS_LOOKED_AT_MAX:
            looked_at += 1
            if is_wanted(flow):
                walks.append(rows.flow_rows_from_behind(lane, flow))
            flow = rows.first_flow(lane, flow + 1)
    ids: list[int] = []
    while walks:
        going = []
        for walk in walks:
            envelope_id = next(walk, None)
            if envelope_id is not None:
                if len(ids) == limit:
                    return ids
                ids.append(envelope_id)
                going.append(walk)
        walks = going
    return ids
