"""The event stream's frames: what the client asks, what it is told, in JSON and in MessagePack.

A frame is one websocket message. Events are encoded one by one, so that what was
encoded for one subscriber can be put into every other's batch; `websocket_frame`
then gives the octets that all of one group are sent. Nothing here knows who may
see what, or where events come from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgpack
import msgspec

from protocols.languages import Language
from protocols.records import Event, Reason, Status
from protocols.timestamps import time_text, time_text_or_none

SUBPROTOCOL_JSON: Final = "eilpost.v1+json"
SUBPROTOCOL_MSGPACK: Final = "eilpost.v1+msgpack"
SEQ_DIGITS_MAX: Final = 19  # A place in the log fits into 63 bits.


class FrameError(Exception):
    """A client's frame is refused. `code` is a word, the text says what and where."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StreamEvent(msgspec.Struct, frozen=True, gc=False):
    """One status change as subscribers see it. `kind` is "status", or "annotation" for what
    came after a final status and changed none.
    """

    cursor: str
    at: str
    kind: str
    message_id: int
    uuid: str
    account: str
    campaign: str | None
    custom_id: str
    address: str
    destination: str
    status: Status
    attempt: int
    reply: str
    reason: str | None
    next_attempt_at: str | None


def stream_event(event: Event, stream_id: str) -> StreamEvent:
    # By position: one is made for every event, and names cost a third more.
    return StreamEvent(
        cursor_text(stream_id, event.seq),
        time_text(event.at_unix_ms),
        event.kind,
        event.envelope_id,
        uuid_text(event.uuid),
        event.account,
        event.campaign,
        event.custom_id,
        event.address,
        event.destination,
        event.status,
        event.attempt,
        event.reply,
        event.reason.value if event.reason else None,
        time_text_or_none(event.next_attempt_unix_ms),
    )


def uuid_text(uuid: bytes) -> str:
    """Sixteen octets in the usual 8-4-4-4-12 form."""
    digits = uuid.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def cursor_text(stream_id: str, seq: int) -> str:
    return f"{stream_id}-{seq}"


def parse_cursor(text: str) -> tuple[str, int]:
    """Return the stream's id and the place in it. Raises FrameError "bad_cursor"."""
    stream_id, _, digits = text.rpartition("-")
    if not stream_id or not (digits.isascii() and digits.isdecimal()):
        raise FrameError("bad_cursor", f"{text[:80]!r} is no cursor of this stream.")
    if len(digits) > SEQ_DIGITS_MAX:
        raise FrameError("bad_cursor", f"{text[:80]!r} is beyond any place in a log.")
    return stream_id, int(digits)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a filter lets pass; None is any."""

    accounts: frozenset[str] | None = None
    campaigns: frozenset[str | None] | None = None
    destinations: frozenset[str] | None = None
    message_ids: frozenset[int] | None = None
    statuses: frozenset[Status] | None = None
    reasons: frozenset[Reason] | None = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Tell events after a cursor, from "now" on, or from the "start" of the log."""

    after: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Watch:
    """Tell the state of `subject` now, and then what changes of it.

    Without a language texts are in the stream's.
    """

    subject: Literal["destinations", "totals"]
    language: Language | None = None


class _Filter(msgspec.Struct, forbid_unknown_fields=True):
    account: str | list[str] | None = None
    campaign: str | list[str | None] | msgspec.UnsetType | None = msgspec.UNSET
    destination: str | list[str] | None = None
    message_id: int | list[int] | None = None
    status: Status | list[Status] | None = None
    reason: Reason | list[Reason] | None = None


class _Subscribe(msgspec.Struct, forbid_unknown_fields=True):
    after: str = "now"
    filter: _Filter | None = None


class _ClientFrame(msgspec.Struct, forbid_unknown_fields=True):
    subscribe: _Subscribe | msgspec.UnsetType = msgspec.UNSET
    watch: Literal["destinations", "totals"] | msgspec.UnsetType = msgspec.UNSET
    language: Language | None = None


def client_frame(untyped: Any) -> Subscribe | Watch:
    """Read a decoded client frame. Raises FrameError, naming the place in it."""
    try:
        frame = msgspec.convert(untyped, _ClientFrame)
    except (msgspec.ValidationError, RecursionError) as error:
        raise FrameError("bad_frame", f"{error}") from error
    if isinstance(frame.watch, str):
        if frame.subscribe is not msgspec.UNSET:
            raise FrameError("bad_frame", "One frame asks for one thing: subscribe or watch.")
        return Watch(frame.watch, frame.language)
    if isinstance(frame.subscribe, msgspec.UnsetType):
        raise FrameError("bad_frame", 'A frame is {"subscribe": {...}} or {"watch": ...}.')
    asked = frame.subscribe
    if asked.after not in ("now", "start"):
        parse_cursor(asked.after)
    return Subscribe(asked.after, _wanted(asked.filter or _Filter()))


