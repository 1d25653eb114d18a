"""`/v1/messages`: listings, filters, one mail's whole story, and whose it is."""

from typing import Any

import pytest

from engine.spool.interface import Quota, Rest
from protocols.records import DestinationRecord, Reason, Status
from tests.spool.harness import (
    DAY_MS,
    accept,
    accept_many,
    claim,
    deliver,
    message,
    result_of,
)
from tests.watch.looking import LiveOne, Look, make_account

FIELDS = {
    *("message_id", "uuid", "account", "campaign", "custom_id", "event_payload", "sender"),
    *("address", "destination", "subject", "size", "status", "attempts", "accepted_at"),
    *("next_attempt_at", "expires_at", "finished_at", "reply", "reason", "mx_host"),
}


async def test_a_waiting_mail(look: Look) -> None:
    [message_id] = await accept_many(
        look.spool, look.account, 1, subject="Grüße", custom_id="c1", campaign="a/b c"
    )
    listing = await look.json("/v1/messages")
    assert listing["after"] is None
    [row] = listing["messages"]
    assert set(row) == FIELDS
    assert row["message_id"] == message_id < 2**53
    assert row["account"] == "acme"
    assert row["campaign"] == "a/b c"
    assert row["custom_id"] == "c1"
    assert row["subject"] == "Grüße"
    assert row["address"] == "r0@one.test"
    assert row["destination"] == "one.test"
    assert row["status"] == "queued"
    assert row["attempts"] == 0
    assert row["accepted_at"].startswith("2026-11-24T09:30:00.")
    assert row["next_attempt_at"] == row["accepted_at"]
    assert row["expires_at"].startswith("2026-11-27T09:30:00.")
    assert (row["reply"], row["reason"], row["finished_at"]) == ("", None, None)


async def test_the_whole_story(look: Look) -> None:
    [message_id] = await accept_many(look.spool, look.account, 1)
    [envelope] = await claim(look.spool)
    due = look.clock.now + 300_000
    await look.spool.settle([result_of(look.spool, envelope, Status.DEFERRED, due_unix_ms=due)])
    look.clock.now = due
    await deliver(look.spool, await claim(look.spool))
    story = await look.json(f"/v1/messages/{message_id}")
    assert set(story) == FIELDS | {"history"}
    assert (story["status"], story["attempts"], story["reply"]) == ("delivered", 2, "250 2.0.0 Ok")
    assert story["next_attempt_at"] is None
    assert story["finished_at"] is not None
    queued, deferred, delivered = story["history"]
    assert (queued["status"], queued["attempt"], queued["mx_host"]) == ("queued", 0, "")
    assert deferred == {
        "at": deferred["at"],
        "kind": "status",
        "status": "deferred",
        "attempt": 1,
        "reply": "451 4.7.1 Later",
        "reason": "greylisted",
        "next_attempt_at": "2026-11-24T09:35:00.000Z",
        "mx_host": "mx.one.test",
        "mx_address": "192.0.2.1",
        "tls": "TLSv1.3",
    }
    assert (delivered["status"], delivered["attempt"]) == ("delivered", 2)


async def test_a_paused_mail_shows_its_release(look: Look) -> None:
    await accept_many(look.spool, look.account, 3, quota=Quota(per_day=1))
    rows = (await look.json("/v1/messages?status=paused"))["messages"]
    assert [row["next_attempt_at"] for row in rows] == [
        "2026-11-26T00:00:00.000Z",
        "2026-11-25T00:00:00.000Z",
    ]


async def test_mail_behind_an_unreachable_destination_shows_what_the_destination_was_told(
    look: Look,
) -> None:
    [message_id] = await accept_many(look.spool, look.account, 1)
    await accept_many(look.spool, look.account, 1, at="two.test")
    record = DestinationRecord(
        not_before_unix_ms=look.clock.now + 60_000,
        cause="destination_unreachable",
        since_unix_ms=look.clock.now,
        failures=2,
        reply="connect to mx.one.test[192.0.2.1]:25: refused",
        reason=Reason.CONNECTION,
    )
    await look.spool.settle([], [Rest("one.test", record)])
    story = await look.json(f"/v1/messages/{message_id}")
    assert story["status"] == "queued"
    assert story["attempts"] == 0
    assert story["reply"] == record.reply
    assert story["reason"] == "connection"
    assert story["next_attempt_at"] == "2026-11-24T09:31:00.000Z"
    other = (await look.json("/v1/messages?destination=two.test"))["messages"][0]
    assert (other["reply"], other["reason"]) == ("", None)
    # Its actor sees mail flow again before it has found the time to say so on disk.
    look.live["one.test"] = LiveOne("flowing")
    assert (await look.json(f"/v1/messages/{message_id}"))["reply"] == ""
    # A throttle is no fault: the mail says nothing of it.
    del look.live["one.test"]
    throttled = DestinationRecord(look.clock.now + 60_000, "rate_limit", reply="421 slow down")
    await look.spool.settle([], [Rest("one.test", throttled)])
    assert (await look.json(f"/v1/messages/{message_id}"))["reply"] == ""


