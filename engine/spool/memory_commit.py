"""One commit of the `memory:` adapter: what it changes, and what is told of it afterwards.

A commit is a piece of code without an await, so there is nothing to take back: everything that can
refuse comes before the first change.
"""

from collections.abc import Collection, Iterable

from engine.spool import (
    agenda,
    booking,
    campaign_rules,
    fair_turns,
    projections,
    stamps,
    suppressing,
    transitions,
)
from engine.spool.activity import ActivityTally
from engine.spool.interface import (
    AcceptedEnvelope,
    AcceptRequest,
    Content,
    Finish,
    NewMessage,
)
from engine.spool.memory_data import MemoryData, RecipientRow
from protocols.records import (
    Account,
    Campaign,
    Envelope,
    EnvelopeFixed,
    EnvelopeState,
    Event,
    Status,
    Suppression,
    suppressed_address,
)


class Commit:
    """What one commit changes, and what is told of it afterwards."""

    def __init__(self, data: MemoryData, now_unix_ms: int) -> None:
        self.data = data
        self.now_unix_ms = now_unix_ms
        self.tally = projections.Tally()
        self.activity = ActivityTally()
        self.events: list[Event] = []
        self.due_destinations: dict[str, None] = {}  # in order, as everything a run does

    def new_envelopes(
        self, request: AcceptRequest, passed: Collection[int]
    ) -> Iterable[EnvelopeFixed]:
        """Store the contents of a request and return its envelopes to be: none for `passed`."""
        data, account = self.data, request.account
        first = 0
        for message in request.messages:
            assert message.recipients, "a message without recipients has no envelope"
            assert message.lane in fair_turns.LANES, message.lane
            people = [
                each
                for number, each in enumerate(message.recipients, first)
                if number not in passed
            ]
            first += len(message.recipients)
            if not people:
                continue
            content_id, content_size = self._content_of(account, message, len(people))
            for recipient in people:
                data.id_high = stamps.first_envelope_id(data.id_high, self.now_unix_ms)
                if message.campaign_id:
                    address = suppressed_address(recipient.recipient, recipient.destination)
                    row = (account.account_id, message.campaign_id, address)
                    data.campaign_recipients[row] = data.id_high
                yield EnvelopeFixed(
                    envelope_id=data.id_high,
                    uuid=recipient.uuid,
                    account_id=account.account_id,
                    account=account.name,
                    campaign=message.campaign,
                    flow=data.flow_of(account.account_id, message.campaign),
                    lane=message.lane,
                    custom_id=message.custom_id,
                    event_payload=message.event_payload,
                    reverse_path=message.reverse_path,
                    recipient=recipient.recipient,
                    address=recipient.address,
                    destination=recipient.destination,
                    subject=message.subject if recipient.subject is None else recipient.subject,
                    content_id=content_id,
                    content_size=content_size,
                    needs_8bit=message.needs_8bit,
                    needs_utf8=message.needs_utf8,
                    accepted_unix_ms=self.now_unix_ms,
                    variables=recipient.variables,
                    parts=message.parts,
                )

    def _content_of(self, account: Account, message: NewMessage, count: int) -> tuple[int, int]:
        """Have a content with so many more references; return its id and size."""
        data = self.data
        if message.campaign_id:
            campaign = data.campaigns[account.account_id, message.campaign_id]
            data.references[campaign.content_id] += count
            return campaign.content_id, campaign.content_size
        data.content_id_high += 1
        data.contents[data.content_id_high] = Content(message.kind, message.content)
        data.references[data.content_id_high] = count
        return data.content_id_high, len(message.content)

    def listed(self, request: AcceptRequest) -> tuple[list[int], dict[tuple[int, int], Campaign]]:
        """Look who of a request is in a campaign already; change nothing. Raises CampaignEnded.

        Returns the places of those who are, or are in the request twice, and the campaigns as
        they are once the others are in.
        """
        data, account_id = self.data, request.account.account_id
        repeats: list[int] = []
        seen: set[RecipientRow] = set()
        campaigns: dict[tuple[int, int], Campaign] = {}
        place = 0
        for message in request.messages:
            key = (account_id, message.campaign_id)
            if message.campaign_id and key not in campaigns:
                campaigns[key] = campaign_rules.open_one(data.campaigns.get(key))
            before = len(repeats)
            for recipient in message.recipients:
                address = suppressed_address(recipient.recipient, recipient.destination)
                row = (*key, address)
                if message.campaign_id and (row in seen or row in data.campaign_recipients):
                    repeats.append(place)
                seen.add(row)
                place += 1
            if message.campaign_id:
                repeated = len(repeats) - before
                campaigns[key] = campaign_rules.with_accepted(
                    campaigns[key], len(message.recipients) - repeated, repeated, self.now_unix_ms
                )
        return repeats, campaigns

    def accept_envelope(
        self, fixed: EnvelopeFixed, booked: booking.Booking, max_age_ms: int
    ) -> AcceptedEnvelope:
        place = self.data.next_place()
        state = transitions.accepted_state(
            booked.release_unix_ms or self.now_unix_ms,
            release_day=booked.day,
            is_paused=booked.release_unix_ms > 0,
            max_age_ms=max_age_ms,
            seq=place.seq,
        )
        self._write(fixed, None, state, transitions.accepted_event(fixed, state, place))
        return AcceptedEnvelope(fixed.envelope_id, fixed.uuid, state.status, state.due_unix_ms)

    def apply(self, envelope: Envelope, change: tuple[EnvelopeState, Event] | None) -> None:
        if change is not None:
            self._write(envelope.fixed, envelope.state.status, *change)

    def rebook(self, envelope_id: int, booked: booking.Booking, max_age_ms: int) -> None:
        envelope = self.data.envelope(envelope_id)
        assert envelope is not None, "a paused row has its envelope"
        account_id, old_day = envelope.fixed.account_id, envelope.state.release_day
        usage = self.data.usage
        usage[account_id, old_day] -= 1
        usage[account_id, booked.day] = usage.get((account_id, booked.day), 0) + 1
        place = self.data.next_place()
        self.apply(
            envelope,
            transitions.apply_rebooking(
                envelope, booked, self.now_unix_ms, place, max_age_ms=max_age_ms
            ),
        )

    def finish(self, envelope: Envelope, decision: Finish) -> None:
        fixed, state = envelope.fixed, envelope.state
        record = self.data.destinations.get(fixed.destination)
        change = transitions.apply_finish(
            envelope, decision, self.data.next_place(), destination=record
        )
        if change is not None and state.status is Status.PAUSED:
            # Its place on the day that was booked is free again.
            self.data.usage[fixed.account_id, state.release_day] -= 1
        self.apply(envelope, change)

    def move_due(self, envelope: Envelope, state: EnvelopeState | None) -> None:
        if state is not None:
            self._put(envelope.fixed, state)

    def try_now(self, destination: str) -> None:
        data, now_unix_ms = self.data, self.now_unix_ms
        record = agenda.tried_now(data.destinations.get(destination), now_unix_ms)
        if record is not None:
            data.rest(destination, record, now_unix_ms)
            row = data.agenda.get(destination)
            if row is not None and row.wake_unix_ms <= now_unix_ms:
                self.due_destinations[destination] = None

    def block(self, fixed: EnvelopeFixed, suppression: Suppression) -> AcceptedEnvelope:
        place = self.data.next_place()
        state = transitions.suppressed_state(suppression, self.now_unix_ms, place.seq)
        self._write(fixed, None, state, transitions.accepted_event(fixed, state, place))
        return AcceptedEnvelope(fixed.envelope_id, fixed.uuid, state.status, state.due_unix_ms)

    def _suppress(self, account_id: int, suppression: Suppression) -> None:
        key = (account_id, suppression.address)
        old = self.data.suppressions.get(key)
        if not suppressing.outlasts(old, suppression, self.now_unix_ms):
            self.data.suppressions[key] = suppression

    def _write(
        self, fixed: EnvelopeFixed, old: Status | None, state: EnvelopeState, event: Event
    ) -> None:
        self._put(fixed, state)
        self.data.append_event(event)
        self.events.append(event)
        suppression = suppressing.after_change(fixed, state)
        if suppression is not None:
            self._suppress(fixed.account_id, suppression)
        self.tally.move(
            fixed.account_id,
            fixed.campaign,
            fixed.destination,
            fixed.accepted_unix_ms,
            old,
            state.status,
        )
        self.activity.note(event, is_new=old is None)

    def _put(self, fixed: EnvelopeFixed, state: EnvelopeState) -> None:
        now_unix_ms = self.now_unix_ms
        self.data.put_state(fixed, state, now_unix_ms)
        if (
            state.status in transitions.QUEUE_STATUSES
            and self.data.wake_of(fixed, state, now_unix_ms) <= now_unix_ms
        ):
            self.due_destinations[fixed.destination] = None
