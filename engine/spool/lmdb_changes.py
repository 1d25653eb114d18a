"""One commit in the making: what it reads, what it is going to write, and the writing itself.

Rules decide over values that are held here; only at the end, in `flush`, does everything go into
the tables: each touched row once, however often it was touched. So a refused request leaves no
trace, sums are written once a commit, and a row that is needed twice is read once. Lives in the one
thread that has the write transaction, and ends with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from engine.spool import agenda
from engine.spool.holds import Holds
from engine.spool.lmdb_activity import ActivityChanges
from engine.spool.lmdb_contents import collect_garbage, drop_references, put_content
from engine.spool.lmdb_counters import CounterChanges
from engine.spool.lmdb_destinations import DestinationChanges
from engine.spool.lmdb_layout import (
    META_HOLD_ID,
    META_MARKS,
    PAUSED,
    RELEASE,
    U32,
    U32_U32,
    U32_U64,
    U64,
    U64_U64,
    Marks,
    StoredDestination,
    StoredFlow,
    Tables,
    address_prefix,
    flow_name_key,
    queue_key,
    split_queue_key,
)
from engine.spool.transitions import QUEUE_STATUSES, Place
from protocols.records import (
    FINAL_STATUSES,
    DamagedRecord,
    Envelope,
    EnvelopeFixed,
    EnvelopeState,
    Event,
    Status,
    encode_fixed,
    pack_envelope,
    pack_record,
    unpack_envelope,
    unpack_record,
)

if TYPE_CHECKING:
    import lmdb

Counts = tuple[int, ...]

# So many contents wait to be deleted, so that those that are can be neighbours, which leaves free
# pages in runs. The sweeper takes the rest when there is time.
GARBAGE_KEPT: Final = 1000

# A cache is emptied when it is full: what is in use comes back at once, at one read a row.
CACHED_ROWS_MAX: Final = 20_000


@dataclass(slots=True)
class Caches:
    """Rows that every commit needs again. Filled only from what was committed."""

    counters: dict[bytes, Counts] = field(default_factory=dict)
    activity: dict[bytes, Counts] = field(default_factory=dict)
    destinations: dict[str, StoredDestination] = field(default_factory=dict)
    flows: dict[tuple[int, str | None], int] = field(default_factory=dict)
    holds: Holds = field(default_factory=Holds)


@dataclass(slots=True)
class Touched:
    """An envelope in this commit: as it was (None: it is new), and as it is going to be."""

    fixed: EnvelopeFixed
    octets: bytes
    old: EnvelopeState | None
    new: EnvelopeState


class Changes:
    """See the module. `claims` are the in-flight envelopes: nobody else can have changed them."""

    def __init__(
        self,
        txn: "lmdb.Transaction[bytes]",
        tables: Tables,
        marks: Marks,
        caches: Caches,
        claims: Mapping[int, tuple[Envelope, bytes]],
        *,
        now_unix_ms: int,
        start_count: int,
    ) -> None:
        self.txn = txn
        self.tables = tables
        self.marks = msgspec.structs.replace(marks, time_unix_ms=now_unix_ms)
        self.now_unix_ms = now_unix_ms
        self.start_count = start_count
        self.events: list[Event] = []
        self.due_destinations: dict[str, None] = {}
        self.damage: list[tuple[str, bytes]] = []  # (table, key), for the sweeper
        self.settled_ids: list[int] = []
        self.accounts_changed = False
        self.holds = caches.holds
        self.holds_changed = False
        self._caches = caches
        self._claims = claims
        self._touched: dict[int, Touched] = {}
        self._usage: dict[tuple[int, int], int] = {}
        self._releases: set[bytes] = set()
        self._flows: dict[tuple[int, str | None], int] = {}
        self._references: dict[int, int] = {}
        self.destinations = DestinationChanges(
            txn,
            tables,
            caches.destinations,
            self.note_damage,
            holds=lambda: self.holds,
            now_unix_ms=now_unix_ms,
        )
        self.counters = CounterChanges(txn, tables, caches.counters, self.flow_of, self.note_damage)
        self.activity = ActivityChanges(txn, tables, caches.activity, self.note_damage)

    # What the rules ask.

    @property
    def touched_ids(self) -> Iterable[int]:
        return self._touched.keys()

    def next_place(self) -> Place:
        return Place(self.marks.head_seq + 1, self.start_count)

    def envelope(self, envelope_id: int) -> Envelope | None:
        """Return an envelope as this commit has it so far; None if there is none to be read."""
        touched = self._touched.get(envelope_id)
        if touched is not None:
            return Envelope(touched.fixed, touched.new)
        claimed = self._claims.get(envelope_id)
        if claimed is None:
            key = U64.pack(envelope_id)
            stored = self.txn.get(key, db=self.tables.envelope)
            if stored is None:
                return None
            try:
                claimed = unpack_envelope(stored)
            except DamagedRecord:
                self.note_damage("envelope", key, stored)
                return None
        envelope, octets = claimed
        self._touched[envelope_id] = Touched(envelope.fixed, octets, envelope.state, envelope.state)
        return envelope

    def usage_of(self, account_id: int, day: int) -> int:
        used = self._usage.get((account_id, day))
        if used is None:
            # Damaged it counts as nothing: a day with too much mail is better than none at all.
            used = self.number("usage", U32_U32.pack(account_id, day)) or 0
            self._usage[account_id, day] = used
        return used

    def flow_of(self, account_id: int, campaign: str | None) -> int:
        """Return the number of a flow, a new one the first time."""
        name = (account_id, campaign)
        flow = self._caches.flows.get(name) or self._flows.get(name)
        if flow is None:
            key = flow_name_key(account_id, campaign)
            flow = self.number("flow_name", key)
            if flow is None:
                self.marks.flow_id += 1
                flow = self.marks.flow_id
                self.put("flow_name", key, pack_record(flow))
                self.put("flow", U32.pack(flow), pack_record(StoredFlow(account_id, campaign)))
            self._flows[name] = flow
        return flow

    def number(self, table: str, key: bytes) -> int | None:
        """Return the number in a row; None without one that can be read."""
        stored = self.txn.get(key, db=getattr(self.tables, table))
        if stored is None:
            return None
        try:
            return unpack_record(stored, int)
        except DamagedRecord:
            self.note_damage(table, key, stored)
            return None

    def note_damage(self, table: str, key: bytes, stored: bytes) -> None:
        """Keep a record that cannot be read, and have the sweeper see to what it leaves behind."""
        self.keep_damaged(table, key, stored)
        self.damage.append((table, key))

    def keep_damaged(self, table: str, key: bytes, stored: bytes) -> None:
        """Copy a record as it is into `quarantine`, before something is written over it."""
        kept_key = table.encode() + b"\0" + key
        if self.txn.put(kept_key, stored, overwrite=False, db=self.tables.quarantine):
            self.marks.quarantined += 1

    # What the rules do.

    def next_hold_id(self) -> int:
        """Return an id that no hold ever had."""
        hold_id = max(self.number("meta", META_HOLD_ID) or 0, *self.holds.rows, 0) + 1
        self.put("meta", META_HOLD_ID, pack_record(hold_id))
        return hold_id

    def change_holds(self, holds: Holds, *, is_more: bool) -> None:
        """Have these holds from now on, for the rest of this commit too.

        `is_more`: they hold more than those before.
        """
        self.holds = holds
        self.holds_changed = self.holds_changed or is_more

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write one row at once, for tables that no later step of this commit reads."""
        self.txn.put(key, value, db=getattr(self.tables, table))

    def use(self, account_id: int, day: int, count: int) -> None:
        """Book `count` mails on a day, or give back for a negative one."""
        self._usage[account_id, day] = self.usage_of(account_id, day) + count

    def add_content(
        self, octets: bytes, *, kind: int, needs_8bit: bool, needs_utf8: bool, references: int
    ) -> int:
        """Store a content and return its id."""
        self.marks.content_id += 1
        put_content(
            self.txn,
            self.tables,
            self.marks.content_id,
            octets,
            kind=kind,
            needs_8bit=needs_8bit,
            needs_utf8=needs_utf8,
            references=references,
        )
        return self.marks.content_id

    def refer(self, content_id: int, references: int) -> None:
        """Have so many more (for a negative number fewer) references to a stored content."""
        self._references[content_id] = self._references.get(content_id, 0) - references

    def add_envelope(self, fixed: EnvelopeFixed, state: EnvelopeState, event: Event) -> None:
        """Take in a new envelope with the event that tells of it."""
        self._touched[fixed.envelope_id] = Touched(fixed, encode_fixed(fixed), None, state)
        if state.status is Status.PAUSED:
            self._add_release(fixed, state)
        self._add_event(fixed, None, event)

    def change(self, envelope: Envelope, change: tuple[EnvelopeState, Event] | None) -> None:
        """Give an envelope that was asked for a new state with its event; None changes nothing."""
        if change is not None:
            state, event = change
            fixed = envelope.fixed
            self._touched[fixed.envelope_id].new = state
            if state.status is Status.PAUSED:
                self._add_release(fixed, state)
            self._add_event(fixed, envelope.state.status, event)

    def move(self, envelope: Envelope, state: EnvelopeState | None) -> None:
        """Give an envelope that was asked for a state with another due time."""
        if state is not None:
            self._touched[envelope.fixed.envelope_id].new = state

    def write_anew(
        self, fixed: EnvelopeFixed, old: Status, state: EnvelopeState, event: Event | None
    ) -> None:
        """Put a final envelope in the place of one that cannot be read, and has no rows any more.

        It counts as `old`; with `event` it is what that says from now on.
        """
        self.put("envelope", U64.pack(fixed.envelope_id), pack_envelope(encode_fixed(fixed), state))
        if event is not None:
            self._add_event(fixed, old, event)

    def _add_release(self, fixed: EnvelopeFixed, state: EnvelopeState) -> None:
        self._releases.add(RELEASE.pack(state.due_unix_ms, fixed.account_id, state.release_day))

    def _add_event(self, fixed: EnvelopeFixed, old: Status | None, event: Event) -> None:
        assert event.seq == self.marks.head_seq + 1, event
        self.marks.head_seq = event.seq
        self.events.append(event)
        self.counters.tally.move(
            fixed.account_id,
            fixed.campaign,
            fixed.destination,
            fixed.accepted_unix_ms,
            old,
            event.status,
        )
        self.activity.tally.note(event, is_new=old is None)

    def restore_rows(self, envelope_id: int) -> None:
        """Give an open envelope the rows that lead to it, should one be lost."""
        envelope = self.envelope(envelope_id)
        if envelope is None or envelope.state.status in FINAL_STATUSES:
            return
        state = envelope.state
        self.put("expiry", U64_U64.pack(state.expires_unix_ms, envelope_id), b"")
        if state.status is Status.PAUSED:
            day = state.release_day
            account_id = envelope.fixed.account_id
            self.put("paused", PAUSED.pack(account_id, day, envelope_id), b"")
            self._add_release(envelope.fixed, state)
        else:
            self._put_queue_row(envelope.fixed, state)

    def remove_queue_rows(self, envelope_id: int) -> None:
        """Remove every queue row of an envelope that cannot say where they are: a whole scan."""
        tail = U64.pack(envelope_id)
        with self.txn.cursor(self.tables.queue) as cursor:
            keys = [key for key in cursor.iternext(keys=True, values=False) if key.endswith(tail)]
        for key in keys:
            self.txn.delete(key, db=self.tables.queue)
            self.destinations.depart(split_queue_key(key)[0])

    # The writing.

    def flush(self) -> None:
        """Put everything into the tables. The transaction is the caller's to commit."""
        self._flush_envelopes()
        self._flush_events()
        self._flush_references()
        self.counters.flush(self.marks, self.activity.tally)
        self.activity.flush()
        self.destinations.flush()
        for name in list(self.due_destinations):
            if agenda.backs_off(self.destinations.record(name), self.now_unix_ms):
                del self.due_destinations[name]
        self.due_destinations.update(dict.fromkeys(self.destinations.due_again))
        put = self.txn.put
        for (account_id, day), used in self._usage.items():
            put(U32_U32.pack(account_id, day), pack_record(used), db=self.tables.usage)
        for key in self._releases:
            put(key, b"", db=self.tables.release)
        put(META_MARKS, pack_record(self.marks), db=self.tables.meta)

    def keep_caches(self) -> None:
        """After the commit: let the next one know the rows as they are now."""
        caches = self._caches
        caches.holds = self.holds
        pairs: list[tuple[dict[Any, Any], dict[Any, Any]]] = [
            (caches.counters, self.counters.fresh),
            (caches.activity, self.activity.fresh),
            (caches.destinations, self.destinations.fresh),
            (caches.flows, self._flows),
        ]
        for cache, fresh in pairs:
            if len(cache) + len(fresh) > CACHED_ROWS_MAX:
                cache.clear()
            cache.update(fresh)

    def _flush_envelopes(self) -> None:
        tables, put, delete = self.tables, self.txn.put, self.txn.delete
        for envelope_id, touched in sorted(self._touched.items()):
            fixed, old, new = touched.fixed, touched.old, touched.new
            if new is old:
                continue
            key = U64.pack(envelope_id)
            put(key, pack_envelope(touched.octets, new), db=tables.envelope)
            if old is None:
                put(U32_U64.pack(fixed.account_id, envelope_id), b"", db=tables.by_account)
                put(address_prefix(fixed.address) + key, b"", db=tables.by_address)
            elif old.status in QUEUE_STATUSES:
                self.destinations.depart(fixed.destination)
                old_key = queue_key(
                    fixed.destination, fixed.lane, fixed.flow, old.due_unix_ms, envelope_id
                )
                delete(old_key, db=tables.queue)
            elif old.status is Status.PAUSED:
                delete(
                    PAUSED.pack(fixed.account_id, old.release_day, envelope_id), db=tables.paused
                )
            if new.status in QUEUE_STATUSES:
                self._put_queue_row(fixed, new)
            elif new.status is Status.PAUSED:
                put(
                    PAUSED.pack(fixed.account_id, new.release_day, envelope_id),
                    b"",
                    db=tables.paused,
                )
            else:
                self._references[fixed.content_id] = self._references.get(fixed.content_id, 0) + 1
            self._flush_expiry(envelope_id, old, new)

    def _put_queue_row(self, fixed: EnvelopeFixed, state: EnvelopeState) -> None:
        name, due_unix_ms = fixed.destination, state.due_unix_ms
        key = queue_key(name, fixed.lane, fixed.flow, due_unix_ms, fixed.envelope_id)
        self.txn.put(key, b"", db=self.tables.queue)
        held_until_unix_ms = 0
        if self.holds.rows:
            record = self.destinations.record(name)
            hold = self.holds.of_flow(
                name,
                record.site if record is not None else "",
                fixed.account_id,
                fixed.campaign,
                self.now_unix_ms,
            )
            held_until_unix_ms = hold.end_unix_ms if hold is not None else 0
        is_held = held_until_unix_ms > due_unix_ms
        wake_unix_ms = max(due_unix_ms, held_until_unix_ms)
        self.destinations.arrive(name, wake_unix_ms, is_held=is_held)
        if wake_unix_ms <= self.now_unix_ms:
            self.due_destinations[name] = None

    def _flush_expiry(
        self, envelope_id: int, old: EnvelopeState | None, new: EnvelopeState
    ) -> None:
        is_final = new.status in FINAL_STATUSES
        if old is not None and (is_final or old.expires_unix_ms != new.expires_unix_ms):
            self.txn.delete(U64_U64.pack(old.expires_unix_ms, envelope_id), db=self.tables.expiry)
        if not is_final and (old is None or old.expires_unix_ms != new.expires_unix_ms):
            self.txn.put(U64_U64.pack(new.expires_unix_ms, envelope_id), b"", db=self.tables.expiry)

    def _flush_events(self) -> None:
        put, table = self.txn.put, self.tables.event
        for event in self.events:
            record = pack_record(event)
            self.marks.event_octets += len(record)
            put(U64.pack(event.seq), record, db=table)

    def _flush_references(self) -> None:
        """Take away the references of what became final; a content that has none is garbage."""
        fresh = 0
        for content_id, gone in sorted(self._references.items()):
            if gone == 0:
                continue
            try:
                fresh += drop_references(self.txn, self.tables, content_id, gone)
            except DamagedRecord:
                # Without its head nobody can use the octets, so nobody needs them.
                key = U64.pack(content_id)
                head = self.txn.pop(key, db=self.tables.content_head)
                self.note_damage("content_head", key, head or b"")
                fresh += drop_references(self.txn, self.tables, content_id, gone)
        self.marks.garbage += fresh
        if self.marks.garbage > GARBAGE_KEPT:
            # A little more than comes in, so that it cannot grow for ever.
            collect_garbage(self.txn, self.tables, self.marks, 2 * fresh + 8)
