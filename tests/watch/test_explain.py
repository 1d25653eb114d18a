"""Explanations as readers get them: the form, the words, and whose mail they are about."""

import re
from typing import Any

import pytest

from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import Finish, Quota, Rest
from engine.watch import explain_words as words
from engine.watch import long_looks
from engine.watch.final_words import FINAL_ADVICE, final_advice
from engine.watch.forecast_words import FORECASTS
from engine.watch.limit_words import limit_words
from protocols.languages import Language
from protocols.records import FINAL_STATUSES, DestinationRecord, Reason, Status
from tests.spool import harness as h
from tests.watch.looking import Look, make_account

FIELDS = {
    "message_id",
    "status",
    "held_by",
    "reply",
    "ahead",
    "next_attempt_at",
    "expires_at",
    "advice",
}
HELD = {"code", "scope", "key", "since", "limit", "reply", "reason", "text"}
GERMAN = {"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"}


async def explained(look: Look, message_id: int, **headers: str) -> dict[str, Any]:
    response = await look.ask("GET", f"/v1/messages/{message_id}/explain", headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["vary"] == "accept-language"
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_deferred_mail_has_its_reply_its_times_and_an_advice(look: Look) -> None:
    [message_id] = await h.accept_many(look.spool, look.account, 1)
    [envelope] = await h.claim(look.spool)
    due = look.clock.now + 300_000
    result = h.result_of(
        look.spool,
        envelope,
        Status.DEFERRED,
        reply="452 4.2.2 mailbox full",
        reason=Reason.MAILBOX_FULL,
        due_unix_ms=due,
    )
    await look.spool.settle([result])
    look.clock.now += 60_000
    told = await explained(look, message_id)
    assert set(told) == FIELDS
    held = told["held_by"]
    assert set(held) == HELD
    assert (held["code"], held["scope"], held["key"]) == ("retry_wait", "envelope", str(message_id))
    assert (held["reply"], held["reason"]) == ("452 4.2.2 mailbox full", "mailbox_full")
    # The spool's time walks on a little while the test's stands still.
    assert held["since"].startswith("2026-11-24T09:30:0")
    assert told["next_attempt_at"] == "2026-11-24T09:35:00.000Z"
    assert told["expires_at"].startswith("2026-11-27T09:30:0")
    assert told["status"] == "deferred"
    assert told["ahead"] == 0
    assert "room in the mailbox" in told["advice"]
    german = await explained(look, message_id, **GERMAN)
    assert "Postfach voll" in german["held_by"]["text"]
    assert "Platz zu schaffen" in german["advice"]
    assert {**german, "held_by": None, "advice": ""} == {**told, "held_by": None, "advice": ""}


async def test_what_is_final_is_held_by_nothing(look: Look) -> None:
    ids = []
    for domain in ("gmial.com", "one.test", "two.test"):
        ids += await h.accept_many(look.spool, look.account, 1, at=domain)
    now = look.clock.now
    await look.spool.settle(
        [],
        [
            Finish(ids[0], Status.HARD_BOUNCED, now, Reason.UNKNOWN_USER, "550 5.1.1 who?"),
            Finish(ids[1], Status.CANCELLED, now, None),
            Finish(ids[2], Status.SOFT_BOUNCED, now, Reason.EXPIRED),
        ],
    )
    told = [await explained(look, each) for each in ids]
    assert [each["held_by"] for each in told] == [None, None, None]
    assert [each["next_attempt_at"] for each in told] == [None, None, None]
    assert [each["reply"] for each in told] == ["550 5.1.1 who?", None, None]
    assert "gmail.com" in told[0]["advice"]
    assert "cancelled" in told[1]["advice"]
    assert "too old" in told[2]["advice"]
    assert "War gmail.com gemeint?" in (await explained(look, ids[0], **GERMAN))["advice"]


async def test_a_paused_mail_shows_its_quota_and_its_release(look: Look) -> None:
    ids = await h.accept_many(look.spool, look.account, 3, quota=Quota(per_day=2))
    told = await explained(look, ids[2])
    held = told["held_by"]
    assert (held["code"], held["scope"], held["key"]) == ("quota", "account", "acme")
    assert held["reason"] == "quota"
    assert told["next_attempt_at"] == "2026-11-25T00:00:00.000Z"
    assert told["ahead"] is None


async def test_a_destination_out_of_reach_holds_what_is_queued_behind_it(look: Look) -> None:
    ids = await h.accept_many(look.spool, look.account, 3)
    now = look.clock.now
    record = DestinationRecord(
        not_before_unix_ms=now + 600_000,
        cause="destination_unreachable",
        since_unix_ms=now - 5000,
        failures=2,
        reply="(connection refused)",
        reason=Reason.CONNECTION,
    )
    await look.spool.settle([], [Rest("one.test", record)])
    told = await explained(look, ids[2])
    held = told["held_by"]
    assert (held["code"], held["scope"], held["key"]) == (
        "destination_unreachable",
        "destination",
        "one.test",
    )
    assert (held["reply"], held["reason"]) == ("(connection refused)", "connection")
    assert told["ahead"] == 2
    assert told["next_attempt_at"] == "2026-11-24T09:40:00.000Z"
    whole = await look.json("/v1/destinations/ONE.test/explain")
    assert (whole["queued"], whole["state"]) == (3, "unreachable")
    assert whole["held_by"]["code"] == "destination_unreachable"
    address = await look.json("/v1/explain?address=r1@one.test")
    [message] = address["messages"]
    assert message["held_by"]["code"] == "destination_unreachable"
    assert message["message_id"] == ids[1]


async def test_a_campaign_says_what_holds_how_much(look: Look) -> None:
    await h.accept_many(look.spool, look.account, 3, campaign="spring sale/1")
    await h.accept_many(look.spool, look.account, 2, at="two.test", campaign="spring sale/1")
    await h.accept_many(look.spool, look.account, 9, at="two.test", campaign="other")
    now = look.clock.now
    record = DestinationRecord(
        not_before_unix_ms=now + 600_000, cause="dns_failure", since_unix_ms=now, failures=1
    )
    await look.spool.settle([], [Rest("one.test", record)])
    look.clock.now += 1000
    told = await look.json("/v1/campaigns/spring%20sale%2F1/explain")
    assert told["campaign"] == "spring sale/1"
    assert told["queued"] == 5
    assert told["waiting_by_code"] == {"dns_failure": 3, "waiting_turn": 2}
    shown = [(each["destination"], each["queued"]) for each in told["destinations"]]
    assert shown == [("one.test", 3), ("two.test", 2)]
    assert (await look.get("/v1/campaigns/nothing/explain")).status_code == 404


@pytest.mark.parametrize("part", ["explain", "forecast"])
async def test_an_answer_that_is_kept_is_told_to_nobody_else(
    look: Look, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(long_looks, "QUICK_S", -1.0)  # As if each had taken so long to find.
    bolt = await make_account(look.spool, "bolt")
    await h.accept_many(look.spool, look.account, 2, campaign="spring")
    await h.accept_many(look.spool, bolt, 3, at="two.test", campaign="spring")
    path, count = f"/v1/campaigns/spring/{part}", {"explain": "queued", "forecast": "waiting"}[part]
    for _ in range(2):
        for who, found in (("acme", 2), ("bolt", 3), (look.operator(), 5)):
            assert (await look.json(path, who))[count] == found
    await h.accept_many(look.spool, look.account, 1, campaign="spring")
    assert (await look.json(path))[count] == 2, "it is kept"
    response = await look.ask("GET", path, headers=GERMAN)
    assert response.json()[count] == 3, "in another language it is another answer"


async def test_another_accounts_mail_is_not_there(look: Look) -> None:
    bolt = await make_account(look.spool, "bolt")
    [message_id] = await h.accept_many(look.spool, bolt, 1, at="bolt.test", campaign="c")
    for path in (
        f"/v1/messages/{message_id}/explain",
        "/v1/destinations/bolt.test/explain",
        "/v1/campaigns/c/explain",
        "/v1/messages/12/explain",
        "/v1/messages/x/explain",
    ):
        response = await look.get(path)
        assert response.status_code == 404, path
        assert response.json()["error"]["code"] == "not_found"
    assert (await look.json("/v1/explain?address=r0@bolt.test"))["messages"] == []
    told = await look.json(f"/v1/messages/{message_id}/explain", look.operator())
    assert told["message_id"] == message_id
    assert (await look.get("/v1/explain")).status_code == 400
    assert (await look.get(f"/v1/messages/{message_id}/explain", ("", ""))).status_code == 401


@pytest.mark.parametrize("language", ["en", "de"])
def test_each_code_has_its_words_and_leaves_no_gap(language: Language) -> None:
    codes = {
        "in_flight",
        "waiting_turn",
        "rate_limit",
        "connection_limit",
        "retry_wait",
        "destination_unreachable",
        "dns_failure",
        "hold",
        "quota",
        "spool_fault",
    }
    scopes = ("envelope", "destination", "site", "egress", "account", "campaign", "engine")
    for code in codes:
        for scope in scopes:
            for limit in ("", "20/s, burst 20"):
                for ahead in (0, 12_345):
                    for many in (False, True):
                        said = words.cause_text(
                            language,
                            code,
                            scope=scope,
                            key="k",
                            limit=limit,
                            ahead=ahead,
                            many=many,
                        )
                        assert said.endswith("."), said
                        assert said[0].isupper(), said
                        assert ": ." not in said
                        assert "{" not in said
        for reason in (None, *Reason):
            advice = words.waiting_advice(
                language, code, reason, contact="help@x.example", meant="gmail.com"
            )
            assert advice[-1] in ".?"
            assert advice[0].isupper()
            assert "{" not in advice
    for status in FINAL_STATUSES:
        for reason in (None, *Reason):
            assert final_advice(language, status, reason, "", meant="gmail.com")
    assert words.REASONS[language].keys() == set(Reason)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("553 5.6.7 (not sent: an address is beyond ASCII)", "another address"),
        ("550 5.6.7 mailbox name not allowed", "another address"),
        ("550 5.6.9 (not sent: the header has an address beyond ASCII)", "From, Reply-To"),
        ("554 5.3.0 (the stored record of this mail is damaged)", "this server's storage"),
        # Not of ours, and not of that kind.
        ("554 5.3.0 no space left", "Read the reply"),
        ("554 5.6.70 something", "Read the reply"),
        ("", "Read the reply"),
    ],
)
def test_some_replies_say_more_than_their_reason(reply: str, said: str) -> None:
    status = Status.SOFT_BOUNCED
    assert said in final_advice("en", status, Reason.PROTOCOL, reply, meant=None)
    delivered = final_advice("en", Status.DELIVERED, None, reply, meant=None)
    assert delivered.startswith("The recipient's server has taken it.")


