"""How much of a destination is held, in the `lmdb:` adapter; see `engine.spool.held_counts`."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from engine.spool.held_counts import Flow, HeldCounts, HeldMail
from engine.spool.hold_calls import Hold
from engine.spool.lmdb_by_destination import counted_accounts
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import U32, counter_key, flow_name_key
from engine.spool.projections import Projection, waiting_of
from protocols.records import Account, DamagedRecord, unpack_record

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]
HeldAt = Callable[[str, str, int], HeldMail | None]


def held_at(
    txn: "lmdb.Transaction[bytes]",
    store: Store,
    holds: Iterable[Hold],
    account_id: int | None,
    campaign: str | None,
) -> HeldAt:
    """Return what says of a destination, its site and how many wait there what of that is held.

    Of one account's or campaign's mail, with None of all. It lives as long as the transaction.
    """
    flows: dict[Flow, int] = {}

    def accounts_with(name: str, owner_id: int | None) -> Iterator[int]:
        for each in counted_accounts(txn, store) if owner_id is None else (owner_id,):
            flow = _number(txn, store, flow_name_key(each, name))
            # What has no waiting mail anywhere is looked for nowhere.
            if flow is not None and _waiting(txn, store, Projection.CAMPAIGN, (each, flow), ""):
                flows[each, name] = flow
                yield each

    def account_name(each: int) -> str:
        stored = txn.get(U32.pack(each), db=store.tables.account)
        try:
            return str(each) if stored is None else unpack_record(stored, Account).name
        except DamagedRecord:
            return str(each)

    counts = HeldCounts(
        holds, account_id, campaign, accounts_with=accounts_with, account_name=account_name
    )

    def at(destination: str, site: str, waiting: int) -> HeldMail | None:
        def count_of(flow: Flow) -> int:
            if flow[1] is None:
                key = (flow[0], 0)
                return _waiting(txn, store, Projection.DESTINATION, key, destination)
            key = (flow[0], flows[flow])
            return _waiting(txn, store, Projection.CAMPAIGN_DESTINATION, key, destination)

        return counts.at(destination, site, waiting, count_of)

    return at


def _number(txn: "lmdb.Transaction[bytes]", store: Store, key: bytes) -> int | None:
    stored = txn.get(key, db=store.tables.flow_name)
    try:
        return None if stored is None else unpack_record(stored, int)
    except DamagedRecord:
        return None


def _waiting(
    txn: "lmdb.Transaction[bytes]",
    store: Store,
    projection: Projection,
    flow: tuple[int, int],
    destination: str,
) -> int:
    account_id, number = flow
    key = counter_key(projection, account_id, 0, number, destination)
    stored = txn.get(key, db=store.tables.counter)
    try:
        return 0 if stored is None else waiting_of(unpack_record(stored, Counts))
    except DamagedRecord:
        return 0
