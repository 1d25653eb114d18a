"""Requests as octets: what is read, what is refused unread, and that every one gets an answer."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import load_typos
from engine.intake.send_check import Draft, MessageChecker, merged
from engine.intake.send_errors import SendError
from engine.intake.send_request import MessageIn, SendRequest, decode_send_request

TYPOS = load_typos()

GOOD: dict[str, Any] = {
    "From": {"Email": "sender@out.example", "Name": "Sender"},
    "To": [{"Email": "ann@in.example"}],
    "Subject": "Hello",
    "TextPart": "text",
}


def decode(root: object) -> SendRequest:
    request = decode_send_request(json.dumps(root).encode())
    assert isinstance(request, SendRequest), request
    return request


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        (b"", "mj-0002", ()),
        (b"{", "mj-0002", ()),
        (b"[]", "mj-0002", ()),
        (b"null", "mj-0002", ()),
        (b'{"Messages": [NaN]}', "mj-0002", ()),
        (b'{"Messages": "\xff"}', "mj-0002", ()),
        (b'{"Messages": [{"Subject": "\\ud800"}]}', "mj-0002", ()),
        (b'{"Messages": [{"Subject": "\xc0\xae"}]}', "mj-0002", ()),
        (b'{"Messages": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "mj-0002", ()),
        (b'{"X": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001, "mj-0002", ()),
        (
            b'{"Messages": [{"Variables": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}]}",
            "mj-0002",
            (),
        ),
        (b'{"Messages": {}}', "mj-0004", ("Messages",)),
        (b'{"Messages": [], "SandboxMode": 1}', "mj-0004", ("SandboxMode",)),
        (b'{"Messages": [], "Nonsense": 1}', "mj-0002", ("Nonsense",)),
        (b'{"Messages": [], "Globals": 1}', "mj-0004", ("Globals",)),
        (b'{"Messages": [], "Globals": {"To": 1}}', "mj-0004", ("Globals.To",)),
        (
            b'{"Messages": [], "Globals": {"From": {"Email": 1}}}',
            "mj-0004",
            ("Globals.From.Email",),
        ),
    ],
    ids=range(17),
)
def test_faults_of_a_whole_request(body: bytes, code: str, path: tuple[str, ...]) -> None:
    found = decode_send_request(body)
    assert isinstance(found, SendError)
    assert (found.code, found.related_to) == (code, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bomb",
    [
        b'{"Messages": [' + b"{}," * 2_000_000 + b"{}]}",
        b'{"Messages": [' + b"7," * 2_000_000 + b"7]}",
        b'{"Messages": [{"Variables": {"a": [' + b"[]," * 2_000_000 + b"[]]}}]}",
        b'{"Messages": [{"Headers": {' + b'"":"",' * 2_000_000 + b'"":""}}]}',
        b'{"X": "' + b"," * 200_000 + b'"' + b' ""' * 2_000_000,
    ],
    ids=["objects", "numbers", "arrays", "properties", "no JSON"],
)
def test_a_request_of_very_many_small_parts_is_refused_unread(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        found = decode_send_request(bomb)
        _, peak_octets = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(found, SendError)
    assert found.code == "mj-0008"
    # Decoded, each of these comes to a hundred megabytes and more.
    assert peak_octets < 1_000_000


def test_a_text_full_of_commas_and_braces_is_only_a_text() -> None:
    text = '{[,"\\' * 100_000
    (found,) = decode({"Messages": [GOOD | {"TextPart": text}]}).messages or [[]]
    assert isinstance(found, MessageIn)
    assert found.text_part == text


@pytest.mark.parametrize("digits", [b"9" * 5_000, b"1e999", b"1e9999999999999", b"-0", b"1.5"])
def test_numbers_of_any_kind_get_an_answer(digits: bytes) -> None:
    for name in (b"Priority", b"Variables", b"SandboxMode", b"Nonsense"):
        body = b'{"Messages": [{"' + name + b'": ' + digits + b"}]}"
        assert isinstance(decode_send_request(body), SendRequest | SendError)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Email", "Name", "From", "ContentType", "Filename", "Base64Content", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
PROPERTIES = st.sampled_from(
    [
        *("From", "To", "Cc", "ReplyTo", "Subject", "TextPart", "HTMLPart", "Attachments"),
        *("InlinedAttachments", "Headers", "CustomID", "Priority", "TrackOpens", "TemplateID"),
        *("Variables", "TemplateErrorReporting", "URLTags", "Globals", "Messages", "SandboxMode"),
    ]
)


@given(st.dictionaries(PROPERTIES, JSON_VALUES, max_size=6), st.booleans())
def test_any_json_gets_drafts_or_errors_with_paths(found: dict[str, object], good: bool) -> None:
    message = (GOOD | found) if good else found
    request = decode_send_request(json.dumps({"Messages": [message], "Globals": found}).encode())
    if isinstance(request, SendError):
        assert request.message
        return
    for given_message in request.messages or ():
        checked = (
            given_message
            if isinstance(given_message, list)
            else MessageChecker(TYPOS).check(merged(given_message, request.globals_))
        )
        assert isinstance(checked, Draft) or all(error.related_to for error in checked)


@given(st.binary(max_size=200))
def test_any_octets_get_an_answer(body: bytes) -> None:
    decode_send_request(body)


@pytest.mark.parametrize("name", ["SandboxMode", "SandBoxMode", "sandboxmode"])
def test_the_sandbox_is_found_in_either_spelling(name: str) -> None:
    request = decode({"Messages": [GOOD], name: True, "AdvanceErrorHandling": True})
    assert request.sandbox_mode is True
    assert request.advance_error_handling is True


def test_one_unreadable_message_leaves_the_others_readable() -> None:
    request = decode({"Messages": [GOOD, 7, GOOD | {"Subject": 7}, GOOD]})
    assert request.messages is not None
    assert [isinstance(message, list) for message in request.messages] == [False, True, True, False]
    assert request.messages[0] == request.messages[3]
