"""A request comes in: all of it, or none of it.

Decides over one commit's `Changes`: is it a repeat, which day has room for it, which ids does it
get. Everything that can refuse comes before the first change.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from engine.spool import booking, fair_turns, one_by_one, stamps, transitions
from engine.spool.interface import (
    Accepted,
    AcceptedEnvelope,
    AcceptRequest,
    NewMessage,
    NewRecipient,
    SpoolSettings,
)
from engine.spool.lmdb_campaigns import Listed
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_layout import U32, StoredRequest
from engine.spool.lmdb_suppressions import Suppressed
from protocols.records import (
    DamagedRecord,
    EnvelopeFixed,
    Status,
    Suppression,
    pack_record,
    suppressed_address,
    unpack_record,
)

# What stands in an answer where an envelope would: its place was refused.
REFUSED: Final = (0, b"", Status.BLOCKED, 0)
# What an envelope takes beside its content: its record, its event and its rows.
ENVELOPE_OCTETS: Final = 1000


def accept(changes: Changes, request: AcceptRequest, settings: SpoolSettings) -> Accepted:
    """Take a request in and return its answer. Raises SpoolError if it is refused."""
    now_unix_ms, account = changes.now_unix_ms, request.account
    first: Accepted | None = None
    if request.digest is not None:
        first = _first_answer(changes, account.account_id, request.digest)
        if first is not None and not first.refused:
            return first
    listed = Listed(changes, request)
    passed = one_by_one.places_taken(request, first).union(listed.repeats)
    suppressions = _suppressions(changes, request)
    book = partial(
        booking.book,
        quota=request.quota,
        zone=booking.zone_of(account.time_zone),
        now_unix_ms=now_unix_ms,
        booked_on=lambda day: changes.usage_of(account.account_id, day),
        paused_max_ms=settings.paused_max_ms,
    )
    bookings, refused = one_by_one.book_request(
        *(request, suppressions, passed, book),
        use=lambda each: changes.use(account.account_id, each.day, each.count),
    )
    passed = passed.union(refused)
    places = (each for each in bookings for _ in range(each.count))
    made: dict[int, AcceptedEnvelope] = {}
    before = 0
    for message in request.messages:
        people = [*enumerate(message.recipients, before)]
        before += len(people)
        if passed:
            people = [each for each in people if each[0] not in passed]
        for number, fixed in _new_envelopes(changes, request, message, people, listed):
            place = changes.next_place()
            suppression = suppressions.get(number) if suppressions else None
            if suppression is None:
                booked = next(places)
                state = transitions.accepted_state(
                    booked.release_unix_ms or now_unix_ms,
                    release_day=booked.day,
                    is_paused=booked.release_unix_ms > 0,
                    max_age_ms=settings.max_age_ms,
                    seq=place.seq,
                )
            else:
                state = transitions.suppressed_state(suppression, now_unix_ms, place.seq)
            changes.add_envelope(fixed, state, transitions.accepted_event(fixed, state, place))
            made[number] = AcceptedEnvelope(
                fixed.envelope_id, fixed.uuid, state.status, state.due_unix_ms
            )
    answer = one_by_one.answer_of(request, first, made, listed.repeats, refused)
    if made and request.digest is not None and request.digest_lives_ms > 0:
        _keep_answer(changes, request, request.digest, answer)
    listed.flush()
    return answer


def octets_of(request: AcceptRequest) -> int:
    """Return about how much a request adds to a commit, having seen that its form is right."""
    octets = 0
    for message in request.messages:
        assert message.recipients, "a message without recipients has no envelope"
        assert message.lane in fair_turns.LANES, message.lane
        assert not (message.campaign_id and message.content), "a campaign has its own content"
        octets += len(message.content) + ENVELOPE_OCTETS * len(message.recipients)
        for recipient in message.recipients:
            name = recipient.destination
            # Checked here, in the caller's task: a fault found in the writer ends the process.
            assert name.isascii(), name
            assert 0 < len(name.replace("\0", "")) == len(name) <= 255, name
            assert len(recipient.uuid) == 16, recipient
            octets += len(recipient.variables or b"")
    return octets


def _suppressions(changes: Changes, request: AcceptRequest) -> dict[int, Suppression]:
    """Return what suppresses the recipients of a request, by their place; most have nothing."""
    suppressed = Suppressed(changes, request.account.account_id)
    if not suppressed.has_any:
        return {}
    recipients = [each for message in request.messages for each in message.recipients]
    found = {
        place: suppressed.find(suppressed_address(each.recipient, each.destination))
        for place, each in enumerate(recipients)
    }
    return {place: suppression for place, suppression in found.items() if suppression is not None}


def _new_envelopes(
    changes: Changes,
    request: AcceptRequest,
    message: NewMessage,
    people: Sequence[tuple[int, NewRecipient]],
    listed: Listed,
) -> Iterator[tuple[int, EnvelopeFixed]]:
    """Store a message's content, or refer to its campaign's; yield its envelopes to be.

    `people` are those that get one, with their places in the request.
    """
    if not people:
        return
    account, marks, content_size = request.account, changes.marks, len(message.content)
    if message.campaign_id:
        campaign = listed.campaign(message)
        content_id, content_size = campaign.content_id, campaign.content_size
        changes.refer(content_id, len(people))
    else:
        content_id = changes.add_content(
            message.content,
            kind=message.kind.value,
            needs_8bit=message.needs_8bit,
            needs_utf8=message.needs_utf8,
            references=len(people),
        )
    flow = changes.flow_of(account.account_id, message.campaign)
    for place, recipient in people:
        marks.envelope_id = stamps.first_envelope_id(marks.envelope_id, changes.now_unix_ms)
        if message.campaign_id:
            listed.take_in(place, marks.envelope_id)
        # By position: it is built for every recipient, and names cost a third more.
        fixed = EnvelopeFixed(
            marks.envelope_id,
            recipient.uuid,
            account.account_id,
            account.name,
            message.campaign,
            flow,
            message.lane,
            message.custom_id,
            message.event_payload,
            message.reverse_path,
            recipient.recipient,
            recipient.address,
            recipient.destination,
            message.subject if recipient.subject is None else recipient.subject,
            content_id,
            content_size,
            message.needs_8bit,
            message.needs_utf8,
            changes.now_unix_ms,
            recipient.variables,
            message.parts,
        )
        yield place, fixed


def _request_key(account_id: int, digest: bytes) -> bytes:
    assert len(digest) == 16, "a request's digest has 16 octets"
    return U32.pack(account_id) + digest


def _first_answer(changes: Changes, account_id: int, digest: bytes) -> Accepted | None:
    key = _request_key(account_id, digest)
    # Asked of the transaction, so that two of a kind in one commit are one, too.
    stored = changes.txn.get(key, db=changes.tables.request)
    if stored is None:
        return None
    try:
        found = unpack_record(stored, StoredRequest)
    except DamagedRecord:
        changes.note_damage("request", key, stored)
        return None
    if found.lives_until_unix_ms <= changes.now_unix_ms:
        return None
    return Accepted(
        [AcceptedEnvelope(*each) for each in found.envelopes if each != REFUSED],
        repeated=True,
        refused=tuple(place for place, each in enumerate(found.envelopes) if each == REFUSED),
    )


def _keep_answer(changes: Changes, request: AcceptRequest, digest: bytes, answer: Accepted) -> None:
    rows = [
        (each.envelope_id, each.uuid, each.status, each.due_unix_ms) for each in answer.envelopes
    ]
    for place in answer.refused:
        rows.insert(place, REFUSED)
    stored = StoredRequest(changes.now_unix_ms + request.digest_lives_ms, rows)
    key = _request_key(request.account.account_id, digest)
    changes.put("request", key, pack_record(stored))
