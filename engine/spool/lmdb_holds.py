"""Holds in the `lmdb:` adapter: their table, and what they mean for rows in a transaction.

Lifting has three steps, each durable: the hold is marked and holds nothing any more, the
destinations that it held get their true agenda rows, a few hundred a commit, and the row goes.
What a crash interrupts is found by its mark and done again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.spool.hold_calls import Hold
from engine.spool.holds import HeldHere, Holds
from engine.spool.interface import PassedOver
from engine.spool.lmdb_layout import (
    U32,
    U64,
    StoredDestination,
    StoredFlow,
    Tables,
    split_agenda_key,
)
from protocols.records import (
    DamagedRecord,
    Envelope,
    pack_record,
    unpack_envelope,
    unpack_record,
)

if TYPE_CHECKING:
    import lmdb

    from engine.spool.lmdb_changes import Changes
    from engine.spool.lmdb_environment import Store


def read_holds(txn: "lmdb.Transaction[bytes]", tables: Tables) -> Holds:
    """Return all holds that can be read."""
    rows: list[Hold] = []
    with txn.cursor(tables.hold) as cursor:
        for _, stored in cursor:
            try:
                rows.append(unpack_record(stored, Hold))
            except DamagedRecord:
                # What it held goes on: nobody can say any more what that was.
                continue
    return Holds(rows)


def site_of(txn: "lmdb.Transaction[bytes]", tables: Tables, destination: str) -> str:
    """Return the site that a destination was last seen at, "" if nobody knows."""
    stored = txn.get(destination.encode("ascii"), db=tables.destination)
    if stored is None:
        return ""
    try:
        record = unpack_record(stored, StoredDestination).record
    except DamagedRecord:
        return ""
    return record.site if record is not None else ""


def held_here(
    txn: "lmdb.Transaction[bytes]",
    tables: Tables,
    holds: Holds,
    destination: str,
    site: str,
    now_unix_ms: int,
    waits: PassedOver | None,
) -> HeldHere | None:
    """Return how the mail of a destination is held; it lives no longer than the transaction."""
    if not holds.rows and waits is None:
        return None

    def flow_of(flow: int) -> tuple[int, str | None] | None:
        stored = txn.get(U32.pack(flow), db=tables.flow)
        try:
            named = None if stored is None else unpack_record(stored, StoredFlow)
        except DamagedRecord:
            return None
        return None if named is None else (named.account_id, named.campaign)

    def envelope_of(envelope_id: int) -> Envelope | None:
        stored = txn.get(U64.pack(envelope_id), db=tables.envelope)
        try:
            return None if stored is None else unpack_envelope(stored)[0]
        except DamagedRecord:
            return None

    return holds.here(destination, site, now_unix_ms, flow_of, envelope_of, waits)


def put(changes: "Changes", hold: Hold) -> Hold:
    """Store a hold under a new id. Raises SpoolError if there are too many."""
    changes.holds.check_room(hold.owner_id)
    kept = msgspec.structs.replace(hold, hold_id=changes.next_hold_id(), is_lifted=False)
    changes.change_holds(changes.holds.with_row(kept), is_more=True)
    changes.put("hold", U64.pack(kept.hold_id), pack_record(kept))
    return kept


def mark_lifted(changes: "Changes", hold_ids: Sequence[int]) -> None:
    """Have holds hold nothing any more."""
    for hold_id in hold_ids:
        found = changes.holds.rows.get(hold_id)
        if found is not None:
            lifted = msgspec.structs.replace(found, is_lifted=True)
            changes.change_holds(changes.holds.with_row(lifted), is_more=False)
            changes.put("hold", U64.pack(hold_id), pack_record(lifted))


def reconsider(changes: "Changes", names: Sequence[str]) -> None:
    """Give destinations the agenda rows that are true now."""
    for name in names:
        changes.destinations.reconsider(name)


def forget(changes: "Changes", hold_ids: Sequence[int]) -> None:
    """Remove holds that were lifted."""
    for hold_id in hold_ids:
        changes.change_holds(changes.holds.without(hold_id), is_more=False)
        changes.txn.delete(U64.pack(hold_id), db=changes.tables.hold)


def read_names(store: "Store", ended: Sequence[Hold]) -> list[str]:
    """Return the destinations with mail that holds may have concerned: a walk over the agenda."""
    has_site = any(each.wanted.site is not None for each in ended)
    names: list[str] = []
    tables = store.tables
    with store.environment.begin() as txn, txn.cursor(tables.agenda) as cursor:
        for key in cursor.iternext(keys=True, values=False):
            name = split_agenda_key(key)[1]
            site = site_of(txn, tables, name) if has_site else ""
            if any(each.wanted.fits_place(name, site) for each in ended):
                names.append(name)
    return names
