"""`POST /v3.1/send` again: what is one request, and what is two."""

from pathlib import Path
from typing import Any

from engine.config import Config, Delivery, Http
from tests.intake.examples import BAD, MESSAGE, batch

KEY = {"Idempotency-Key": "0" * 64}


def ids(answer: Any) -> list[int]:
    return [
        each["MessageID"]
        for one in answer.json["Messages"]
        if one["Status"] == "success"
        for each in one["To"] + one["Cc"] + one["Bcc"]
    ]


async def test_the_same_key_and_body_is_one_request(door: Any) -> None:
    root = batch(MESSAGE, BAD, MESSAGE | {"Bcc": [{"Email": "ü@in.example"}]})
    async with door() as opened:
        first = await opened.post(root, headers=KEY)
        again = await opened.post(root, headers=KEY)
        envelopes = await opened.envelopes()
    assert (first.status, again.status) == (400, 400)
    assert ids(first) == ids(again)
    assert [m.get("To") for m in first.json["Messages"]] == [
        m.get("To") for m in again.json["Messages"]
    ]
    assert len(envelopes) == 3


async def test_another_body_under_the_same_key_is_another_request(door: Any) -> None:
    async with door() as opened:
        answers = [
            await opened.post(root, headers=KEY)
            for root in (
                batch(MESSAGE | {"CustomID": "1"}, SandboxMode=True),
                batch(MESSAGE | {"CustomID": "1"}),
                batch(MESSAGE | {"CustomID": "2"}),
                batch(MESSAGE | {"CustomID": "2", "EventPayload": "x"}),
            )
        ]
        envelopes = await opened.envelopes()
    assert ids(answers[0]) == [0]
    assert sorted(n for answer in answers[1:] for n in ids(answer)) == [
        envelope.fixed.envelope_id for envelope in envelopes
    ]
    assert len(envelopes) == 3


async def test_without_a_key_or_without_a_window_equal_requests_are_two(door: Any) -> None:
    async with door() as opened:
        for _ in range(2):
            await opened.post(batch(MESSAGE))
        await opened.post(batch(MESSAGE), headers=KEY)
        await opened.post(batch(MESSAGE), headers={"Idempotency-Key": "other"})
        assert len(await opened.envelopes()) == 4
    off = Config(http=Http(idempotency_window_s=0.0), delivery=Delivery(ehlo_name="o.example"))
    async with door(off) as opened:
        for _ in range(2):
            await opened.post(batch(MESSAGE), headers=KEY)
        assert len(await opened.envelopes()) == 2


async def test_a_repeat_is_recognised_after_a_restart(door: Any, tmp_path: Path) -> None:
    root = batch(MESSAGE | {"Bcc": [{"Email": "b@in.example"}]}, MESSAGE)
    async with door(url="lmdb:", data_dir=tmp_path) as opened:
        first = await opened.post(root, headers=KEY)
        octets = await opened.octets()
        sender = opened.sender
    async with door(url="lmdb:", data_dir=tmp_path, sender=sender) as opened:
        again = await opened.post(root, headers=KEY)
        other = await opened.post(root)
        assert (await opened.octets())[:3] == octets
        assert len(await opened.envelopes()) == 6
    assert (first.status, again.status, other.status) == (200, 200, 200)
    assert first.json == again.json
    assert not set(ids(first)) & set(ids(other))
