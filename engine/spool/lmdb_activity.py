"""The table `activity`: what happened when, the oldest period first; written once a commit.

Times to delivery by destination are in the table `counter`: see `engine.spool.lmdb_counters`.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from engine.spool import activity
from engine.spool.activity import (
    EVERYBODY,
    HOUR,
    HOUR_MS,
    MINUTE,
    MINUTE_MS,
    NO_ACTIVITY,
    ActivityTally,
    RowKey,
)
from engine.spool.figure_calls import SeriesPoint
from engine.spool.lmdb_cursors import delete_here
from engine.spool.lmdb_layout import (
    ACTIVITY,
    Tables,
    activity_key,
)
from protocols.records import DamagedRecord, Event, pack_record, unpack_record

if TYPE_CHECKING:
    import lmdb

    from engine.spool.lmdb_environment import Store

Counts = tuple[int, ...]

# As elsewhere: what reads a lot does so in short transactions.
READ_ROWS: Final = 1000


class ActivityChanges:
    """One commit's part about activity. `fresh` are the rows as they are after it."""

    def __init__(
        self,
        txn: "lmdb.Transaction[bytes]",
        tables: Tables,
        cached: dict[bytes, Counts],
        note_damage: Callable[[str, bytes, bytes], None],
    ) -> None:
        self._txn = txn
        self._tables = tables
        self._cached = cached
        self._note_damage = note_damage
        self.tally = ActivityTally()
        self.fresh: dict[bytes, Counts] = {}

    def flush(self) -> None:
        """Add what was tallied to the rows."""
        for key, counts in self.tally.counts().items():
            row_key = activity_key(*key)
            self._put(row_key, activity.with_counts(self._row(row_key), counts))
        for key, times in self.tally.day_times().items():
            row_key = activity_key(*key)
            self._put(row_key, activity.with_times(self._row(row_key) or (), times))

    def recount(self, row_key: bytes, events: Iterable[Event]) -> None:
        """Make one row anew from the log: for a row that was damaged.

        What was trimmed from the log is not in it any more.
        """
        row = activity.rebuild(events)[0].get(RowKey(*ACTIVITY.unpack(row_key)))
        self._put(row_key, row or ())

    def _put(self, row_key: bytes, counts: Counts) -> None:
        self.fresh[row_key] = counts
        self._txn.put(row_key, pack_record(counts), db=self._tables.activity)

    def _row(self, row_key: bytes) -> Counts | None:
        """Return a row as it is so far; None without one that has something in it."""
        known = self.fresh.get(row_key) or self._cached.get(row_key)
        if known is None:
            stored = self._txn.get(row_key, db=self._tables.activity)
            if stored is not None:
                try:
                    known = unpack_record(stored, Counts)
                except DamagedRecord:
                    self._note_damage("activity", row_key, stored)
        return known or None


def read_series(
    store: "Store", from_unix_ms: int, to_unix_ms: int, step_ms: int, account_id: int | None
) -> list[SeriesPoint]:
    """Return the counts of each step; see `FigureCalls.series`."""
    is_hourly = step_ms % HOUR_MS == 0 and from_unix_ms % HOUR_MS == 0
    kind, period_ms = (HOUR, HOUR_MS) if is_hourly else (MINUTE, MINUTE_MS)
    account = EVERYBODY if account_id is None else account_id
    counts = dict.fromkeys(range(from_unix_ms, to_unix_ms, step_ms), NO_ACTIVITY)
    periods = range(from_unix_ms // period_ms, -(-to_unix_ms // period_ms))
    for first in range(0, len(periods), READ_ROWS):
        with store.environment.begin() as txn:
            for period in periods[first : first + READ_ROWS]:
                stored = txn.get(activity_key(kind, period, account), db=store.tables.activity)
                if stored is None:
                    continue
                try:
                    row = unpack_record(stored, Counts)
                except DamagedRecord:
                    continue
                if not row:
                    continue  # It was damaged, and the log has nothing of it any more.
                at = period * period_ms
                start = at - (at - from_unix_ms) % step_ms
                counts[start] = activity.with_counts(counts[start], row)
    return [SeriesPoint(start, each) for start, each in counts.items()]


def has_old_minutes(txn: "lmdb.Transaction[bytes]", tables: Tables, now_unix_ms: int) -> bool:
    """Say whether there are minutes that are not kept any longer."""
    with txn.cursor(tables.activity) as cursor:
        return cursor.set_range(activity_key(MINUTE, 0, 0)) and _is_old(cursor.key(), now_unix_ms)


def remove_old_minutes(
    txn: "lmdb.Transaction[bytes]", tables: Tables, now_unix_ms: int, rows_max: int
) -> int:
    """Remove minutes that are not kept any longer; return how many."""
    removed = 0
    with txn.cursor(tables.activity) as cursor:
        is_there = cursor.set_range(activity_key(MINUTE, 0, 0))
        while is_there and removed < rows_max and _is_old(cursor.key(), now_unix_ms):
            is_there = delete_here(cursor)
            removed += 1
    return removed


def _is_old(key: bytes, now_unix_ms: int) -> bool:
    return not activity.is_kept(RowKey(*ACTIVITY.unpack(key)), now_unix_ms)
