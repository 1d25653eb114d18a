"""`eilpost explain` and `eilpost forecast`: whom they ask, what they print, how they end."""

import json
from pathlib import Path

from engine.http_server import HttpError, Request, Response
from tests.cli.test_control import answering, eilpost, engine_with

HELD = {
    "code": "retry_wait",
    "scope": "envelope",
    "key": "17",
    "since": "2026-11-24T09:30:00.000Z",
    "limit": None,
    "reply": "452 4.2.2 \x1b[31mmailbox full",
    "reason": "mailbox_full",
    "text": "The last attempt failed.",
}
MESSAGE = {
    "message_id": 17,
    "status": "deferred",
    "held_by": HELD,
    "ahead": 3,
    "next_attempt_at": "2026-11-24T09:35:00.000Z",
    "expires_at": None,
    "advice": "Nothing to do.",
}
DESTINATION = {
    "destination": "x.test",
    "state": "idle",
    "queued": 1200,
    "deferred": 0,
    "paused": 2,
    "held_by": {**HELD, "limit": "20/s, burst 20"},
    "next_attempt_at": None,
    "rate_per_s": 0.0,
    "advice": "Nothing to do.",
    "causes": [
        {
            **{name: HELD[name] for name in ("code", "scope", "since", "limit", "reason")},
            "key": "x.test",
            "count": 1200,
            "reply": "452 4.2.2 mailbox \x1b[31mfull",
            "next_attempt_at": "2026-11-24T09:35:00.000Z",
            "text": "The mails were put off.",
            "advice": "Ask these recipients.",
        },
        {
            "code": "quota",
            "scope": "account",
            "key": "acme",
            "count": 2,
            "since": None,
            "limit": "200/day",
            "reply": "",
            "reason": "quota",
            "next_attempt_at": None,
            "text": "The plans are used up.",
            "advice": "Nothing to do.",
        },
    ],
    "is_exact": False,
    "held": 200,
    "holds": [
        {
            "hold_id": 3,
            "account": "acme",
            "campaign": "spring sale",
            "destination": None,
            "site": None,
            "reply": None,
            "older_s": None,
            "address": None,
            "since": "2026-11-24T00:00:00.000Z",
            "until": None,
            "who": "operator",
            "reason": "wrong \x1b[31mlink",
            "mails": 200,
        }
    ],
}
CAMPAIGN = {
    "campaign": "spring sale",
    "queued": 5,
    "deferred": 0,
    "paused": 0,
    "next_attempt_at": "2026-11-25T00:00:00.000Z",
    "waiting_by_code": {"rate_limit": 2, "retry_wait": 3},
    "destinations": [DESTINATION],
}


async def test_a_message_is_explained_in_words(tmp_path: Path) -> None:
    told = answering(MESSAGE)
    async with engine_with(tmp_path / "data", **{"get_messages/17/explain": told}):
        said = await eilpost(tmp_path / "data", "explain", "17")
        assert said.exit_code == 0, said.output
        assert "17  deferred" in said.stdout
        assert "The last attempt failed." in said.stdout
        assert "retry_wait (envelope 17)" in said.stdout
        assert "ahead:        3" in said.stdout
        assert "expires" not in said.stdout
        assert "\x1b" not in said.stdout
        line = await eilpost(tmp_path / "data", "explain", "17", "--json")
        assert json.loads(line.stdout) == MESSAGE