def test_both_languages_say_the_same_things() -> None:
    for table in (words.CAUSES, words.WAITING_ADVICE, FINAL_ADVICE, FORECASTS):
        assert table["en"].keys() == table["de"].keys()
        for key, sentence in table["en"].items():
            places = set(re.findall(r"\{(\w+)\}", sentence))
            assert places == set(re.findall(r"\{(\w+)\}", table["de"][key])), key


def test_a_number_of_connections_is_no_english_in_german() -> None:
    said = words.cause_text(
        "de", "connection_limit", scope="destination", key="x.test", limit="20 connections"
    )
    assert said == "Alle Verbindungen, die x.test haben darf, sind belegt: 20."
    seats = words.cause_text("en", "waiting_turn", scope="destination", key="x", ahead=12_345)
    assert "12,345" in seats
    assert "12.345" in words.cause_text(
        "de", "waiting_turn", scope="destination", key="x", ahead=12_345
    )


def test_a_throttle_says_what_kind_it_is() -> None:
    def said(limit: str, scope: str = "site") -> str:
        return words.cause_text("en", "rate_limit", scope=scope, key="mx.x.test", limit=limit)

    assert said("suspended") == (
        "Mail to mx.x.test pauses, as the receiver asked; it goes on by itself."
    )
    assert said("5/s, burst 1", "egress") == "No more than 5 a second may leave from here."
    assert said("") == "Mail to mx.x.test was throttled and goes on by itself."
    assert said("5/s, burst 1").startswith("No more than 5 a second may go to mx.x.test.")


