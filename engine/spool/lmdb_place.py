"""How many mails go before one, on disk: the next ones are counted, what is deeper is estimated.

A queue has no numbers of its rows, and to walk a million of them takes half a second. So the place
of a mail that is far from the head is read off: where in its flow's range of due times it stands,
and how long the counters say that the flows are. Bounded work, one short transaction.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from engine.spool.fair_turns import BEFORE_ALL_ROWS, LANES
from engine.spool.holds import Holds
from engine.spool.interface import Ahead, WindowPosition
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_holds import held_here, site_of
from engine.spool.lmdb_layout import U32, StoredFlow, counter_key
from engine.spool.lmdb_queue import QueueCursor
from engine.spool.projections import NO_COUNTS, STATUS_INDEX, Projection
from engine.spool.queue_place import counted, estimated
from engine.spool.transitions import QUEUE_STATUSES
from protocols.records import DamagedRecord, Envelope, unpack_record

if TYPE_CHECKING:
    import lmdb

# Flows whose lengths are looked up for an estimate: two small reads each.
FLOWS_MAX: Final = 200

Counts = tuple[int, ...]


def read_ahead(
    store: Store,
    envelope: Envelope,
    position: WindowPosition,
    looked_at_max: int,
    now_unix_ms: int,
    claimed: Collection[int],
    holds: Holds,
) -> Ahead:
    """See `Spool.ahead`."""
    fixed, tables = envelope.fixed, store.tables
    with store.environment.begin() as txn:
        rows = QueueCursor(txn, tables.queue, fixed.destination)
        held = None
        if holds.rows or position.waits is not None:
            site = site_of(txn, tables, fixed.destination)
            held = held_here(
                txn, tables, holds, fixed.destination, site, now_unix_ms, position.waits
            )
        found = counted(rows, envelope, position, looked_at_max, now_unix_ms, claimed, held)
        if found.is_exact:
            return found
        own_length = _length(txn, store, fixed.flow, fixed.destination)
        others: list[tuple[int, int]] = []
        for lane in LANES:
            flow = rows.first_flow(lane, 0)
            while flow is not None and len(others) < FLOWS_MAX:
                if (lane, flow) != (fixed.lane, fixed.flow):
                    others.append((lane, _length(txn, store, flow, fixed.destination)))
                flow = rows.first_flow(lane, flow + 1)
        before = _share_before(rows, envelope) * own_length
    return Ahead(max(found.count, estimated(before, fixed.lane, others)), is_exact=False)


def _share_before(rows: QueueCursor, envelope: Envelope) -> float:
    """Return which share of its flow's rows lies before an envelope, as if they came evenly."""
    lane, flow = envelope.fixed.lane, envelope.fixed.flow
    first = next(rows.flow_rows(lane, flow, BEFORE_ALL_ROWS), None)
    last = rows.last_row(lane, flow)
    if first is None or last is None:
        return 0.0
    own = (envelope.state.due_unix_ms, envelope.fixed.envelope_id)
    # A request's mails have one due time, and ids that count on.
    place = 0 if last[0] > first[0] else 1
    length = last[place] - first[place]
    return min(1.0, max(0.0, (own[place] - first[place]) / length)) if length else 0.0


def _length(txn: "lmdb.Transaction[bytes]", store: Store, flow: int, destination: str) -> int:
    """Return how many mails of a flow wait at a destination, as the counters have it."""
    tables = store.tables
    stored = txn.get(U32.pack(flow), db=tables.flow)
    if stored is None:
        return 0
    try:
        named = unpack_record(stored, StoredFlow)
        key = counter_key(
            Projection.CAMPAIGN_DESTINATION,
            named.account_id,
            0,
            flow if named.campaign else 0,
            destination,
        )
        row = txn.get(key, db=tables.counter)
        counts = NO_COUNTS if row is None else unpack_record(row, Counts)
    except DamagedRecord:
        return 0
    return sum(counts[STATUS_INDEX[status]] for status in QUEUE_STATUSES)
