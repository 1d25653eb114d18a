"""Statistics of the `lmdb:` adapter: sums over the rows of the table `counter`."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import msgspec

from engine.spool import projections
from engine.spool.hold_calls import Hold
from engine.spool.interface import DestinationRow, Group, StatisticsRow
from engine.spool.lmdb_by_destination import (
    Standing,
    counted_accounts,
    days_of,
    periods_of,
    rows_by_destination,
)
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_held import held_at
from engine.spool.lmdb_layout import (
    ACCOUNT_TOTAL,
    U32,
    StoredDestination,
    StoredFlow,
    counter_group,
    counter_key,
    counters_after,
    flow_name_key,
    split_counter_key,
)
from engine.spool.projections import DAY_MS, HOUR_MS, NO_COUNTS, Projection
from protocols.records import (
    Account,
    DamagedRecord,
    DestinationRecord,
    unpack_record,
)

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]

# As elsewhere: what scans a lot does so in short transactions.
SCAN_ROWS: Final = 1000


def read_statistics(
    store: Store,
    group: Group,
    account_id: int | None,
    from_unix_ms: int | None,
    to_unix_ms: int | None,
    after: str | None,
    limit: int | None,
) -> list[StatisticsRow]:
    """Return counts by status, sorted by key; see `Spool.statistics` for the range."""
    if group is Group.DESTINATION:
        days = days_of(from_unix_ms, to_unix_ms)
        named = rows_by_destination(store, account_id, days, after or "", limit, Standing)
        return [StatisticsRow(name, _sum_of(rows)) for name, rows in islice(named, limit)]
    has_range = from_unix_ms is not None or to_unix_ms is not None
    if group in (Group.TOTAL, Group.ACCOUNT) and not has_range:
        projection, period_ms = ACCOUNT_TOTAL, 0
    else:
        projection, period_ms = projections.source_of(group, has_range=has_range)
    periods = periods_of(from_unix_ms, to_unix_ms, period_ms or DAY_MS)
    sums: dict[int, Counts] = {}
    for account, period, flow, counts in _counters(
        store, projection, account_id, periods if period_ms else (0, 0)
    ):
        number = _number_of(group, account, period, flow)
        sums[number] = projections.add_counts(sums.get(number, NO_COUNTS), counts)
    rows: dict[str, Counts] = {"total": NO_COUNTS} if group is Group.TOTAL else {}
    for number, counts in sums.items():
        # Campaigns of two accounts may have one name.
        text = _key_text(store, group, number)
        rows[text] = projections.add_counts(rows.get(text, NO_COUNTS), counts)
    keys = sorted(key for key in rows if after is None or key > after)
    return [StatisticsRow(text, rows[text]) for text in keys[:limit]]


def _sum_of(rows: Sequence[Standing]) -> Counts:
    counts: Counts = msgspec.structs.astuple(rows[0])
    for row in rows[1:]:
        counts = projections.add_counts(counts, msgspec.structs.astuple(row))
    return counts


def _number_of(group: Group, account_id: int, period: int, flow: int) -> int:
    """Return what the rows of one key have in common."""
    match group:
        case Group.ACCOUNT:
            return account_id
        case Group.CAMPAIGN:
            return flow
        case Group.HOUR:
            return period
        case Group.DAY:
            return period * HOUR_MS // DAY_MS
        case _:
            return 0


def _key_text(store: Store, group: Group, number: int) -> str:
    match group:
        case Group.ACCOUNT:
            return account_name(store, number)
        case Group.CAMPAIGN:
            return _campaign(store, number)
        case Group.HOUR:
            return projections.hour_text(number)
        case Group.DAY:
            return projections.day_text(number)
        case _:
            return "total"


def read_destinations(
    store: Store,
    account_id: int | None,
    campaign: str | None,
    after: str,
    limit: int,
    holds: Sequence[Hold],
) -> list[DestinationRow]:
    """Return destinations by name with their counts and what their last actor left.

    `holds` are those that hold now.
    """
    found: list[DestinationRow] = []
    tables = store.tables
    with store.environment.begin() as txn:
        held = held_at(txn, store, holds, account_id, campaign) if holds else None
        all_ids = counted_accounts(txn, store)
        account_ids = list(all_ids) if account_id is None else [account_id]
        # Each account's destinations are in order: merged, so are all of them.
        if campaign is None:
            streams = [_destinations_of(txn, store, each, after) for each in account_ids]
        else:
            streams = [
                _campaign_destinations_of(txn, store, each, campaign, after) for each in account_ids
            ]
        for name, same in groupby(heapq.merge(*streams), key=itemgetter(0)):
            if len(found) == limit:
                break
            counts = NO_COUNTS
            for _, each in same:
                counts = projections.add_counts(counts, each)
            stored = txn.get(name.encode("ascii"), db=tables.destination)
            try:
                remembered = (
                    StoredDestination()
                    if stored is None
                    else unpack_record(stored, StoredDestination)
                )
            except DamagedRecord:
                remembered = StoredDestination()
            record = remembered.record or DestinationRecord()
            held_here = held and held(name, record.site, projections.waiting_of(counts))
            row = DestinationRow(name, counts, record, remembered.wake_unix_ms, held_here)
            found.append(row)
    return found


def _destinations_of(
    txn: "lmdb.Transaction[bytes]", store: Store, account_id: int, after: str
) -> Iterator[tuple[str, Counts]]:
    prefix = counter_group(Projection.DESTINATION, account_id)
    with txn.cursor(store.tables.counter) as cursor:
        is_there = cursor.set_range(counters_after(account_id, after) if after else prefix)
        while is_there and cursor.key().startswith(prefix):
            # The first of a destination's rows is the one of where its mail stands now.
            name = split_counter_key(cursor.key())[4]
            try:
                counts = unpack_record(cursor.value(), Counts)
            except DamagedRecord:
                counts = NO_COUNTS
            yield name, counts
            is_there = cursor.set_range(counters_after(account_id, name))


def _campaign_destinations_of(
    txn: "lmdb.Transaction[bytes]", store: Store, account_id: int, campaign: str, after: str
) -> Iterator[tuple[str, Counts]]:
    """Yield the destinations that a campaign has mail to, with the counts that are its own."""
    flow = 0
    if campaign:
        stored = txn.get(flow_name_key(account_id, campaign), db=store.tables.flow_name)
        if stored is None:
            return
        try:
            flow = unpack_record(stored, int)
        except DamagedRecord:
            return
    for name, _ in _destinations_of(txn, store, account_id, after):
        key = counter_key(Projection.CAMPAIGN_DESTINATION, account_id, 0, flow, name)
        row = txn.get(key, db=store.tables.counter)
        if row is None:
            continue
        try:
            yield name, unpack_record(row, Counts)
        except DamagedRecord:
            continue


def _counters(
    store: Store, projection: int, account_id: int | None, periods: tuple[int, int]
) -> Iterator[tuple[int, int, int, Counts]]:
    """Yield account, period, flow and counts of rows without a destination.

    Those of the periods from the first of `periods` to its second; a thousand rows a transaction.
    """
    with store.environment.begin() as txn:
        ids = [account_id] if account_id is not None else [*counted_accounts(txn, store)]
    for each in ids:
        start = counter_key(projection, each, periods[0], 0, "")
        stop = counter_key(projection, each, max(0, periods[1]), 2**32 - 1, "")
        has_more = periods[1] >= periods[0]
        while has_more:
            page: list[tuple[bytes, bytes]] = []
            with store.environment.begin() as txn, txn.cursor(store.tables.counter) as cursor:
                is_there = cursor.set_range(start)
                while is_there and len(page) < SCAN_ROWS and cursor.key() <= stop:
                    page.append(cursor.item())
                    is_there = cursor.next()
            for key, stored in page:
                _, account, period, flow, _ = split_counter_key(key)
                try:
                    yield account, period, flow, unpack_record(stored, Counts)
                except DamagedRecord:
                    continue
            has_more = len(page) == SCAN_ROWS
            start = page[-1][0] + b"\0" if page else start


def account_name(store: Store, account_id: int) -> str:
    with store.environment.begin() as txn:
        stored = txn.get(U32.pack(account_id), db=store.tables.account)
    try:
        return str(account_id) if stored is None else unpack_record(stored, Account).name
    except DamagedRecord:
        return str(account_id)


def _campaign(store: Store, flow: int) -> str:
    if flow == 0:
        return ""
    with store.environment.begin() as txn:
        stored = txn.get(U32.pack(flow), db=store.tables.flow)
    try:
        return str(flow) if stored is None else unpack_record(stored, StoredFlow).campaign or ""
    except DamagedRecord:
        return str(flow)