@pytest.mark.parametrize(
    ("limit", "english", "german"),
    [
        ("5/s, burst 1", "5 a second", "5 je Sekunde"),
        ("1.75/s, burst 1", "1.75 a second", "1,75 je Sekunde"),
        (
            "1000/h, burst 1200",
            "1,000 an hour, up to 1,200 at once",
            "1.000 je Stunde, bis zu 1.200 auf einmal",
        ),
        ("200/day, 6000/month", "200 a day, 6,000 a month", "200 am Tag, 6.000 im Monat"),
        ("20 connections", "20 connections", "20 connections"),
        ("", "", ""),
    ],
)
def test_limits_are_read_out_in_both_languages(limit: str, english: str, german: str) -> None:
    assert limit_words("en", limit) == english
    assert limit_words("de", limit) == german


async def test_a_hold_is_named_with_what_it_is_about_and_why(look: Look) -> None:
    [message_id] = await h.accept_many(look.spool, look.account, 1, campaign="spring")
    hold = Hold(
        0, MailFilter(campaign="spring"), None, "ops", "too many complaints", look.clock.now
    )
    await look.spool.put_hold(hold)
    told = await explained(look, message_id)
    held = told["held_by"]
    assert (held["code"], held["scope"], held["key"]) == ("hold", "campaign", "spring")
    assert held["text"] == "An operator is holding this mail back (too many complaints)."
    assert held["since"] == "2026-11-24T09:30:00.000Z"
    assert told["next_attempt_at"] is None
    look.clock.now += 1000
    [kept] = look.spool.holds()
    await look.spool.lift_holds([kept.hold_id])
    assert (await explained(look, message_id))["held_by"]["code"] == "waiting_turn"


