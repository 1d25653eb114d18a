"""Notes in the `lmdb:` adapter; see `engine.spool.note_calls`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_writer import Turn, Writer
from protocols.records import DamagedRecord, pack_record, unpack_record

if TYPE_CHECKING:
    from engine.spool.lmdb_changes import Changes


class LmdbNotes:
    """A part of `LmdbSpool`, which sets these."""

    writer: Writer
    _read: Callable[..., Awaitable[Any]]

    async def put_notes(self, notes: Mapping[str, bytes | None]) -> None:
        await self.writer.do(
            Turn.HOUSEKEEPING, partial(put, notes=dict(notes)), items=max(1, len(notes))
        )

    async def notes(self, prefix: str) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = await self._read(read, prefix)
        return found


def put(changes: "Changes", notes: Mapping[str, bytes | None]) -> None:
    """Store and remove notes."""
    for name, value in notes.items():
        key = name.encode("ascii")
        if value is None:
            changes.txn.delete(key, db=changes.tables.note)
        else:
            changes.put("note", key, pack_record(value))


def read(store: Store, prefix: str) -> list[tuple[str, bytes]]:
    """Return the notes whose names begin with `prefix`, in order."""
    found: list[tuple[str, bytes]] = []
    start = prefix.encode("ascii")
    with store.environment.begin() as txn, txn.cursor(store.tables.note) as cursor:
        if not cursor.set_range(start):
            return found
        for key, stored in cursor:
            if not key.startswith(start):
                break
            try:
                found.append((key.decode("ascii"), unpack_record(stored, bytes)))
            except DamagedRecord:
                # What was noted is learned again; the mail does not depend on it.
                continue
    return found
