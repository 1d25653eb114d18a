"""The sweeper of the `lmdb:` adapter: expiry, checks, purging, trimming, garbage.

Each step reads in a thread what is to be done and hands the writer one small work, so that it never
holds a commit up. What is overdue is found by the table `expiry`, at a cost that does not depend on
how much is queued; everything else walks on from a cursor in `meta`. A damaged record is put aside
into `quarantine` and named in the log; the rest goes on.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from engine.spool import lmdb_activity, lmdb_campaigns, lmdb_suppressions, transitions
from engine.spool.interface import SpoolSettings
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_contents import collect_garbage, get_octets
from engine.spool.lmdb_cursors import delete_here
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_layout import (
    META_MARKS,
    PAUSED,
    U32_U64,
    U64,
    U64_U64,
    Marks,
    StoredDestination,
    StoredHead,
    StoredRequest,
    address_prefix,
    queue_key,
)
from engine.spool.lmdb_lost import LostMail
from engine.spool.lmdb_settle import finish
from engine.spool.lmdb_writer import Turn, Writer
from protocols.records import (
    FINAL_STATUSES,
    Campaign,
    DamagedRecord,
    Envelope,
    Event,
    Status,
    Suppression,
    unpack_envelope,
    unpack_record,
)

if TYPE_CHECKING:
    import lmdb

# A commit of the sweeper is waited for by results: it stays short.
ROWS_MAX: Final = 500

# A commit only to say how far the walk is would be most of an idle engine's work.
UNSAVED_STEPS_MAX: Final = 20

# Of contents that are garbage, so many octets' worth a commit: 64 chunks are 2 MB.
GARBAGE_CHUNKS_MAX: Final = 64

# What was put aside is not told again, unless there is more of it than this.
KNOWN_DAMAGE_MAX: Final = 10_000

logger = logging.getLogger(__name__)

Read = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Survey:
    """What one step of the sweeper found: what is to be done, and where the next one begins."""

    envelope_id: int = 0
    is_last_envelope: bool = False
    purge: list[int] = field(default_factory=list)
    rowless: list[int] = field(default_factory=list)
    request_key: bytes = b""
    is_last_request: bool = False
    requests: list[bytes] = field(default_factory=list)
    has_surplus_events: bool = False
    has_garbage: bool = False
    has_old_minutes: bool = False
    damage: list[tuple[str, bytes]] = field(default_factory=list)

    def has_work(self) -> bool:
        return bool(
            self.purge
            or self.rowless
            or self.requests
            or self.has_surplus_events
            or self.has_garbage
            or self.has_old_minutes
        )


class Sweeper:
    """One per spool. `claims` are the envelopes in flight: those do not expire."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        read: Read,
        claims: Mapping[int, Any],
        settings: SpoolSettings,
    ) -> None:
        self._store = store
        self._writer = writer
        self._read = read
        self._claims = claims
        self._settings = settings
        self._known_damage: set[tuple[str, bytes]] = set()
        self._lost = LostMail(store, writer, read, claims, settings.max_age_ms)
        self._cursors = (store.marks.sweep_envelope_id, store.marks.sweep_request)
        self._suppression_cursor = b""
        self._campaign_cursors = (b"", b"")
        self._steps_unsaved = 0

    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        """See `Spool.sweep`."""
        await self._expire(now_unix_ms)
        has_left = await self._lost.end()
        await self._end_suppressions(now_unix_ms)
        has_left |= await self._forget_campaigns(now_unix_ms)
        # Said here too, or a spool that refuses would hear of its room only from new mail.
        self._writer.note_room(await self._read(look_after_environment))
        for left in range(rows_max, 0, -ROWS_MAX):
            survey: Survey = await self._read(
                survey_of, self._cursors, min(left, ROWS_MAX), now_unix_ms, self._settings
            )
            self.put_aside(survey.damage)
            self._cursors = (
                0 if survey.is_last_envelope else survey.envelope_id,
                b"" if survey.is_last_request else survey.request_key,
            )
            self._steps_unsaved += 1
            has_more = not (survey.is_last_envelope and survey.is_last_request)
            if survey.has_work() or self._steps_unsaved >= UNSAVED_STEPS_MAX:
                self._steps_unsaved = 0
                has_more |= await self._writer.do(
                    Turn.HOUSEKEEPING,
                    partial(
                        apply_survey,
                        survey=survey,
                        cursors=self._cursors,
                        now_unix_ms=now_unix_ms,
                        settings=self._settings,
                    ),
                    items=ROWS_MAX,
                )
            if not has_more:
                return has_left
        return True

    async def _expire(self, now_unix_ms: int) -> None:
        after = b""
        while True:
            keys: list[bytes] = await self._read(read_overdue, now_unix_ms, after)
            if not keys:
                return
            after = keys[-1] + b"\0"
            ids = frozenset(U64_U64.unpack(key)[1] for key in keys)
            await self._writer.do(
                Turn.RESULTS,
                partial(expire, keys=keys, now_unix_ms=now_unix_ms, claims=self._claims),
                items=len(keys),
                ids=ids,
            )

    async def _end_suppressions(self, now_unix_ms: int) -> None:
        over, damaged, self._suppression_cursor = await self._read(
            lmdb_suppressions.survey, self._suppression_cursor, now_unix_ms
        )
        self.put_aside(("suppression", key) for key in damaged)
        if over:
            await self._writer.do(
                Turn.HOUSEKEEPING,
                partial(lmdb_suppressions.remove_over, keys=over),
                items=len(over),
            )

    async def _forget_campaigns(self, now_unix_ms: int) -> bool:
        """Forget campaigns that are over; return whether there is more of them to look at."""
        found: lmdb_campaigns.Survey = await self._read(
            lmdb_campaigns.survey, self._campaign_cursors, now_unix_ms, self._settings
        )
        self._campaign_cursors = found.cursors
        self.put_aside(("campaign", key) for key in found.damaged)
        removed = 0
        if found.has_work():
            removed = await self._writer.do(
                Turn.HOUSEKEEPING,
                partial(
                    lmdb_campaigns.forget,
                    found=found,
                    now_unix_ms=now_unix_ms,
                    settings=self._settings,
                ),
                items=len(found.over) + len(found.nameless),
            )
        return removed > 0 or any(found.cursors)

    def put_aside(self, damage: Iterable[tuple[str, bytes]]) -> None:
        """Have damaged records moved to `quarantine`; nobody waits for it."""
        for table, key in damage:
            if (table, key) in self._known_damage:
                continue
            if len(self._known_damage) == KNOWN_DAMAGE_MAX:
                self._known_damage.clear()
            self._known_damage.add((table, key))
            logger.error("spool: record %s of table %s is damaged; put aside", key.hex(), table)
            self._writer.submit(
                Turn.HOUSEKEEPING, partial(quarantine, table=table, key=key), items=ROWS_MAX
            )
            if table == "envelope":
                self._lost.note(U64.unpack(key)[0])


