"""A client that nobody here wrote, mailjet-rest, against our send door over a real port."""

import json
import uuid
import warnings
from typing import Any

import pytest
import trio
from mailjet_rest import Client, MailjetAuthError
from mailjet_rest.client import ValidationError


def message(to: str, custom_id: str) -> dict[str, Any]:
    return {
        "From": {"Email": "a@s.example", "Name": "A"},
        "To": [{"Email": to}],
        "Subject": "s",
        "TextPart": "t",
        "HTMLPart": "<p>t</p>",
        "CustomID": custom_id,
        "EventPayload": custom_id,
    }


async def call(opened: Any, body: dict[str, Any], secret: str | None = None) -> tuple[int, Any]:
    """Return status and JSON of one `send.create`, whether the client raises or not."""

    def run() -> tuple[int, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of plain HTTP, which is what we test over.
            keys = (opened.sender.api_key, secret or opened.sender.secret_key)
            url = f"http://127.0.0.1:{opened.port}/"
            with Client(auth=keys, version="v3.1", api_url=url) as client:
                try:
                    answer = client.send.create(data=body)
                except ValidationError as error:
                    return 400, json.loads(error.response_body)
                return answer.status_code, answer.json()

    return await trio.to_thread.run_sync(run)


async def test_a_send_is_a_success_with_ids(door: Any) -> None:
    async with door() as opened:
        custom_id = uuid.uuid4().hex
        status, answer = await call(opened, {"Messages": [message("ok@r.example", custom_id)]})
        (envelope,) = await opened.envelopes()
    assert status == 200
    (one,) = answer["Messages"]
    assert (one["Status"], one["CustomID"], one["Cc"], one["Bcc"]) == ("success", custom_id, [], [])
    assert one["To"][0]["MessageID"] == envelope.fixed.envelope_id
    assert len(one["To"][0]["MessageUUID"]) == 36


async def test_its_key_is_the_same_for_different_mails_and_none_is_lost(door: Any) -> None:
    async with door() as opened:
        _, first = await call(opened, {"Messages": [message("ok@r.example", "1")]})
        _, second = await call(opened, {"Messages": [message("ok@r.example", "2")]})
        body = {"Messages": [message("sandbox@r.example", "3")]}
        _, dry = await call(opened, body | {"SandboxMode": True})
        _, wet = await call(opened, body)
        stored = [envelope.fixed.custom_id for envelope in await opened.envelopes()]
    numbers = [answer["Messages"][0]["To"][0]["MessageID"] for answer in (first, second, dry, wet)]
    assert numbers[2] == 0
    assert len(set(numbers)) == 4
    assert stored == ["1", "2", "3"]


async def test_partial_success_is_400_and_the_good_one_is_kept(door: Any) -> None:
    async with door() as opened:
        body = {"Messages": [message("ok2@r.example", "p1"), message("bad@r..example", "p2")]}
        status, answer = await call(opened, body)
        stored = [envelope.fixed.custom_id for envelope in await opened.envelopes()]
    assert status == 400
    assert [each["Status"] for each in answer["Messages"]] == ["success", "error"]
    (error,) = answer["Messages"][1]["Errors"]
    assert (error["ErrorCode"], error["StatusCode"]) == ("mj-0013", 400)
    assert error["ErrorRelatedTo"] == ["To[0].Email"]
    assert "is an invalid email address." in error["ErrorMessage"]
    assert stored == ["p1"]


async def test_wrong_credentials_raise_its_own_error(door: Any) -> None:
    async with door() as opened:
        with pytest.raises(MailjetAuthError, match="API key authentication/authorization failure"):
            await call(opened, {"Messages": []}, secret="no")