async def put_off(
    look: Look, count: int, reply: str, reason: Reason, *, at: str = "one.test", wait_s: int = 300
) -> None:
    """Let the next mails of a destination be deferred, one after the other."""
    for envelope in await h.claim(look.spool, at, count):
        due = look.clock.now + wait_s * 1000
        result = h.result_of(
            look.spool, envelope, Status.DEFERRED, reply=reply, reason=reason, due_unix_ms=due
        )
        await look.spool.settle([result])


def told_causes(explained: dict[str, Any]) -> list[tuple[str, str | None, int, str]]:
    return [
        (each["code"], each["reason"], each["count"], each["reply"]) for each in explained["causes"]
    ]


FULL = "452 4.2.2 <r0@one.test> mailbox full"


async def test_one_full_mailbox_is_what_its_destination_waits_for(look: Look) -> None:
    await h.accept_many(look.spool, look.account, 1)
    await put_off(look, 1, FULL, Reason.MAILBOX_FULL)
    look.clock.now += 60_000
    told = await look.json("/v1/destinations/one.test/explain")
    held = told["held_by"]
    assert (held["code"], held["reason"], held["reply"]) == ("retry_wait", "mailbox_full", FULL)
    assert held["text"] == "The last attempt failed (mailbox full); it is tried again by itself."
    assert "make room in the mailbox" in told["advice"]
    assert told["next_attempt_at"] == "2026-11-24T09:35:00.000Z"
    assert told_causes(told) == [("retry_wait", "mailbox_full", 1, FULL)]
    assert held["since"] == told["causes"][0]["since"]
    assert held["since"].startswith("2026-11-24T09:30:0")
    response = await look.ask("GET", "/v1/destinations/one.test/explain", headers=GERMAN)
    assert "Postfach voll" in response.json()["held_by"]["text"]
    [row] = (await look.json("/v1/destinations"))["destinations"]
    assert "r0@" not in str(row), "the listing tells of everybody's replies"


async def test_a_destination_says_what_its_mails_wait_for_with_counts_and_replies(
    look: Look,
) -> None:
    await h.accept_many(look.spool, look.account, 6)
    await put_off(look, 3, "450 4.7.1 Greylisted", Reason.GREYLISTED, wait_s=600)
    await put_off(look, 1, FULL, Reason.MAILBOX_FULL)
    await put_off(look, 1, FULL.replace("r0", "r4"), Reason.MAILBOX_FULL)
    bolt = await make_account(look.spool, "bolt")
    await h.accept_many(look.spool, bolt, 3, quota=Quota(per_day=1))
    look.clock.now += 1000
    told = await look.json("/v1/destinations/one.test/explain")
    assert told["is_exact"] is True
    assert told_causes(told) == [
        ("retry_wait", "greylisted", 3, "450 4.7.1 Greylisted"),
        ("retry_wait", "mailbox_full", 2, FULL.replace("r0", "r4")),
        ("waiting_turn", None, 1, ""),
    ]
    first, second, _ = told["causes"]
    assert first["text"] == "The mails were put off (greylisting); each is tried again by itself."
    assert first["next_attempt_at"] == "2026-11-24T09:40:00.000Z"
    assert "Ask these recipients" in second["advice"]
    assert second["next_attempt_at"] == "2026-11-24T09:35:00.000Z"
    whole = await look.json("/v1/destinations/one.test/explain", look.operator())
    assert {each[:3] for each in told_causes(whole)[1:]} == {
        ("retry_wait", "mailbox_full", 2),
        ("quota", "quota", 2),
        ("waiting_turn", None, 2),
    }
    assert sum(each["count"] for each in whole["causes"]) == 9


