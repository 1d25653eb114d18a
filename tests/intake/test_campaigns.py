"""Campaigns over HTTP: what makes one, how lists come in, and what is said of their lines."""

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
import trio

from engine.config import Config, Delivery, Plan
from engine.intake.campaign_views import CampaignView
from engine.intake.campaigns import ListAnswer
from engine.intake.campaigns_http import DEFINITION_OCTETS_MAX, LISTS_OF_ACCOUNT_MAX
from engine.spool.account_calls import AccountChange
from engine.spool.interface import AcceptRequest, Spool, SpoolFull
from protocols.records import CampaignState, Status, Suppression, parts_number
from protocols.variables import unpack_variables

DEFINITION: dict[str, Any] = {
    "campaign": "spring",
    "from": {"email": "news@out.example", "name": "News"},
    "subject": "Hello {{name}}",
    "text": 'Dear {{name}}, your plan is {{plan:"free"}}.',
}
CSV = "E-Mail,name,plan,other\nann@in.example,Ann,gold,x\nbob@in.example,Bob,,y\n"
COUNTS = {"accepted": 0, "repeated": 0, "refused": 0, "paused": 0, "blocked": 0, "suggested": 0}


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def person(number: int, **more: Any) -> dict[str, Any]:
    return {"email": f"p{number}@in.example", "name": f"P {number}", **more}


async def create(opened: Any, definition: object = None, **more: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    path = more.pop("path", "/v1/campaigns")
    return await opened.post(definition or DEFINITION, path=path, headers=headers, **more)


async def fill(
    opened: Any,
    body: bytes | str,
    content_type: str = "text/csv",
    name: str = "spring",
    **more: Any,
) -> Any:
    octets = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": content_type, **more.pop("headers", {})}
    path = f"/v1/campaigns/{name}/recipients"
    return await opened.post(octets, path=path, headers=headers, **more)


def said(answer: Any, **counts: int) -> dict[str, Any]:
    msgspec.json.decode(answer.body, type=ListAnswer)
    found: dict[str, Any] = answer.json
    assert {name: found[name] for name in COUNTS} == COUNTS | counts
    return found


async def test_a_campaign_is_made_once(door: Any) -> None:
    async with door() as opened:
        first = await create(opened)
        again = await create(opened)
        other = await create(opened, DEFINITION | {"subject": "Another"})
    assert (first.status, again.status, other.status) == (201, 200, 409)
    view = msgspec.json.decode(first.body, type=CampaignView)
    assert (view.campaign, view.state, view.lane, view.total) == ("spring", "open", "bulk", 0)
    assert view.accepts_recipients
    assert again.json == first.json
    assert other.json["error"]["code"] == "campaign_exists"


async def test_a_csv_comes_in_by_its_columns(door: Any) -> None:
    async with door() as opened:
        await create(opened)
        answer = await fill(opened, CSV)
        ann, bob = await opened.envelopes()
        contents = await opened.spool.content([ann.fixed.content_id])
    assert answer.status == 200
    assert said(answer, accepted=2)["complete"] is True
    assert (ann.fixed.subject, ann.fixed.campaign, ann.fixed.lane) == ("Hello Ann", "spring", 1)
    assert (ann.fixed.recipient, ann.fixed.destination) == ("ann@in.example", "in.example")
    assert ann.fixed.content_id == bob.fixed.content_id
    assert len(contents) == 1
    assert unpack_variables(ann.fixed.variables) == {"name": "Ann", "plan": "gold"}
    assert unpack_variables(bob.fixed.variables) == {"name": "Bob"}


async def test_json_lines_come_in_with_names_and_numbers(door: Any) -> None:
    body = lines(
        {"email": "ann@in.example", "name": "Ann", "variables": {"plan": 7}},
        {"email": "bob@in.example", "variables": {"name": "Bob", "plan": None}},
    )
    async with door() as opened:
        await create(opened)
        answer = await fill(opened, body, "application/x-ndjson; charset=utf-8")
        ann, bob = await opened.envelopes()
    said(answer, accepted=2)
    assert unpack_variables(ann.fixed.variables) == {"name": "Ann", "plan": "7"}
    assert unpack_variables(bob.fixed.variables) == {"name": "Bob"}


async def test_one_request_makes_and_fills_a_campaign(door: Any) -> None:
    body = lines(DEFINITION | {"lane": "transactional"}, person(1), {"email": "@"}, person(2))
    async with door() as opened:
        answer = await opened.post(
            body, path="/v1/campaigns", headers={"Content-Type": "application/x-ndjson"}
        )
        again = await opened.post(
            body, path="/v1/campaigns", headers={"Content-Type": "application/x-ndjson"}
        )
        lanes = {each.fixed.lane for each in await opened.envelopes()}
        parts = {each.fixed.parts for each in await opened.envelopes()}
    assert (answer.status, again.status, lanes) == (201, 200, {0})
    assert parts == {parts_number(has_text=True, has_html=False, attachments=0)}
    assert said(answer, accepted=2, refused=1)["faults"][0]["line"] == 3
    said(again, repeated=2, refused=1)


async def test_a_list_twice_makes_no_mail_twice(door: Any) -> None:
    async with door() as opened:
        await create(opened)
        await fill(opened, CSV)
        longer = await fill(opened, CSV + "cyd@in.example,Cyd,,\nann@IN.example,Ann,,\n")
        shown = (await create(opened)).json
        assert len(await opened.envelopes()) == 3
    said(longer, accepted=1, repeated=3)
    assert (shown["accepted"], shown["repeated"], shown["total"]) == (3, 3, 3)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("email,plan\nann@in.example,gold\n", "missing_columns"),
        ("ann@in.example,Ann\nbob@in.example,Bob\n", "bad_list"),
        ("email,name,name\nann@in.example,Ann,A\n", "bad_list"),
        ("\ufeff\ufeff\n", "bad_list"),
        ("email,name," + "x" * 70_000 + "\n", "bad_list"),
    ],
)
async def test_a_list_that_cannot_fit_is_refused_as_a_whole(
    door: Any, body: str, code: str
) -> None:
    async with door() as opened:
        await create(opened)
        answer = await fill(opened, body)
        assert await opened.envelopes() == []
    assert (answer.status, answer.json["error"]["code"]) == (400, code)
    assert answer.json["complete"] is False


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"campaign": ""}, "campaign"),
        ({"campaign": "a\nb"}, "campaign"),
        ({"campaign": "x" * 256}, "campaign"),
        ({"from": {"email": "Tom@@ beispiel.de"}}, "from.email"),
        ({"reply_to": {"email": "nobody"}}, "reply_to.email"),
        ({"subject": "{{name"}, "subject"),
        ({"text": "{{na me}}"}, "text"),
        ({"text": None}, ""),
        ({"headers": {"Bcc": "x@in.example"}}, "headers[Bcc]"),
        ({"lane": "express"}, ""),
        ({"unknown": 1}, ""),
    ],
)
async def test_a_wrong_definition_is_refused_with_its_place(
    door: Any, change: dict[str, Any], where: str
) -> None:
    async with door() as opened:
        answer = await create(opened, DEFINITION | change)
    assert answer.status == 400
    assert answer.json["error"]["where"] == where
    assert answer.json["error"]["message"]


