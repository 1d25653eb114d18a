"""The table `suppression` of the `lmdb:` adapter: who has it, who asks it, what ends in it.

A row is asked for with each recipient of an account that has any, so it lies under the account and
the address itself; an account that has none costs one look for the whole request.
"""

from typing import Final

from engine.spool import suppressing
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import U32, suppression_key
from protocols.records import (
    DamagedRecord,
    EnvelopeFixed,
    EnvelopeState,
    Suppression,
    pack_record,
    unpack_record,
)

# Rows that one step of the sweeper looks at; they end on a day, not at a second.
SURVEYED_ROWS: Final = 100

KEY_OCTETS_MAX: Final = U32.size + suppressing.ADDRESS_OCTETS_MAX


class Suppressed:
    """What a request asks about its recipients."""

    def __init__(self, changes: Changes, account_id: int) -> None:
        self._changes = changes
        self._account_id = account_id
        with changes.txn.cursor(changes.tables.suppression) as cursor:
            prefix = U32.pack(account_id)
            self.has_any = cursor.set_range(prefix) and cursor.key().startswith(prefix)

    def find(self, address: str) -> Suppression | None:
        """Return what suppresses an address now."""
        key = suppression_key(self._account_id, address)
        if not self.has_any or len(key) > KEY_OCTETS_MAX:
            return None
        found = _stored(self._changes, key)
        is_gone = found is None or suppressing.is_over(found, self._changes.now_unix_ms)
        return None if is_gone else found


def note_change(changes: Changes, fixed: EnvelopeFixed, state: EnvelopeState) -> None:
    """Suppress an address if this state of an envelope is a reason to."""
    new = suppressing.after_change(fixed, state)
    if new is not None:
        key = suppression_key(fixed.account_id, new.address)
        if not suppressing.outlasts(_stored(changes, key), new, changes.now_unix_ms):
            changes.put("suppression", key, pack_record(new))


def suppress(changes: Changes, account_id: int, suppression: Suppression) -> None:
    key = suppression_key(account_id, suppression.address)
    changes.put("suppression", key, pack_record(suppression))


def lift(changes: Changes, account_id: int, address: str) -> bool:
    """Remove a row; return whether it suppressed anything."""
    key = suppression_key(account_id, address)
    found = _stored(changes, key)
    changes.txn.delete(key, db=changes.tables.suppression)
    return found is not None and not suppressing.is_over(found, changes.now_unix_ms)


def _stored(changes: Changes, key: bytes) -> Suppression | None:
    stored = changes.txn.get(key, db=changes.tables.suppression)
    if stored is None:
        return None
    try:
        return unpack_record(stored, Suppression)
    except DamagedRecord:
        # Better one mail too many than an address that nobody can write to any more.
        changes.note_damage("suppression", key, stored)
        return None


def read_suppressions(
    store: Store, account_id: int, after: str, limit: int, now_unix_ms: int
) -> list[Suppression]:
    """Return the suppressions of an account behind an address, by address."""
    prefix = U32.pack(account_id)
    found: list[Suppression] = []
    with store.environment.begin() as txn, txn.cursor(store.tables.suppression) as cursor:
        start = suppression_key(account_id, after) + b"\0" if after else prefix
        is_there = cursor.set_range(start)
        while is_there and cursor.key().startswith(prefix) and len(found) < limit:
            try:
                suppression = unpack_record(cursor.value(), Suppression)
            except DamagedRecord:
                # Said by the sweeper.
                is_there = cursor.next()
                continue
            if not suppressing.is_over(suppression, now_unix_ms):
                found.append(suppression)
            is_there = cursor.next()
    return found


def read_suppression(
    store: Store, account_id: int, address: str, now_unix_ms: int
) -> Suppression | None:
    with store.environment.begin() as txn:
        stored = txn.get(suppression_key(account_id, address), db=store.tables.suppression)
    try:
        found = None if stored is None else unpack_record(stored, Suppression)
    except DamagedRecord:
        return None
    return None if found is None or suppressing.is_over(found, now_unix_ms) else found


def survey(store: Store, after: bytes, now_unix_ms: int) -> tuple[list[bytes], list[bytes], bytes]:
    """Return the keys of rows that are over, of those that are damaged, and where to go on.

    b"" is the beginning, for the next walk.
    """
    over: list[bytes] = []
    damaged: list[bytes] = []
    rows = 0
    with store.environment.begin() as txn, txn.cursor(store.tables.suppression) as cursor:
        is_there = cursor.set_range(after) if after else cursor.first()
        while is_there:
            if rows == SURVEYED_ROWS:
                return over, damaged, cursor.key()
            rows += 1
            try:
                if suppressing.is_over(unpack_record(cursor.value(), Suppression), now_unix_ms):
                    over.append(cursor.key())
            except DamagedRecord:
                damaged.append(cursor.key())
            is_there = cursor.next()
    return over, damaged, b""


def remove_over(changes: Changes, keys: list[bytes]) -> None:
    """Remove rows that are over, unless their address was suppressed again since."""
    for key in keys:
        found = _stored(changes, key)
        if found is not None and suppressing.is_over(found, changes.now_unix_ms):
            changes.txn.delete(key, db=changes.tables.suppression)
