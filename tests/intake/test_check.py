"""`POST /v1/check`: what it says of a list, in which form, and what it refuses."""

import json
import shutil
from typing import Any

import msgspec
import pytest
import requests
import trio
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config, Delivery, Intake, load_typos
from engine.http_server import Request
from engine.intake.address_check import AddressFaultRow, SuggestionRow, check_list
from engine.intake.check_http import ADDRESSES_MAX, REQUEST_OCTETS_MAX, CheckAnswer, CheckDoor
from protocols.address_lists import Listed
from protocols.addresses import Address, parse_address

TYPOS = load_typos()
SECOND_AT = {
    "line": 2,
    "address": "Tom@@ beispiel.de",
    "code": "second_at",
    "position": 4,
    "text": "there is a second @",
    "suggestion": "tom@beispiel.de",
}
MEANT_GMAIL = {"line": 3, "address": "tom@gmial.com", "suggestion": "tom@gmail.com"}
LIST = ["ann@x.test", "Tom@@ beispiel.de", "tom@gmial.com", "bob@mailo.com"]
ANSWER = {"checked": 4, "good": 3, "faults": [SECOND_AT], "suggestions": [MEANT_GMAIL]}


async def check(
    opened: Any, body: object, content_type: str = "application/json", **more: Any
) -> Any:
    headers = {"Content-Type": content_type, **more.pop("headers", {})}
    body = body.encode() if isinstance(body, str) else body
    return await opened.post(body, path="/v1/check", headers=headers, **more)


async def test_json_a_csv_and_lines_have_the_same_answer(door: Any) -> None:
    lines = "\n".join(LIST)
    table = "E-Mail;Name\n" + "\n".join(f'{address};"Ann, Tom"' for address in LIST[1:])
    async with door() as opened:
        from_json = await check(opened, {"addresses": LIST})
        from_lines = await check(opened, lines, "text/plain; charset=UTF-8")
        from_column = await check(opened, lines, "text/csv")
        from_table = await check(opened, table, 'Text/CSV; charset="utf-8"; header=present')
        guessed = await check(opened, table, "text/plain")
        assert await opened.envelopes() == []
    assert from_json.status == 200
    assert from_json.headers["content-type"] == "application/json"
    assert from_json.json == ANSWER
    assert from_lines.json == from_column.json == ANSWER
    assert from_table.json == guessed.json == ANSWER | {"checked": 3, "good": 2}


async def test_the_answer_is_of_the_form_that_is_described(door: Any) -> None:
    async with door() as opened:
        answer = await check(opened, {"addresses": LIST})
    assert msgspec.to_builtins(msgspec.json.decode(answer.body, type=CheckAnswer)) == ANSWER


