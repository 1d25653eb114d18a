"""What must hold between the tables of a spool, checked the same way for every adapter.

A walk over everything, in the order of the keys, and one over the envelopes for all checks, because
to read a million of them costs more than any check does with them. It finds faults and names them;
it repairs nothing. The rules: each open envelope has exactly its row and each row its envelope; a
destination with queue rows has an agenda row that may be too early, never too late; the counters
say what the envelopes say, and what the log says if it is whole; a content is kept exactly while it
is needed.
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
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
    FlowWait,
    Status,
    suppressed_address,
)

DELIVERED_INDEX = STATUSES.index(Status.DELIVERED)
OPEN_INDEXES = [STATUSES.index(each) for each in STATUSES if each not in FINAL_STATUSES]


# One check of envelopes: it is sent each of them, then None, and adds what it finds to the list
# that it was made with.
EnvelopeCheck = Generator[None, Envelope | None, None]


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


def faults_of(
    tables: Tables,
    now_unix_ms: int,
    more: Callable[[list[str]], Iterable[EnvelopeCheck]] = lambda _: (),
) -> list[str]:
    """Return one line for each fault; empty if everything holds.

    `more` are an adapter's own checks of envelopes, which add to the list that they are given.
    """
    faults: list[str] = []
    counters = dict(tables.counter_rows())
    whole = set(Projection)
    if not tables.has_every_campaign_day():
        whole.remove(Projection.CAMPAIGN_DAY)
    _walk(
        tables.envelopes(),
        [
            _check_rows(tables, faults),
            _check_agenda(tables, now_unix_ms, faults),
            _check_contents(tables, faults),
            _check_campaigns(tables, faults),
            _check_counters(counters, faults),
            _check_log(tables, counters, whole, faults),
            *more(faults),
        ],
    )
    faults += _faults_of_sums(counters, whole)
    faults += _faults_of_activity(tables, counters, now_unix_ms)
    return faults


def _walk(envelopes: Iterable[Envelope], checks: Collection[EnvelopeCheck]) -> None:
    for check in checks:
        next(check)
    for envelope in envelopes:
        for check in checks:
            check.send(envelope)
    for check in checks:
        try:
            check.send(None)
        except StopIteration:
            continue
        raise AssertionError("a check ends when there are no more envelopes")


def _check_rows(tables: Tables, faults: list[str]) -> EnvelopeCheck:
    queue: dict[int, tuple[str, int, int, int]] = {}
    for destination, lane, flow, due_unix_ms, envelope_id in tables.queue_rows():
        if envelope_id in queue:
            faults.append(f"queue: envelope {envelope_id} has two rows")
        queue[envelope_id] = (destination, lane, flow, due_unix_ms)
    paused = {envelope_id: (account, day) for account, day, envelope_id in tables.paused_rows()}
    while (envelope := (yield)) is not None:
        fixed, state = envelope.fixed, envelope.state
        row = queue.pop(fixed.envelope_id, None)
        due_row = (fixed.destination, fixed.lane, fixed.flow, state.due_unix_ms)
        if row != (due_row if state.status in QUEUE_STATUSES else None):
            faults.append(f"queue: envelope {fixed.envelope_id} ({state.status}) has row {row}")
        paused_row = paused.pop(fixed.envelope_id, None)
        release_row = (fixed.account_id, state.release_day)
        if paused_row != (release_row if state.status is Status.PAUSED else None):
            what = f"envelope {fixed.envelope_id} ({state.status}) has row {paused_row}"
            faults.append(f"paused: {what}")
        if state.status in FINAL_STATUSES and (state.due_unix_ms or not state.finished_unix_ms):
            faults.append(f"envelope: {fixed.envelope_id} is final, but due or without its end")
    faults += (f"queue: row of envelope {each}, which is not there" for each in queue)
    faults += (f"paused: row of envelope {each}, which is not there" for each in paused)


def _check_agenda(tables: Tables, now_unix_ms: int, faults: list[str]) -> EnvelopeCheck:
    held: dict[int, int] = {}
    waits_at: dict[str, tuple[FlowWait, ...]] = {}
    while (envelope := (yield)) is not None:
        if envelope.state.status not in QUEUE_STATUSES:
            continue
        destination = envelope.fixed.destination
        waits = waits_at.get(destination)
        if waits is None:
            record = tables.destination_record(destination)
            waits = waits_at[destination] = record.waits if record is not None else ()
        until_unix_ms = _kept_until_unix_ms(tables, envelope, waits, now_unix_ms)
        if until_unix_ms:
            held[envelope.fixed.envelope_id] = until_unix_ms
    faults += _faults_of_agenda(tables, held)


def _faults_of_agenda(tables: Tables, held: dict[int, int]) -> Iterator[str]:
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


def _kept_until_unix_ms(
    tables: Tables, envelope: Envelope, waits: Iterable[FlowWait], now_unix_ms: int
) -> int:
    """Return until when a hold or its account's limit may keep a mail back, 0 if neither does."""
    fixed = envelope.fixed
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


