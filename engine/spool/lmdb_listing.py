"""Listings of envelopes in the `lmdb:` adapter: newest first, over whatever leads to them soonest.

An address has an index, an account another; what waits at one destination is found by its queue
rows. Everything else is a walk by id, a bounded number of rows a page. The counters say before the
walk how many mails there can be: none are not looked for, and after the last one it ends.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from engine.spool import stamps
from engine.spool.listing_calls import EnvelopeFilter, EnvelopePage, ascii_pieces
from engine.spool.lmdb_by_destination import counted_accounts
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import (
    ACCOUNT_TOTAL,
    U32,
    U64,
    StoredFlow,
    address_prefix,
    counter_key,
    flow_name_key,
    queue_prefix,
    split_queue_key,
)
from engine.spool.lmdb_reading import SCAN_ROWS, Damage
from engine.spool.projections import STATUS_INDEX, Projection
from engine.spool.transitions import QUEUE_STATUSES
from protocols.records import DamagedRecord, Envelope, unpack_brief, unpack_envelope, unpack_record

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]

# A queue that is longer is no shorter way: newest first, its mails are soon found among all others.
QUEUE_ROWS_MAX: Final = 50_000


def read_page(
    store: Store, wanted: EnvelopeFilter, after: int | None, limit: int, scan_max: int
) -> tuple[EnvelopePage, Damage]:
    """Return envelopes that a filter admits, newest first, having looked at up to `scan_max`.

    A page that ends early for that reason has the place to go on from, even if it shows nothing.
    """
    most = _at_most(store, wanted)
    if most == 0:
        return EnvelopePage([], None), []
    looking = _Looking(store, wanted, limit, most if after is None else None)
    below = after if after is not None else 2**64 - 1
    if wanted.to_unix_ms is not None and after is None:
        # Ids are made from the time, but may run ahead of it under load: a second's worth is safe.
        below = min(below, max(0, stamps.envelope_id_min(wanted.to_unix_ms + 60_000)))
    least = 0 if wanted.from_unix_ms is None else stamps.envelope_id_min(wanted.from_unix_ms)
    waiting = _ids_in_queue(store, wanted)
    listed = None if waiting is None else (each for each in waiting if each < below)
    table, prefix = _index_of(store, wanted)
    for _ in range(0, scan_max, SCAN_ROWS):
        rows = 0
        with store.environment.begin() as txn, txn.cursor(table) as cursor:
            ids = _ids_below(cursor, prefix, below) if listed is None else listed
            for envelope_id in islice(ids, SCAN_ROWS):
                if envelope_id < least:
                    return EnvelopePage(looking.found, None), looking.damage
                if looking.is_full_after(txn, envelope_id):
                    return looking.full_page(), looking.damage
                below = envelope_id
                rows += 1
        if rows < SCAN_ROWS:
            return EnvelopePage(looking.found, None), looking.damage
    return EnvelopePage(looking.found, below), looking.damage


class _Looking:
    """What one page has found so far. `most` is how many there can be at all, if that is known."""

    def __init__(self, store: Store, wanted: EnvelopeFilter, limit: int, most: int | None) -> None:
        self.found: list[Envelope] = []
        self.damage: Damage = []
        self._table = store.tables.envelope
        self._wanted = wanted
        self._statuses = wanted.statuses
        self._limit = limit
        self._most = most
        self._is_more = False
        texts = (wanted.destination, wanted.address, wanted.campaign, wanted.custom_id)
        self._needles = [
            text.encode("utf-8", "surrogatepass") for text in texts if text is not None
        ]
        self._pieces = ascii_pieces(wanted.subject or "")

    def is_full_after(self, txn: "lmdb.Transaction[bytes]", envelope_id: int) -> bool:
        """Look at one envelope; return whether this page needs no further one."""
        key = U64.pack(envelope_id)
        stored = txn.get(key, db=self._table)
        # A record without the text in it is not one of them: cheaper than to decode it.
        if stored is None or not all(needle in stored for needle in self._needles):
            return False
        if self._pieces:
            lower = stored.lower()
            if not all(piece in lower for piece in self._pieces):
                return False
        try:
            if self._statuses is not None and unpack_brief(stored)[1] not in self._statuses:
                return False
            envelope = unpack_envelope(stored)[0]
        except DamagedRecord:
            self.damage.append(("envelope", key))
            return False
        if self._wanted.admits(envelope):
            if len(self.found) == self._limit:
                self._is_more = True
                return True
            self.found.append(envelope)
        return len(self.found) == self._most

    def full_page(self) -> EnvelopePage:
        return EnvelopePage(self.found, self.found[-1].fixed.envelope_id if self._is_more else None)


def _at_most(store: Store, wanted: EnvelopeFilter) -> int | None:
    """Return how many mails the counters know that are not worse than `wanted`; None: no idea.

    Purged ones are still counted, so there may be fewer.
    """
    if wanted.statuses is None:
        return None
    name = wanted.destination
    if name is not None and not name.isascii():
        return 0
    projection = {
        (False, False): ACCOUNT_TOTAL,
        (False, True): Projection.DESTINATION,
        (True, False): Projection.CAMPAIGN,
        (True, True): Projection.CAMPAIGN_DESTINATION,
    }[wanted.campaign is not None, name is not None]
    total = 0
    with store.environment.begin() as txn:
        one = wanted.account_id
        for account_id in [one] if one is not None else counted_accounts(txn, store):
            try:
                flow = 0
                if wanted.campaign:
                    row = flow_name_key(account_id, wanted.campaign)
                    stored = txn.get(row, db=store.tables.flow_name)
                    if stored is None:
                        continue
                    flow = unpack_record(stored, int)
                key = counter_key(projection, account_id, 0, flow, name or "")
                stored = txn.get(key, db=store.tables.counter)
                if stored is not None:
                    counts = unpack_record(stored, Counts)
                    total += sum(counts[STATUS_INDEX[each]] for each in wanted.statuses)
            except DamagedRecord:
                return None
    return total


def _ids_in_queue(store: Store, wanted: EnvelopeFilter) -> list[int] | None:
    """Return the ids that wait at the destination asked for, newest first.

    None if more than those is asked for, or if there are too many.
    """
    name, statuses = wanted.destination, wanted.statuses
    if name is None or statuses is None or not statuses <= QUEUE_STATUSES or wanted.address:
        return None
    prefix = queue_prefix(name)
    ids: list[int] = []
    flows: dict[int, bool] = {}
    with store.environment.begin() as txn, txn.cursor(store.tables.queue) as cursor:
        if cursor.set_range(prefix):
            keys: Iterable[bytes] = cursor.iternext(keys=True, values=False)
            for rows, key in enumerate(keys):
                if not key.startswith(prefix):
                    break
                if rows == QUEUE_ROWS_MAX:
                    return None
                _, _, flow, _, envelope_id = split_queue_key(key)
                is_wanted = flows.get(flow)
                if is_wanted is None:
                    is_wanted = flows[flow] = _may_be_flow(txn, store, flow, wanted)
                if is_wanted:
                    ids.append(envelope_id)
    return sorted(ids, reverse=True)


def _may_be_flow(
    txn: "lmdb.Transaction[bytes]", store: Store, flow: int, wanted: EnvelopeFilter
) -> bool:
    stored = txn.get(U32.pack(flow), db=store.tables.flow)
    try:
        named = None if stored is None else unpack_record(stored, StoredFlow)
    except DamagedRecord:
        named = None
    return named is None or (
        wanted.account_id in (None, named.account_id) and wanted.campaign in (None, named.campaign)
    )


def _index_of(store: Store, wanted: EnvelopeFilter) -> tuple["lmdb._Database", bytes]:
    """Return the table that leads to the fewest envelopes, and what its keys begin with."""
    if wanted.address is not None:
        return store.tables.by_address, address_prefix(wanted.address)
    if wanted.account_id is not None:
        return store.tables.by_account, U32.pack(wanted.account_id)
    return store.tables.envelope, b""


def _ids_below(cursor: "lmdb.Cursor[bytes]", prefix: bytes, below: int) -> Iterator[int]:
    start = prefix + U64.pack(below)
    is_there = cursor.set_range(start)
    is_there = cursor.prev() if is_there else cursor.last()
    while is_there:
        key = cursor.key()
        if not key.startswith(prefix):
            return
        yield U64.unpack_from(key, len(prefix))[0]
        is_there = cursor.prev()
