"""Accounts and their keys in the `lmdb:` adapter."""

import msgspec

from engine.spool import booking
from engine.spool.interface import SpoolError
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import U32, account_name_key
from protocols.records import Account, ApiKey, DamagedRecord, pack_record, unpack_record


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
