"""Reads: a function for each question, each with one short read transaction.

They block on cold pages and are called in a thread; none keeps a transaction, and what scans a lot
does so a thousand rows at a time, because a reader that stays holds every page that is freed. A
record that is damaged is left out and named in `Damage`, for the writer to put aside.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from engine.spool import fair_turns
from engine.spool.holds import Holds
from engine.spool.interface import (
    AgendaRow,
    Content,
    ContentKind,
    EventFilter,
    EventPage,
    WindowPosition,
)
from engine.spool.lmdb_contents import get_octets
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_holds import held_here, site_of
from engine.spool.lmdb_layout import (
    META_MARKS,
    U64,
    Marks,
    StoredDestination,
    StoredHead,
    split_agenda_key,
)
from engine.spool.lmdb_queue import QueueCursor
from engine.spool.transitions import QUEUE_STATUSES
from protocols.records import (
    DamagedRecord,
    DestinationRecord,
    Envelope,
    Event,
    unpack_envelope,
    unpack_record,
)

if TYPE_CHECKING:
    pass

# Rows in one read transaction: some milliseconds, in which freed pages cannot be used again.
SCAN_ROWS: Final = 1000

T = TypeVar("T")

# (table, key) of records that are not what was written.
Damage = list[tuple[str, bytes]]


@dataclass(slots=True)
class WindowRead:
    """What a window may claim, by id, with the octets that settling will need."""

    found: dict[int, tuple[Envelope, bytes]] = field(default_factory=dict)
    more: bool = False
    next_due_unix_ms: int | None = None
    damage: Damage = field(default_factory=list)


def read_window(
    store: Store,
    destination: str,
    position: WindowPosition,
    limit: int,
    now_unix_ms: int,
    claimed: Collection[int],
    holds: Holds,
    at_unix_ms: int,
) -> WindowRead:
    """Return the next envelopes of a destination; `position` moves on.

    Due is what is due at `now_unix_ms`; `at_unix_ms` is the time that `holds` are judged at.
    """
    tables = store.tables
    read = WindowRead()
    with store.environment.begin() as txn:
        rows = QueueCursor(txn, tables.queue, destination)
        held = None
        if holds.rows or position.waits is not None:
            site = site_of(txn, tables, destination)
            held = held_here(txn, tables, holds, destination, site, at_unix_ms, position.waits)
        turns = fair_turns.take_turns(rows, position, limit, now_unix_ms, claimed, held)
        read.more, read.next_due_unix_ms = turns.more, turns.next_due_unix_ms
        for envelope_id in turns.envelope_ids:
            key = U64.pack(envelope_id)
            stored = txn.get(key, db=tables.envelope)
            try:
                if stored is None:
                    raise DamagedRecord("envelope is missing")
                envelope, octets = unpack_envelope(stored)
                if envelope.state.status not in QUEUE_STATUSES:
                    raise DamagedRecord("envelope has no place in the queue")
            except DamagedRecord:
                # It cannot be sent, and would be at the head of its flow for ever.
                read.damage.append(("envelope", key))
                continue
            read.found[envelope_id] = (envelope, octets)
    return read


def read_contents(store: Store, content_ids: Collection[int]) -> tuple[dict[int, Content], Damage]:
    """Return the contents that are there and whole."""
    tables = store.tables
    found: dict[int, Content] = {}
    damage: Damage = []
    with store.environment.begin() as txn:
        for content_id in content_ids:
            key = U64.pack(content_id)
            stored = txn.get(key, db=tables.content_head)
            if stored is None:
                continue
            try:
                head = unpack_record(stored, StoredHead)
                octets = get_octets(txn, tables, content_id, head)
            except DamagedRecord:
                damage.append(("content_head", key))
                continue
            found[content_id] = Content(ContentKind(head.kind), octets)
    return found, damage


def read_due(store: Store, until_unix_ms: int, limit: int) -> list[AgendaRow]:
    """Return the destinations whose agenda row is due, earliest first."""
    rows: list[AgendaRow] = []
    with store.environment.begin() as txn, txn.cursor(store.tables.agenda) as cursor:
        for key, cause in cursor:
            wake_unix_ms, destination = split_agenda_key(key)
            if wake_unix_ms > until_unix_ms or len(rows) == limit:
                break
            rows.append(AgendaRow(wake_unix_ms, destination, cause.decode("ascii")))
    return rows


def read_next_wake(store: Store) -> int | None:
    with store.environment.begin() as txn, txn.cursor(store.tables.agenda) as cursor:
        return split_agenda_key(cursor.key())[0] if cursor.first() else None


def read_destination(store: Store, name: str) -> DestinationRecord | None:
    with store.environment.begin() as txn:
        stored = txn.get(name.encode("ascii"), db=store.tables.destination)
    if stored is None:
        return None
    try:
        return unpack_record(stored, StoredDestination).record
    except DamagedRecord:
        # Without it the actor begins anew: that is what a first visit is like.
        return None


def read_envelope(store: Store, envelope_id: int) -> tuple[Envelope | None, Damage]:
    key = U64.pack(envelope_id)
    with store.environment.begin() as txn:
        stored = txn.get(key, db=store.tables.envelope)
    if stored is None:
        return None, []
    try:
        return unpack_envelope(stored)[0], []
    except DamagedRecord:
        return None, [("envelope", key)]


def read_events(
    store: Store, after_seq: int, wanted: EventFilter, limit: int, scan_max: int
) -> tuple[EventPage, Damage]:
    """Return the page of the log after a place."""
    damage: Damage = []
    with store.environment.begin() as txn, txn.cursor(store.tables.event) as cursor:
        # Not what the table holds now: of a log that is all trimmed the numbers go on.
        marks = unpack_record(txn.get(META_MARKS, b"", db=store.tables.meta), Marks)
        head_seq, oldest_seq = marks.head_seq, marks.oldest_seq
        gap = None
        if after_seq + 1 < oldest_seq:
            gap = (after_seq + 1, oldest_seq - 1)
            after_seq = oldest_seq - 1
        seq, last = after_seq, min(head_seq, after_seq + scan_max)
        found: list[Event] = []
        if seq < last and limit > 0 and cursor.set_range(U64.pack(seq + 1)):
            for key, stored in cursor:
                at = U64.unpack(key)[0]
                if at > last or len(found) >= limit:
                    break
                seq = at
                try:
                    event = unpack_record(stored, Event)
                except DamagedRecord:
                    damage.append(("event", key))
                    continue
                if wanted.admits(event):
                    found.append(event)
    return EventPage(found, seq, gap), damage


def read_events_at(store: Store, seqs: Sequence[int]) -> tuple[list[Event], Damage]:
    found: list[Event] = []
    damage: Damage = []
    with store.environment.begin() as txn:
        for seq in seqs:
            key = U64.pack(seq)
            stored = txn.get(key, db=store.tables.event)
            if stored is None:
                continue
            try:
                found.append(unpack_record(stored, Event))
            except DamagedRecord:
                damage.append(("event", key))
    return found, damage
