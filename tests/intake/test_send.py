"""`POST /v3.1/send` over a real port: what is answered, what is stored, and what is not."""

import base64
import email
import email.policy
import json
import os
import re
import threading
import uuid
from collections.abc import Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.config import Config, Delivery, Plan
from engine.http_server import unix_socket_address
from engine.intake.accounts import create_account
from engine.intake.send import REQUEST_OCTETS_MAX, THREAD_OCTETS_MIN, SendDoor
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    Spool,
    SpoolError,
    SpoolFailed,
    SpoolFull,
)
from protocols.records import Envelope, Status, parts_number
from tests.intake.examples import BAD, MESSAGE, batch


def parsed(octets: bytes) -> EmailMessage:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


async def test_one_message_is_stored_before_it_is_answered(door: Any) -> None:
    async with door() as opened:
        answer = await opened.post(batch(MESSAGE | {"CustomID": "c1", "CustomCampaign": "autumn"}))
        (envelope,) = await opened.envelopes()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert uuid.UUID(answer.headers["x-mj-request-guid"]).version == 4
    fixed = envelope.fixed
    assert answer.json == {
        "Messages": [
            {
                "Status": "success",
                "CustomID": "c1",
                "To": [
                    {
                        "Email": "ann@in.example",
                        "MessageUUID": str(uuid.UUID(bytes=fixed.uuid)),
                        "MessageID": fixed.envelope_id,
                        "MessageHref": (
                            f"{opened.config.public_url}/v3/REST/message/{fixed.envelope_id}"
                        ),
                    }
                ],
                "Cc": [],
                "Bcc": [],
            }
        ]
    }
    assert uuid.UUID(bytes=fixed.uuid).version == 4
    assert 0 < fixed.envelope_id < 2**53
    assert (fixed.account, fixed.campaign, fixed.custom_id) == ("sender", "autumn", "c1")
    assert (fixed.reverse_path, fixed.recipient) == ("news@out.example", "ann@in.example")
    assert envelope.state.status is Status.QUEUED


async def test_each_recipient_of_each_kind_has_its_own_message_and_bcc_leaves_no_trace(
    door: Any,
) -> None:
    async with door() as opened:
        answer = await opened.post(
            batch(
                MESSAGE
                | {
                    "To": [{"Email": "ann@in.example"}, {"Email": "Bob@In.example"}],
                    "Cc": [{"Email": "ann@in.example"}],
                    "Bcc": [{"Email": "secret@hidden.example", "Name": "Secret Person"}],
                }
            )
        )
        envelopes = await opened.envelopes()
        octets = await opened.octets()
    (one,) = answer.json["Messages"]
    assert [each["Email"] for each in one["To"]] == ["ann@in.example", "Bob@In.example"]
    everyone = one["To"] + one["Cc"] + one["Bcc"]
    assert len({each["MessageID"] for each in everyone}) == 4
    assert len({each["MessageUUID"] for each in everyone}) == 4
    assert {each["MessageID"]: each["Email"] for each in everyone} == {
        envelope.fixed.envelope_id: envelope.fixed.address for envelope in envelopes
    }
    assert len({envelope.fixed.content_id for envelope in envelopes}) == 1
    assert b"hidden" not in octets[0]
    assert b"Secret" not in octets[0]
    # As a field and not anywhere: identifiers are in hexadecimal digits.
    assert b"\nbcc" not in octets[0].lower()


async def test_the_message_has_its_trace_and_no_secret_of_the_client(door: Any) -> None:
    async with door() as opened:
        await opened.post(
            batch(
                MESSAGE
                | {
                    "Sender": {"Email": "office@desk.example"},
                    "ReplyTo": {"Email": "r@out.example"},
                }
            )
        )
        (octets,) = await opened.octets()
        (envelope,) = await opened.envelopes()
        secrets = [opened.sender.api_key, opened.sender.secret_key, "127.0.0.1"]
    assert octets.startswith(b"Received: from mail.out.example (HTTP API) by mail.out.example")
    message = parsed(octets)
    assert re.fullmatch(
        r"from \S+ \(HTTP API\) by \S+ with HTTP id [0-9a-f]{32};\s+"
        r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000",
        message["Received"],
    )
    assert re.fullmatch(r"<[0-9a-f]{32}@out\.example>", message["Message-ID"])
    stored_s = envelope.fixed.accepted_unix_ms / 1000
    assert abs(message["Date"].datetime.timestamp() - stored_s) < 60
    assert message["Sender"] == "office@desk.example"
    assert envelope.fixed.reverse_path == "office@desk.example"
    assert not any(secret.encode() in octets for secret in secrets)


