"""The `lmdb:` adapter's tables, their keys and the records that only they have.

Keys are big-endian, so that their order is the order of the numbers in them; times are
milliseconds since 1970 in 64 bits; domain names are A-labels, which hold no octet 0. What is
written here is on disk: a change of meaning needs a new `FORMAT`. Nothing here opens, reads or
writes anything but the handles of the tables.
"""

from hashlib import blake2b
from struct import Struct
from typing import Any, Final

import lmdb
import msgspec

from engine.spool.projections import NO_COUNTS, Projection
from protocols.records import DestinationRecord, Status

# The number of this layout. A spool with another one is refused.
FORMAT: Final = 1

# Eight pages less the page header: a longer value would waste most of a ninth.
CHUNK_OCTETS_MAX: Final = 8 * 4096 - 16

U32: Final = Struct(">I")
U64: Final = Struct(">Q")
U32_U32: Final = Struct(">II")
U32_U64: Final = Struct(">IQ")
U64_U16: Final = Struct(">QH")
U64_U64: Final = Struct(">QQ")
QUEUE_TAIL: Final = Struct(">BIQQ")  # lane, flow, due, envelope id
PAUSED: Final = Struct(">IIQ")  # account, day, envelope id
RELEASE: Final = Struct(">QII")  # release, account, day
COUNTER_HEAD: Final = Struct(">BI")  # group, account
COUNTER_TAIL: Final = Struct(">BII")  # projection, period, flow
ACTIVITY: Final = Struct(">BII")  # kind, period, account

# Beside the projections of `engine.spool.projections`: an account's sum, so that a live total
# costs one row and not one for each hour of the account's life.
ACCOUNT_TOTAL: Final = 0

BY_DESTINATION: Final = Projection.DESTINATION
HAVE_DESTINATION: Final = frozenset(
    {Projection.DESTINATION, Projection.DAY_DESTINATION, Projection.CAMPAIGN_DESTINATION}
)

META_FORMAT: Final = b"format"
META_STREAM_ID: Final = b"stream_id"
META_START_COUNT: Final = b"start_count"
META_MARKS: Final = b"marks"
META_HOLD_ID: Final = b"hold_id"  # the last one given, once there was a hold
META_CAMPAIGN_ID: Final = b"campaign_id"  # likewise
META_CAMPAIGN_DAYS: Final = b"campaign_days"  # whether these tell of every mail
META_DESTINATION_TIMES: Final = b"destination_times"  # these are there
META_ACTIVITY_FROM: Final = b"activity_from"  # the first event that activity rows tell of


class Tables:
    """The handles of all tables of one environment."""

    NAMES: Final = (
        "meta",
        "content_head",
        "content",
        "envelope",
        "queue",
        "agenda",
        "destination",
        "paused",
        "usage",
        "release",
        "expiry",
        "event",
        "hold",
        "note",
        "flow",
        "flow_name",
        "request",
        "counter",
        "by_account",
        "by_address",
        "garbage",
        "account",
        "account_name",
        "api_key",
        "quarantine",
        # Added to format 1: a program that does not know them leaves them alone.
        "suppression",
        "activity",
        "campaign",
        "campaign_name",
        "campaign_recipient",
    )
    __slots__ = NAMES

    def __init__(self, environment: lmdb.Environment) -> None:
        # In one transaction, so that a new spool has all of them or none.
        with environment.begin(write=True) as txn:
            for name in self.NAMES:
                setattr(self, name, environment.open_db(name.encode(), txn=txn))

    # The stubs of lmdb name no public type for a handle.
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class Marks(msgspec.Struct, array_like=True):
    """High-water marks and sums, written with every commit. Ids and places count from 1."""

    time_unix_ms: int = 0
    envelope_id: int = 0
    content_id: int = 0
    flow_id: int = 0
    account_id: int = 0
    head_seq: int = 0
    oldest_seq: int = 1
    event_octets: int = 0
    sweep_envelope_id: int = 0
    sweep_request: bytes = b""
    quarantined: int = 0
    garbage: int = 0
    counts: tuple[int, ...] = NO_COUNTS


class StoredHead(msgspec.Struct, array_like=True, gc=False):
    """A content's head. `checksum` is the CRC-32 of all its octets."""

    kind: int
    size: int
    needs_8bit: bool
    needs_utf8: bool
    checksum: int
    references: int


