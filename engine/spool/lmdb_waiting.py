"""What waits, in the `lmdb:` adapter; see `engine.spool.waiting_calls`. One short read each."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import PAUSED, U32, U64, StoredFlow
from engine.spool.lmdb_queue import QueueCursor
from engine.spool.lmdb_reading import Damage
from engine.spool.waiting_calls import FirstReleases
from engine.spool.waiting_sample import some_of_queue
from protocols.records import DamagedRecord, Envelope, unpack_envelope, unpack_record

if TYPE_CHECKING:
    import lmdb

    from engine.spool.lmdb_sweeping import Sweeper


class LmdbWaiting:
    """A part of `LmdbSpool`, which sets `_read` and `_sweeper`."""

    _read: Callable[..., Awaitable[Any]]
    _sweeper: "Sweeper"

    async def waiting_at(
        self, destination: str, *, account_id: int | None, campaign: str | None, limit: int
    ) -> Sequence[Envelope]:
        found, damage = await self._read(read_waiting, destination, account_id, campaign, limit)
        self._sweeper.put_aside(damage)
        waiting: Sequence[Envelope] = found
        return waiting

    async def first_releases(
        self, *, account_id: int | None, campaign: str | None, looked_at_max: int
    ) -> FirstReleases:
        found: FirstReleases = await self._read(
            read_first_releases, account_id, campaign, looked_at_max
        )
        return found


def read_waiting(
    store: Store, destination: str, account_id: int | None, campaign: str | None, limit: int
) -> tuple[list[Envelope], Damage]:
    """Return some of a destination's queue."""
    tables = store.tables
    found: list[Envelope] = []
    damage: Damage = []
    with store.environment.begin() as txn:

        def is_wanted(flow: int) -> bool:
            stored = txn.get(U32.pack(flow), db=tables.flow)
            try:
                named = None if stored is None else unpack_record(stored, StoredFlow)
            except DamagedRecord:
                named = None
            # Whose a flow is that cannot be read is seen at its mails.
            return named is None or (
                account_id in (None, named.account_id) and campaign in (None, named.campaign)
            )

        rows = QueueCursor(txn, tables.queue, destination)
        for envelope_id in some_of_queue(rows, is_wanted, limit):
            key = U64.pack(envelope_id)
            envelope = _envelope(txn, store, key)
            if envelope is None:
                damage.append(("envelope", key))
            elif _is_of(envelope, account_id, campaign):
                found.append(envelope)
    return found, damage


def read_first_releases(
    store: Store, account_id: int | None, campaign: str | None, looked_at_max: int
) -> FirstReleases:
    """Return when the first paused mails are released, in that order until enough was looked at."""
    by_destination: dict[str, int] = {}
    with store.environment.begin() as txn:
        for looked_at, key in enumerate(_paused(txn, store, account_id)):
            envelope = _envelope(txn, store, key)
            if envelope is None:
                continue
            release_unix_ms = envelope.state.due_unix_ms
            if looked_at >= looked_at_max:
                return FirstReleases(by_destination, release_unix_ms)
            if campaign in (None, envelope.fixed.campaign):
                name = envelope.fixed.destination
                known = by_destination.get(name, release_unix_ms)
                by_destination[name] = min(known, release_unix_ms)
    return FirstReleases(by_destination, None)


def _paused(
    txn: "lmdb.Transaction[bytes]", store: Store, account_id: int | None
) -> Iterator[bytes]:
    """Yield the keys of paused envelopes in the order in which they are released."""
    with txn.cursor(store.tables.paused) as rows:
        if account_id is not None:
            # An account's days are in the order of their releases.
            yield from _paused_below(rows, U32.pack(account_id))
            return
        with txn.cursor(store.tables.release) as days:
            for day_key in days.iternext(keys=True, values=False):
                yield from _paused_below(rows, day_key[U64.size :])


def _paused_below(rows: "lmdb.Cursor[bytes]", prefix: bytes) -> Iterator[bytes]:
    is_row = rows.set_range(prefix)
    while is_row and rows.key().startswith(prefix):
        yield U64.pack(PAUSED.unpack(rows.key())[2])
        is_row = rows.next()


def _envelope(txn: "lmdb.Transaction[bytes]", store: Store, key: bytes) -> Envelope | None:
    stored = txn.get(key, db=store.tables.envelope)
    try:
        return None if stored is None else unpack_envelope(stored)[0]
    except DamagedRecord:
        return None


def _is_of(envelope: Envelope, account_id: int | None, campaign: str | None) -> bool:
    fixed = envelope.fixed
    return account_id in (None, fixed.account_id) and campaign in (None, fixed.campaign)
