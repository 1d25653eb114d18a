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
    an address that is in the campaign already is passed over. `parts` is as in EnvelopeFixed.
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


@dataclass(frozen=True, slots=True)
class Quota:
    """What an account's plan allows, in messages; None is no limit."""

    per_day: int | None = None
    per_month: int | None = None


@dataclass(frozen=True, slots=True)
class AcceptRequest:
    """What one request hands in: stored whole or not at all.

    `digest` (16 octets over account, path, idempotency key and body) makes a
    repeat within `digest_lives_ms` answer with the first one's envelopes. Recipients of a campaign
    come without one: their repeats are known one by one.
    """

    account: Account
    messages: Sequence[NewMessage]
    quota: Quota = Quota()
    digest: bytes | None = None
    digest_lives_ms: int = 0


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
    they have no envelope here.
    """

    envelopes: Sequence[AcceptedEnvelope]
    repeated: bool = False
    repeats: tuple[int, ...] = ()