async def test_of_a_long_queue_some_are_looked_at_and_the_sum_is_right(look: Look) -> None:
    await h.accept_many(look.spool, look.account, 500)
    await put_off(look, 30, "450 4.7.1 Greylisted", Reason.GREYLISTED)
    look.clock.now += 1000
    told = await look.json("/v1/destinations/one.test/explain")
    assert told["is_exact"] is False
    assert [(each["code"], each["count"]) for each in told["causes"]] == [
        ("waiting_turn", 470),
        ("retry_wait", 30),
    ]
    # All that was looked at was put off: the rest waits for what holds the destination.
    await put_off(look, 300, "450 4.7.1 Greylisted", Reason.GREYLISTED)
    told = await look.json("/v1/destinations/one.test/explain")
    assert [(each["code"], each["count"]) for each in told["causes"]] == [
        ("retry_wait", 330),
        ("waiting_turn", 170),
    ]


async def test_what_is_held_of_a_long_queue_is_counted_and_not_guessed(look: Look) -> None:
    """Ten of a campaign among six hundred are half of what is looked at."""
    await h.accept_many(look.spool, look.account, 600)
    await h.accept_many(look.spool, look.account, 10, campaign="spring")
    account_id = look.account.account_id
    hold = Hold(0, MailFilter(account_id, "spring"), None, "operator", "", 0)
    await look.spool.put_hold(hold)
    told = await look.json("/v1/destinations/one.test/explain")
    assert (told["is_exact"], told["held"]) == (False, 10)
    assert [(each["code"], each["count"]) for each in told["causes"]] == [
        ("waiting_turn", 600),
        ("hold", 10),
    ]


async def test_what_is_over_the_quota_moves_at_its_release(look: Look) -> None:
    quota = Quota(per_day=2)
    await h.accept_many(look.spool, look.account, 2, at="one.test", quota=quota)
    for campaign, day in (("spring", 25), ("autumn", 26)):
        await h.accept_many(
            look.spool, look.account, 2, at="two.test", campaign=campaign, quota=quota
        )
        told = await look.json(f"/v1/campaigns/{campaign}/explain")
        assert told["next_attempt_at"] == f"2026-11-{day}T00:00:00.000Z"
        assert told["waiting_by_code"] == {"quota": 2}
        [row] = told["destinations"]
        assert row["next_attempt_at"] == told["next_attempt_at"]
        assert [(each["code"], each["count"]) for each in row["causes"]] == [("quota", 2)]
        assert row["causes"][0]["next_attempt_at"] == told["next_attempt_at"]
    told = await look.json("/v1/destinations/two.test/explain")
    assert told["next_attempt_at"] == "2026-11-25T00:00:00.000Z"
    assert told["held_by"]["code"] == "quota"
    queued = await h.accept_many(look.spool, look.account, 1, campaign="autumn")
    assert queued
    told = await look.json("/v1/campaigns/autumn/explain")
    assert told["next_attempt_at"].startswith("2026-11-24T09:30:0")


async def test_a_held_destination_names_the_hold_and_what_it_holds(look: Look) -> None:
    await h.accept_many(look.spool, look.account, 3, campaign="spring")
    await h.accept_many(look.spool, look.account, 2, campaign="autumn")
    await look.spool.put_hold(
        Hold(0, MailFilter(campaign="spring"), None, "ops", "complaints", look.clock.now)
    )
    look.clock.now += 1000
    told = await look.json("/v1/destinations/one.test/explain")
    assert [(each["code"], each["key"], each["count"]) for each in told["causes"]] == [
        ("hold", "spring", 3),
        ("waiting_turn", "destinations", 2),
    ]
    assert "complaints" in told["causes"][0]["text"]