async def test_texts_follow_the_language_asked_for(door: Any) -> None:
    async with door() as opened:
        german = await check(
            opened, {"addresses": LIST}, headers={"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}
        )
        other = await check(opened, {"addresses": LIST}, headers={"Accept-Language": "fr"})
    assert german.json["faults"] == [SECOND_AT | {"text": "hier steht ein zweites @"}]
    assert german.headers["content-language"] == "de"
    assert other.json == ANSWER
    assert other.headers["content-language"] == "en"


async def test_broken_lines_are_named_and_the_rest_goes_on(door: Any) -> None:
    table = b'email,name\nann@x.test,Ann\n"bob@x.test,Bob\n\nm\xfcller@x.test,M\neve@x.test,Eve\n'
    async with door() as opened:
        answer = (await check(opened, table, "text/csv")).json
    assert (answer["checked"], answer["good"]) == (4, 2)
    assert [(row["line"], row["code"], row["position"]) for row in answer["faults"]] == [
        (3, "broken_line", 0),
        (5, "not_utf8", 1),
    ]


async def test_an_operators_own_list_counts(door: Any, tmp_path: Any) -> None:
    (tmp_path / "ours.toml").write_text('real = ["gmial.com"]\n[typo]\n"shpo.test" = "shop.test"\n')
    config = Config(
        delivery=Delivery(ehlo_name="out.example"),
        intake=Intake(typo_files=(tmp_path / "ours.toml",)),
    )
    async with door(config) as opened:
        answer = await check(opened, {"addresses": ["a@gmial.com", "a@shpo.test", "a@web.ed"]})
    assert [row["suggestion"] for row in answer.json["suggestions"]] == ["a@shop.test", "a@web.de"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "application/json", 400, "bad_request"),
        (b"[]", "application/json", 400, "bad_request"),
        (b"{}", "application/json", 400, "bad_request"),
        (b'{"addresses": "a@x.test"}', "application/json", 400, "bad_request"),
        (b'{"addresses": ["a@x.test", 5]}', "application/json", 400, "bad_request"),
        (b'{"addresses": ["\\ud800"]}', "application/json", 400, "bad_request"),
        (b'{"addresses": ["\xff"]}', "application/json", 400, "bad_request"),
        (b'{"adresses": []}', "application/json", 400, "bad_request"),
        (b"[" * 100_000, "application/json", 400, "bad_request"),
        (b"a@x.test", "", 415, "unsupported_media_type"),
        (b"a@x.test", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"a@x.test", "text/plain; charset=iso-8859-1", 415, "unsupported_media_type"),
        ("a@x.test".encode("utf-16"), "text/csv", 400, "bad_list"),
        pytest.param(
            b"a@x.test\n" * (ADDRESSES_MAX + 1),
            *("text/plain", 413, "too_many_addresses"),
            marks=pytest.mark.slow,
        ),
        (
            b'{"addresses": [' + b'"",' * 500_000 + b'""]}',
            "application/json",
            413,
            "too_many_addresses",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_list_is_refused(
    door: Any, body: bytes, content_type: str, status: int, code: str
) -> None:
    async with door() as opened:
        answer = await check(opened, body, content_type)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)


async def test_an_empty_list_is_one(door: Any) -> None:
    nothing = {"checked": 0, "good": 0, "faults": [], "suggestions": []}
    async with door() as opened:
        assert (await check(opened, {"addresses": []})).json == nothing
        assert (await check(opened, b"", "text/csv")).json == nothing


@pytest.mark.slow
async def test_as_many_as_are_allowed_are_checked_and_one_more_is_not(door: Any) -> None:
    addresses = [f"u{n}@x.test" for n in range(ADDRESSES_MAX)]
    addresses[-1] += "."
    async with door() as opened:
        answer = await check(opened, {"addresses": addresses})
        more = await check(opened, {"addresses": [*addresses, "a@x.test"]})
    assert (answer.json["checked"], answer.json["good"]) == (ADDRESSES_MAX, ADDRESSES_MAX - 1)
    assert [row["line"] for row in answer.json["faults"]] == [ADDRESSES_MAX]
    assert (more.status, more.json["error"]["code"]) == (413, "too_many_addresses")


async def test_wrong_credentials_and_huge_bodies_are_refused(door: Any) -> None:
    async with door() as opened:
        stranger = await check(opened, {"addresses": LIST}, secret="wrong")
        announced = {"Content-Length": str(REQUEST_OCTETS_MAX + 1)}
        huge = await check(opened, b"x", "text/plain", headers=announced)
    assert stranger.status == 401
    assert huge.status == 413


async def test_other_tasks_get_their_turn_meanwhile() -> None:
    body = json.dumps({"addresses": ["Tom@@ x.test"] * 1_000}).encode()
    request = Request("POST", "/v1/check", "", [(b"content-type", b"application/json")], body=body)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        answer = await CheckDoor(TYPOS, run_blocking=trio.to_thread.run_sync).check(request)
        nursery.cancel_scope.cancel()
    assert answer.status == 200
    assert turns >= 100


async def test_curl_and_requests_send_files_and_lists(door: Any, tmp_path: Any) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs Debian package curl")
    file = tmp_path / "list.csv"
    file.write_bytes(b"Name;E-Mail\r\nTom;tom@gmial.com\r\nAnn;ann@x..test\r\n")
    async with door() as opened:
        url = f"http://127.0.0.1:{opened.port}/v1/check"
        keys = (opened.sender.api_key, opened.sender.secret_key)
        curl = ["curl", "-sS", "-u", ":".join(keys), "-H", "Accept-Language: de"]
        sent = [*curl, "-H", "Content-Type: text/csv", "--data-binary", f"@{file}", url]
        done = await trio.run_process(sent, capture_stdout=True)
        answer = await trio.to_thread.run_sync(
            lambda: requests.post(url, json={"addresses": LIST}, auth=keys, timeout=30)
        )
    found = json.loads(done.stdout)
    assert (found["checked"], found["good"]) == (2, 1)
    assert found["faults"][0]["text"] == "zwei Punkte hintereinander"
    assert found["suggestions"][0] == MEANT_GMAIL | {"line": 2}
    assert answer.json() == ANSWER


@pytest.mark.slow
@given(st.lists(st.text() | st.sampled_from(LIST)))
def test_each_entry_has_one_finding_and_good_means_that_intake_accepts_it(texts: list[str]) -> None:
    entries = [Listed(line, text) for line, text in enumerate(texts, 1)]
    findings = list(check_list(entries, TYPOS, "de"))
    for entry, found in zip(entries, findings, strict=True):
        accepted = isinstance(parse_address(entry.address), Address)
        assert accepted == (not isinstance(found, AddressFaultRow))
        if isinstance(found, AddressFaultRow | SuggestionRow):
            assert found.line == entry.line
            assert found.suggestion is None or isinstance(parse_address(found.suggestion), Address)


def test_long_texts_are_cut_where_they_are_shown() -> None:
    (found,) = check_list([Listed(1, "a" * 5_000)], TYPOS, "en")
    assert isinstance(found, AddressFaultRow)
    assert found.address == "a" * 254 + "…"