def look_after_environment(store: Store) -> bool:
    """Free the places of dead readers, see to the ballast; return if there is room for mail."""
    store.environment.reader_check()
    store.disk.keep_ballast()
    return store.has_room_for_intake()


def read_overdue(store: Store, now_unix_ms: int, after: bytes) -> list[bytes]:
    """Return the keys of up to `ROWS_MAX` rows of `expiry` whose time has come."""
    keys: list[bytes] = []
    end = U64.pack(now_unix_ms + 1)
    with store.environment.begin() as txn, txn.cursor(store.tables.expiry) as cursor:
        if cursor.set_range(after):
            for key in cursor.iternext(keys=True, values=False):
                if key >= end or len(keys) == ROWS_MAX:
                    break
                keys.append(key)
    return keys


def expire(
    changes: Changes, keys: Iterable[bytes], now_unix_ms: int, claims: Mapping[int, Any]
) -> None:
    """End what is overdue and not in flight, in the order of the ids."""
    by_id = sorted((U64_U64.unpack(key)[1], key) for key in keys)
    for envelope_id, key in by_id:
        if envelope_id in claims:
            continue
        envelope = changes.envelope(envelope_id)
        decision = None if envelope is None else transitions.expiry(envelope, now_unix_ms)
        if decision is not None:
            finish(changes, decision)
        elif envelope is None or envelope.state.status in FINAL_STATUSES:
            # A row that leads nowhere would be found again for ever.
            changes.txn.delete(key, db=changes.tables.expiry)