async def test_types_and_sizes_that_are_not_taken(door: Any) -> None:
    async with door() as opened:
        await create(opened)
        assert (await fill(opened, "x", "application/json")).status == 415
        latin = await fill(opened, "email\n", "text/csv; charset=latin-1")
        assert latin.json["error"]["where"] == "Content-Type"
        headers = {"Content-Type": "text/csv"}
        assert (await opened.post(b"x", path="/v1/campaigns", headers=headers)).status == 415
        long = DEFINITION | {"text": "x" * DEFINITION_OCTETS_MAX}
        assert (await create(opened, long)).status == 413
        headers = {"Content-Type": "application/x-ndjson"}
        flood = await opened.post(lines(long), path="/v1/campaigns", headers=headers)
        assert flood.status == 413
        assert (await create(opened, path="/v1/campaigns?acount=x")).status == 400


async def test_a_campaign_of_others_is_not_there(door: Any, tmp_path: Path) -> None:
    control = tmp_path / "control"
    async with door(control=control) as opened:
        await create(opened)
        assert (await fill(opened, CSV, name="autumn")).status == 404
        assert (await fill(opened, CSV, secret="wrong")).status == 401
        path = "/v1/campaigns?account=somebody"
        assert (await create(opened, path=path)).status == 404
        own = await create(opened, path="/v1/campaigns?account=sender")
        assert own.status == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_an_operator_names_the_account(door: Any, tmp_path: Path) -> None:
    control = tmp_path / "control"
    async with door(control=control):

        def ask(query: str) -> int:
            command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]
            return status_of([*command, str(control), f"http://x/v1/campaigns{query}"])

        assert await trio.to_thread.run_sync(ask, "") == 400
        assert await trio.to_thread.run_sync(ask, "?account=nobody") == 404
        assert await trio.to_thread.run_sync(ask, "?account=sender") == 201


