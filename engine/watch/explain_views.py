"""Explanations in the form in which they go out: of a mail, an address, a destination, a campaign.

Owns their fields, and how what holds mail back is shown to whom. Gathers and decides nothing.
"""

import msgspec

from engine.delivery.holding import Holding
from engine.watch import explain_words
from engine.watch.destinations import HeldBy
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


class DestinationExplanation(msgspec.Struct, frozen=True):
    """What holds a destination's mail back: all that waits there, not one mail of it."""

    destination: str
    state: str
    queued: int
    deferred: int
    paused: int
    held_by: HeldBy | None
    next_attempt_at: str | None
    rate_per_s: float
    advice: str


class CampaignExplanation(msgspec.Struct, frozen=True):
    """Where a campaign's mail waits, the most first, and how much is held by what."""

    campaign: str
    queued: int
    deferred: int
    paused: int
    waiting_by_code: dict[str, int]
    destinations: list[DestinationExplanation]


def held_by_view(
    held: Holding, language: Language, *, ahead: int, many: bool = False, is_operator: bool = False
) -> HeldBy:
    # Only a mail's own reply is sure to be about its sender's recipient.
    is_own = held.scope == "envelope" and not many
    return HeldBy(
        code=held.code,
        scope=held.scope,
        key=held.key,
        since=time_text_or_none(held.since_unix_ms),
        limit=held.limit or None,
        reply=held.reply if is_own or is_operator else without_mailboxes(held.reply),
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
        ),
    )
