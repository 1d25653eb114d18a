"""What becomes of an envelope: the one place that says so, for every adapter.

Each function takes an envelope and what happened, and gives its new state with the event that
tells of it, or None if nothing changes. A final status never changes, a result counts once, and
every change but a moved due time has exactly one event, so the log alone tells the whole story.
Nothing here stores, counts or looks anything up: an adapter gives the place in the log (`seq`) and
writes what comes back, state and event in one transaction.
"""

from typing import Final

import msgspec

from engine.spool.booking import Booking
from engine.spool.interface import AttemptResult, Finish, RetryAt
from protocols.records import (
    FINAL_STATUSES,
    DestinationRecord,
    Envelope,
    EnvelopeFixed,
    EnvelopeState,
    Event,
    Reason,
    Status,
    Suppression,
)
from protocols.replies import without_mailboxes

ATTEMPT_STATUSES: Final = frozenset(
    {Status.DELIVERED, Status.DEFERRED, Status.SOFT_BOUNCED, Status.HARD_BOUNCED}
)
# `delivered` is set by the reply to an attempt and by nothing else.
FINISH_STATUSES: Final = FINAL_STATUSES - {Status.DELIVERED}

# Only these have a queue row; a paused envelope has a paused row, a final one neither.
QUEUE_STATUSES: Final = frozenset({Status.QUEUED, Status.DEFERRED})


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the next event goes: its number in the log, and which life of the process writes it."""

    seq: int
    start_count: int


def accepted_state(
    due_unix_ms: int, *, release_day: int, is_paused: bool, max_age_ms: int, seq: int
) -> EnvelopeState:
    """Return the first state. `due_unix_ms` is now or the release, from which its age counts.

    `release_day` is the day it is booked on, in both cases.
    """
    return EnvelopeState(
        Status.PAUSED if is_paused else Status.QUEUED,
        0,
        due_unix_ms,
        due_unix_ms + max_age_ms,
        release_day,
        "",
        Reason.QUOTA if is_paused else None,
        "",
        0,
        [seq],
    )


def suppressed_state(suppression: Suppression, at_unix_ms: int, seq: int) -> EnvelopeState:
    """Return the first and last state of mail to an address that is suppressed.

    `reply` is the one that the address was suppressed for.
    """
    return EnvelopeState(
        Status.BLOCKED,
        0,
        0,
        at_unix_ms,
        0,
        suppression.reply,
        Reason.SUPPRESSED,
        "",
        at_unix_ms,
        [seq],
    )


def accepted_event(fixed: EnvelopeFixed, state: EnvelopeState, place: Place) -> Event:
    """Return the event that tells of an acceptance, at the time of acceptance.

    For a suppressed recipient that is its final event, too.
    """
    return _event(fixed, state, place, fixed.accepted_unix_ms)


def apply_result(
    envelope: Envelope, result: AttemptResult, place: Place
) -> tuple[EnvelopeState, Event] | None:
    """Return what an attempt came to; None for a repeat or an envelope that is final already."""
    assert result.status in ATTEMPT_STATUSES, result
    old = envelope.state
    if old.status in FINAL_STATUSES or result.attempt <= old.attempts:
        return None
    is_final = result.status is not Status.DEFERRED
    state = EnvelopeState(
        result.status,
        result.attempt,
        0 if is_final else result.due_unix_ms,
        old.expires_unix_ms,
        old.release_day,
        result.reply,
        result.reason,
        result.mx_host,
        result.at_unix_ms if is_final else 0,
        [*old.event_seqs, place.seq],
    )
    event = _event(
        envelope.fixed,
        state,
        place,
        result.at_unix_ms,
        attempt=result.attempt,
        mx_address=result.mx_address,
        tls=result.tls,
    )
    return state, event


def apply_finish(
    envelope: Envelope,
    finish: Finish,
    place: Place,
    *,
    is_claimed: bool = False,
    destination: DestinationRecord | None = None,
) -> tuple[EnvelopeState, Event] | None:
    """Return what a decision to end it makes; None if it is final, or cancelled while in flight.

    What is in flight may be with its recipient in a moment: to call that cancelled would be a lie.
    An expiry that brings no reply tells the last one heard. If the destination cannot be reached,
    that is the destination's: as long as it is backing off, no mail has an attempt of its own. It
    may have been for another account's recipient, whose mailbox it then does not name.
    """
    assert finish.status in FINISH_STATUSES, finish
    old = envelope.state
    if old.status in FINAL_STATUSES or (is_claimed and finish.status is Status.CANCELLED):
        return None
    reply = finish.reply
    if not reply and finish.reason is Reason.EXPIRED:
        of_destination = without_mailboxes(destination.reply) if destination is not None else ""
        is_unreachable = destination is not None and destination.failures > 0
        reply = (of_destination or old.reply) if is_unreachable else (old.reply or of_destination)
    state = EnvelopeState(
        finish.status,
        old.attempts,
        0,
        old.expires_unix_ms,
        old.release_day,
        reply,
        finish.reason,
        old.mx_host,
        finish.at_unix_ms,
        [*old.event_seqs, place.seq],
    )
    return state, _event(envelope.fixed, state, place, finish.at_unix_ms)


def expiry(envelope: Envelope, at_unix_ms: int) -> Finish | None:
    """Return the decision to end an open envelope whose time is over, None for any other."""
    state = envelope.state
    if state.status in FINAL_STATUSES or state.expires_unix_ms > at_unix_ms:
        return None
    return Finish(envelope.fixed.envelope_id, Status.SOFT_BOUNCED, at_unix_ms, Reason.EXPIRED)


def apply_retry_at(envelope: Envelope, retry: RetryAt) -> EnvelopeState | None:
    """Return the state with its due time moved; None if it is not in the queue or not moved."""
    old = envelope.state
    if old.status not in QUEUE_STATUSES or old.due_unix_ms == retry.due_unix_ms:
        return None
    return EnvelopeState(
        old.status,
        old.attempts,
        retry.due_unix_ms,
        old.expires_unix_ms,
        old.release_day,
        old.reply,
        old.reason,
        old.mx_host,
        0,
        old.event_seqs,
    )


def apply_release(
    envelope: Envelope, at_unix_ms: int, place: Place, *, max_age_ms: int
) -> tuple[EnvelopeState, Event] | None:
    """Return what the coming of its day makes of a paused envelope; None if it is not paused.

    Its due time stays the one that was announced; its age counts from the release that happened,
    so that mail is not expired for the days on which the engine was stopped.
    """
    old = envelope.state
    if old.status is not Status.PAUSED:
        return None
    state = EnvelopeState(
        Status.QUEUED,
        old.attempts,
        old.due_unix_ms,
        max(old.expires_unix_ms, at_unix_ms + max_age_ms),
        old.release_day,
        "",
        None,
        "",
        0,
        [*old.event_seqs, place.seq],
    )
    return state, _event(envelope.fixed, state, place, at_unix_ms)


def apply_rebooking(
    envelope: Envelope, booked: Booking, at_unix_ms: int, place: Place, *, max_age_ms: int
) -> tuple[EnvelopeState, Event] | None:
    """Return what an earlier day makes of a paused envelope; None if it is not paused.

    `booked.release_unix_ms` is 0 for today: it is released at once. Else it stays paused, and the
    event tells of the new release.
    """
    old = envelope.state
    if old.status is not Status.PAUSED:
        return None
    is_paused = booked.release_unix_ms > 0
    due_unix_ms = booked.release_unix_ms or at_unix_ms
    state = EnvelopeState(
        Status.PAUSED if is_paused else Status.QUEUED,
        old.attempts,
        due_unix_ms,
        due_unix_ms + max_age_ms,
        booked.day,
        "",
        Reason.QUOTA if is_paused else None,
        "",
        0,
        [*old.event_seqs, place.seq],
    )
    return state, _event(envelope.fixed, state, place, at_unix_ms)


def _event(
    fixed: EnvelopeFixed,
    state: EnvelopeState,
    place: Place,
    at_unix_ms: int,
    *,
    attempt: int = 0,
    mx_address: str = "",
    tls: str = "",
) -> Event:
    # By position: it is built for every envelope that moves, and names cost a third more.
    return Event(
        place.seq,
        at_unix_ms,
        "status",
        place.start_count,
        fixed.envelope_id,
        fixed.uuid,
        fixed.account_id,
        fixed.account,
        fixed.campaign,
        fixed.custom_id,
        fixed.event_payload,
        fixed.address,
        fixed.destination,
        state.status,
        attempt,
        state.reply,
        state.reason,
        state.due_unix_ms,
        state.mx_host if attempt else "",
        mx_address,
        tls,
        fixed.accepted_unix_ms,
    )