def _wanted(asked: _Filter) -> Wanted:
    destinations = _set_of(asked.destination)
    return Wanted(
        accounts=_set_of(asked.account),
        # Mail without a campaign has the campaign null, and may be asked for as such.
        campaigns=(
            None
            if isinstance(asked.campaign, msgspec.UnsetType)
            else frozenset(asked.campaign if isinstance(asked.campaign, list) else [asked.campaign])
        ),
        destinations=destinations
        if destinations is None
        else frozenset(each.lower() for each in destinations),
        message_ids=_set_of(asked.message_id),
        statuses=_set_of(asked.status),
        reasons=_set_of(asked.reason),
    )


def _set_of(values: Any) -> frozenset[Any] | None:
    if values is None:
        return None
    return frozenset(values if isinstance(values, list) else [values])


class JsonFrames:
    """Frames as JSON in text messages."""

    subprotocol: Final = SUBPROTOCOL_JSON
    binary: Final = False

    def parse(self, message: str | bytes) -> Subscribe | Watch:
        """Raises FrameError."""
        try:
            return client_frame(msgspec.json.decode(message))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError("bad_json", f"This is not JSON: {error}.") from error

    def encode(self, value: Mapping[str, Any] | msgspec.Struct) -> bytes:
        return msgspec.json.encode(value)

    def batch(self, after: str, events: Sequence[bytes], cursor: str) -> bytes:
        """`{"after", "events", "cursor"}` around events that are encoded already."""
        # Cursors are made of hexadecimal digits and a hyphen, so they need no escaping.
        return b'{"after":"%b","events":[%b],"cursor":"%b"}' % (
            after.encode(),
            b",".join(events),
            cursor.encode(),
        )


class MsgpackFrames:
    """Frames as MessagePack in binary messages; the same names and shapes as in JSON."""

    subprotocol: Final = SUBPROTOCOL_MSGPACK
    binary: Final = True

    def __init__(self) -> None:
        self._packer = msgpack.Packer()

    def parse(self, message: str | bytes) -> Subscribe | Watch:
        """Raises FrameError."""
        if isinstance(message, str):
            raise FrameError("bad_msgpack", "This subprotocol's frames are binary messages.")
        try:
            untyped = msgpack.unpackb(message)
        except (ValueError, msgpack.UnpackException, RecursionError) as error:
            raise FrameError("bad_msgpack", f"This is not MessagePack: {error!r}.") from error
        return client_frame(untyped)

    def encode(self, value: Mapping[str, Any] | msgspec.Struct) -> bytes:
        return bytes(self._packer.pack(msgspec.to_builtins(value)))

    def batch(self, after: str, events: Sequence[bytes], cursor: str) -> bytes:
        """`{"after", "events", "cursor"}` around events that are encoded already."""
        packer = self._packer
        return b"".join(
            [
                packer.pack_map_header(3),
                packer.pack("after"),
                packer.pack(after),
                packer.pack("events"),
                packer.pack_array_header(len(events)),
                *events,
                packer.pack("cursor"),
                packer.pack(cursor),
            ]
        )


Frames = JsonFrames | MsgpackFrames


def gap_frame(from_cursor: str, to_cursor: str) -> dict[str, Any]:
    """Events after `from_cursor` up to and including `to_cursor` are gone."""
    return {"gap": {"from": from_cursor, "to": to_cursor}}


def error_frame(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def totals_frame(totals: Mapping[str, int], *, snapshot: bool) -> dict[str, Any]:
    return {"totals": totals, "snapshot": snapshot}


def destinations_frame(rows: Iterable[Any], *, snapshot: bool) -> dict[str, Any]:
    """All rows of a snapshot, else those that changed."""
    return {"destinations": list(rows), "snapshot": snapshot}


def websocket_frame(payload: bytes, *, binary: bool) -> bytes:
    """One whole, unmasked message as a server sends it (RFC 6455 5.2)."""
    opcode = 0x82 if binary else 0x81
    length = len(payload)
    if length < 126:
        return bytes((opcode, length)) + payload
    if length < 65_536:
        return bytes((opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((opcode, 127)) + length.to_bytes(8, "big") + payload
