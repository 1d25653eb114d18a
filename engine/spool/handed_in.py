"""What intake hands to a spool, and what it is told of it: a part of `engine.spool.interface`.

Everybody takes these from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from protocols.records import Account, Status


class ContentKind(Enum):
    OCTETS = 0  # delivered as it is
    TEMPLATE = 1  # filled in per recipient with the envelope's `variables`


@dataclass(frozen=True, slots=True)
class NewRecipient:
    """One envelope to be. `uuid` has 16 octets; the rest as in `EnvelopeFixed`.

    `variables` fill in a template. `subject` is this recipient's own, None for the message's.
    """

    uuid: bytes
    recipient: str
    address: str
    destination: str
    variables: bytes | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """One content and its recipients; all of them share everything but the recipient.

    With a `campaign_id` the content is the template of that campaign (`content` is empty then), and
    an address that is in the campaign already is passed over. `parts` is as in EnvelopeFixed. What
    is `with_last` is one with the message before it: room is found for both or for none.
    """

    content: bytes
    recipients: Sequence[NewRecipient]
    reverse_path: str
    subject: str = ""
    campaign: str | None = None
    custom_id: str = ""
    event_payload: str = ""
    lane: int = 0
    needs_8bit: bool = False
    needs_utf8: bool = False
    kind: ContentKind = ContentKind.OCTETS
    campaign_id: int = 0
    parts: int = 0
    with_last: bool = False


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account's plan allows, in messages; None is no limit."""

    per_day: int | None = None
    per_month: int | None = None


@dataclass(frozen=True, slots=True)
class AcceptRequest:
    """What one request hands in: stored whole or not at all, but for what `one_by_one` says.

    `digest` (16 octets over account, path, idempotency key and body) makes a
    repeat within `digest_lives_ms` answer with the first one's envelopes. Recipients of a campaign
    come without one: their repeats are known one by one. With `one_by_one` a message that the quota
    has no room for is refused alone; in a repeat it is tried again, and the others are not. That
    is not for recipients of campaigns.
    """

    account: Account
    messages: Sequence[NewMessage]
    quota: Quota = Quota()
    digest: bytes | None = None
    digest_lives_ms: int = 0
    one_by_one: bool = False

    def units(self) -> list[range]:
        """Return the places of the recipients of each message, those `with_last` in one."""
        units: list[range] = []
        place = 0
        for message in self.messages:
            assert not message.campaign_id, "a campaign counts whom it is given"
            end = place + len(message.recipients)
            if message.with_last and units:
                units[-1] = range(units[-1].start, end)
            else:
                units.append(range(place, end))
            place = end
        return units


@dataclass(frozen=True, slots=True)
class AcceptedEnvelope:
    envelope_id: int
    uuid: bytes
    status: Status  # queued or paused; blocked if the address is suppressed, with due 0
    due_unix_ms: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to one request: its envelopes in order, messages flattened.

    `repeats` are the places, among all recipients, of those that were in their campaign already:
    they have no envelope here. Nor have those at the places in `refused`, which the quota has no
    room for.
    """

    envelopes: Sequence[AcceptedEnvelope]
    repeated: bool = False
    repeats: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
