"""What must hold between the tables of a spool, checked the same way for every adapter.

A walk over everything, in the order of the keys. It finds faults and names them; it repairs
nothing. The rules: each open envelope has exactly its row and each row its envelope; a destination
with queue rows has an agenda row that may be too early, never too late; the counters say what the
envelopes say, and what the log says if it is whole; a content is kept exactly while it is needed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from engine.spool import activity, projections
from engine.spool.activity import RowKey, TimesKey
from engine.spool.interface import AgendaRow
from engine.spool.projections import CounterKey, Projection
from engine.spool.transitions import QUEUE_STATUSES
from protocols.records import (
    FINAL_STATUSES,
    STATUSES,
    Campaign,
    CampaignState,
    DestinationRecord,
    Envelope,
    Event,
    Status,
    suppressed_address,
)

DELIVERED_INDEX = STATUSES.index(Status.DELIVERED)
OPEN_INDEXES = [STATUSES.index(each) for each in STATUSES if each not in FINAL_STATUSES]


class Tables(Protocol):
    """A spool's tables at one moment."""

    def envelopes(self) -> Iterable[Envelope]: ...

    def queue_rows(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Return (destination, lane, flow, due_unix_ms, envelope_id) of each queue row."""
        ...

    def paused_rows(self) -> Iterator[tuple[int, int, int]]:
        """Return (account_id, day, envelope_id) of each paused row."""
        ...

    def agenda_rows(self) -> Iterator[AgendaRow]: ...

    def held_until_unix_ms(self, envelope: Envelope, now_unix_ms: int) -> int:
        """Return until when holds may keep the destination of a mail at rest, 0 if none does."""
        ...

    def destination_record(self, destination: str) -> DestinationRecord | None: ...

    def counter_rows(self) -> Iterator[tuple[CounterKey, tuple[int, ...]]]: ...

    def has_every_campaign_day(self) -> bool:
        """Say whether campaigns are counted by day from the spool's first mail on."""
        ...

    def activity_rows(self) -> Iterator[tuple[RowKey, tuple[int, ...]]]: ...

    def times_rows(self) -> Iterator[tuple[TimesKey, tuple[int, ...]]]:
        """Return the times to delivery, where there are any."""
        ...

    def activity_from_seq(self) -> int:
        """Return the first place in the log that activity and times tell of."""
        ...

    def content_references(self) -> Iterator[tuple[int, int]]:
        """Return (content_id, references) of each content that is not garbage."""
        ...

    def campaign_rows(self) -> Iterable[Campaign]: ...

    def recipient_rows(self) -> Iterator[tuple[int, int, int]]:
        """Return (account_id, campaign_id, envelope_id) of each recipient of a campaign."""
        ...

    def recipient_row(self, campaign: Campaign, address: str) -> int | None:
        """Return the envelope of an address in a campaign."""
        ...

    def whole_log(self) -> Iterator[Event] | None:
        """Return all events from the first on, or None if the oldest were trimmed."""
        ...


def faults_of(tables: Tables, now_unix_ms: int) -> list[str]:
    """Return one line for each fault; empty if everything holds."""
    faults: list[str] = []
    counters = dict(tables.counter_rows())
    whole = set(Projection)
    if not tables.has_every_campaign_day():
        whole.remove(Projection.CAMPAIGN_DAY)
    faults += _faults_of_rows(tables)
    faults += _faults_of_agenda(tables, now_unix_ms)
    faults += _faults_of_contents(tables)
    faults += _faults_of_campaigns(tables)
    faults += _faults_of_counters(tables, counters)
    faults += _faults_of_sums(counters, whole)
    faults += _faults_of_log(tables, counters, whole)
    faults += _faults_of_activity(tables, counters, now_unix_ms)
    return faults


def _faults_of_rows(tables: Tables) -> Iterator[str]:
    queue: dict[int, tuple[str, int, int, int]] = {}
    for destination, lane, flow, due_unix_ms, envelope_id in tables.queue_rows():
        if envelope_id in queue:
            yield f"queue: envelope {envelope_id} has two rows"
        queue[envelope_id] = (destination, lane, flow, due_unix_ms)
    paused = {envelope_id: (account, day) for account, day, envelope_id in tables.paused_rows()}
    for envelope in tables.envelopes():
        fixed, state = envelope.fixed, envelope.state
        row = queue.pop(fixed.envelope_id, None)
        due_row = (fixed.destination, fixed.lane, fixed.flow, state.due_unix_ms)
        if row != (due_row if state.status in QUEUE_STATUSES else None):
            yield f"queue: envelope {fixed.envelope_id} ({state.status}) has row {row}"
        paused_row = paused.pop(fixed.envelope_id, None)
        release_row = (fixed.account_id, state.release_day)
        if paused_row != (release_row if state.status is Status.PAUSED else None):
            yield f"paused: envelope {fixed.envelope_id} ({state.status}) has row {paused_row}"
        if state.status in FINAL_STATUSES and (state.due_unix_ms or not state.finished_unix_ms):
            yield f"envelope: {fixed.envelope_id} is final, but due or without its end"
    yield from (f"queue: row of envelope {each}, which is not there" for each in queue)
    yield from (f"paused: row of envelope {each}, which is not there" for each in paused)


def _faults_of_agenda(tables: Tables, now_unix_ms: int) -> Iterator[str]:
    held = {
        envelope.fixed.envelope_id: until_unix_ms
        for envelope in tables.envelopes()
        if envelope.state.status in QUEUE_STATUSES
        and (until_unix_ms := _kept_until_unix_ms(tables, envelope, now_unix_ms))
    }
    earliest: dict[str, int] = {}
    for destination, _, _, due_unix_ms, envelope_id in tables.queue_rows():
        wake_unix_ms = max(due_unix_ms, held.get(envelope_id, 0))
        earliest[destination] = min(wake_unix_ms, earliest.get(destination, wake_unix_ms))
    rows = Counter(row.destination for row in tables.agenda_rows())
    for row in tables.agenda_rows():
        if rows[row.destination] > 1:
            yield f"agenda: {row.destination} has {rows[row.destination]} rows"
        due = earliest.pop(row.destination, None)
        if due is None:
            yield f"agenda: {row.destination} has a row but no mail in the queue"
            continue
        record = tables.destination_record(row.destination)
        not_before = record.not_before_unix_ms if record is not None else 0
        if row.wake_unix_ms > max(due, not_before):
            late_ms = row.wake_unix_ms - max(due, not_before)
            yield f"agenda: {row.destination} is woken {late_ms} ms too late"
    yield from (f"agenda: {each} has mail in the queue but no row" for each in earliest)


def _kept_until_unix_ms(tables: Tables, envelope: Envelope, now_unix_ms: int) -> int:
    """Return until when a hold or its account's limit may keep a mail back, 0 if neither does."""
    fixed = envelope.fixed
    record = tables.destination_record(fixed.destination)
    waits = record.waits if record is not None else ()
    return max(
        (
            tables.held_until_unix_ms(envelope, now_unix_ms),
            *(
                wait.until_unix_ms
                for wait in waits
                if wait.concerns(fixed.account_id, fixed.campaign)
            ),
        )
    )


def _faults_of_contents(tables: Tables) -> Iterator[str]:
    needed = Counter(
        envelope.fixed.content_id
        for envelope in tables.envelopes()
        if envelope.state.status not in FINAL_STATUSES
    )
    needed.update(
        each.content_id for each in tables.campaign_rows() if each.state is CampaignState.OPEN
    )
    for content_id, references in tables.content_references():
        if needed.pop(content_id, 0) != references:
            yield f"content_head: {content_id} counts {references} references, which is wrong"
    yield from (f"content_head: {each} is needed, but not there" for each in needed)


def _faults_of_campaigns(tables: Tables) -> Iterator[str]:
    """Is each envelope of a campaign the one of its address there? Others may be purged already."""
    campaigns = {each.content_id: each for each in tables.campaign_rows()}
    names = [(each.account_id, each.name) for each in campaigns.values()]
    yield from (f"campaign: {each} is there twice" for each, n in Counter(names).items() if n > 1)
    found = {envelope_id: row for *row, envelope_id in tables.recipient_rows()}
    for envelope in tables.envelopes():
        fixed = envelope.fixed
        campaign = campaigns.get(fixed.content_id)
        row = found.get(fixed.envelope_id)
        if campaign is None:
            if row is not None:
                yield f"campaign_recipient: {fixed.envelope_id} is of no campaign, but has a row"
            continue
        if row != [campaign.account_id, campaign.campaign_id]:
            yield f"campaign_recipient: envelope {fixed.envelope_id} has row {row}"
        address = suppressed_address(fixed.recipient, fixed.destination)
        if tables.recipient_row(campaign, address) != fixed.envelope_id:
            yield f"campaign_recipient: {address} does not lead to {fixed.envelope_id}"


def _faults_of_counters(
    tables: Tables, counters: dict[CounterKey, tuple[int, ...]]
) -> Iterator[str]:
    # Finished envelopes are purged some day and stay in the counters: only open ones are exact.
    tally = projections.Tally()
    for envelope in tables.envelopes():
        fixed, state = envelope.fixed, envelope.state
        if state.status not in FINAL_STATUSES:
            tally.move(
                fixed.account_id,
                fixed.campaign,
                fixed.destination,
                fixed.accepted_unix_ms,
                None,
                state.status,
            )
    open_counts = tally.deltas()
    for key in open_counts.keys() | counters.keys():
        counted = counters.get(key, projections.NO_COUNTS)
        found = open_counts.get(key, projections.NO_COUNTS)
        if any(counted[index] != found[index] for index in OPEN_INDEXES) or min(counted) < 0:
            yield f"counter: {key} says {counted}, the envelopes {tuple(found)}"


def _faults_of_sums(
    counters: dict[CounterKey, tuple[int, ...]], whole: Collection[Projection]
) -> Iterator[str]:
    totals = dict.fromkeys(whole, projections.NO_COUNTS)
    for key, counted in counters.items():
        projection = Projection(key.projection)
        if projection in whole:
            totals[projection] = projections.add_counts(totals[projection], counted)
    if len(set(totals.values())) > 1:
        yield f"counter: the projections do not agree: {totals}"


def _faults_of_log(
    tables: Tables,
    counters: dict[CounterKey, tuple[int, ...]],
    whole: Collection[Projection],
) -> Iterator[str]:
    log = tables.whole_log()
    if log is None:
        return
    events = list(log)
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        yield "event: the numbers have a hole"
    finals = Counter(
        event.envelope_id
        for event in events
        if event.kind == "status" and event.status in FINAL_STATUSES
    )
    yield from (
        f"event: envelope {each} has {n} final events" for each, n in finals.items() if n > 1
    )
    last = {event.envelope_id: event for event in events if event.kind == "status"}
    for envelope in tables.envelopes():
        event = last.get(envelope.fixed.envelope_id)
        if event is None or event.status is not envelope.state.status:
            yield f"event: the last of envelope {envelope.fixed.envelope_id} tells another status"
    told = projections.rebuild(events)
    if any(
        told.get(key) != counters.get(key)
        for key in told.keys() | counters.keys()
        if key.projection in whole
    ):
        yield "counter: a rebuild from the log gives other counts"


def _faults_of_activity(
    tables: Tables, counters: dict[CounterKey, tuple[int, ...]], now_unix_ms: int
) -> Iterator[str]:
    first, times = tables.activity_from_seq(), dict(tables.times_rows())
    if first == 1:
        # With every delivery since the beginning in both.
        for key, counts in counters.items():
            if key.projection == Projection.DAY_DESTINATION:
                place = TimesKey(key.account_id, key.period, key.destination)
                counted = activity.count_of(times.get(place, ()))
                if counted != counts[DELIVERED_INDEX]:
                    yield f"counter: {place} has {counted} times to delivery, delivered {counts}"
    log = tables.whole_log()
    if log is None:
        return
    told, told_times = activity.rebuild(log, first)
    if told_times != times:
        yield "counter: a rebuild from the log gives other times to delivery"
    rows = dict(tables.activity_rows())
    for row_key in sorted(told.keys() | rows.keys()):
        if activity.is_kept(row_key, now_unix_ms) and told.get(row_key) != rows.get(row_key):
            yield f"activity: {row_key} says {rows.get(row_key)}, the log {told.get(row_key)}"