def survey_of(
    store: Store,
    cursors: tuple[int, bytes],
    rows_max: int,
    now_unix_ms: int,
    settings: SpoolSettings,
) -> Survey:
    """Look at the next rows after the cursors; change nothing."""
    survey = Survey(envelope_id=cursors[0], request_key=cursors[1])
    with store.environment.begin() as txn:
        _survey_envelopes(
            txn, store, survey, rows_max, now_unix_ms - settings.finished_retention_ms
        )
        _survey_requests(txn, store, survey, rows_max, now_unix_ms)
        marks = unpack_record(txn.get(META_MARKS, b"", db=store.tables.meta), Marks)
        survey.has_garbage = marks.garbage > 0
        with txn.cursor(store.tables.event) as cursor:
            survey.has_surplus_events = cursor.first() and is_surplus(
                cursor.value(), marks.event_octets, now_unix_ms, settings
            )
        survey.has_old_minutes = lmdb_activity.has_old_minutes(txn, store.tables, now_unix_ms)
    return survey


def _survey_envelopes(
    txn: "lmdb.Transaction[bytes]",
    store: Store,
    survey: Survey,
    rows_max: int,
    finished_min_unix_ms: int,
) -> None:
    """Are the envelopes whole, have the open ones their rows, are the finished ones old?"""
    rows = 0
    with txn.cursor(store.tables.envelope) as cursor:
        is_there = cursor.set_range(U64.pack(survey.envelope_id + 1))
        while is_there and rows < rows_max:
            rows += 1
            key, stored = cursor.item()
            survey.envelope_id = U64.unpack(key)[0]
            try:
                envelope, _ = unpack_envelope(stored)
            except DamagedRecord:
                survey.damage.append(("envelope", key))
            else:
                if envelope.state.status in FINAL_STATUSES:
                    if envelope.state.finished_unix_ms < finished_min_unix_ms:
                        survey.purge.append(survey.envelope_id)
                elif any(
                    txn.get(row, db=table) is None for table, row in _rows_of(store, envelope)
                ):
                    survey.rowless.append(survey.envelope_id)
            is_there = cursor.next()
        survey.is_last_envelope = not is_there


def _survey_requests(
    txn: "lmdb.Transaction[bytes]", store: Store, survey: Survey, rows_max: int, now_unix_ms: int
) -> None:
    """Which answers may nobody ask for again?"""
    rows = 0
    with txn.cursor(store.tables.request) as cursor:
        is_there = cursor.set_range(survey.request_key)
        while is_there and rows < rows_max:
            rows += 1
            key, stored = cursor.item()
            survey.request_key = key + b"\0"
            try:
                is_over = unpack_record(stored, StoredRequest).lives_until_unix_ms <= now_unix_ms
            except DamagedRecord:
                survey.damage.append(("request", key))
                is_over = False
            if is_over:
                survey.requests.append(key)
            is_there = cursor.next()
        survey.is_last_request = not is_there


def _rows_of(store: Store, envelope: Envelope) -> list[tuple[Any, bytes]]:
    """Return (table, key) of the rows that an open envelope has to have."""
    fixed, state = envelope.fixed, envelope.state
    rows = [(store.tables.expiry, U64_U64.pack(state.expires_unix_ms, fixed.envelope_id))]
    if state.status is Status.PAUSED:
        key = PAUSED.pack(fixed.account_id, state.release_day, fixed.envelope_id)
        rows.append((store.tables.paused, key))
    else:
        key = queue_key(
            fixed.destination, fixed.lane, fixed.flow, state.due_unix_ms, fixed.envelope_id
        )
        rows.append((store.tables.queue, key))
    return rows


def apply_survey(
    changes: Changes,
    survey: Survey,
    cursors: tuple[int, bytes],
    now_unix_ms: int,
    settings: SpoolSettings,
) -> bool:
    """Purge, mend, trim and forget; return whether more is known to be left."""
    marks = changes.marks
    for envelope_id in survey.purge:
        _purge(changes, envelope_id)
    for envelope_id in survey.rowless:
        changes.restore_rows(envelope_id)
    for key in survey.requests:
        _forget_request(changes, key, now_unix_ms)
    trimmed = trim(changes, now_unix_ms, settings)
    removed = lmdb_activity.remove_old_minutes(changes.txn, changes.tables, now_unix_ms, ROWS_MAX)
    collect_garbage(changes.txn, changes.tables, marks, GARBAGE_CHUNKS_MAX)
    marks.sweep_envelope_id, marks.sweep_request = cursors
    return ROWS_MAX in (trimmed, removed) or marks.garbage > 0