def status_of(command: list[str]) -> int:
    data = ["-H", "Content-Type: application/json", "--data", json.dumps(DEFINITION)]
    return int(subprocess.run([*command, *data], check=True, capture_output=True).stdout)


async def test_an_ended_campaign_takes_nobody(door: Any) -> None:
    async with door() as opened:
        await create(opened)
        account_id = opened.sender.account.account_id
        for state in (CampaignState.CLOSED, CampaignState.CANCELLED):
            row = await opened.spool.campaign(account_id, "spring")
            await opened.spool.end_campaign(account_id, row.campaign_id, state)
            answer = await fill(opened, CSV)
            assert answer.status == 409
            assert answer.json["error"]["code"] == f"campaign_{state}"
            assert (await create(opened)).json["state"] == state.value
        assert await opened.envelopes() == []


async def test_suppressed_and_paused_recipients_are_counted(door: Any) -> None:
    config = Config(
        delivery=Delivery(ehlo_name="mail.out.example"),
        plans=(Plan(name="small", messages_per_day=1),),
    )
    async with door(config, plan="small") as opened:
        await create(opened)
        account_id = opened.sender.account.account_id
        await opened.spool.suppress(account_id, Suppression("bob@in.example", 1, 0))
        answer = await fill(opened, CSV + "cyd@in.example,Cyd,,\n")
        found = [each.state.status for each in await opened.envelopes()]
    said(answer, accepted=3, paused=1, blocked=1)
    assert found == [Status.QUEUED, Status.BLOCKED, Status.PAUSED]


async def test_a_quota_without_room_ends_the_list_with_what_was_taken(door: Any) -> None:
    config = Config(
        delivery=Delivery(ehlo_name="mail.out.example"),
        plans=(Plan(name="tiny", messages_per_day=10),),
    )
    body = "email,name\n" + "".join(f"p{number}@in.example,P\n" for number in range(1300))
    async with door(config, plan="tiny") as opened:
        await create(opened)
        answer = await fill(opened, body)
        again = await fill(opened, body)
        # Ten on each of so many days: today, and those within the longest pause.
        assert len(await opened.envelopes()) == 610
    assert (answer.status, answer.json["error"]["code"]) == (403, "quota")
    assert "(10 messages a day) leaves no room" in answer.json["error"]["message"]
    said(answer, accepted=610, paused=600)
    said(again, repeated=610)


class FullSpool:
    """The memory spool, but it is full, in one of two ways, after the first batch."""

    def __init__(self, spool: Spool, *, raises: bool) -> None:
        self._spool = spool
        self._raises = raises
        self._batches = 0

    async def accept(self, requests: Sequence[AcceptRequest]) -> Any:
        self._batches += 1
        if self._batches == 1:
            return await self._spool.accept(requests)
        full = SpoolFull("the disk is almost full")
        if self._raises:
            raise full
        return [full for _ in requests]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spool, name)


@pytest.mark.parametrize("raises", [True, False])
async def test_a_full_spool_ends_the_list_with_what_was_taken(door: Any, raises: bool) -> None:
    body = "email,name\n" + "".join(f"p{number}@in.example,P\n" for number in range(1_700))

    def wrap(spool: Spool) -> Any:
        return FullSpool(spool, raises=raises)

    async with door(wrap=wrap) as opened:
        await create(opened)
        answer = await fill(opened, body)
        assert len(await opened.envelopes()) == 500
    assert (answer.status, answer.json["error"]["code"]) == (503, "spool_full")
    assert int(answer.headers["retry-after"]) > 0
    assert said(answer, accepted=500)["complete"] is False


class ChangingSpool(FullSpool):
    """The memory spool, but the account is another one after the first batch."""

    def __init__(self, spool: Spool, change: AccountChange) -> None:
        super().__init__(spool, raises=False)
        self._change = change

    async def accept(self, requests: Sequence[AcceptRequest]) -> Any:
        self._batches += 1
        answers = await self._spool.accept(requests)
        if self._batches == 1:
            await self._spool.change_account(requests[0].account.account_id, self._change)
        return answers


