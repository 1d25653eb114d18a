"""The counters of one account's destinations, in the order of their names, as far as asked for.

Each destination has one row of where its mail stands and one for each day of acceptance, beside
rows of campaigns: whoever wants some of them seeks past the others. Reads go in short transactions.
"""

import heapq
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import (
    ACCOUNT_TOTAL,
    COUNTER_HEAD,
    COUNTER_TAIL,
    counter_group,
    counter_key,
    counters_after,
    split_counter_key,
)
from engine.spool.projections import DAY_MS, Projection
from protocols.records import STATUSES, DamagedRecord, unpack_record

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]


class Standing(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A row of counts by status, without the times behind it: to skip those is half the reading."""

    queued: int
    paused: int
    deferred: int
    delivered: int
    soft_bounced: int
    hard_bounced: int
    blocked: int
    cancelled: int


assert Standing.__struct_fields__ == STATUSES

# What a row is read as: `Counts` with all that is in it, or `Standing`.
R = TypeVar("R")

# As elsewhere: what scans a lot does so in short transactions.
NAMES_MAX: Final = 1000

PERIOD_MAX: Final = 2**32 - 1


def rows_by_destination(
    store: Store,
    account_id: int | None,
    days: tuple[int, int] | None,
    after: str,
    names_max: int | None,
    kind: type[R],
) -> Iterator[tuple[str, list[R]]]:
    """Yield the names after `after` that have rows, each with its rows of all accounts asked for.

    Those are the rows of where mail stands now, or those of the days from the first of `days` to
    its second, with the times to delivery behind the counts. No more than `names_max` are wanted.
    """
    at_once = NAMES_MAX if names_max is None else min(names_max, NAMES_MAX)
    while True:
        with store.environment.begin() as txn:
            ids = [account_id] if account_id is not None else [*counted_accounts(txn, store)]
            streams = [_rows_of(txn, store, each, days, after, kind) for each in ids]
            names = [*islice(_merged(streams), at_once)]
        yield from names
        if len(names) < at_once:
            return
        after = names[-1][0]


def _merged(streams: Sequence[Iterator[tuple[str, list[R]]]]) -> Iterator[tuple[str, list[R]]]:
    """Yield the names of all streams in their order, each with its rows of all of them."""
    if len(streams) == 1:
        yield from streams[0]
        return
    for name, same in groupby(heapq.merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
        yield name, [row for _, rows in same for row in rows]


def rows_of_names(
    store: Store,
    account_id: int | None,
    days: tuple[int, int] | None,
    names: Collection[str],
    kind: type[R],
) -> Iterator[tuple[str, list[R]]]:
    """Yield those of some names that have rows, in their order; as `rows_by_destination` does."""
    with store.environment.begin() as txn, txn.cursor(store.tables.counter) as cursor:
        ids = [account_id] if account_id is not None else [*counted_accounts(txn, store)]
        for name in sorted(names):
            found: list[bytes] = []
            for each in ids:
                key = counter_key(Projection.DESTINATION, each, 0, 0, name)
                if days is None:
                    stored = txn.get(key, db=store.tables.counter)
                    found += [] if stored is None else [stored]
                else:
                    found += _days_here(cursor, key[: -COUNTER_TAIL.size], *days)
            if rows := _readable(found, kind):
                yield name, rows


def days_of(from_unix_ms: int | None, to_unix_ms: int | None) -> tuple[int, int] | None:
    """Return the first and the last day that overlap a range; None if it is open at both ends."""
    if from_unix_ms is None and to_unix_ms is None:
        return None
    return periods_of(from_unix_ms, to_unix_ms, DAY_MS)


def periods_of(from_unix_ms: int | None, to_unix_ms: int | None, period_ms: int) -> tuple[int, int]:
    """Return the first and the last period that overlap a range, which may be open."""
    first = 0 if from_unix_ms is None else max(0, from_unix_ms // period_ms)
    last = PERIOD_MAX if to_unix_ms is None else (to_unix_ms - 1) // period_ms
    return first, min(last, PERIOD_MAX)


def counted_accounts(txn: "lmdb.Transaction[bytes]", store: Store) -> Iterator[int]:
    """Yield the accounts that have counters: one seek each."""
    account_id = 0
    with txn.cursor(store.tables.counter) as cursor:
        while cursor.set_range(counter_group(ACCOUNT_TOTAL, account_id)):
            projection, account_id, *_ = split_counter_key(cursor.key())
            if projection != ACCOUNT_TOTAL:
                return
            yield account_id
            account_id += 1


def _rows_of(
    txn: "lmdb.Transaction[bytes]",
    store: Store,
    account_id: int,
    days: tuple[int, int] | None,
    after: str,
    kind: type[R],
) -> Iterator[tuple[str, list[R]]]:
    prefix = counter_group(Projection.DESTINATION, account_id)
    start, end = COUNTER_HEAD.size, -COUNTER_TAIL.size
    with txn.cursor(store.tables.counter) as cursor:
        is_there = cursor.set_range(counters_after(account_id, after) if after else prefix)
        while is_there:
            # The first of a destination's rows is the one of where its mail stands now.
            key, stored = cursor.item()
            if not key.startswith(prefix):
                return
            head = key[:end]  # with the octet 0 behind the name
            name = key[start : end - 1].decode("ascii")
            found = [stored] if days is None else _days_here(cursor, head, *days)
            if rows := _readable(found, kind):
                yield name, rows
            is_there = cursor.set_range(head[:-1] + b"\1")


def _days_here(cursor: "lmdb.Cursor[bytes]", head: bytes, first: int, last: int) -> list[bytes]:
    found: list[bytes] = []
    stop = head + COUNTER_TAIL.pack(Projection.DAY_DESTINATION, max(0, last), 2**32 - 1)
    is_there = last >= first and cursor.set_range(
        head + COUNTER_TAIL.pack(Projection.DAY_DESTINATION, first, 0)
    )
    while is_there:
        key, stored = cursor.item()
        if key > stop:
            break
        found.append(stored)
        is_there = cursor.next()
    return found


def _readable(found: Sequence[bytes], kind: type[R]) -> list[R]:
    rows = []
    for stored in found:
        try:
            rows.append(unpack_record(stored, kind))
        except DamagedRecord:
            continue
    return rows
