"""A look at a spool that takes seconds where the whole walk takes a minute, and what it leaves out.

The tables are compared by how many rows they have and by their sums, each destination's row on the
agenda with its queue, and some thousands of mails, the newest and others from all over, with all
that belongs to them. A fault of a single mail that is not among them shows only if it changes a
number. What there is to be compared is `engine.spool.invariants`; nothing is repaired here either.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from engine.spool import projections
from engine.spool.interface import Checked
from engine.spool.lmdb_contents import get_octets
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_invariants import SpoolTables, faults_of_wakes
from engine.spool.lmdb_layout import (
    ACCOUNT_TOTAL,
    PAUSED,
    U64,
    U64_U64,
    StoredHead,
    queue_key,
    split_counter_key,
    split_queue_key,
)
from engine.spool.lmdb_queue import QueueCursor
from engine.spool.projections import NO_COUNTS, Projection
from engine.spool.transitions import QUEUE_STATUSES
from protocols.records import (
    FINAL_STATUSES,
    STATUSES,
    DamagedRecord,
    Envelope,
    Event,
    Status,
    unpack_envelope,
    unpack_record,
)

if TYPE_CHECKING:
    import lmdb

# Mails that are looked at one by one: a second of work in all.
NEWEST: Final = 2_000
SPREAD: Final = 3_000


def look_quickly(store: Store) -> Checked:
    """Return the faults that such a look finds, and how many mails it looked at; one moment."""
    with store.environment.begin() as txn:
        tables = SpoolTables(store, txn)
        mails = txn.stat(store.tables.envelope)["entries"]
        looked_at = 0
        try:
            faults = [
                *_faults_of_numbers(tables),
                *_faults_of_agenda(tables),
                *faults_of_wakes(tables),
                *_faults_of_sums(tables),
            ]
        except DamagedRecord as error:
            return Checked([f"a record is damaged: {error}"], 0, mails)
        for key, stored in _some_mails(tables):
            looked_at += 1
            try:
                faults += _faults_of_mail(tables, unpack_envelope(stored)[0])
            except DamagedRecord as error:
                faults.append(f"envelope: {U64.unpack(key)[0]} or what belongs to it: {error}")
    return Checked(faults, looked_at, mails)


def _faults_of_numbers(tables: SpoolTables) -> Iterator[str]:
    """Has each table as many rows as the sum of all mails says?"""
    marks = tables.marks
    count = dict(zip(STATUSES, marks.counts, strict=True))
    expected = {
        "queue": sum(count[each] for each in QUEUE_STATUSES),
        "paused": count[Status.PAUSED],
        "expiry": sum(count[each] for each in STATUSES if each not in FINAL_STATUSES),
        "event": marks.head_seq - marks.oldest_seq + 1,
        "garbage": marks.garbage,
    }
    for table, rows in expected.items():
        found = tables.txn.stat(getattr(tables.store.tables, table))["entries"]
        if found != rows:
            yield f"{table}: there are {found:,} rows, and {rows:,} by what is counted"


def _faults_of_agenda(tables: SpoolTables) -> Iterator[str]:
    """Has each destination with mail in the queue one row, and no later than its first mail?"""
    wakes = {row.destination: row.wake_unix_ms for row in tables.agenda_rows()}
    rows = tables.txn.stat(tables.store.tables.agenda)["entries"]
    if rows != len(wakes):
        yield f"agenda: {rows - len(wakes):,} destinations have a row too many"
    for destination in _destinations_with_mail(tables):
        wake_unix_ms = wakes.pop(destination, None)
        if wake_unix_ms is None:
            yield f"agenda: {destination} has mail in the queue but no row"
            continue
        record = tables.destination_record(destination)
        if tables.holds.rows or (record is not None and record.waits):
            continue  # What is held, or waits for its account, may be later by each mail's own end.
        queue = QueueCursor(tables.txn, tables.store.tables.queue, destination)
        due_unix_ms = max(
            queue.earliest_due_unix_ms() or 0, record.not_before_unix_ms if record else 0
        )
        if wake_unix_ms > due_unix_ms:
            late_ms = wake_unix_ms - due_unix_ms
            yield f"agenda: {destination} is woken {late_ms} ms too late"
    yield from (f"agenda: {each} has a row but no mail in the queue" for each in wakes)


def _destinations_with_mail(tables: SpoolTables) -> Iterator[str]:
    """Yield each name in the queue with one seek."""
    with tables.txn.cursor(tables.store.tables.queue) as cursor:
        is_there = cursor.first()
        while is_there:
            name = split_queue_key(cursor.key())[0]
            yield name
            is_there = cursor.set_range(name.encode("ascii") + b"\1")


def _faults_of_sums(tables: SpoolTables) -> Iterator[str]:
    """Do all projections of the counters come to the sum of all mails?"""
    sums: dict[int, tuple[int, ...]] = {}
    for key, stored in tables.items("counter"):
        projection = split_counter_key(key)[0]
        counts = unpack_record(stored, tuple[int, ...])
        sums[projection] = projections.add_counts(sums.get(projection, NO_COUNTS), counts)
    whole = {ACCOUNT_TOTAL, *Projection}
    if not tables.has_every_campaign_day():
        whole.discard(Projection.CAMPAIGN_DAY)
    for projection in sorted(whole):
        found = sums.get(projection, NO_COUNTS)
        if found != tables.marks.counts:
            yield f"counter: projection {projection} says {found}, meta {tables.marks.counts}"


def _some_mails(tables: SpoolTables) -> Iterator[tuple[bytes, bytes]]:
    """Yield the newest mails and some from all over the table, none of them twice."""
    with tables.txn.cursor(tables.store.tables.envelope) as cursor:
        if not cursor.first():
            return
        first = U64.unpack(cursor.key())[0]
        before = None
        is_there = cursor.last()
        for _ in range(NEWEST):
            if not is_there:
                return
            before = cursor.key()
            yield cursor.item()
            is_there = cursor.prev()
        if not is_there:
            return
        last = U64.unpack(cursor.key())[0]
        at = 0
        for part in range(SPREAD):
            at = max(at, first + (last - first) * part // SPREAD)
            if not cursor.set_range(U64.pack(at)) or cursor.key() == before:
                return
            at = U64.unpack(cursor.key())[0] + 1
            if at > last + 1:
                return
            yield cursor.item()


def _faults_of_mail(tables: SpoolTables, envelope: Envelope) -> Iterator[str]:
    """Has a mail the rows and the content that its status needs, and no others?"""
    fixed, state, txn, store = envelope.fixed, envelope.state, tables.txn, tables.store
    name = f"envelope {fixed.envelope_id} ({state.status})"
    place = (fixed.destination, fixed.lane, fixed.flow, state.due_unix_ms, fixed.envelope_id)
    rows = {
        "queue": (queue_key(*place), state.status in QUEUE_STATUSES),
        "paused": (
            PAUSED.pack(fixed.account_id, state.release_day, fixed.envelope_id),
            state.status is Status.PAUSED,
        ),
        "expiry": (
            U64_U64.pack(state.expires_unix_ms, fixed.envelope_id),
            state.status not in FINAL_STATUSES,
        ),
    }
    for table, (key, is_due) in rows.items():
        is_there = txn.get(key, db=getattr(store.tables, table)) is not None
        if is_there != is_due:
            yield f"{table}: {name} has {'a row' if is_there else 'no row'}"
    if state.status in FINAL_STATUSES:
        if state.due_unix_ms or not state.finished_unix_ms:
            yield f"envelope: {fixed.envelope_id} is final, but due or without its end"
    else:
        yield from _faults_of_content(txn, tables, fixed.content_id, name)
    yield from _faults_of_story(txn, tables, envelope, name)


def _faults_of_content(
    txn: "lmdb.Transaction[bytes]", tables: SpoolTables, content_id: int, name: str
) -> Iterator[str]:
    stored = txn.get(U64.pack(content_id), db=tables.store.tables.content_head)
    if stored is None:
        yield f"content_head: {content_id}, which {name} needs, is not there"
        return
    head = unpack_record(stored, StoredHead)
    get_octets(txn, tables.store.tables, content_id, head)  # It compares their checksum.
    if head.references < 1:
        yield f"content_head: {content_id} counts {head.references} references, {name} has one"


def _faults_of_story(
    txn: "lmdb.Transaction[bytes]", tables: SpoolTables, envelope: Envelope, name: str
) -> Iterator[str]:
    """Tells the last event of a mail what its status is, as far as the log reaches back?"""
    seqs = [each for each in envelope.state.event_seqs if each >= tables.marks.oldest_seq]
    for seq in reversed(seqs):
        stored = txn.get(U64.pack(seq), db=tables.store.tables.event)
        if stored is None:
            yield f"event: {seq} of {name} is not there"
            return
        event = unpack_record(stored, Event)
        if event.kind == "status":
            if event.envelope_id != envelope.fixed.envelope_id or (
                event.status is not envelope.state.status
            ):
                yield f"event: {seq}, the last of {name}, tells another status"
            return