async def test_a_batch_with_faults_accepts_the_good_ones_in_order(door: Any) -> None:
    async with door() as opened:
        first, last = (MESSAGE | {"CustomID": name} for name in ("first", "last"))
        answer = await opened.post(batch(first, BAD, 7, last))
        envelopes = await opened.envelopes()
    assert answer.status == 400
    found = answer.json["Messages"]
    assert [each["Status"] for each in found] == ["success", "error", "error", "success"]
    assert [each["CustomID"] for each in (found[0], found[3])] == ["first", "last"]
    assert {envelope.fixed.custom_id: envelope.fixed.envelope_id for envelope in envelopes} == {
        each["CustomID"]: each["To"][0]["MessageID"] for each in (found[0], found[3])
    }
    (error,) = found[1]["Errors"]
    assert set(found[1]) == {"Status", "Errors"}
    assert error["ErrorCode"] == "mj-0013"
    assert error["ErrorRelatedTo"] == ["To[0].Email"]
    assert error["StatusCode"] == 400
    assert uuid.UUID(error["ErrorIdentifier"]).version == 4
    assert error["AddressFault"] == {
        "code": "second_at",
        "position": 4,
        "text": "there is a second @",
        "suggestion": "tom@beispiel.de",
    }


async def test_the_sandbox_checks_everything_and_stores_nothing(door: Any) -> None:
    async with door() as opened:
        good = await opened.post(batch(MESSAGE, SandboxMode=True))
        mixed = await opened.post(batch(MESSAGE, BAD, SandBoxMode=True))
        assert await opened.envelopes() == []
    assert good.status == 200
    (to,) = good.json["Messages"][0]["To"]
    assert (to["MessageID"], to["MessageUUID"]) == (0, "")
    assert to["MessageHref"].endswith("/v3/REST/message/0")
    assert mixed.status == 400


async def test_globals_attachments_and_files_arrive_in_every_message(door: Any) -> None:
    shared = {key: value for key, value in MESSAGE.items() if key != "To"}
    shared["HTMLPart"] = '<img src="cid:logo.png">'
    shared["Attachments"] = [
        {"ContentType": "text/plain", "Filename": "Übersicht.txt", "Base64Content": "YWJj\r\n"}
    ]
    shared["InlinedAttachments"] = [
        {"ContentType": "image/png", "Filename": "logo.png", "Base64Content": "iVBORw=="}
    ]
    messages = [{"To": [{"Email": f"u{n}@d{n}.example"}]} for n in range(50)]
    async with door() as opened:
        answer = await opened.post(batch(*messages, Globals=shared))
        octets = await opened.octets()
        parts = {each.fixed.parts for each in await opened.envelopes()}
    assert answer.status == 200
    assert parts == {parts_number(has_text=True, has_html=True, attachments=2)}
    assert len(octets) == 50
    for n, each in enumerate(map(parsed, octets)):
        assert each["To"] == f"u{n}@d{n}.example"
        (file,) = each.iter_attachments()
        assert (file.get_filename(), file.get_content()) == ("Übersicht.txt", "abc")
        (image,) = (p for p in each.walk() if p.get_content_type() == "image/png")
        assert image["Content-ID"] == "<logo.png>"


async def test_a_bcc_beyond_ascii_costs_the_others_nothing(door: Any) -> None:
    bcc = [{"Email": "a@in.example"}, {"Email": "ü@in.example"}, {"Email": "b@in.example"}]
    async with door() as opened:
        answer = await opened.post(batch(MESSAGE | {"Bcc": bcc}))
        envelopes = {e.fixed.envelope_id: e.fixed for e in await opened.envelopes()}
    (one,) = answer.json["Messages"]
    assert [each["Email"] for each in one["Bcc"]] == [each["Email"] for each in bcc]
    for each in one["To"] + one["Bcc"]:
        fixed = envelopes[each["MessageID"]]
        assert fixed.address == each["Email"]
        assert fixed.needs_utf8 == (not each["Email"].isascii())


