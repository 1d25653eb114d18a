"""Times to delivery in the `lmdb:` adapter: sums over histograms of a day each.

By destination they stand behind the counters of its days, and of all of them together
(`engine.spool.lmdb_counters`); those of accounts are in the table `activity`.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from engine.spool import projections
from engine.spool.activity import DAY_MS, DAY_TIMES, EVERYBODY, sum_of_times
from engine.spool.figure_calls import TimesGroup, TimesRow
from engine.spool.lmdb_by_destination import days_of, rows_by_destination, rows_of_names
from engine.spool.lmdb_counters import TIMES
from engine.spool.lmdb_counts import account_name
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import ACTIVITY, activity_key
from protocols.records import DamagedRecord, unpack_record

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]


def read_times(
    store: Store,
    group: TimesGroup,
    account_id: int | None,
    from_unix_ms: int | None,
    to_unix_ms: int | None,
    after: str | None,
    limit: int | None,
    names: Collection[str] | None,
) -> list[TimesRow]:
    """Return how long deliveries took; see `FigureCalls.delivery_times`."""
    if group is TimesGroup.DESTINATION:
        days = days_of(from_unix_ms, to_unix_ms)
        if names is not None:
            named = rows_of_names(store, account_id, days, names, Counts)
        else:
            named = rows_by_destination(store, account_id, days, after or "", limit, Counts)
        return [*islice(_times_of(named), limit)]
    wanted = account_id
    if wanted is None and group is not TimesGroup.ACCOUNT:
        wanted = EVERYBODY
    rows: dict[str, list[Counts]] = {}
    with store.environment.begin() as txn:
        for day, account, row in _days(txn, store, wanted):
            if projections.overlaps(day * DAY_MS, DAY_MS, from_unix_ms, to_unix_ms):
                rows.setdefault(_key_text(store, group, day, account), []).append(row)
    keys = sorted(key for key in rows if after is None or key > after)
    return [TimesRow(key, sum_of_times(rows[key])) for key in keys[:limit]]


def _times_of(named: Iterable[tuple[str, list[Counts]]]) -> Iterator[TimesRow]:
    for name, rows in named:
        found = [row[TIMES:] for row in rows if len(row) > TIMES]
        if found:
            yield TimesRow(name, sum_of_times(found))


def _key_text(store: Store, group: TimesGroup, day: int, account_id: int) -> str:
    match group:
        case TimesGroup.DAY:
            return projections.day_text(day)
        case TimesGroup.ACCOUNT:
            return account_name(store, account_id)
        case _:
            return "total"


def _days(
    txn: "lmdb.Transaction[bytes]", store: Store, wanted: int | None
) -> Iterator[tuple[int, int, Counts]]:
    """Yield day, account and times: of one account with one seek a day, else of all accounts."""
    with txn.cursor(store.tables.activity) as cursor:
        is_there = cursor.set_range(activity_key(DAY_TIMES, 0, wanted or 0))
        while is_there:
            kind, day, account_id = ACTIVITY.unpack(cursor.key())
            if kind != DAY_TIMES:
                return
            if account_id == wanted or (wanted is None and account_id != EVERYBODY):
                try:
                    row = unpack_record(cursor.value(), Counts)
                except DamagedRecord:
                    row = ()
                if row:
                    yield day, account_id, row
            if wanted is None:
                is_there = cursor.next()
            else:
                is_later = account_id >= wanted
                is_there = cursor.set_range(activity_key(DAY_TIMES, day + is_later, wanted))