def _purge(changes: Changes, envelope_id: int) -> None:
    """Remove a finished envelope with the rows that listings find it by."""
    txn, tables = changes.txn, changes.tables
    key = U64.pack(envelope_id)
    stored = txn.get(key, db=tables.envelope)
    if stored is not None:
        fixed = unpack_envelope(stored)[0].fixed
        txn.delete(key, db=tables.envelope)
        txn.delete(U32_U64.pack(fixed.account_id, envelope_id), db=tables.by_account)
        txn.delete(address_prefix(fixed.address) + key, db=tables.by_address)


def _forget_request(changes: Changes, key: bytes, now_unix_ms: int) -> None:
    # Looked at again: the same request may have come in anew since the survey.
    stored = changes.txn.get(key, db=changes.tables.request)
    answer = unpack_record(stored, StoredRequest) if stored is not None else None
    if answer is not None and answer.lives_until_unix_ms <= now_unix_ms:
        changes.txn.delete(key, db=changes.tables.request)


def trim(changes: Changes, now_unix_ms: int, settings: SpoolSettings) -> int:
    """Remove the oldest events that are too old or too many; return how many."""
    marks = changes.marks
    trimmed = 0
    with changes.txn.cursor(changes.tables.event) as cursor:
        is_there = cursor.first()
        while is_there and trimmed < ROWS_MAX:
            key, stored = cursor.item()
            if not is_surplus(stored, marks.event_octets, now_unix_ms, settings):
                break
            marks.event_octets -= len(stored)
            marks.oldest_seq = U64.unpack(key)[0] + 1
            is_there = delete_here(cursor)
            trimmed += 1
    return trimmed


def is_surplus(stored: bytes, event_octets: int, now_unix_ms: int, settings: SpoolSettings) -> bool:
    """Say whether the oldest event is too old, or the log too long."""
    if event_octets > settings.events_retention_bytes:
        return True
    try:
        at_unix_ms = unpack_record(stored, Event).at_unix_ms
    except DamagedRecord:
        # Nobody can be told of it, and the log behind it must not be kept for its sake.
        return True
    return at_unix_ms < now_unix_ms - settings.events_retention_ms


def quarantine(changes: Changes, table: str, key: bytes) -> None:
    """Move a record out of the way, if it is damaged, and mend what led to it."""
    txn, tables = changes.txn, changes.tables
    stored = txn.get(key, db=getattr(tables, table))
    is_damaged = stored is None or not is_whole(changes, table, key, stored)
    if is_damaged:
        # It may be gone meanwhile, with the mail that it belonged to; it was seen all the same.
        changes.keep_damaged(table, key, stored or b"")
        txn.delete(key, db=getattr(tables, table))
    if table == "envelope":
        # Its content is kept, and the counters count it as what it was, until `lmdb_lost` ends it.
        # One that is whole may have been reported for a queue row that it should not have.
        changes.remove_queue_rows(U64.unpack(key)[0])
        changes.restore_rows(U64.unpack(key)[0])
    elif table == "destination":
        changes.destinations.forget_row(key.decode("ascii"))
    elif table == "activity":
        changes.activity.recount(key, readable_events(changes))
    elif table == "counter":
        changes.counters.recount(key, readable_envelopes(changes))


def is_whole(changes: Changes, table: str, key: bytes, stored: bytes) -> bool:
    """Say whether a record of one of the tables with records can be read."""
    kinds: dict[str, Any] = {
        "event": Event,
        "destination": StoredDestination,
        "counter": tuple[int, ...],
        "request": StoredRequest,
        "usage": int,
        "flow_name": int,
        "campaign": Campaign,
        "campaign_name": int,
        "suppression": Suppression,
        "activity": tuple[int, ...],
    }
    try:
        if table == "envelope":
            unpack_envelope(stored)
        elif table == "content_head":
            head = unpack_record(stored, StoredHead)
            get_octets(changes.txn, changes.tables, U64.unpack(key)[0], head)
        else:
            unpack_record(stored, kinds[table])
    except DamagedRecord:
        return False
    return True


def readable_envelopes(changes: Changes) -> Iterator[Envelope]:
    with changes.txn.cursor(changes.tables.envelope) as cursor:
        for _, stored in cursor:
            try:
                yield unpack_envelope(stored)[0]
            except DamagedRecord:
                continue


def readable_events(changes: Changes) -> Iterator[Event]:
    with changes.txn.cursor(changes.tables.event) as cursor:
        for _, stored in cursor:
            try:
                yield unpack_record(stored, Event)
            except DamagedRecord:
                continue