@pytest.mark.parametrize(
    ("change", "status", "accepted", "paused"),
    [
        (AccountChange(plan=""), 200, 1_200, 490),
        (AccountChange(disabled=True), 403, 500, 490),
    ],
)
async def test_a_list_feels_what_changes_about_its_account(
    door: Any, change: AccountChange, status: int, accepted: int, paused: int
) -> None:
    config = Config(
        delivery=Delivery(ehlo_name="mail.out.example"),
        plans=(Plan(name="tiny", messages_per_day=10),),
    )
    body = "email,name\n" + "".join(f"p{number}@in.example,P\n" for number in range(1_200))
    async with door(config, plan="tiny", wrap=lambda spool: ChangingSpool(spool, change)) as opened:
        await create(opened)
        answer = await fill(opened, body)
    assert answer.status == status
    said(answer, accepted=accepted, paused=paused)


async def test_an_account_hands_in_so_many_lists_at_once(door: Any) -> None:
    head = (
        b"POST /v1/campaigns/spring/recipients HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
        b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nAuthorization: Basic %b\r\n\r\n"
    )
    async with door() as opened:
        await create(opened)
        pair = f"{opened.sender.api_key}:{opened.sender.secret_key}".encode()
        streams: list[trio.SocketStream] = []
        for _ in range(LISTS_OF_ACCOUNT_MAX):
            stream = await trio.open_tcp_stream("127.0.0.1", opened.port)
            await stream.send_all(head % base64.b64encode(pair))
            # Leave to go on is given where the list is read.
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
            streams.append(stream)
        refused = await fill(opened, CSV)
        assert (refused.status, refused.json["error"]["code"]) == (429, "too_many_lists")
        await streams.pop().aclose()
        with trio.fail_after(10):
            while True:
                answer = await fill(opened, CSV)
                if answer.status != 429:
                    break
                await trio.sleep(0.02)
        said(answer, accepted=2)
        for stream in streams:
            await stream.aclose()


async def test_definitions_that_come_slowly_are_as_few(door: Any) -> None:
    """Each may have megabytes in memory for as long as its sender likes."""
    head = (
        b"POST /v1/campaigns HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nAuthorization: Basic %b\r\n\r\n"
    )
    async with door() as opened:
        pair = f"{opened.sender.api_key}:{opened.sender.secret_key}".encode()
        answers: list[bytes] = []
        streams: list[trio.SocketStream] = []
        for _ in range(LISTS_OF_ACCOUNT_MAX + 1):
            stream = await trio.open_tcp_stream("127.0.0.1", opened.port)
            await stream.send_all(head % base64.b64encode(pair))
            answers.append(bytes(await stream.receive_some())[:13])
            streams.append(stream)
        assert answers == [b"HTTP/1.1 100 "] * LISTS_OF_ACCOUNT_MAX + [b"HTTP/1.1 429 "]
        for stream in streams:
            await stream.aclose()


async def test_international_recipients_need_what_others_do_not(door: Any) -> None:
    body = "email,name\nann@in.example,Ann\nänne@in.example,Änne\nbob@bücher.example,Bob\n"
    async with door() as opened:
        await create(opened)
        said(await fill(opened, body), accepted=3)
        needs = {each.fixed.address: each.fixed.needs_utf8 for each in await opened.envelopes()}
    assert needs == {
        "ann@in.example": False,
        "änne@in.example": True,
        "bob@bücher.example": False,
    }


@pytest.mark.slow
async def test_a_client_streams_a_list_of_unknown_length(door: Any) -> None:
    def rows() -> Iterator[bytes]:
        yield b"email;name\r\n"
        for number in range(2_600):
            yield f"p{number}@in.example;P {number}\r\n".encode()

    async with door(url="memory:") as opened:
        await create(opened)
        url = f"http://127.0.0.1:{opened.port}/v1/campaigns/spring/recipients"
        pair = (opened.sender.api_key, opened.sender.secret_key)

        def ask() -> Any:
            return requests.post(
                url, data=rows(), auth=pair, headers={"Content-Type": "text/csv"}, timeout=60
            ).json()

        answer = await trio.to_thread.run_sync(ask)
    assert (answer["accepted"], answer["complete"]) == (2_600, True)
