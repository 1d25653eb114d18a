"""Contents in the `lmdb:` adapter: stored once in chunks, counted, and deleted in order.

A content's head has its checksum and how many open envelopes need it. At none it is garbage, and
garbage is deleted in the order of the ids a little at a time: pages that are freed in order can be
used again in order, and a large content does not make one commit long.
"""

import zlib
from typing import TYPE_CHECKING

from engine.spool.lmdb_cursors import delete_here
from engine.spool.lmdb_layout import (
    CHUNK_OCTETS_MAX,
    U64,
    Marks,
    StoredHead,
    Tables,
    chunk_key,
)
from protocols.records import DamagedRecord, pack_record, unpack_record

if TYPE_CHECKING:
    import lmdb


def put_content(
    txn: "lmdb.Transaction[bytes]",
    tables: Tables,
    content_id: int,
    octets: bytes,
    *,
    kind: int,
    needs_8bit: bool,
    needs_utf8: bool,
    references: int,
) -> None:
    """Store a content that `references` envelopes need."""
    checksum = zlib.crc32(octets)
    head = StoredHead(kind, len(octets), needs_8bit, needs_utf8, checksum, references)
    txn.put(U64.pack(content_id), pack_record(head), db=tables.content_head)
    if len(octets) <= CHUNK_OCTETS_MAX:
        txn.put(chunk_key(content_id, 0), octets, db=tables.content)
        return
    for chunk, start in enumerate(range(0, len(octets), CHUNK_OCTETS_MAX)):
        part = octets[start : start + CHUNK_OCTETS_MAX]
        txn.put(chunk_key(content_id, chunk), part, db=tables.content)


def get_octets(
    txn: "lmdb.Transaction[bytes]", tables: Tables, content_id: int, head: StoredHead
) -> bytes:
    """Return the octets of a content. Raises DamagedRecord if they are not what was accepted."""
    octets = txn.get(chunk_key(content_id, 0), b"", db=tables.content)
    if len(octets) < head.size:
        chunks = [octets]
        with txn.cursor(tables.content) as cursor:
            prefix = U64.pack(content_id)
            is_there = cursor.set_range(chunk_key(content_id, 1))
            while is_there and cursor.key().startswith(prefix):
                chunks.append(cursor.value())
                is_there = cursor.next()
        octets = b"".join(chunks)
    if len(octets) != head.size or zlib.crc32(octets) != head.checksum:
        raise DamagedRecord(f"content {content_id} is not what was accepted")
    return octets


def drop_references(
    txn: "lmdb.Transaction[bytes]", tables: Tables, content_id: int, count: int
) -> bool:
    """Take `count` references away; return whether the content became garbage.

    Raises DamagedRecord if its head cannot be read.
    """
    key = U64.pack(content_id)
    stored = txn.get(key, db=tables.content_head)
    if stored is None:
        # It was damaged and put aside; nobody can read the octets, and the last one lets them go.
        return txn.put(key, b"", overwrite=False, db=tables.garbage)
    head = unpack_record(stored, StoredHead)
    head.references -= count
    if head.references > 0:
        txn.put(key, pack_record(head), db=tables.content_head)
        return False
    txn.delete(key, db=tables.content_head)
    txn.put(key, b"", db=tables.garbage)
    return True


def collect_garbage(
    txn: "lmdb.Transaction[bytes]", tables: Tables, marks: Marks, chunks_max: int
) -> int:
    """Delete up to about `chunks_max` chunks that nobody needs; return how many."""
    chunks = 0
    with txn.cursor(tables.garbage) as garbage, txn.cursor(tables.content) as content:
        is_there = garbage.first()
        while is_there and chunks < chunks_max:
            prefix = garbage.key()
            is_chunk = content.set_range(prefix)
            while is_chunk and content.key().startswith(prefix):
                if chunks == chunks_max:
                    return chunks
                is_chunk = delete_here(content)
                chunks += 1
            is_there = delete_here(garbage)
            marks.garbage -= 1
            # An empty content had no chunk, and was work all the same.
            chunks = max(chunks, 1)
    return chunks
