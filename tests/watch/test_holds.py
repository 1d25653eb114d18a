"""Holds, retry and cancel over HTTP: whose mail they reach, what they count, what they show."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from engine.spool.interface import Quota, Rest, RetryAt
from engine.watch import bulk
from protocols.records import DestinationRecord, Reason, Status
from tests.spool.harness import (
    HOUR_MS,
    SECOND_MS,
    accept_many,
    all_envelopes,
    claim,
    state_of,
)
from tests.watch.looking import Look, make_account


async def post(look: Look, path: str, body: Any, who: Any = "acme", expect: int = 200) -> Any:
    response = await look.ask("POST", path, who, json=body)
    assert response.status_code == expect, response.text
    return response.json()


async def statuses(look: Look) -> Counter[Status]:
    return Counter(each.state.status for each in await all_envelopes(look.spool))


async def test_a_hold_is_shown_where_its_mail_is_and_lifted(look: Look) -> None:
    operator = look.operator()
    [message_id] = await accept_many(look.spool, look.account, 1)
    made = await post(
        look,
        "/v1/holds",
        {"destination": "ONE.test", "for_s": 3600, "reason": "asked to"},
        operator,
        201,
    )
    assert (made["destination"], made["who"], made["reason"]) == (
        "one.test",
        "operator",
        "asked to",
    )
    assert (made["account"], made["campaign"], made["older_s"]) == (None, None, None)
    assert await claim(look.spool) == []
    [destination] = (await look.json("/v1/destinations"))["destinations"]
    assert destination["state"] == "held"
    assert destination["held_by"]["code"] == "hold"
    assert destination["held_by"]["scope"] == "destination"
    assert destination["next_attempt_at"] == made["until"]
    explained = await look.json(f"/v1/messages/{message_id}/explain")
    assert explained["held_by"]["code"] == "hold"
    assert explained["next_attempt_at"] == made["until"]
    explained = await look.json("/v1/destinations/one.test/explain")
    assert (explained["state"], explained["held_by"]["code"]) == ("held", "hold")
    listed = await look.json("/v1/holds", operator)
    assert listed == {"holds": [made], "after": None}
    response = await look.ask("DELETE", f"/v1/holds/{made['hold_id']}?reason=done", operator)
    assert response.json() == made
    assert len(await claim(look.spool)) == 1
    response = await look.ask("DELETE", f"/v1/holds/{made['hold_id']}", operator)
    assert response.status_code == 404


async def test_a_destination_whose_every_flow_is_held_is_held_without_an_end(look: Look) -> None:
    await accept_many(look.spool, look.account, 1, campaign="spring")
    await post(look, "/v1/holds", {"campaign": "spring"}, expect=201)
    await look.spool.settle([], [Rest("one.test", DestinationRecord())])
    [destination] = (await look.json("/v1/destinations"))["destinations"]
    assert (destination["state"], destination["next_attempt_at"]) == ("held", None)
    explained = await look.json("/v1/destinations/one.test/explain")
    assert (explained["held_by"]["code"], explained["next_attempt_at"]) == ("hold", None)


async def test_what_holds_of_campaigns_and_accounts_keep_back_is_said_of_each_destination(
    look: Look,
) -> None:
    operator, other = look.operator(), await make_account(look.spool, "bolt")
    await accept_many(look.spool, look.account, 3, campaign="spring")
    await accept_many(look.spool, look.account, 2)
    await accept_many(look.spool, other, 4, campaign="spring", at="two.test")
    body = {"account": "acme", "campaign": "spring", "for_s": 3600, "reason": "wrong link"}
    made = await post(look, "/v1/holds", body, operator, 201)
    own = made | {"mails": 3}
    for reader in ("acme", operator):
        [row, *others] = (await look.json("/v1/destinations", reader))["destinations"]
        assert (row["held"], row["holds"], row["state"]) == (3, [own], "idle")
        assert [(each["held"], each["holds"]) for each in others] == [(0, [])] * len(others)
        explained = await look.json("/v1/destinations/one.test/explain", reader)
        assert (explained["held"], explained["holds"]) == (3, [own])
        assert explained["held_by"]["code"] == "waiting_turn"
    # What is left goes, and then all of it is held, for as long as that is.
    [_, _] = await claim(look.spool)
    await post(look, "/v1/holds", {"account": "acme", "reason": "unpaid"}, operator, 201)
    for reader in ("acme", operator):
        [row, *_] = (await look.json("/v1/destinations", reader))["destinations"]
        assert (row["held"], row["state"]) == (5, "held")
        assert [each["mails"] for each in row["holds"]] == [5, 3]
        held_by = row["held_by"]
        assert (held_by["code"], held_by["scope"], held_by["key"]) == ("hold", "account", "acme")
        assert "unpaid" in held_by["text"]
        assert row["next_attempt_at"] is None
    theirs = (await look.json("/v1/destinations", "bolt"))["destinations"]
    assert [(each["destination"], each["held"]) for each in theirs] == [("two.test", 0)]


async def test_the_first_of_several_holds_to_end_is_when_a_destination_goes_on(look: Look) -> None:
    await accept_many(look.spool, look.account, 3, campaign="spring")
    await accept_many(look.spool, look.account, 2, campaign="autumn")
    await post(look, "/v1/holds", {"campaign": "spring", "for_s": 7200}, expect=201)
    sooner = await post(look, "/v1/holds", {"campaign": "autumn", "for_s": 3600}, expect=201)
    await look.spool.settle([], [Rest("one.test", DestinationRecord())])
    [row] = (await look.json("/v1/destinations"))["destinations"]
    assert (row["state"], row["held"], row["held_by"]["key"]) == ("held", 5, "spring")
    assert row["next_attempt_at"] == sooner["until"]
    explained = await look.json("/v1/destinations/one.test/explain")
    assert explained["next_attempt_at"] == sooner["until"]
    campaign = await look.json("/v1/campaigns/autumn/explain")
    [at_one] = campaign["destinations"]
    assert (at_one["held"], [each["mails"] for each in at_one["holds"]]) == (2, [2])


async def test_an_account_reaches_its_own_mail_only(look: Look) -> None:
    other = await make_account(look.spool, "bolt")
    await accept_many(look.spool, look.account, 2)
    await accept_many(look.spool, other, 3)
    for path in ("/v1/holds", "/v1/retry", "/v1/cancel"):
        await post(look, path, {"account": "bolt"}, expect=404)
    made = await post(look, "/v1/holds", {"destination": "one.test"}, expect=201)
    assert (made["account"], made["who"]) == ("acme", "acme")
    operators = await post(look, "/v1/holds", {"account": "acme"}, look.operator(), 201)
    assert [each["hold_id"] for each in (await look.json("/v1/holds"))["holds"]] == [
        made["hold_id"]
    ]
    response = await look.ask("DELETE", f"/v1/holds/{operators['hold_id']}")
    assert response.status_code == 404
    assert {each.fixed.account for each in await claim(look.spool)} == {"bolt"}
    done = await post(look, "/v1/cancel", {"destination": "one.test"})
    assert (done["matched"], done["changed"]) == ({"queued": 2}, 2)
    assert await statuses(look) == {Status.CANCELLED: 2, Status.QUEUED: 3}


async def test_an_account_is_told_of_no_hold_of_anothers_mail(look: Look) -> None:
    bolt = await make_account(look.spool, "bolt")
    await accept_many(look.spool, bolt, 1, campaign="secret")
    await accept_many(look.spool, look.account, 1)
    # Bolt's hold of a campaign is the oldest, its hold by age the one that is there for longest.
    for who, hold in (
        ("bolt", {"campaign": "secret", "reason": "bolt's reason"}),
        ("acme", {"older_s": 0, "for_s": 3600, "reason": "our reason"}),
        ("acme", {"older_s": 0, "reason": "our last reason"}),
        ("bolt", {"older_s": 0, "reason": "bolt's other reason"}),
    ):
        await post(look, "/v1/holds", hold, who, 201)
    await look.spool.settle([], [Rest("one.test", DestinationRecord())])
    for path in ("/v1/destinations", "/v1/destinations/one.test/explain"):
        response = await look.get(path)
        assert "our last reason" in response.text
        assert "bolt" not in response.text
        assert "secret" not in response.text
    [row] = (await look.json("/v1/destinations"))["destinations"]
    assert (row["state"], row["next_attempt_at"]) == ("held", None)


async def test_a_hold_of_ones_own_is_not_said_to_be_an_operators(look: Look) -> None:
    [message_id] = await accept_many(look.spool, look.account, 1)
    await post(look, "/v1/holds", {"destination": "one.test", "reason": "a typo"}, expect=201)
    path = f"/v1/messages/{message_id}/explain"
    told = await look.json(path)
    text = "The account itself is holding this mail back (a typo)."
    assert (told["held_by"]["code"], told["held_by"]["text"]) == ("hold", text)
    assert told["advice"].startswith("Lift the hold")
    response = await look.ask("GET", path, headers={"Accept-Language": "de"})
    text = "Das Konto selbst hält diese Mail an (a typo)."
    assert response.json()["held_by"]["text"] == text
    [row] = (await look.json("/v1/destinations"))["destinations"]
    text = "The account itself is holding these mails back (a typo)."
    assert row["held_by"]["text"] == text
    # And an operator's hold is.
    [ours] = (await look.json("/v1/holds"))["holds"]
    await look.ask("DELETE", f"/v1/holds/{ours['hold_id']}")
    await post(look, "/v1/holds", {"destination": "one.test"}, look.operator(), 201)
    assert (await look.json(path))["held_by"]["text"] == "An operator is holding this mail back."


async def test_cancel_counts_first_and_leaves_what_is_in_flight(look: Look) -> None:
    await accept_many(look.spool, look.account, 5, campaign="spring", quota=Quota(per_day=4))
    kept = await accept_many(look.spool, look.account, 2)
    [in_flight] = await claim(look.spool, limit=1)
    body = {"campaign": "spring", "dry_run": True}
    counted = await post(look, "/v1/cancel", body)
    assert counted["matched"] == {"queued": 4, "paused": 1}
    assert (counted["changed"], counted["in_flight"], counted["after"]) == (4, 1, None)
    assert await statuses(look) == {Status.QUEUED: 6, Status.PAUSED: 1}
    done = await post(look, "/v1/cancel", body | {"dry_run": False, "reason": "wrong link"})
    assert done == counted | {"dry_run": False}
    assert await statuses(look) == {Status.QUEUED: 3, Status.CANCELLED: 4}
    [cancelled, *_] = (await look.json("/v1/messages?status=cancelled"))["messages"]
    story = await look.json(f"/v1/messages/{cancelled['message_id']}")
    assert story["history"][-1]["reply"] == "(cancelled: wrong link)"
    assert (await state_of(look.spool, in_flight.fixed.envelope_id)).state.status is Status.QUEUED
    for each in kept:
        assert (await state_of(look.spool, each)).state.status is Status.QUEUED
    assert look.spool.holds() == []
    assert await look.spool.check_invariants() == []


async def test_retry_moves_what_waits_and_ends_a_back_off(look: Look) -> None:
    ids = await accept_many(look.spool, look.account, 3)
    later_unix_ms = look.spool.now_unix_ms() + HOUR_MS
    record = DestinationRecord(
        later_unix_ms, "destination_unreachable", 1, 3, "no route", Reason.CONNECTION, site="mx.one"
    )
    await look.spool.settle(
        [], [*(RetryAt(each, later_unix_ms) for each in ids[:2]), Rest("one.test", record)]
    )
    now_unix_ms = look.spool.now_unix_ms()
    assert await look.spool.due_destinations(now_unix_ms, 10) == []
    done = await post(look, "/v1/retry", {"site": "MX.one"})
    assert (done["matched"], done["changed"], done["in_flight"]) == ({"queued": 3}, 2, 0)
    assert (done["destinations"], done["held"]) == (["one.test"], [])
    assert len(await look.spool.due_destinations(look.spool.now_unix_ms(), 10)) == 1
    assert len(await claim(look.spool)) == 3
    kept = await look.spool.destination("one.test")
    assert kept is not None
    assert (kept.failures, kept.reply, kept.not_before_unix_ms) == (3, "no route", 0)
    again = await post(look, "/v1/retry", {"site": "mx.one"})
    assert (again["changed"], again["in_flight"]) == (0, 3)


async def test_a_destination_whose_mail_is_held_is_not_tried(look: Look) -> None:
    await accept_many(look.spool, look.account, 2, campaign="spring")
    await accept_many(look.spool, look.account, 1, at="two.test")
    hold = await post(look, "/v1/holds", {"campaign": "spring"}, expect=201)
    later_unix_ms = look.spool.now_unix_ms() + HOUR_MS
    record = DestinationRecord(later_unix_ms, "destination_unreachable", 1, 3, "no route")
    for name in ("one.test", "two.test"):
        await look.spool.settle([], [Rest(name, msgspec.structs.replace(record))])
    done = await post(look, "/v1/retry", {"account": "acme"})
    assert done["destinations"] == ["two.test"]
    assert [(each["hold_id"], each["mails"]) for each in done["held"]] == [(hold["hold_id"], 2)]
    for name, not_before_unix_ms in (("one.test", later_unix_ms), ("two.test", 0)):
        kept = await look.spool.destination(name)
        assert kept is not None
        assert kept.not_before_unix_ms == not_before_unix_ms


async def test_one_address_is_held_tried_and_cancelled_by_its_name(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    wanted = {"address": "r1@one.test"}
    made = await post(look, "/v1/holds", wanted | {"reason": "asked to"}, expect=201)
    assert (made["address"], made["destination"]) == ("r1@one.test", "one.test")
    done = await post(look, "/v1/retry", {"destination": "one.test"})
    assert done["matched"] == {"queued": 3}
    assert [(each["hold_id"], each["mails"]) for each in done["held"]] == [(made["hold_id"], 1)]
    claimed = await claim(look.spool)
    assert [each.fixed.address for each in claimed] == ["r0@one.test", "r2@one.test"]
    cancelled = await post(look, "/v1/cancel", wanted)
    assert (cancelled["matched"], cancelled["changed"]) == ({"queued": 1}, 1)
    assert await statuses(look) == {Status.QUEUED: 2, Status.CANCELLED: 1}


async def test_a_large_deed_goes_on_where_it_stopped(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 4)
    monkeypatch.setattr(bulk, "PAGES_PER_STEP", 2)
    await accept_many(look.spool, look.account, 30)
    look.clock.now += 30 * SECOND_MS
    await accept_many(look.spool, look.account, 5)
    changed, after, steps = 0, None, 0
    while steps == 0 or after is not None:
        body = {"older_s": 20, "after": after}
        step = await post(look, "/v1/cancel", body)
        changed, after, steps = changed + step["changed"], step["after"], steps + 1
    assert (changed, steps) == (30, 5)
    assert await statuses(look) == {Status.CANCELLED: 30, Status.QUEUED: 5}


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/holds", {}, ""),
        ("/v1/cancel", {"dry_run": True}, ""),
        ("/v1/holds", {"reply": ""}, "reply"),
        ("/v1/retry", {"destination": "ann@one.test"}, "destination"),
        ("/v1/holds", {"address": "ann@@one.test"}, "address"),
        ("/v1/cancel", {"destination": "one..test"}, "destination"),
        ("/v1/holds", {"campaign": "x", "for_s": -1}, "for_s"),
        ("/v1/retry", {"older_s": 1e300}, "older_s"),
        ("/v1/cancel", {"campaign": "x", "after": "y"}, "after"),
        ("/v1/holds", {"campaign": "x", "reason": "r" * 501}, "reason"),
    ],
)
async def test_what_is_wrong_is_named(look: Look, path: str, body: Any, where: str) -> None:
    [_] = await accept_many(look.spool, look.account, 1)
    answer = await post(look, path, body, expect=400)
    assert answer["error"]["where"] == where
    unknown = await post(look, path, {"campain": "x"}, expect=400)
    assert "campain" in unknown["error"]["message"]
    assert await statuses(look) == {Status.QUEUED: 1}
    assert look.spool.holds() == []