async def test_pages_hold_everything_once_newest_first(look: Look) -> None:
    ids = await accept_many(look.spool, look.account, 25)
    seen: list[int] = []
    query = "?limit=10"
    while True:
        page = await look.json(f"/v1/messages{query}")
        seen += [row["message_id"] for row in page["messages"]]
        if page["after"] is None:
            break
        query = f"?limit=10&after={page['after']}"
    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    ("query", "addresses"),
    [
        ("status=queued", {"a@one.test", "b@two.test"}),
        ("status=queued&status=delivered", {"a@one.test", "b@two.test", "c@three.test"}),
        ("status=blocked", set()),
        ("destination=two.test", {"b@two.test"}),
        ("destination=TWO.test", {"b@two.test"}),
        ("destination=two", set()),
        ("address=a%40one.test", {"a@one.test"}),
        ("address=a", set()),
        ("campaign=spr%C3%BCnge", {"b@two.test"}),
        ("custom_id=c9", {"a@one.test"}),
        ("subject=gr%C3%BC%C3%9Fe", {"c@three.test"}),
        ("subject=offer&status=queued", {"a@one.test"}),
        ("destination=one.test&status=queued", {"a@one.test"}),
        ("subject=spring", set()),
        ("account=acme", {"a@one.test", "b@two.test", "c@three.test"}),
        ("from=2026-11-24T09%3A30%3A00Z", {"a@one.test", "b@two.test", "c@three.test"}),
        ("to=2026-11-24", set()),
        ("from=2027-01-01", set()),
    ],
)
async def test_filters(look: Look, query: str, addresses: set[str]) -> None:
    await accept(
        look.spool, look.account, message("a@one.test", custom_id="c9", subject="Our OFFER")
    )
    await accept(look.spool, look.account, message("b@two.test", campaign="sprünge"))
    await accept(look.spool, look.account, message("c@three.test", subject="Viele Grüße"))
    await deliver(look.spool, await claim(look.spool, "three.test"))
    rows = (await look.json(f"/v1/messages?{query}"))["messages"]
    assert {row["address"] for row in rows} == addresses


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=5&limit=6", "limit"),
        ("after=x", "after"),
        ("after=-1", "after"),
        ("status=sent", "status"),
        ("stauts=queued", "stauts"),
        ("from=yesterday", "from"),
        ("to=9999999999999999", "to"),
        ("destination=a&destination=b", "destination"),
    ],
)
async def test_a_faulty_question_is_told_its_fault(look: Look, query: str, where: str) -> None:
    response = await look.get(f"/v1/messages?{query}")
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["where"] == where
    assert where in error["message"]


async def test_an_account_sees_its_own(look: Look) -> None:
    other = await make_account(look.spool, "other")
    [mine] = await accept_many(look.spool, look.account, 1)
    [theirs] = await accept_many(look.spool, other, 1)

    async def seen(who: Any) -> list[int]:
        return [row["message_id"] for row in (await look.json("/v1/messages", who))["messages"]]

    assert await seen("acme") == [mine]
    assert await seen("other") == [theirs]
    assert await seen(look.operator()) == [theirs, mine]
    for path in (f"/v1/messages/{theirs}", "/v1/messages/1", "/v1/messages/x", "/v1/messages/²"):
        response = await look.get(path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
    hidden = await look.get("/v1/messages?account=other")
    assert hidden.status_code == 404
    by_name = await look.json("/v1/messages?account=other", look.operator())
    assert [row["message_id"] for row in by_name["messages"]] == [theirs]
    assert (await look.json(f"/v1/messages/{theirs}", look.operator()))["account"] == "other"
    for path in ("/v1/messages", f"/v1/messages/{mine}"):
        assert (await look.get(path, ("", ""))).status_code == 401


async def test_what_retention_took_from_a_story_is_just_missing(look: Look) -> None:
    [message_id] = await accept_many(look.spool, look.account, 1)
    look.clock.now += 40 * DAY_MS
    story = await look.json(f"/v1/messages/{message_id}")
    assert len(story["history"]) == 1
