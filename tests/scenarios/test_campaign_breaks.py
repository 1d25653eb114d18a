"""A campaign whose list breaks off, by every means: handed in again, nobody gets it twice."""

import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.rehearsal.engine_process import HttpClient
from tests.scenarios.scene import Scene, scene

pytestmark = pytest.mark.slow

PEOPLE = 6_000
DEFINITION = {
    "campaign": "spring",
    "from": {"email": "news@sender.test", "name": "News"},
    "subject": "Hello {{name}}",
    "text": "Dear {{name}},\nthis is for you: tag<{{name}}>\n",
}


def rows(count: int = PEOPLE, at: str = "fast") -> bytes:
    """A CSV of so many people at some domains of one receiver."""
    lines = [f"p{number}@d{number % 7}.{at}.test,P{number}" for number in range(count)]
    return ("email,name\n" + "\n".join(lines) + "\n").encode()


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path) as made:
        status, answer = made.post(json.dumps(DEFINITION).encode(), "/v1/campaigns")
        assert status == 201, answer
        yield made


class Upload:
    """A list on its way in over a socket of our own: chunked, as far as one likes."""

    def __init__(self, sender: Scene) -> None:
        self._socket = socket.create_connection(("127.0.0.1", sender.engine.port), timeout=30)
        self._socket.sendall(
            b"POST /v1/campaigns/spring/recipients HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n"
            + f"Authorization: {sender.credentials.authorization}\r\n\r\n".encode()
        )

    def send(self, octets: bytes) -> None:
        self.send_raw(b"%x\r\n%b\r\n" % (len(octets), octets))

    def send_raw(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def finish(self) -> tuple[int, Any]:
        self._socket.sendall(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> tuple[int, Any]:
        with self._socket, http.client.HTTPResponse(self._socket) as response:
            response.begin()
            return response.status, json.loads(response.read())

    def cut(self) -> None:
        """End the connection as a lost network would: with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._socket.close()


def whole_list(sender: Scene, octets: bytes) -> Any:
    upload = Upload(sender)
    upload.send(octets)
    status, answer = upload.finish()
    assert status == 200, answer
    assert answer["complete"]
    return answer


def campaign(sender: Scene) -> Any:
    return sender.get("/v1/campaigns/spring")


def wait_for_accepted(sender: Scene, at_least: int) -> int:
    sender.wait_for(f"{at_least} accepted", lambda: campaign(sender)["accepted"] >= at_least, 60.0)
    accepted: int = campaign(sender)["accepted"]
    return accepted


def each_got_one(sender: Scene, count: int = PEOPLE) -> None:
    assert sender.wait_until_final(120.0) == {"delivered": count}
    got = Counter(sender.delivered())
    assert len(got) == count
    assert set(got.values()) == {1}


def test_a_cut_connection_and_the_whole_list_again(sender: Scene) -> None:
    octets = rows()
    upload = Upload(sender)
    upload.send(octets[: len(octets) // 2])
    first = wait_for_accepted(sender, 1_000)
    assert first < PEOPLE
    upload.cut()
    answer = whole_list(sender, octets)
    assert answer["accepted"] + answer["repeated"] == PEOPLE
    assert answer["repeated"] >= first
    each_got_one(sender)
    shown = campaign(sender)
    assert (shown["accepted"], shown["total"], shown["finished"]) == (PEOPLE, PEOPLE, 1.0)


def test_a_body_that_is_no_http_any_more_is_answered_with_what_was_taken(sender: Scene) -> None:
    octets = rows()
    upload = Upload(sender)
    upload.send(octets[: len(octets) // 2])
    wait_for_accepted(sender, 1_000)
    upload.send_raw(b"this is no chunk\r\n")
    status, answer = upload.answer()
    assert (status, answer["error"]["code"], answer["complete"]) == (400, "body_broken", False)
    assert answer["error"]["message"].endswith("the same list once more takes in the rest.")
    assert answer["accepted"] == campaign(sender)["accepted"] > 1_000
    assert whole_list(sender, octets)["repeated"] == answer["accepted"]
    each_got_one(sender)


def test_kill_9_in_the_middle_and_the_whole_list_again(sender: Scene) -> None:
    octets = rows()
    known = 0
    for part in (0.3, 0.6, 0.9):
        upload = Upload(sender)
        upload.send(octets[: round(len(octets) * part)])
        known = wait_for_accepted(sender, known + 500)
        sender.engine.kill()
        upload.cut()
        sender.engine.start()
        sender.engine.wait_until_ready()
        assert campaign(sender)["accepted"] >= known
    answer = whole_list(sender, octets)
    assert answer["accepted"] + answer["repeated"] == PEOPLE
    # A mail may go twice if the process died between its final dot and the commit: that bound is
    # the engine's for all mail. What must not be is a second mail for one recipient.
    sender.wait_until_final(120.0)
    shown = campaign(sender)
    assert (shown["total"], shown["counts"]["delivered"]) == (PEOPLE, PEOPLE)
    assert len(set(sender.delivered())) == PEOPLE


def test_two_uploads_of_one_list_at_once(sender: Scene) -> None:
    octets = rows()
    uploads = [Upload(sender), Upload(sender)]
    for start in range(0, len(octets), 20_000):
        for upload in uploads:
            upload.send(octets[start : start + 20_000])
    answers = [upload.finish()[1] for upload in uploads]
    assert sum(each["accepted"] for each in answers) == PEOPLE
    assert sum(each["repeated"] for each in answers) == PEOPLE
    each_got_one(sender)


def test_pause_resume_and_cancel_with_receivers_that_take_mail(sender: Scene) -> None:
    client = HttpClient(sender.engine.port, sender.credentials)

    def do(deed: str) -> Any:
        status, answer = client.request("POST", f"/v1/campaigns/spring/{deed}", b"{}")
        assert status == 200, answer
        return answer

    assert do("pause")["state"] == "paused"
    whole_list(sender, rows(at="near"))
    [message] = sender.get("/v1/messages?limit=1&status=queued")["messages"]
    held_by = sender.get(f"/v1/messages/{message['message_id']}/explain")["held_by"]
    assert (held_by["code"], held_by["scope"], held_by["key"]) == ("hold", "campaign", "spring")
    client.close()
    sender.engine.stop()
    sender.engine.start()
    sender.engine.wait_until_ready()
    client = HttpClient(sender.engine.port, sender.credentials)
    assert campaign(sender)["state"] == "paused"
    assert sender.delivered() == []
    assert do("resume")["state"] == "open"
    sender.wait_for("some deliveries", lambda: len(sender.delivered()) > 50)
    assert do("cancel")["state"] == "cancelled"
    counts = sender.wait_until_final(60.0)
    assert counts["delivered"] + counts["cancelled"] == PEOPLE
    assert counts["cancelled"] > 0
    assert sorted(sender.delivered()) == sorted(set(sender.delivered()))
    assert len(sender.delivered()) == counts["delivered"]
    client.close()
    status, answer = sender.post(json.dumps(DEFINITION).encode(), "/v1/campaigns")
    assert (status, answer["state"]) == (200, "cancelled")
    upload = Upload(sender)
    upload.send(rows(1))
    assert upload.finish()[1]["error"]["code"] == "campaign_cancelled"
