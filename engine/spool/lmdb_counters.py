"""The rows of the table `counter`, as one commit changes them: one read and one write each.

Beside the projections of `engine.spool.projections` there is one sum for each account, and one of
everything in `meta`, so that a live total costs one row. Behind their counts, the rows of a
destination, and of its days, have the times to delivery (`engine.spool.activity`): a delivery
changes them anyway, so that these cost no row and no page of their own.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from engine.spool import projections
from engine.spool.activity import ActivityTally, sum_of_times, with_times
from engine.spool.lmdb_layout import (
    ACCOUNT_TOTAL,
    Marks,
    Tables,
    counter_key,
    split_counter_key,
)
from engine.spool.projections import NO_COUNTS, CounterKey, Projection, Tally
from protocols.records import DamagedRecord, Envelope, pack_record, unpack_brief, unpack_record

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]

# Where the times to delivery begin in the rows that have them.
TIMES: Final = len(NO_COUNTS)
HAVE_TIMES: Final = frozenset({Projection.DESTINATION, Projection.DAY_DESTINATION})


class CounterChanges:
    """One commit's part about counters. `fresh` are the rows as they are after it."""

    def __init__(
        self,
        txn: "lmdb.Transaction[bytes]",
        tables: Tables,
        cached: dict[bytes, Counts],
        flow_of: Callable[[int, str | None], int],
        note_damage: Callable[[str, bytes, bytes], None],
    ) -> None:
        self._txn = txn
        self._tables = tables
        self._cached = cached
        self._flow_of = flow_of
        self._note_damage = note_damage
        self.tally = Tally()
        self.fresh: dict[bytes, Counts] = {}

    def flush(self, marks: Marks, took: ActivityTally) -> None:
        """Add what was tallied to the rows, and to the sum in `marks`; `took` has the times."""
        totals: dict[int, Counts] = {}
        days, destinations = took.times, took.destination_times()
        for key, delta in self.tally.deltas().items():
            row_key = self._row_key(key)
            self._add(row_key, delta)
            projection = key.projection
            if days and projection == Projection.DAY_DESTINATION:
                self._add_times(row_key, days.get((key.account_id, key.period, key.destination)))
            elif days and projection == Projection.DESTINATION:
                self._add_times(row_key, destinations.get((key.account_id, key.destination)))
            elif projection == Projection.CAMPAIGN:
                sums = totals.get(key.account_id, NO_COUNTS)
                totals[key.account_id] = projections.add_counts(sums, delta)
        for account_id, total in totals.items():
            self._add(counter_key(ACCOUNT_TOTAL, account_id, 0, 0, ""), total)
            marks.counts = projections.add_counts(marks.counts, total)
        for row_key in sorted(self.fresh):
            self._txn.put(row_key, pack_record(self.fresh[row_key]), db=self._tables.counter)

    def recount(self, row_key: bytes, envelopes: Iterable[Envelope]) -> None:
        """Make one row anew from the envelopes that are kept: for a row that was damaged.

        What was purged from the spool is not in it any more; that is said in the log.
        """
        projection, account_id, _, _, destination = split_counter_key(row_key)
        counts = NO_COUNTS
        for envelope in envelopes:
            fixed = envelope.fixed
            if fixed.account_id != account_id or destination not in ("", fixed.destination):
                continue
            tally, took = Tally(), ActivityTally()
            took.note_delivery(fixed, envelope.state)
            tally.move(
                fixed.account_id,
                fixed.campaign,
                fixed.destination,
                fixed.accepted_unix_ms,
                None,
                envelope.state.status,
            )
            for key, delta in tally.deltas().items():
                if projection == ACCOUNT_TOTAL:
                    is_it = key.projection == Projection.HOUR and (
                        counter_key(ACCOUNT_TOTAL, key.account_id, 0, 0, "") == row_key
                    )
                else:
                    is_it = key.projection == projection and self._row_key(key) == row_key
                if is_it:
                    times = counts[TIMES:]
                    counts = projections.add_counts(counts, delta) + times
                    if projection in HAVE_TIMES and took.times:
                        [each] = took.times.values()
                        counts = counts[:TIMES] + with_times(times, each)
        self.fresh[row_key] = counts

    def _row_key(self, key: CounterKey) -> bytes:
        # The counters do not tell no campaign from an empty name: both are flow 0.
        flow = self._flow_of(key.account_id, key.campaign) if key.campaign else 0
        return counter_key(key.projection, key.account_id, key.period, flow, key.destination)

    def _add(self, row_key: bytes, delta: Iterable[int]) -> None:
        counts = self.fresh.get(row_key) or self._cached.get(row_key)
        if counts is None:
            counts = NO_COUNTS
            stored = self._txn.get(row_key, db=self._tables.counter)
            if stored is not None:
                try:
                    counts = unpack_record(stored, Counts)
                except DamagedRecord:
                    self._note_damage("counter", row_key, stored)
        self.fresh[row_key] = projections.add_counts(counts, delta) + counts[TIMES:]

    def _add_times(self, row_key: bytes, delta: list[int] | None) -> None:
        if delta is not None:
            row = self.fresh[row_key]
            self.fresh[row_key] = row[:TIMES] + with_times(row[TIMES:], delta)


def add_campaign_days(txn: "lmdb.Transaction[bytes]", tables: Tables) -> Counts:
    """Count every envelope by campaign and day, for a spool in which that was not done yet.

    Returns the sum of all; what was purged is not in it.
    """
    found: dict[bytes, list[int]] = {}
    with txn.cursor(tables.envelope) as cursor:
        for _, stored in cursor:
            try:
                fixed, status = unpack_brief(stored)
            except DamagedRecord:
                continue
            day = fixed.accepted_unix_ms // projections.DAY_MS
            flow = fixed.flow if fixed.campaign else 0
            key = counter_key(Projection.CAMPAIGN_DAY, fixed.account_id, day, flow, "")
            row = found.setdefault(key, [0] * len(NO_COUNTS))
            row[projections.STATUS_INDEX[status]] += 1
    total = NO_COUNTS
    for key, row in found.items():
        txn.put(key, pack_record(tuple(row)), db=tables.counter)
        total = projections.add_counts(total, row)
    return total


def add_destination_times(txn: "lmdb.Transaction[bytes]", tables: Tables) -> None:
    """Sum up the times of each destination's days, for a spool in which that was not done yet."""
    found: dict[tuple[int, str], list[Counts]] = {}
    with txn.cursor(tables.counter) as cursor:
        for key, stored in cursor:
            projection, account_id, _, _, destination = split_counter_key(key)
            if projection == Projection.DAY_DESTINATION:
                try:
                    times = unpack_record(stored, Counts)[TIMES:]
                except DamagedRecord:
                    continue
                if times:
                    found.setdefault((account_id, destination), []).append(times)
    for (account_id, destination), rows in found.items():
        key = counter_key(Projection.DESTINATION, account_id, 0, 0, destination)
        try:
            counts = unpack_record(txn.get(key, b"", db=tables.counter), Counts)[:TIMES]
        except DamagedRecord:
            continue  # It is counted again as soon as it is needed.
        txn.put(key, pack_record(counts + sum_of_times(rows)), db=tables.counter)
