"""Explanations in the form in which they go out: of a mail, an address, a destination, a campaign.

Owns their fields, and how what holds mail back is shown to whom. Gathers and decides nothing.
"""

import msgspec

from engine.delivery.holding import Holding
from engine.watch import explain_words
from engine.watch.destinations import HeldBy
from engine.watch.explain_causes import Cause
from engine.watch.hold_views import HeldMails
from protocols.languages import Language
from protocols.records import Status
from protocols.replies import without_mailboxes
from protocols.timestamps import time_text_or_none


class Explanation(msgspec.Struct, frozen=True):
    """Why a mail is not delivered yet. `ahead` counts the mails of its destination that go first:
    one by one up to a thousand, about right beyond; null for what is paused. What is final is held
    by nothing, and its times are null. `reply` is the last one heard about it.
    """

    message_id: int
    status: Status
    held_by: HeldBy | None
    ahead: int | None
    next_attempt_at: str | None
    expires_at: str | None
    reply: str | None
    advice: str


class AddressedExplanation(Explanation, frozen=True):
    """The explanation of one of several mails, with what tells them apart."""

    subject: str
    accepted_at: str


class AddressExplanation(msgspec.Struct, frozen=True):
    """The latest waiting mails to an address; if none waits, its latest ones."""

    address: str
    messages: list[AddressedExplanation]


class WaitingCause(msgspec.Struct, frozen=True):
    """How many mails of a destination wait for the same thing, and what their sender can do.

    `reply` is the last that one of them has heard, or the one that taught the limit;
    `next_attempt_at` is when the first of them moves, null if nobody can tell.
    """

    code: str
    scope: str
    key: str
    count: int
    since: str | None
    limit: str | None
    reply: str
    reason: str | None
    next_attempt_at: str | None
    text: str
    advice: str


class DestinationExplanation(msgspec.Struct, frozen=True):
    """What holds a destination's mail back: all that waits there, not one mail of it.

    `held` and `holds` are as in the listing of destinations.
    `causes` have what its mails wait for, the most first. In a long queue not each one is looked
    at; then `is_exact` is false and the counts of causes are estimates, with the right sum.
    """

    destination: str
    state: str
    queued: int
    deferred: int
    paused: int
    held_by: HeldBy | None
    next_attempt_at: str | None
    rate_per_s: float
    advice: str
    causes: list[WaitingCause]
    is_exact: bool
    held: int
    holds: list[HeldMails]


class CampaignExplanation(msgspec.Struct, frozen=True):
    """Where a campaign's mail waits, the most first, and how much is held by what.

    `next_attempt_at` is when the first of it moves: for paused mail its release.
    """

    campaign: str
    queued: int
    deferred: int
    paused: int
    next_attempt_at: str | None
    waiting_by_code: dict[str, int]
    destinations: list[DestinationExplanation]


def held_by_view(
    held: Holding, language: Language, *, ahead: int, many: bool = False, tells_all: bool = False
) -> HeldBy:
    """Show what holds mail. `tells_all`: its reply is for a reader who may know each mailbox in it,
    as the mail's own sender or an operator may.
    """
    return HeldBy(
        code=held.code,
        scope=held.scope,
        key=held.key,
        since=time_text_or_none(held.since_unix_ms),
        limit=held.limit or None,
        reply=held.reply if tells_all else without_mailboxes(held.reply),
        reason=held.reason.value if held.reason else None,
        text=explain_words.cause_text(
            language,
            held.code,
            scope=held.scope,
            key=held.key,
            limit=held.limit,
            ahead=ahead,
            reason=held.reason,
            many=many,
            note=held.note,
            is_own=held.is_own,
            is_silent=held.is_silent,
        ),
    )


def cause_view(
    cause: Cause,
    language: Language,
    *,
    advice: str,
    is_operator: bool,
) -> WaitingCause:
    """Show a cause; `advice` is what the sender of its mails can do."""
    held = cause.held
    # An operator's "one mail" under a quota has no account beside it.
    many = cause.count > 1 or not held.key
    tells_all = is_operator or held.scope == "envelope"
    view = held_by_view(held, language, ahead=cause.count, many=many, tells_all=tells_all)
    return WaitingCause(
        code=view.code,
        scope=view.scope,
        key=view.key,
        count=cause.count,
        since=view.since,
        limit=view.limit,
        reply=view.reply,
        reason=view.reason,
        next_attempt_at=time_text_or_none(held.next_attempt_unix_ms or 0),
        text=view.text,
        advice=advice,
    )