def _check_contents(tables: Tables, faults: list[str]) -> EnvelopeCheck:
    needed: Counter[int] = Counter()
    while (envelope := (yield)) is not None:
        if envelope.state.status not in FINAL_STATUSES:
            needed[envelope.fixed.content_id] += 1
    needed.update(
        each.content_id for each in tables.campaign_rows() if each.state is CampaignState.OPEN
    )
    for content_id, references in tables.content_references():
        if needed.pop(content_id, 0) != references:
            what = f"{content_id} counts {references} references, which is wrong"
            faults.append(f"content_head: {what}")
    faults += (f"content_head: {each} is needed, but not there" for each in needed)


def _check_campaigns(tables: Tables, faults: list[str]) -> EnvelopeCheck:
    """Is each envelope of a campaign the one of its address there? Others may be purged already."""
    campaigns = {each.content_id: each for each in tables.campaign_rows()}
    names = [(each.account_id, each.name) for each in campaigns.values()]
    faults += (f"campaign: {each} is there twice" for each, n in Counter(names).items() if n > 1)
    found = {envelope_id: row for *row, envelope_id in tables.recipient_rows()}
    while (envelope := (yield)) is not None:
        fixed = envelope.fixed
        campaign = campaigns.get(fixed.content_id)
        row = found.get(fixed.envelope_id)
        if campaign is None:
            if row is not None:
                what = f"{fixed.envelope_id} is of no campaign, but has a row"
                faults.append(f"campaign_recipient: {what}")
            continue
        if row != [campaign.account_id, campaign.campaign_id]:
            faults.append(f"campaign_recipient: envelope {fixed.envelope_id} has row {row}")
        address = suppressed_address(fixed.recipient, fixed.destination)
        if tables.recipient_row(campaign, address) != fixed.envelope_id:
            faults.append(f"campaign_recipient: {address} does not lead to {fixed.envelope_id}")


def _check_counters(
    counters: dict[CounterKey, tuple[int, ...]], faults: list[str]
) -> EnvelopeCheck:
    # Finished envelopes are purged some day and stay in the counters: only open ones are exact.
    tally = projections.Tally()
    while (envelope := (yield)) is not None:
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
            faults.append(f"counter: {key} says {counted}, the envelopes {tuple(found)}")


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


def _check_log(
    tables: Tables,
    counters: dict[CounterKey, tuple[int, ...]],
    whole: Collection[Projection],
    faults: list[str],
) -> EnvelopeCheck:
    log = tables.whole_log()
    last: dict[int, Status] = {}
    if log is not None:
        told = projections.rebuild(_read_through(log, last, faults))
        if any(
            told.get(key) != counters.get(key)
            for key in told.keys() | counters.keys()
            if key.projection in whole
        ):
            faults.append("counter: a rebuild from the log gives other counts")
    while (envelope := (yield)) is not None:
        envelope_id = envelope.fixed.envelope_id
        if log is not None and last.get(envelope_id) is not envelope.state.status:
            faults.append(f"event: the last of envelope {envelope_id} tells another status")


def _read_through(
    log: Iterable[Event], last: dict[int, Status], faults: list[str]
) -> Iterator[Event]:
    """Pass a log on while it is looked at; `last` gets the last status of each envelope."""
    finals: Counter[int] = Counter()
    has_hole = False
    for seq, event in enumerate(log, 1):
        has_hole = has_hole or event.seq != seq
        if event.kind == "status":
            last[event.envelope_id] = event.status
            if event.status in FINAL_STATUSES:
                finals[event.envelope_id] += 1
        yield event
    if has_hole:
        faults.append("event: the numbers have a hole")
    faults += (
        f"event: envelope {each} has {n} final events" for each, n in finals.items() if n > 1
    )


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
