"""The stream's frames: both encodings say the same, and whatever a client sends has an answer."""

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.records import Event, Reason, Status
from protocols.stream_frames import (
    FrameError,
    JsonFrames,
    MsgpackFrames,
    Subscribe,
    Wanted,
    Watch,
    cursor_text,
    parse_cursor,
    stream_event,
    uuid_text,
    websocket_frame,
)
from protocols.timestamps import parse_time, time_text, time_text_or_none

EVENT = Event(
    seq=7,
    at_unix_ms=1_795_512_600_042,
    kind="status",
    start_count=1,
    envelope_id=2**53 - 1,
    uuid=bytes(range(16)),
    account_id=1,
    account="acme",
    campaign=None,
    custom_id='ä"\\\n',
    event_payload="",
    address="bob@one.test",
    destination="one.test",
    status=Status.DEFERRED,
    attempt=2,
    reply="451 4.7.1 später",
    reason=Reason.GREYLISTED,
    next_attempt_unix_ms=1_795_512_900_000,
)


def test_both_encodings_say_the_same() -> None:
    event = stream_event(EVENT, "ab12")
    for count in (0, 1, 20):
        told = []
        for frames in (JsonFrames(), MsgpackFrames()):
            payload = frames.batch("ab12-6", [frames.encode(event)] * count, "ab12-7")
            told.append(msgpack.unpackb(payload) if frames.binary else json.loads(payload))
        assert told[0] == told[1]
        assert told[0]["after"] == "ab12-6"
        assert told[0]["cursor"] == "ab12-7"
        assert len(told[0]["events"]) == count
    assert json.loads(JsonFrames().encode(event)) == {
        "cursor": "ab12-7",
        "at": "2026-11-24T09:30:00.042Z",
        "kind": "status",
        "message_id": 9007199254740991,
        "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "account": "acme",
        "campaign": None,
        "custom_id": 'ä"\\\n',
        "address": "bob@one.test",
        "destination": "one.test",
        "status": "deferred",
        "attempt": 2,
        "reply": "451 4.7.1 später",
        "reason": "greylisted",
        "next_attempt_at": "2026-11-24T09:35:00.000Z",
    }


@pytest.mark.parametrize("length", [0, 125, 126, 65_535, 65_536])
def test_frame_lengths(length: int) -> None:
    """RFC 6455 5.2: seven bits, then two octets, then eight."""
    frame = websocket_frame(b"a" * length, binary=False)
    assert frame[0] == 0x81
    if length < 126:
        assert frame[1] == length
        assert len(frame) == 2 + length
    elif length < 65_536:
        assert frame[1] == 126
        assert int.from_bytes(frame[2:4], "big") == length
    else:
        assert frame[1] == 127
        assert int.from_bytes(frame[2:10], "big") == length
    assert websocket_frame(b"", binary=True)[0] == 0x82


def test_cursors() -> None:
    assert parse_cursor(cursor_text("ab-cd", 12)) == ("ab-cd", 12)
    for text in ("", "7", "-7", "ab-", "ab-x", "ab-1.5", "ab-²", "ab-" + "9" * 20):
        with pytest.raises(FrameError) as refused:
            parse_cursor(text)
        assert refused.value.code == "bad_cursor"


@pytest.mark.parametrize("frames", [JsonFrames(), MsgpackFrames()])
def test_what_clients_may_ask(frames: JsonFrames | MsgpackFrames) -> None:
    def parse(frame: Any) -> Subscribe | Watch:
        return frames.parse(msgpack.packb(frame) if frames.binary else json.dumps(frame))

    assert parse({"watch": "totals"}) == Watch("totals")
    assert parse({"subscribe": {}}) == Subscribe("now", Wanted())
    everything: dict[str, Any] = {
        "account": "a",
        "campaign": ["c", None],
        "destination": ["One.test"],
    }
    everything |= {"message_id": [1, 2], "status": "delivered", "reason": ["other", "size"]}
    assert parse({"subscribe": {"after": "ab-1", "filter": everything}}) == Subscribe(
        "ab-1",
        Wanted(
            accounts=frozenset({"a"}),
            campaigns=frozenset({"c", None}),
            destinations=frozenset({"one.test"}),
            message_ids=frozenset({1, 2}),
            statuses=frozenset({Status.DELIVERED}),
            reasons=frozenset({Reason.OTHER, Reason.SIZE}),
        ),
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["subscribe", "watch", "filter", "after", "status", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def answer_to(frames: JsonFrames | MsgpackFrames, octets: bytes) -> str:
    """What a client hears: "read", or the code of a refusal."""
    try:
        frames.parse(octets)
    except FrameError as refused:
        return refused.code if refused.message else "a refusal without a word"
    return "read"


ANSWERS = {"read", "bad_json", "bad_msgpack", "bad_frame", "bad_cursor"}


@given(value=values)
def test_any_value_is_read_or_refused_alike(value: Any) -> None:
    answers = [
        answer_to(JsonFrames(), json.dumps(value).encode()),
        answer_to(MsgpackFrames(), msgpack.packb(value)),
    ]
    assert answers[0] == answers[1]
    assert answers[0] in ANSWERS


@given(octets=st.binary(max_size=60))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    assert answer_to(JsonFrames(), octets) in ANSWERS
    assert answer_to(MsgpackFrames(), octets) in ANSWERS


@pytest.mark.parametrize("octets", [b"\x91" * 60_000, b"\x81" * 60_000, b"\xdd\xff\xff\xff\xff"])
def test_bombs_are_refused(octets: bytes) -> None:
    with pytest.raises(FrameError):
        MsgpackFrames().parse(octets)


def test_text_is_no_msgpack() -> None:
    with pytest.raises(FrameError):
        MsgpackFrames().parse("{}")


def test_times() -> None:
    assert time_text(0) == "1970-01-01T00:00:00.000Z"
    assert time_text_or_none(0) is None
    assert time_text_or_none(None) is None
    for text, unix_ms in [
        ("2026-11-24T09:30:00.042Z", 1_795_512_600_042),
        ("2026-11-24T10:30:00.042+01:00", 1_795_512_600_042),
        ("2026-11-24T10:30:00.042 01:00", 1_795_512_600_042),
        ("2026-11-24T09:30:00", 1_795_512_600_000),
        ("2026-11-24", 1_795_478_400_000),
        ("1795512600", 1_795_512_600_000),
    ]:
        assert parse_time(text) == unix_ms
    for text in ("", "yesterday", "2026-13-01", "9" * 30, "9" * 5_000, "-1", "²"):
        with pytest.raises(ValueError, match=r"time|calendar"):
            parse_time(text)
    with pytest.raises(ValueError, match="calendar"):
        time_text(10**17)


@given(unix_ms=st.integers(0, 253_402_300_799_999))
def test_times_come_back(unix_ms: int) -> None:
    assert parse_time(time_text(unix_ms)) == unix_ms


def test_uuids() -> None:
    assert uuid_text(bytes(16)) == "00000000-0000-0000-0000-000000000000"