async def test_lanes_and_international_headers_reach_the_envelope(door: Any) -> None:
    low = MESSAGE | {"Priority": 0, "To": [{"Email": "ü@müller.test"}], "EventPayload": '{"o":1}'}
    async with door() as opened:
        await opened.post(batch(low))
        (envelope,) = await opened.envelopes()
    fixed = envelope.fixed
    assert (fixed.lane, fixed.needs_utf8, fixed.event_payload) == (1, True, '{"o":1}')
    assert (fixed.recipient, fixed.destination) == ("ü@xn--mller-kva.test", "xn--mller-kva.test")


async def test_mail_to_a_probable_typing_error_is_accepted_with_a_suggestion(door: Any) -> None:
    message = MESSAGE | {"To": [{"Email": "ann@in.example"}, {"Email": "tom@gmial.com"}]}
    async with door() as opened:
        answer = await opened.post(batch(message))
        sandbox = await opened.post(batch(message, SandboxMode=True))
        envelopes = await opened.envelopes()
    assert answer.status == 200
    assert [each.fixed.address for each in envelopes] == ["ann@in.example", "tom@gmial.com"]
    (one,) = answer.json["Messages"]
    assert one["Status"] == "success"
    assert one["Warnings"] == [
        {
            "Property": "To[1].Email",
            "Message": '"tom@gmial.com" was accepted; did you mean tom@gmail.com?',
            "Suggestion": "tom@gmail.com",
        }
    ]
    assert sandbox.json["Messages"][0]["Warnings"] == one["Warnings"]


async def test_tracking_is_accepted_and_said_to_be_without_effect(door: Any) -> None:
    async with door() as opened:
        on = await opened.post(batch(MESSAGE | {"TrackOpens": "enabled"}))
        off = await opened.post(batch(MESSAGE | {"TrackOpens": "disabled"}))
    (warning,) = on.json["Messages"][0]["Warnings"]
    assert set(warning) == {"Property", "Message"}
    assert warning["Property"] == "TrackOpens"
    assert "Warnings" not in off.json["Messages"][0]


@pytest.mark.parametrize(
    ("root", "code"),
    [
        (b"{", "mj-0002"),
        ({}, "mj-0003"),
        (batch(), "mj-0007"),
        (batch(*[MESSAGE] * 51), "mj-0008"),
        ({"Messages": 1}, "mj-0004"),
        (batch(MESSAGE, Nonsense=1), "mj-0002"),
    ],
)
async def test_a_faulty_request_is_refused_as_a_whole(door: Any, root: Any, code: str) -> None:
    async with door() as opened:
        answer = await opened.post(root)
        assert await opened.envelopes() == []
    assert answer.status == 400
    assert answer.json["ErrorCode"] == code
    assert answer.json["StatusCode"] == 400
    assert uuid.UUID(answer.json["ErrorIdentifier"]).version == 4
    if code != "mj-0002":
        assert answer.json["ErrorRelatedTo"] == ["Messages"]


@pytest.mark.parametrize("secret", ["", "wrong"])
async def test_wrong_credentials_are_answered_with_the_words_clients_know(
    door: Any, secret: str
) -> None:
    async with door() as opened:
        answer = await opened.post(batch(MESSAGE), secret=secret)
        assert await opened.envelopes() == []
    assert answer.status == 401
    assert "API key authentication/authorization failure" in answer.json["ErrorMessage"]
    assert "ErrorCode" not in answer.json
    assert answer.json["StatusCode"] == 401


async def test_a_body_beyond_the_limit_is_refused_in_the_clients_form(door: Any) -> None:
    async with door() as opened:
        with trio.fail_after(20):
            stream = await trio.open_tcp_stream("127.0.0.1", opened.port)
            async with stream:
                pair = f"{opened.sender.api_key}:{opened.sender.secret_key}".encode()
                await stream.send_all(
                    b"POST /v3.1/send HTTP/1.1\r\nHost: x\r\nAuthorization: Basic "
                    + base64.b64encode(pair)
                    + b"\r\nContent-Length: %d\r\n\r\n" % (REQUEST_OCTETS_MAX + 1)
                )
                head = b""
                while b"}" not in head:
                    piece = await stream.receive_some(65_536)
                    assert piece
                    head += piece
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b'"ErrorCode":"mj-0011"' in head


