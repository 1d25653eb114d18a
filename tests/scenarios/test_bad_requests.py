"""Everything that a client can get wrong, at the door of the real engine.

Each refusal says what and where; nothing that was refused is stored, counted or delivered; and the
engine goes on for everybody else. What each rule is, its own tests say.
"""

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from engine.rehearsal.engine_process import Credentials
from tests.scenarios.scene import Scene, mails, scene

pytestmark = pytest.mark.slow

GOOD = "to+good@d0.fast.test"
EVE = "eve@d0.fast.test"
INJECTED = f"x\r\nBcc: {EVE}\r\n\r\nbody"
FILE = {"ContentType": "text/plain", "Filename": "a.txt", "Base64Content": "aGk="}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("engine")) as made:
        yield made


def one(**fields: object) -> bytes:
    return mails([GOOD], **fields)


REFUSED: dict[str, tuple[bytes, str]] = {
    # What it is: the body, and what the refusal has to name.
    "nothing": (b"", "JSON"),
    "cut short": (one()[:-3], "JSON"),
    "not JSON": (b"Messages=1", "JSON"),
    "not UTF-8": (one().replace(b"for to", b"\xff\xfe"), "JSON"),
    "deep": (b'{"Messages":' + b"[" * 50_000, "JSON"),
    "very many parts": (b'{"Messages":' + b"[" * 500_000, "Too many elements"),
    "a list": (b"[]", "JSON"),
    "no messages": (b"{}", "Messages"),
    "empty": (b'{"Messages":[]}', "Messages"),
    "messages that are a number": (b'{"Messages":7}', "Messages"),
    "too many": (mails([GOOD] * 51), "Messages"),
    "subject that is a number": (one(Subject=7), "Subject"),
    "recipients that are text": (one(To=EVE), "To"),
    "recipient without address": (one(To=[{"Name": "Eve"}]), "To[0].Email"),
    "address of a wrong type": (one(To=[{"Email": [EVE]}]), "To[0].Email"),
    "two signs": (one(To=[{"Email": "Tom@@ beispiel.de"}]), "To[0].Email"),
    "no domain": (one(Cc=[{"Email": "tom@"}]), "Cc[0].Email"),
    "file that is not base64": (
        one(Attachments=[FILE | {"Base64Content": "*"}]),
        "Attachments[0].Base64Content",
    ),
    "misspelt property": (one(TextPrat="x"), "TextPrat"),
    "injection by subject": (one(Subject=INJECTED), "Subject"),
    "injection by sender's name": (
        one(From={"Email": "a@b.test", "Name": INJECTED}),
        "From.Name",
    ),
    "injection by sender": (one(From={"Email": f"a@b.test\r\nRCPT TO:<{EVE}>"}), "From.Email"),
    "injection by recipient": (one(To=[{"Email": f"a@b.test>\r\nRCPT TO:<{EVE}"}]), "To[0].Email"),
    "injection by recipient's name": (one(To=[{"Email": GOOD, "Name": INJECTED}]), "To[0].Name"),
    "injection by header": (one(Headers={"X-A": INJECTED}), 'Headers["X-A"]'),
    "injection by header's name": (one(Headers={f"X\r\nBcc: {EVE}\r\nY": "z"}), "Headers"),
    "injection by file's name": (
        one(Attachments=[FILE | {"Filename": INJECTED}]),
        "Attachments[0].Filename",
    ),
    "injection by file's type": (
        one(Attachments=[FILE | {"ContentType": INJECTED}]),
        "Attachments[0].ContentType",
    ),
    "injection by content id": (
        one(InlinedAttachments=[FILE | {"ContentID": INJECTED}]),
        "InlinedAttachments[0].ContentID",
    ),
    "injection by reply address": (one(ReplyTo={"Email": INJECTED}), "ReplyTo.Email"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_and_where(door: Scene, name: str) -> None:
    body, place = REFUSED[name]
    before = sum(door.counts().values())
    status, answer = door.post(body)
    assert 400 <= status < 500, answer
    assert place in json.dumps(answer).replace('\\"', '"'), answer
    assert sum(door.counts().values()) == before


@pytest.mark.parametrize("name", ["CustomID", "CustomCampaign", "EventPayload"])
def test_injection_where_any_text_is_allowed_stays_text(door: Scene, name: str) -> None:
    """These may hold anything but a line end that would get out, or they are refused."""
    status, answer = door.post(one(**{name: INJECTED}))
    assert status == 200 or name in json.dumps(answer)


@pytest.mark.parametrize("wrong", ["secret", "key", "both", "none"])
def test_wrong_credentials_open_nothing(door: Scene, wrong: str) -> None:
    ours = door.credentials
    given = {
        "secret": Credentials("shop", ours.api_key, ours.api_key),
        "key": Credentials("shop", ours.secret_key, ours.secret_key),
        "both": Credentials("shop", "' OR 1=1", "\0"),
        "none": Credentials("shop", "", ""),
    }[wrong]
    before = sum(door.counts().values())
    for path in ("/v3.1/send", "/v1/stream/tickets"):
        status, answer = door.post(mails([EVE]), path, given)
        assert status == 401, answer
    assert sum(door.counts().values()) == before


def test_another_account_has_no_part_in_ours(door: Scene) -> None:
    (message_id,) = door.send(["to+mine@d0.fast.test"]).values()
    theirs = door.engine.create_account(f"other{message_id}")
    status, answer = door.post(b"", f"/v1/messages/{message_id}/none", theirs)
    assert status in (404, 405), answer
    client = Scene(door.engine, door.receivers, theirs)
    assert client.counts() == {}
    assert client.get("/v1/messages")["messages"] == []


def raw(door: Scene, octets: bytes) -> bytes:
    """Send octets as they are; return all that comes back until the engine closes."""
    with socket.create_connection(("127.0.0.1", door.engine.port), timeout=30) as connection:
        answer = b""
        try:
            connection.sendall(octets)
            while part := connection.recv(65536):
                answer += part
        except ConnectionError:
            # Whoever is refused in the middle of a body may be cut off before the end of it.
            pass
        return answer


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(door: Scene) -> None:
    before = door.engine.private_bytes()
    head = (
        f"POST /v3.1/send HTTP/1.1\r\nHost: x\r\nAuthorization: {door.credentials.authorization}"
        "\r\nContent-Type: application/json\r\n"
    ).encode()
    answer = raw(door, head + b"Content-Length: 1000000000000\r\n\r\n" + b" " * 100_000)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:300]
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    answer = raw(door, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 64)
    assert answer.startswith(b"HTTP/1.1 413 ") or answer == b"", answer[:300]
    # A body that is too long is not kept while it is found out.
    assert door.engine.private_bytes() - before < 100_000_000


def test_a_large_mail_within_the_limit_is_taken(door: Scene) -> None:
    octets = base64.b64encode(b"\0" * 10_000_000).decode()
    ids = door.send(["to+large@d1.fast.test"], Attachments=[FILE | {"Base64Content": octets}])
    door.wait_for("the large one", lambda: "to+large@d1.fast.test" in door.delivered())
    (message_id,) = ids.values()
    door.wait_for("its 250", lambda: door.message(message_id)["status"] == "delivered")


def test_in_the_end_only_good_mail_was_delivered(door: Scene) -> None:
    """Last in this file: the receivers saw all that the others did."""
    door.send([GOOD])
    counts: dict[str, Any] = door.wait_until_final()
    assert set(counts) == {"delivered"}
    assert len(door.delivered()) == counts["delivered"]
    assert EVE not in door.delivered()
    assert all(recipient.startswith("to+") for recipient in door.delivered())
