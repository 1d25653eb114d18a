"""Explanations and lists for their readers: of one account, by any spelling, with releases."""

from urllib.parse import quote

import pytest

from engine.spool.interface import Quota
from tests.spool import harness as h
from tests.watch.looking import Look, make_account


async def test_an_operator_says_whose_campaign_is_meant(look: Look) -> None:
    bolt = await make_account(look.spool, "bolt")
    await h.accept_many(look.spool, look.account, 2, campaign="spring")
    await h.accept_many(look.spool, bolt, 3, at="two.test", campaign="spring")
    for part, count in (("explain", "queued"), ("forecast", "waiting")):
        path = f"/v1/campaigns/spring/{part}"
        for whose, domains, found in (
            ("", ["one.test", "two.test"], 5),
            ("?account=acme", ["one.test"], 2),
            ("?account=bolt", ["two.test"], 3),
        ):
            told = await look.json(path + whose, look.operator())
            assert told[count] == found, (part, whose)
            assert sorted(each["destination"] for each in told["destinations"]) == domains
        assert (await look.get(f"{path}?account=acme")).status_code == 200
        assert (await look.get(f"{path}?account=bolt")).status_code == 404, "not one's own"
        assert (await look.get(f"{path}?whose=bolt")).status_code == 400


async def test_a_list_says_when_paused_mail_goes(look: Look) -> None:
    bolt = await make_account(look.spool, "bolt")
    await h.accept_many(look.spool, look.account, 2, quota=Quota(per_day=2))
    await h.accept_many(look.spool, look.account, 3, at="two.test", quota=Quota(per_day=2))
    await h.accept_many(look.spool, bolt, 1, at="two.test")
    own = {
        each["destination"]: each for each in (await look.json("/v1/destinations"))["destinations"]
    }
    told = await look.json("/v1/destinations/two.test/explain")
    assert own["two.test"]["paused"] == 3
    assert own["two.test"]["next_attempt_at"] == told["next_attempt_at"] is not None
    # For an operator something there is due before that.
    [everybodys] = (await look.json("/v1/destinations?destination=two.test", look.operator()))[
        "destinations"
    ]
    assert (everybodys["queued"], everybodys["paused"]) == (1, 3)
    assert everybodys["next_attempt_at"] != told["next_attempt_at"]
    async with look.stream() as listener:
        await listener.say({"watch": "destinations"})
        frame = await listener.hear()
    seen = {each["destination"]: each["next_attempt_at"] for each in frame["destinations"]}
    assert seen["two.test"] == told["next_attempt_at"]


@pytest.mark.parametrize("name", ["bücher.test", "BÜCHER.test", "xn--bcher-kva.test"])
async def test_a_destination_is_found_however_it_is_written(look: Look, name: str) -> None:
    await h.accept_many(look.spool, look.account, 1, at="xn--bcher-kva.test")
    quoted = quote(name)
    told = await look.json(f"/v1/destinations/{quoted}/explain")
    assert told["destination"] == "xn--bcher-kva.test"
    for path in ("messages", "destinations", "events"):
        answer = await look.json(f"/v1/{path}?destination={quoted}")
        assert [each["destination"] for each in answer[path]] == ["xn--bcher-kva.test"], path