class StoredDestination(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where the agenda row of a destination is, and what its last actor left, if there was one."""

    wake_unix_ms: int | None = None
    cause: str = ""
    record: DestinationRecord | None = None


class StoredFlow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    account_id: int
    campaign: str | None
    weight: int = 1


class StoredRequest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The answer to a request that may be repeated until `lives_until_unix_ms`."""

    lives_until_unix_ms: int
    envelopes: list[tuple[int, bytes, Status, int]]


def chunk_key(content_id: int, chunk: int) -> bytes:
    return U64_U16.pack(content_id, chunk)


def queue_prefix(destination: str) -> bytes:
    return destination.encode("ascii") + b"\0"


def queue_key(destination: str, lane: int, flow: int, due_unix_ms: int, envelope_id: int) -> bytes:
    tail = QUEUE_TAIL.pack(lane, flow, due_unix_ms, envelope_id)
    return destination.encode("ascii") + b"\0" + tail


def split_queue_key(key: bytes) -> tuple[str, int, int, int, int]:
    """Return destination, lane, flow, due and envelope id."""
    lane, flow, due_unix_ms, envelope_id = QUEUE_TAIL.unpack_from(key, len(key) - QUEUE_TAIL.size)
    return key[: -QUEUE_TAIL.size - 1].decode("ascii"), lane, flow, due_unix_ms, envelope_id


def agenda_key(wake_unix_ms: int, destination: str) -> bytes:
    return U64.pack(wake_unix_ms) + destination.encode("ascii")


def split_agenda_key(key: bytes) -> tuple[int, str]:
    return U64.unpack_from(key)[0], key[8:].decode("ascii")


def address_prefix(address: str) -> bytes:
    """Return what the keys of an address begin with: an address may be longer than a key."""
    return blake2b(address.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def flow_name_key(account_id: int, campaign: str | None) -> bytes:
    name = b"" if campaign is None else b"=" + campaign.encode("utf-8", "surrogatepass")
    return U32.pack(account_id) + blake2b(name, digest_size=16).digest()


def campaign_key(account_id: int, campaign_id: int) -> bytes:
    return U32_U32.pack(account_id, campaign_id)


def campaign_name_key(account_id: int, name: str) -> bytes:
    return flow_name_key(account_id, name)


def campaign_recipient_key(campaign: bytes, address: str) -> bytes:
    """`campaign` is its key, `address` in the form in which addresses are compared."""
    return campaign + address_prefix(address)


def account_name_key(name: str) -> bytes:
    """Return a key for a name of any length; likewise for an API key."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def suppression_key(account_id: int, address: str) -> bytes:
    """Return a key whose order is that of the addresses, up to their longest."""
    return U32.pack(account_id) + address.encode("utf-8", "surrogatepass")


def counter_group(projection: int, account_id: int) -> bytes:
    """Return what all keys of a projection and an account begin with.

    The three projections that have a destination are one group, so that the counters of one
    account at one destination are neighbours: a mail changes all of them, and then one page.
    """
    group = BY_DESTINATION if projection in HAVE_DESTINATION else projection
    return COUNTER_HEAD.pack(group, account_id)


def counter_key(
    projection: int, account_id: int, period: int, flow: int, destination: str
) -> bytes:
    tail = COUNTER_TAIL.pack(projection, period, flow)
    return counter_group(projection, account_id) + destination.encode("ascii") + b"\0" + tail


def activity_key(kind: int, period: int, account_id: int) -> bytes:
    return ACTIVITY.pack(kind, period, account_id)


def split_counter_key(key: bytes) -> tuple[int, int, int, int, str]:
    """Return projection, account, period, flow and destination."""
    projection, period, flow = COUNTER_TAIL.unpack_from(key, len(key) - COUNTER_TAIL.size)
    destination = key[COUNTER_HEAD.size : -COUNTER_TAIL.size - 1].decode("ascii")
    return projection, COUNTER_HEAD.unpack_from(key)[1], period, flow, destination


def counters_after(account_id: int, destination: str) -> bytes:
    """Return a key behind the counters of one destination, and before those of the next."""
    name = destination.encode("ascii", "replace")
    return COUNTER_HEAD.pack(BY_DESTINATION, account_id) + name + b"\1"
