"""Accounts and their keys in the `lmdb:` adapter."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from engine.spool import booking
from engine.spool.account_calls import AccountChange
from engine.spool.account_rules import changed, ended, known
from engine.spool.interface import SpoolError
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import U32, U32_U32, account_name_key
from protocols.records import Account, ApiKey, DamagedRecord, pack_record, unpack_record

if TYPE_CHECKING:
    import lmdb


def create(changes: Changes, account: Account, key: ApiKey) -> Account:
    """Store a new account with its first key. Raises SpoolError if the name or key exists."""
    txn, tables = changes.txn, changes.tables
    booking.zone_of(account.time_zone)
    name_key, key_key = account_name_key(account.name), account_name_key(key.api_key)
    if txn.get(name_key, db=tables.account_name) is not None:
        raise SpoolError(f"account {account.name!r} exists already")
    if txn.get(key_key, db=tables.api_key) is not None:
        raise SpoolError("this API key exists already")
    changes.marks.account_id += 1
    created = msgspec.structs.replace(account, account_id=changes.marks.account_id)
    owned = msgspec.structs.replace(key, account_id=created.account_id)
    changes.put("account", U32.pack(created.account_id), pack_record(created))
    changes.put("account_name", name_key, pack_record(created.account_id))
    changes.put("api_key", key_key, pack_record(owned))
    return created


def change(changes: Changes, account_id: int, change: AccountChange) -> Account:
    """Store an account with its change. Raises SpoolError if it is not there to be read."""
    account = changed(account_of(changes, account_id), change)
    changes.put("account", U32.pack(account_id), pack_record(account))
    changes.accounts_changed = True
    return account


def rotate(changes: Changes, key: ApiKey, old_keys_end_unix_ms: int) -> None:
    """Store a further key of an account and give the others their end."""
    table, new_key = changes.tables.api_key, account_name_key(key.api_key)
    if changes.txn.get(new_key, db=table) is not None:
        raise SpoolError("this API key exists already")
    with changes.txn.cursor(table) as cursor:
        old_keys = list(_readable_keys(cursor))
    for place, old in old_keys:
        if old.account_id != key.account_id:
            continue
        kept = ended(old, old_keys_end_unix_ms)
        if kept is None:
            changes.txn.delete(place, db=table)
        else:
            changes.put("api_key", place, pack_record(kept))
    changes.put("api_key", new_key, pack_record(key))
    changes.accounts_changed = True


def account_of(changes: Changes, account_id: int) -> Account:
    """Return an account. Raises SpoolError if it is not there to be read."""
    stored = changes.txn.get(U32.pack(account_id), b"", db=changes.tables.account)
    try:
        return unpack_record(stored, Account)
    except DamagedRecord:
        return known(None)


def _readable_keys(cursor: "lmdb.Cursor[bytes]") -> Iterator[tuple[bytes, ApiKey]]:
    for place, stored in cursor:
        try:
            yield place, unpack_record(stored, ApiKey)
        except DamagedRecord:
            # It opens nothing, so it needs no end.
            continue


def read_booked(store: Store, account_id: int, days: range) -> dict[int, int]:
    """Return how many mails are booked on these days; a damaged row counts as nothing."""
    booked: dict[int, int] = {}
    with store.environment.begin() as txn:
        for day in days:
            stored = txn.get(U32_U32.pack(account_id, day), db=store.tables.usage)
            if stored is None:
                continue
            try:
                count = unpack_record(stored, int)
            except DamagedRecord:
                continue
            if count:
                booked[day] = count
    return booked


def read_api_keys(store: Store) -> list[ApiKey]:
    """Return all keys that can be read, oldest first."""
    with store.environment.begin() as txn, txn.cursor(store.tables.api_key) as cursor:
        keys = [key for _, key in _readable_keys(cursor)]
    return sorted(keys, key=lambda key: (key.created_unix_ms, key.api_key))


def read_accounts(store: Store) -> list[Account]:
    """Return all accounts that can be read, by id."""
    found: list[Account] = []
    with store.environment.begin() as txn, txn.cursor(store.tables.account) as cursor:
        for _, stored in cursor:
            try:
                found.append(unpack_record(stored, Account))
            except DamagedRecord:
                # Its mail still goes; it cannot hand in more until it is made anew.
                continue
    return found


def read_api_key(store: Store, api_key: str) -> tuple[ApiKey, Account] | None:
    """Return a key with its account; None for an unknown one or a record that is damaged."""
    with store.environment.begin() as txn:
        stored = txn.get(account_name_key(api_key), db=store.tables.api_key)
        if stored is None:
            return None
        try:
            key = unpack_record(stored, ApiKey)
            owner = txn.get(U32.pack(key.account_id), b"", db=store.tables.account)
            return key, unpack_record(owner, Account)
        except DamagedRecord:
            return None
