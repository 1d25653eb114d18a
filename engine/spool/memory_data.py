"""The tables of the `memory:` adapter: what a disk would keep, as plain dictionaries.

The tables are those of the layout on disk, one for one, each in the form that is easiest to see
through; nothing here is fast. The methods are the steps that several calls share. Times are
arguments, and nothing here is told to listeners: that is `engine.spool.memory`.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from msgspec import structs

from engine.spool import agenda, projections, suppressing, transitions
from engine.spool.activity import (
    ActivityTally,
    RowKey,
    TimesKey,
    is_kept,
    with_counts,
    with_times,
)
from engine.spool.fair_turns import earliest_due_unix_ms
from engine.spool.hold_calls import Hold
from engine.spool.holds import HeldHere, Holds, earliest_wake, recorded_waits
from engine.spool.interface import Accepted, AgendaRow, Content, PassedOver
from engine.spool.projections import CounterKey
from protocols.records import (
    FINAL_STATUSES,
    Account,
    ApiKey,
    Campaign,
    DestinationRecord,
    Envelope,
    EnvelopeFixed,
    EnvelopeState,
    Event,
    Status,
    Suppression,
    pack_record,
)

# (lane, flow, due_unix_ms, envelope_id)
QueueRow = tuple[int, int, int, int]
# (account_id, campaign_id, address as it is compared)
RecipientRow = tuple[int, int, str]


@dataclass(slots=True)
class MemoryData:
    """Everything that outlives a crash. Made fresh, it is an empty spool."""

    stream_id: str = ""
    start_count: int = 0
    time_high_unix_ms: int = 0
    id_high: int = 0
    content_id_high: int = 0
    head_seq: int = 0
    oldest_seq: int = 1
    event_bytes: int = 0
    contents: dict[int, Content] = field(default_factory=dict)
    references: dict[int, int] = field(default_factory=dict)
    fixed: dict[int, EnvelopeFixed] = field(default_factory=dict)
    states: dict[int, EnvelopeState] = field(default_factory=dict)
    queue: dict[str, list[QueueRow]] = field(default_factory=dict)
    agenda: dict[str, AgendaRow] = field(default_factory=dict)
    destinations: dict[str, DestinationRecord] = field(default_factory=dict)
    paused: set[tuple[int, int, int]] = field(default_factory=set)
    usage: dict[tuple[int, int], int] = field(default_factory=dict)
    events: dict[int, Event] = field(default_factory=dict)
    handed_over: dict[int, int] = field(default_factory=dict)
    flows: dict[tuple[int, str | None], int] = field(default_factory=dict)
    requests: dict[tuple[int, bytes], tuple[int, Accepted]] = field(default_factory=dict)
    counters: dict[CounterKey, tuple[int, ...]] = field(default_factory=dict)
    activity: dict[RowKey, tuple[int, ...]] = field(default_factory=dict)
    times: dict[TimesKey, tuple[int, ...]] = field(default_factory=dict)
    accounts: dict[int, Account] = field(default_factory=dict)
    api_keys: dict[str, ApiKey] = field(default_factory=dict)
    accounts_version: int = 0
    suppressions: dict[tuple[int, str], Suppression] = field(default_factory=dict)
    holds: Holds = field(default_factory=Holds)
    hold_id_high: int = 0
    notes: dict[str, bytes] = field(default_factory=dict)
    campaigns: dict[tuple[int, int], Campaign] = field(default_factory=dict)
    campaign_id_high: int = 0
    campaign_recipients: dict[RecipientRow, int] = field(default_factory=dict)

    def envelope(self, envelope_id: int) -> Envelope | None:
        state = self.states.get(envelope_id)
        return None if state is None else Envelope(self.fixed[envelope_id], state)

    def flow_of(self, account_id: int, campaign: str | None) -> int:
        return self.flows.setdefault((account_id, campaign), len(self.flows) + 1)

    def account_name(self, account_id: int) -> str:
        account = self.accounts.get(account_id)
        return account.name if account is not None else str(account_id)

    def next_place(self) -> transitions.Place:
        return transitions.Place(self.head_seq + 1, self.start_count)

    def append_event(self, event: Event) -> None:
        assert event.seq == self.head_seq + 1, event
        self.head_seq = event.seq
        self.events[event.seq] = event
        self.event_bytes += len(pack_record(event))

    def trim_oldest_event(self) -> None:
        self.event_bytes -= len(pack_record(self.events.pop(self.oldest_seq)))
        self.oldest_seq += 1

    def put_state(self, fixed: EnvelopeFixed, state: EnvelopeState, now_unix_ms: int) -> None:
        """Store a state and make the rows that lead to the envelope agree with it."""
        self._remove_rows(fixed)
        self.fixed[fixed.envelope_id] = fixed
        self.states[fixed.envelope_id] = state
        if state.status in transitions.QUEUE_STATUSES:
            row = (fixed.lane, fixed.flow, state.due_unix_ms, fixed.envelope_id)
            insort(self.queue.setdefault(fixed.destination, []), row)
            wake_unix_ms = self.wake_of(fixed, state, now_unix_ms)
            self.agenda[fixed.destination] = agenda.row_after_arrival(
                fixed.destination,
                wake_unix_ms,
                self.agenda.get(fixed.destination),
                self.destinations.get(fixed.destination),
                is_held=wake_unix_ms > state.due_unix_ms,
            )
        elif fixed.destination not in self.queue:
            self.agenda.pop(fixed.destination, None)
        if state.status is Status.PAUSED:
            self.paused.add((fixed.account_id, state.release_day, fixed.envelope_id))
        if state.status in FINAL_STATUSES:
            self.drop_reference(fixed.content_id)

    def _remove_rows(self, fixed: EnvelopeFixed) -> None:
        old = self.states.get(fixed.envelope_id)
        if old is None:
            return
        self.paused.discard((fixed.account_id, old.release_day, fixed.envelope_id))
        if old.status in transitions.QUEUE_STATUSES:
            rows = self.queue[fixed.destination]
            rows.remove((fixed.lane, fixed.flow, old.due_unix_ms, fixed.envelope_id))
            if not rows:
                del self.queue[fixed.destination]

    def drop_reference(self, content_id: int) -> None:
        """Forget a content with the last of those who need it."""
        self.references[content_id] -= 1
        if self.references[content_id] == 0:
            del self.references[content_id], self.contents[content_id]

    def suppression(self, account_id: int, address: str, now_unix_ms: int) -> Suppression | None:
        """Return what suppresses an address now."""
        found = self.suppressions.get((account_id, address))
        return None if found is None or suppressing.is_over(found, now_unix_ms) else found

    def rest(self, destination: str, record: DestinationRecord, now_unix_ms: int) -> None:
        """Store what a resting actor remembers, and the truth about when to look again."""
        # A copy, as on a disk: actors go on writing into what they have handed in.
        self.destinations[destination] = structs.replace(record)
        self.reconsider(destination, now_unix_ms)

    def reconsider(self, destination: str, now_unix_ms: int) -> None:
        """Make the agenda row tell the truth."""
        record = self.destinations.get(destination, DestinationRecord())
        rows, held = (
            self.rows_of(destination),
            self.held_here(destination, now_unix_ms, recorded_waits(record.waits, now_unix_ms)),
        )
        if held is None:
            earliest, cause = earliest_due_unix_ms(rows), ""
        else:
            earliest, cause = earliest_wake(rows, held, now_unix_ms)
        row = agenda.row_at_rest(destination, earliest, record, cause=cause)
        if row is None:
            self.agenda.pop(destination, None)
        else:
            self.agenda[destination] = row

    # Holds.

    def site_of(self, destination: str) -> str:
        record = self.destinations.get(destination)
        return record.site if record is not None else ""

    def wake_of(self, fixed: EnvelopeFixed, state: EnvelopeState, now_unix_ms: int) -> int:
        """Return when a mail may go, as far as holds of whole flows have a say."""
        hold = self.holds.of_flow(
            fixed.destination,
            self.site_of(fixed.destination),
            fixed.account_id,
            fixed.campaign,
            now_unix_ms,
        )
        return max(state.due_unix_ms, hold.end_unix_ms if hold is not None else 0)

    def held_here(
        self, destination: str, now_unix_ms: int, waits: PassedOver | None
    ) -> HeldHere | None:
        if not self.holds.rows and waits is None:
            return None
        named = {number: name for name, number in self.flows.items()}
        site = self.site_of(destination)
        return self.holds.here(destination, site, now_unix_ms, named.get, self.envelope, waits)

    def names_at_places_of(self, hold: Hold) -> list[str]:
        """Return the destinations in the agenda that a hold may concern."""
        wanted = hold.wanted
        return [name for name in self.agenda if wanted.fits_place(name, self.site_of(name))]

    def held_until_unix_ms(self, envelope: Envelope, now_unix_ms: int) -> int:
        site = self.site_of(envelope.fixed.destination)
        return self.holds.longest_unix_ms(envelope, site, now_unix_ms)

    def add_to_counters(self, tally: projections.Tally) -> None:
        for key, delta in tally.deltas().items():
            self.counters[key] = projections.add_counts(
                self.counters.get(key, projections.NO_COUNTS), delta
            )

    def add_to_activity(self, tally: ActivityTally) -> None:
        for key, counts in tally.counts().items():
            self.activity[key] = with_counts(self.activity.get(key), counts)
        for key, times in tally.day_times().items():
            self.activity[key] = with_times(self.activity.get(key, ()), times)
        for place, times in tally.times.items():
            name = TimesKey(*place)
            self.times[name] = with_times(self.times.get(name, ()), times)

    def remove_old_minutes(self, now_unix_ms: int) -> None:
        for key in [each for each in self.activity if not is_kept(each, now_unix_ms)]:
            del self.activity[key]

    def rows_of(self, destination: str) -> "MemoryRows":
        return MemoryRows(self.queue.get(destination, []))

    # The tables as `engine.spool.invariants` walks them.

    def envelopes(self, wanted: Callable[[EnvelopeState], bool] | None = None) -> list[Envelope]:
        """Return the envelopes, or those whose state is `wanted`, oldest first."""
        ids = [each for each, state in self.states.items() if wanted is None or wanted(state)]
        return [Envelope(self.fixed[each], self.states[each]) for each in sorted(ids)]

    def queue_rows(self) -> Iterator[tuple[str, int, int, int, int]]:
        return ((name, *row) for name in sorted(self.queue) for row in self.queue[name])

    def paused_rows(self) -> Iterator[tuple[int, int, int]]:
        return iter(sorted(self.paused))

    def agenda_rows(self) -> Iterator[AgendaRow]:
        return iter(self.agenda.values())

    def destination_record(self, destination: str) -> DestinationRecord | None:
        return self.destinations.get(destination)

    def counter_rows(self) -> Iterator[tuple[CounterKey, tuple[int, ...]]]:
        return iter(self.counters.items())

    def has_every_campaign_day(self) -> bool:
        return True

    def activity_rows(self) -> Iterator[tuple[RowKey, tuple[int, ...]]]:
        return iter(self.activity.items())

    def times_rows(self) -> Iterator[tuple[TimesKey, tuple[int, ...]]]:
        return iter(self.times.items())

    def activity_from_seq(self) -> int:
        return 1

    def content_references(self) -> Iterator[tuple[int, int]]:
        return iter(self.references.items())

    def campaign_rows(self) -> Iterator[Campaign]:
        return iter(self.campaigns.values())

    def recipient_rows(self) -> Iterator[tuple[int, int, int]]:
        for (account_id, campaign_id, _), envelope_id in self.campaign_recipients.items():
            yield account_id, campaign_id, envelope_id

    def recipient_row(self, campaign: Campaign, address: str) -> int | None:
        key = (campaign.account_id, campaign.campaign_id, address)
        return self.campaign_recipients.get(key)

    def whole_log(self) -> Iterator[Event] | None:
        return iter(self.events.values()) if self.oldest_seq == 1 else None


_named: dict[str, MemoryData] = {}


def data_named(name: str) -> MemoryData:
    """Return the data of that name, the same again in this process; fresh data for "".

    A name stands in for the directory on a disk: it is how a restarted engine finds its mail.
    """
    return _named.setdefault(name, MemoryData()) if name else MemoryData()


@dataclass(frozen=True, slots=True)
class MemoryRows:
    """One destination's queue rows, in the form `engine.spool.fair_turns` asks for."""

    rows: list[QueueRow]

    def first_flow(self, lane: int, flow_min: int) -> int | None:
        place = bisect_left(self.rows, (lane, flow_min, -1, -1))
        if place < len(self.rows) and self.rows[place][0] == lane:
            return self.rows[place][1]
        return None

    def flow_rows(self, lane: int, flow: int, after: tuple[int, int]) -> Iterator[tuple[int, int]]:
        place = bisect_right(self.rows, (lane, flow, *after))
        while place < len(self.rows) and self.rows[place][:2] == (lane, flow):
            yield self.rows[place][2:]
            place += 1

    def flow_rows_from_behind(self, lane: int, flow: int) -> Iterator[int]:
        place = bisect_left(self.rows, (lane, flow + 1, -1, -1)) - 1
        while place >= 0 and self.rows[place][:2] == (lane, flow):
            yield self.rows[place][3]
            place -= 1