async def test_an_address_is_explained_by_its_mails_and_a_domain_as_a_whole(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def of_address(request: Request) -> Response:
        asked.append((request.path, request.raw_query))
        address = dict(request.query)["address"]
        return Response.json({"messages": [MESSAGE, MESSAGE] if address != "no@x.test" else []})

    handlers = {
        "get_explain": of_address,
        "get_destinations/x.test/explain": answering(DESTINATION),
    }
    async with engine_with(tmp_path / "data", **handlers):
        said = await eilpost(tmp_path / "data", "explain", "ann@x.test", "--json")
        assert [json.loads(line) for line in said.stdout.splitlines()] == [MESSAGE, MESSAGE]
        assert asked == [("/v1/explain", "address=ann%40x.test")]
        nobody = await eilpost(tmp_path / "data", "explain", "no@x.test")
        assert nobody.exit_code == 1
        assert "no mail to no@x.test" in nobody.stderr
        for name in ("x.test", "@x.test"):
            whole = await eilpost(tmp_path / "data", "explain", name)
            assert "x.test  idle  1,200 queued, 2 paused" in whole.stdout
            assert "20/s, burst 20" in whole.stdout
            assert (
                "held:         200 by hold 3 (account acme, campaign spring sale; "
                "by operator until it is resumed, reason: wrong \\x1b[31mlink)\n"
            ) in whole.stdout
            assert "what they wait for, about:\n     1,200  The mails were put" in whole.stdout
            assert "reply:        452 4.2.2 mailbox" in whole.stdout
            assert "\x1b" not in whole.stdout
            assert "quota (account acme)" in whole.stdout
            assert whole.stdout.count("Nothing to do.") == 1


async def test_a_campaign_is_explained_by_what_holds_its_mail(tmp_path: Path) -> None:
    async with engine_with(
        tmp_path / "data", **{"get_campaigns/spring sale/explain": answering(CAMPAIGN)}
    ):
        said = await eilpost(tmp_path / "data", "explain", "--campaign", "spring sale")
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0] == "spring sale  5 queued"
    assert lines[1].split() == ["next", "attempt:", "2026-11-25T00:00:00.000Z"]
    assert [line.split() for line in lines[2:4]] == [["retry_wait:", "3"], ["rate_limit:", "2"]]


async def test_a_stopped_engine_says_that_nothing_moves(tmp_path: Path) -> None:
    said = await eilpost(tmp_path / "data", "forecast", "spring")
    assert said.exit_code == 1
    assert "The engine is stopped" in said.stderr
    assert "There is no campaign 'spring'." in said.stderr


async def test_what_is_not_there_ends_with_1_and_no_question_with_2(tmp_path: Path) -> None:
    async def missing(request: Request) -> Response:
        raise HttpError(404, "not_found", "There is no message 9.")

    async with engine_with(tmp_path / "data", **{"get_messages/9/explain": missing}):
        said = await eilpost(tmp_path / "data", "explain", "9")
        assert said.exit_code == 1
        assert "There is no message 9." in said.stderr
    for arguments in ([], ["9", "--campaign", "x"]):
        assert (await eilpost(tmp_path / "data", "explain", *arguments)).exit_code == 2
    assert (await eilpost(tmp_path / "data", "forecast")).exit_code == 2


async def test_a_forecast_shows_its_times_and_what_they_rest_on(tmp_path: Path) -> None:
    forecast = {
        "campaign": "spring",
        "total": 12000,
        "finished": 2000,
        "delivered": 1990,
        "waiting": 10000,
        "deferred": 10,
        "paused": 0,
        "unknown": 0,
        "earliest_at": "2026-11-24T09:31:00.000Z",
        "finish_at": "2026-11-24T09:40:00.000Z",
        "latest_at": None,
        "rests_on": {"measured_rate": 10000},
        "text": "The expected time is for all 10,000 mails.",
        "destinations": [
            {
                "destination": "x.test",
                "waiting": 10000,
                "rate_per_s": 20.0,
                "limit_per_s": None,
                "rests_on": "measured_rate",
                "earliest_at": "2026-11-24T09:31:00.000Z",
                "finish_at": "2026-11-24T09:40:00.000Z",
                "latest_at": "2026-11-24T09:50:00.000Z",
            }
        ],
    }
    async with engine_with(
        tmp_path / "data", **{"get_campaigns/spring/forecast": answering(forecast)}
    ):
        said = await eilpost(tmp_path / "data", "forecast", "spring")
        assert said.exit_code == 0, said.output
        assert "2,000 of 12,000 finished, 1,990 delivered, 10,000 waiting" in said.stdout
        assert "expected: 2026-11-24T09:40:00.000Z" in said.stdout
        assert "latest:" not in said.stdout
        assert "measured_rate" in said.stdout
        heads = said.stdout.splitlines()[-2].split()
        assert heads[-3:] == ["earliest", "expected", "latest"]
        line = await eilpost(tmp_path / "data", "forecast", "spring", "--json")
        assert json.loads(line.stdout) == forecast
