"""The values the spool keeps and the log tells, and their form on disk.

One record is a version byte, a MessagePack array and a CRC-32 over both. The
codec is `msgspec.msgpack`: the octets are ordinary MessagePack, and typed
decoding into structs costs a third of decoding into a list and building them.
Nothing here knows a key, a table or a transaction; that is `engine.spool`.
Fields are only ever added at the end, with a default: a struct written without
them then still decodes, and an older version stays readable.
"""

import threading
import zlib
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec

RECORD_VERSION: Final = 1


class DamagedRecord(Exception):
    """The octets of a record are not what was written: checksum, version or form is wrong."""


class Status(StrEnum):
    """The eight states of an envelope; the last five are final and never change."""

    QUEUED = "queued"
    PAUSED = "paused"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    SOFT_BOUNCED = "soft_bounced"
    HARD_BOUNCED = "hard_bounced"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"


# The order of a row of counts everywhere: on disk, in memory and in the tests.
STATUSES: Final = tuple(Status)
FINAL_STATUSES: Final = frozenset(STATUSES[3:])


class Reason(StrEnum):
    """Why an envelope was deferred, bounced, held or blocked."""

    UNKNOWN_USER = "unknown_user"
    MAILBOX_FULL = "mailbox_full"
    GREYLISTED = "greylisted"
    THROTTLED = "throttled"
    POLICY = "policy"
    SPAM = "spam"
    SIZE = "size"
    RELAY_DENIED = "relay_denied"
    CONNECTION = "connection"
    TLS = "tls"
    DNS = "dns"
    NO_SUCH_DOMAIN = "no_such_domain"
    NULL_MX = "null_mx"
    PROTOCOL = "protocol"
    QUOTA = "quota"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    OUTCOME_UNKNOWN = "outcome_unknown"
    OTHER = "other"


