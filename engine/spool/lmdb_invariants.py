"""The tables of the `lmdb:` adapter as `engine.spool.invariants` walks them, and what only it has.

One read transaction over the whole spool, so that it is one moment: for `doctor` and the tests.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from engine.spool import invariants, projections
from engine.spool.activity import RowKey, TimesKey, sum_of_times
from engine.spool.interface import AgendaRow
from engine.spool.invariants import EnvelopeCheck
from engine.spool.lmdb_contents import get_octets
from engine.spool.lmdb_counters import TIMES
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_holds import read_holds, site_of
from engine.spool.lmdb_layout import (
    ACCOUNT_TOTAL,
    ACTIVITY,
    META_ACTIVITY_FROM,
    META_CAMPAIGN_DAYS,
    META_MARKS,
    PAUSED,
    RELEASE,
    U32_U32,
    U64,
    U64_U64,
    Marks,
    StoredDestination,
    StoredFlow,
    StoredHead,
    campaign_key,
    campaign_recipient_key,
    split_agenda_key,
    split_counter_key,
    split_queue_key,
)
from engine.spool.projections import NO_COUNTS, CounterKey, Projection
from protocols.records import (
    FINAL_STATUSES,
    Campaign,
    DamagedRecord,
    DestinationRecord,
    Envelope,
    Event,
    Status,
    unpack_envelope,
    unpack_record,
)

if TYPE_CHECKING:
    import lmdb


def faults_of(store: Store, now_unix_ms: int) -> list[str]:
    """Return one line for each thing that does not hold; see `Spool.check_invariants`."""
    with store.environment.begin() as txn:
        tables = SpoolTables(store, txn)
        try:
            faults = invariants.faults_of(
                tables,
                now_unix_ms,
                lambda found: (_check_expiry(tables, found), _check_release(tables, found)),
            )
            faults += faults_of_wakes(tables)
            faults += _faults_of_sums(tables)
            faults += _faults_of_times(tables)
            faults += _faults_of_octets(tables)
        except DamagedRecord as error:
            return [f"a record is damaged: {error}"]
    return faults


class SpoolTables:
    """The tables at the moment of one transaction."""

    def __init__(self, store: Store, txn: "lmdb.Transaction[bytes]") -> None:
        self.store = store
        self.txn = txn
        self.marks = unpack_record(txn.get(META_MARKS, b"", db=store.tables.meta), Marks)
        self.holds = read_holds(txn, store.tables)

    def items(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        with self.txn.cursor(getattr(self.store.tables, table)) as cursor:
            yield from cursor

    def envelopes(self) -> Iterator[Envelope]:
        return (unpack_envelope(stored)[0] for _, stored in self.items("envelope"))

    def queue_rows(self) -> Iterator[tuple[str, int, int, int, int]]:
        return (split_queue_key(key) for key, _ in self.items("queue"))

    def paused_rows(self) -> Iterator[tuple[int, int, int]]:
        return (PAUSED.unpack(key) for key, _ in self.items("paused"))

    def agenda_rows(self) -> Iterator[AgendaRow]:
        for key, cause in self.items("agenda"):
            wake_unix_ms, destination = split_agenda_key(key)
            yield AgendaRow(wake_unix_ms, destination, cause.decode("ascii"))

    def held_until_unix_ms(self, envelope: Envelope, now_unix_ms: int) -> int:
        if not self.holds.rows:
            return 0
        site = site_of(self.txn, self.store.tables, envelope.fixed.destination)
        return self.holds.longest_unix_ms(envelope, site, now_unix_ms)

    def destination_record(self, destination: str) -> DestinationRecord | None:
        return self.remembered(destination).record

    def remembered(self, destination: str) -> StoredDestination:
        table = self.store.tables.destination
        stored = self.txn.get(destination.encode("ascii"), db=table)
        return StoredDestination() if stored is None else unpack_record(stored, StoredDestination)

    def counter_rows(self) -> Iterator[tuple[CounterKey, tuple[int, ...]]]:
        flows = self.store.tables.flow
        for key, stored in self.items("counter"):
            projection, account_id, period, flow, destination = split_counter_key(key)
            if projection == ACCOUNT_TOTAL:
                continue
            campaign = ""
            if flow:
                found = self.txn.get(flow.to_bytes(4, "big"), b"", db=flows)
                campaign = unpack_record(found, StoredFlow).campaign or ""
            counts = unpack_record(stored, tuple[int, ...])
            yield CounterKey(projection, account_id, period, campaign, destination), counts[:TIMES]

    def has_every_campaign_day(self) -> bool:
        return unpack_record(self.txn.get(META_CAMPAIGN_DAYS, b"", db=self.store.tables.meta), bool)

    def activity_rows(self) -> Iterator[tuple[RowKey, tuple[int, ...]]]:
        for key, stored in self.items("activity"):
            yield RowKey(*ACTIVITY.unpack(key)), unpack_record(stored, tuple[int, ...])

    def times_rows(self) -> Iterator[tuple[TimesKey, tuple[int, ...]]]:
        for key, stored in self.items("counter"):
            projection, account_id, day, _, destination = split_counter_key(key)
            times = unpack_record(stored, tuple[int, ...])[TIMES:]
            if times and projection == Projection.DAY_DESTINATION:
                yield TimesKey(account_id, day, destination), times

    def activity_from_seq(self) -> int:
        return unpack_record(self.txn.get(META_ACTIVITY_FROM, b"", db=self.store.tables.meta), int)

    def content_references(self) -> Iterator[tuple[int, int]]:
        for key, stored in self.items("content_head"):
            yield U64.unpack(key)[0], unpack_record(stored, StoredHead).references

    def campaign_rows(self) -> Iterator[Campaign]:
        return (unpack_record(stored, Campaign) for _, stored in self.items("campaign"))

    def recipient_rows(self) -> Iterator[tuple[int, int, int]]:
        for key, value in self.items("campaign_recipient"):
            yield *U32_U32.unpack_from(key), U64.unpack(value)[0]

    def recipient_row(self, campaign: Campaign, address: str) -> int | None:
        of_campaign = campaign_key(campaign.account_id, campaign.campaign_id)
        key = campaign_recipient_key(of_campaign, address)
        value = self.txn.get(key, db=self.store.tables.campaign_recipient)
        return None if value is None else U64.unpack(value)[0]

    def whole_log(self) -> Iterator[Event] | None:
        if self.marks.oldest_seq > 1:
            return None
        return (unpack_record(stored, Event) for _, stored in self.items("event"))


def _check_expiry(tables: SpoolTables, faults: list[str]) -> EnvelopeCheck:
    rows = Counter(U64_U64.unpack(key) for key, _ in tables.items("expiry"))
    while (envelope := (yield)) is not None:
        if envelope.state.status not in FINAL_STATUSES:
            rows[envelope.state.expires_unix_ms, envelope.fixed.envelope_id] -= 1
    for (expires_unix_ms, envelope_id), count in rows.items():
        if count:
            what = "has no row" if count < 0 else "has a row too many"
            faults.append(f"expiry: envelope {envelope_id} {what} at {expires_unix_ms}")


def _check_release(tables: SpoolTables, faults: list[str]) -> EnvelopeCheck:
    rows = {RELEASE.unpack(key) for key, _ in tables.items("release")}
    while (envelope := (yield)) is not None:
        fixed, state = envelope.fixed, envelope.state
        row = (state.due_unix_ms, fixed.account_id, state.release_day)
        if state.status is Status.PAUSED and row not in rows:
            faults.append(f"release: no row leads to envelope {fixed.envelope_id}")


def faults_of_wakes(tables: SpoolTables) -> Iterator[str]:
    for row in tables.agenda_rows():
        if tables.remembered(row.destination).wake_unix_ms != row.wake_unix_ms:
            yield f"destination: {row.destination} does not know its agenda row"


def _faults_of_sums(tables: SpoolTables) -> Iterator[str]:
    marks, total = tables.marks, NO_COUNTS
    by_account: dict[int, tuple[int, ...]] = {}
    for key, stored in tables.items("counter"):
        projection, account_id, *_ = split_counter_key(key)
        counts = unpack_record(stored, tuple[int, ...])
        if projection == ACCOUNT_TOTAL:
            total = projections.add_counts(total, counts)
            by_account[account_id] = projections.add_counts(
                counts, by_account.get(account_id, NO_COUNTS)
            )
        elif projection == Projection.HOUR:
            by_account[account_id] = projections.add_counts(
                by_account.get(account_id, NO_COUNTS), (-each for each in counts)
            )
    if total != marks.counts:
        yield f"meta: the sum of all is {marks.counts}, the accounts' {total}"
    for account_id, rest in by_account.items():
        if any(rest):
            yield f"counter: the hours of account {account_id} are not its total"
    octets = sum(len(stored) for _, stored in tables.items("event"))
    if octets != marks.event_octets:
        yield f"meta: the log is said to have {marks.event_octets} octets, it has {octets}"
    if (garbage := sum(1 for _ in tables.items("garbage"))) != marks.garbage:
        yield f"meta: {marks.garbage} contents are said to be garbage, {garbage} are"


def _faults_of_times(tables: SpoolTables) -> Iterator[str]:
    days: dict[tuple[int, str], list[tuple[int, ...]]] = {}
    for day in tables.times_rows():
        days.setdefault((day[0].account_id, day[0].destination), []).append(day[1])
    for key, stored in tables.items("counter"):
        projection, account_id, _, _, destination = split_counter_key(key)
        if projection == Projection.DESTINATION:
            told = unpack_record(stored, tuple[int, ...])[TIMES:]
            known = days.pop((account_id, destination), None)
            if told != (sum_of_times(known) if known else ()):
                yield f"counter: {destination} of account {account_id} has not its days' times"
    yield from (f"counter: {place} has times of days only" for place in days)


def _faults_of_octets(tables: SpoolTables) -> Iterator[str]:
    chunked = {U64.unpack_from(key)[0] for key, _ in tables.items("content")}
    for key, stored in tables.items("content_head"):
        content_id = U64.unpack(key)[0]
        try:
            get_octets(
                tables.txn, tables.store.tables, content_id, unpack_record(stored, StoredHead)
            )
        except DamagedRecord as error:
            yield f"content: {error}"
        chunked.discard(content_id)
    chunked -= {U64.unpack(key)[0] for key, _ in tables.items("garbage")}
    yield from (f"content: {each} has octets but no head" for each in chunked)