@pytest.mark.slow
async def test_messages_that_are_too_big_together_are_refused_and_the_rest_accepted(
    door: Any,
) -> None:
    file = {"ContentType": "a/b", "Filename": "f", "Base64Content": "AAAA" * 4_000_000}
    shared = MESSAGE | {"To": None, "Attachments": [file]}
    messages = [{"To": MESSAGE["To"]}] * 5
    async with door() as opened:
        answer = await opened.post(batch(*messages, Globals=shared))
        envelopes = await opened.envelopes()
    assert answer.status == 400
    states = [each["Status"] for each in answer.json["Messages"]]
    assert states == ["success"] * 4 + ["error"]
    assert answer.json["Messages"][4]["Errors"][0]["ErrorCode"] == "mj-0011"
    assert len(envelopes) == 4


async def test_a_large_request_is_prepared_in_a_thread_with_the_same_result(door: Any) -> None:
    text = "line\n" * (THREAD_OCTETS_MIN // 5)
    async with door() as opened:
        answer = await opened.post(batch(MESSAGE | {"TextPart": text}))
        (octets,) = await opened.octets()
    assert answer.status == 200
    assert octets.endswith(b"line\r\n")


async def test_what_is_filled_in_is_prepared_in_a_thread_however_small_it_comes(
    door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, threads = SendDoor._prepare, list[int]()

    def watched(*arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return prepare(*arguments)

    monkeypatch.setattr(SendDoor, "_prepare", watched)
    filled = {"TextPart": "{{var:a}}", "TemplateLanguage": True, "Variables": {"a": "x"}}
    misspelt = {"variables" if name == "Variables" else name: filled[name] for name in filled}
    async with door() as opened:
        for changes in ({"TextPart": "Variables: <Leser>"}, filled, misspelt):
            assert (await opened.post(batch(MESSAGE | changes))).status == 200
    assert threads[0] == threading.get_ident()
    assert threading.get_ident() not in threads[1:]


# --- quotas and a spool that refuses --------------------------------------------------------------


async def test_mail_beyond_the_quota_is_accepted_and_said_to_be_paused(door: Any) -> None:
    config = Config(
        plans=(Plan(name="small", messages_per_day=2),), delivery=Delivery(ehlo_name="o.example")
    )
    async with door(config, plan="small") as opened:
        answer = await opened.post(batch(MESSAGE, MESSAGE, MESSAGE))
        statuses = [envelope.state.status for envelope in await opened.envelopes()]
    assert answer.status == 200
    assert answer.headers["x-eilpost-paused"] == "1"
    assert statuses == [Status.QUEUED, Status.QUEUED, Status.PAUSED]


class RefusingSpool:
    """The memory spool, but it takes no mail: either kind of refusal an adapter may give."""

    def __init__(self, spool: Spool, error: SpoolError, *, raises: bool) -> None:
        self._spool = spool
        self._error = error
        self._raises = raises

    async def accept(self, requests: Sequence[AcceptRequest]) -> list[Accepted | SpoolError]:
        if self._raises:
            raise self._error
        return [self._error for _ in requests]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spool, name)


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (SpoolFull("disk"), 503, "spool-0001"),
        (SpoolFailed("commit"), 503, "spool-0002"),
    ],
)
async def test_a_spool_that_refuses_is_told_to_the_client(
    door: Any, error: SpoolError, status: int, code: str, raises: bool
) -> None:
    def wrap(spool: Spool) -> Any:
        return RefusingSpool(spool, error, raises=raises)

    async with door(wrap=wrap) as opened:
        answer = await opened.post(batch(MESSAGE))
        envelopes: list[Envelope] = await opened.envelopes()
    assert (answer.status, answer.json["ErrorCode"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert envelopes == []


# --- operators ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"), [("Müller & Söhne", 200), ("nobody", 403), (None, 403)]
)
async def test_an_operator_sends_for_the_account_it_names(
    door: Any, tmp_path: Path, name: str | None, status: int
) -> None:

    async with door(control=tmp_path / "control.sock") as opened:
        await create_account(
            opened.spool,
            opened.config,
            "Müller & Söhne",
            now_unix_ms=1,
            random_octets=os.urandom,
        )
        body = json.dumps(batch(MESSAGE)).encode()
        account = f"X-Eilpost-Account: {name}\r\n" if name else ""
        head = f"POST /v3.1/send HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{account}"
        with unix_socket_address(tmp_path / "control.sock") as address:
            stream = await trio.open_unix_socket(address)
        async with stream:
            await stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            received = b"".join([piece async for piece in stream])
        envelopes = await opened.envelopes()
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert [envelope.fixed.account for envelope in envelopes] == [name] * (status == 200)