class EnvelopeFixed(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of an envelope that is settled at acceptance.

    `recipient` is the wire form for RCPT TO (no angle brackets, domain in
    A-labels), `address` is as the sender gave it. `destination` is the routing
    domain in lower-case A-labels. `lane` is 0 (transactional) or 1 (bulk);
    `flow` names account and campaign, for fair turns. `index` is the place
    among the envelopes of one message. Empty strings stand for "not given". `parts` is what
    `parts_number` gives.
    """

    envelope_id: int
    uuid: bytes
    account_id: int
    account: str
    campaign: str | None
    flow: int
    lane: int
    custom_id: str
    event_payload: str
    reverse_path: str
    recipient: str
    address: str
    destination: str
    subject: str
    content_id: int
    content_size: int
    needs_8bit: bool
    needs_utf8: bool
    accepted_unix_ms: int
    variables: bytes | None = None
    parts: int = 0


HAS_TEXT: Final = 1
HAS_HTML: Final = 2
ATTACHMENTS: Final = 4


def parts_number(*, has_text: bool, has_html: bool, attachments: int) -> int:
    """Return what a mail is made of as one number; 0 is for mail of which nobody has said it."""
    return has_text * HAS_TEXT + has_html * HAS_HTML + attachments * ATTACHMENTS


class EnvelopeState(msgspec.Struct, array_like=True, gc=False):
    """The part of an envelope that changes with each attempt or decision.

    `due_unix_ms` is when it may go next (for a paused one: its release), 0 when
    final. `reply` is "CODE text" on one line or "". `event_seqs` are the places
    of its events in the log, oldest first: its whole story.
    """

    status: Status
    attempts: int
    due_unix_ms: int
    expires_unix_ms: int
    release_day: int = 0
    reply: str = ""
    reason: Reason | None = None
    mx_host: str = ""
    finished_unix_ms: int = 0
    event_seqs: list[int] = []


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One recipient's mail: what was accepted and where it stands."""

    fixed: EnvelopeFixed
    state: EnvelopeState


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of the log, self-contained: it can be told without another look-up.

    `kind` is "status" for a change of status or a further deferral, "annotation"
    for what comes after a final status. `attempt` counts from 1 and is 0 for
    what happened without an attempt. `start_count` tells which life of the
    process wrote it.
    """

    seq: int
    at_unix_ms: int
    kind: str
    start_count: int
    envelope_id: int
    uuid: bytes
    account_id: int
    account: str
    campaign: str | None
    custom_id: str
    event_payload: str
    address: str
    destination: str
    status: Status
    attempt: int
    reply: str
    reason: Reason | None
    next_attempt_unix_ms: int
    mx_host: str = ""
    mx_address: str = ""
    tls: str = ""
    accepted_unix_ms: int = 0


class FlowWait(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Mail of an account to one destination that a limit of its own keeps back until a time.

    All of the account's, or with a campaign that campaign's.
    """

    account_id: int
    account: str
    campaign: str | None
    until_unix_ms: int

    def concerns(self, account_id: int, campaign: str | None) -> bool:
        return self.account_id == account_id and self.campaign in (None, campaign)


class DestinationRecord(msgspec.Struct, array_like=True, gc=False):
    """What is remembered about a destination between two lives of its actor.

    `not_before_unix_ms` holds the whole destination (back-off or throttle) and
    `cause` is the code that explain would give: "destination_unreachable",
    "dns_failure", "rate_limit", "connection_limit" or "". `failures` is the step
    of the back-off, 0 when reachable. The bucket is (level, at) in wall time.
    `waits` are the accounts whose mail is passed over meanwhile. `scheduled_unix_ms` is when
    the back-off would have ended that somebody cut short, 0 if nobody did.
    """

    not_before_unix_ms: int = 0
    cause: str = ""
    since_unix_ms: int = 0
    failures: int = 0
    reply: str = ""
    reason: Reason | None = None
    bucket_level: float = 0.0
    bucket_unix_ms: int = 0
    site: str = ""
    learned: bytes = b""
    waits: tuple[FlowWait, ...] = ()
    scheduled_unix_ms: int = 0


class Account(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Somebody who may hand in mail. `plan` is "" for no limit; `time_zone` an IANA name.

    An `internal` one is the engine's own: nobody has its keys.
    """

    account_id: int
    name: str
    plan: str
    created_unix_ms: int
    disabled: bool = False
    time_zone: str = "UTC"
    internal: bool = False


class ApiKey(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key of an account; only the SHA-256 of its secret is kept.

    `ends_unix_ms` is when it stops opening anything, 0 for a key without an end.
    """

    api_key: str
    account_id: int
    secret_sha256: bytes
    created_unix_ms: int
    ends_unix_ms: int = 0


class Suppression(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An address that an account's mail does not go to any more; `suppressed_address` has its form.

    `until_unix_ms` is 0 if it has no end. `reply` is what was said of the address by a receiver,
    to `envelope_id`, and "" with 0 where a person has put it here; `text` is that person's reason.
    """

    address: str
    since_unix_ms: int
    until_unix_ms: int
    reply: str = ""
    envelope_id: int = 0
    text: str = ""


class CampaignState(StrEnum):
    """Whether recipients may still come; the last two are final."""

    OPEN = "open"
    CLOSED = "closed"  # by its sender: the mail in it goes on
    CANCELLED = "cancelled"  # what waited was ended, too


class Campaign(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One template and how many people get it; `name` is what its envelopes have as `campaign`.

    `digest` is over all that its sender said of it. The counts are of recipients handed in:
    `accepted` ones have an envelope, `repeated` ones were in it already, `refused` lines had a
    fault. `ended_unix_ms` is 0 while it is open.
    """

    campaign_id: int
    account_id: int
    name: str
    state: CampaignState
    digest: bytes
    content_id: int
    content_size: int
    reverse_path: str
    subject: str
    lane: int
    needs_8bit: bool
    needs_utf8: bool
    created_unix_ms: int
    ended_unix_ms: int = 0
    last_accepted_unix_ms: int = 0
    accepted: int = 0
    repeated: int = 0
    refused: int = 0


def suppressed_address(recipient: str, destination: str) -> str:
    """Return the form in which addresses are compared: local part exact, domain in A-labels.

    `recipient` and `destination` are those of an envelope.
    """
    return f"{recipient.rpartition('@')[0]}@{destination}"


T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
# Records are read in several threads, and msgspec leaves what it prepares for a class on the class
# before it is whole: a second thread that prepares the same class then ends the process (SIGSEGV).
_preparing = threading.Lock()


def pack_record(value: object) -> bytes:
    """Return the stored form of `value`: version byte, MessagePack, CRC-32."""
    body = b"\x01" + _encoder.encode(value)
    return body + zlib.crc32(body).to_bytes(4, "big")


def unpack_record(stored: bytes, kind: type[T]) -> T:
    """Return the value in `stored`. Raises DamagedRecord, naming what is wrong."""
    body = stored[:-4]
    if len(stored) < 6 or zlib.crc32(body) != int.from_bytes(stored[-4:], "big"):
        raise DamagedRecord(f"checksum of a {kind.__name__} record is wrong")
    if body[0] != RECORD_VERSION:
        raise DamagedRecord(f"{kind.__name__} record has unknown version {body[0]}")
    decoder = _decoders.get(kind) or _prepare_decoder(kind)
    try:
        value: T = decoder.decode(memoryview(body)[1:])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DamagedRecord(f"{kind.__name__} record does not decode: {error}") from error
    return value


def _prepare_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    with _preparing:
        decoder = _decoders.get(kind)
        if decoder is None:
            decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
        return decoder


class _StoredEnvelope(msgspec.Struct, array_like=True, gc=False):
    fixed: bytes
    state: EnvelopeState


_fixed_decoder = msgspec.msgpack.Decoder(EnvelopeFixed)


def encode_fixed(fixed: EnvelopeFixed) -> bytes:
    """Return the settled part of an envelope as it is nested in its record."""
    return _encoder.encode(fixed)


def pack_envelope(fixed_octets: bytes, state: EnvelopeState) -> bytes:
    """Return the record of an envelope; `fixed_octets` is what `encode_fixed` gave.

    The settled part is nested as octets, so that a change of state does not encode it again.
    """
    return pack_record(_StoredEnvelope(fixed_octets, state))


def unpack_envelope(stored: bytes) -> tuple[Envelope, bytes]:
    """Return an envelope and the octets of its settled part. Raises DamagedRecord."""
    record = unpack_record(stored, _StoredEnvelope)
    try:
        return Envelope(_fixed_decoder.decode(record.fixed), record.state), record.fixed
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DamagedRecord(f"EnvelopeFixed does not decode: {error}") from error


class _StatusOnly(msgspec.Struct, array_like=True, gc=False):
    status: Status


class _BriefEnvelope(msgspec.Struct, array_like=True, gc=False):
    fixed: bytes
    state: _StatusOnly


def unpack_brief(stored: bytes) -> tuple[EnvelopeFixed, Status]:
    """Return the settled part of an envelope and its status, at half the cost of all of it.

    Raises DamagedRecord.
    """
    record = unpack_record(stored, _BriefEnvelope)
    try:
        return _fixed_decoder.decode(record.fixed), record.state.status
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DamagedRecord(f"EnvelopeFixed does not decode: {error}") from error
