"""When a campaign is through: the arithmetic, the answer, and how it compares with what happens."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.config import Rule
from engine.config_values import DomainPattern, NamePattern, Rate
from engine.delivery.holding import Holding
from engine.delivery.service import Delivery
from engine.http_server import Identity
from engine.rehearsal.behaviour import Behaviour
from engine.spool.interface import Quota, Rest
from engine.watch.explain import Explainer
from engine.watch.forecast import Forecaster
from engine.watch.forecasting import Share, Waiting, estimate
from protocols.records import DestinationRecord, Status
from protocols.timestamps import parse_time
from tests.delivery.world import World, config
from tests.spool import harness as h
from tests.watch.looking import Look, make_account

T0 = 1_790_000_000_000
MAX_AGE_S = 86_400


def held(code: str, next_s: float | None = None) -> Holding:
    next_unix_ms = None if next_s is None else T0 + int(next_s * 1000)
    return Holding(code, "destination", "x.test", 0, next_unix_ms)


def waiting(**fields: Any) -> Waiting:
    plain = {
        "now_unix_ms": T0,
        "due": 100,
        "all_due": 100,
        "paused": 0,
        "held": held("waiting_turn"),
        "next_unix_ms": T0,
        "rate_per_s": 0.0,
        "limit_per_s": None,
        "released_unix_ms": 0,
        "max_age_ms": MAX_AGE_S * 1000,
    }
    return Waiting(**{**plain, **fields})


@pytest.mark.parametrize(
    ("facts", "basis", "seconds"),
    [
        (waiting(rate_per_s=10.0), "measured_rate", (5, 10, 20)),
        # Behind twice as many of others, it has every second turn.
        (waiting(rate_per_s=10.0, all_due=300), "measured_rate", (5, 20, 60)),
        (waiting(rate_per_s=10.0, limit_per_s=10.0), "measured_rate", (10, 10, 20)),
        (waiting(held=held("rate_limit"), limit_per_s=2.0), "rate_limit", (50, 50, 50)),
        (
            waiting(held=held("rate_limit"), limit_per_s=2.0, next_unix_ms=T0 + 9000),
            "rate_limit",
            (59, 59, 59),
        ),
        (waiting(limit_per_s=2.0, all_due=150), "rate_limit", (50, 75, 75)),
        (waiting(), "nothing_measured", (0, None, MAX_AGE_S)),
        (
            waiting(held=held("destination_unreachable", 60)),
            "destination_unreachable",
            (60, None, MAX_AGE_S),
        ),
        (waiting(held=held("hold")), "hold", (0, None, MAX_AGE_S)),
        (
            waiting(held=held("retry_wait", 60), next_unix_ms=T0 + 60_000),
            "retry_wait",
            (60, 60, MAX_AGE_S),
        ),
        (
            waiting(
                due=0, all_due=0, paused=50, held=held("quota"), released_unix_ms=T0 + 3_600_000
            ),
            "quota",
            (3600, 3600, 3600 + MAX_AGE_S),
        ),
        # An account's rate is shared: 300 of its mails go by it, 100 of them of this campaign.
        (waiting(shares=(Share(2.0, 100, 300),)), "rate_limit", (50, 100, 150)),
        (waiting(rate_per_s=10.0, shares=(Share(2.0, 100, 300),)), "rate_limit", (50, 100, 150)),
        (waiting(rate_per_s=1.0, shares=(Share(2.0, 100, 100),)), "measured_rate", (50, 100, 200)),
        # What is measured while it waits for that is no pace of its own.
        (
            waiting(rate_per_s=1.0, shares=(Share(2.0, 100, 100),), waits_for_share=True),
            "rate_limit",
            (50, 50, 50),
        ),
        # Of two limits the narrower one counts, and the destination's own beside them.
        (
            waiting(shares=(Share(2.0, 100, 100), Share(1.0, 100, 100))),
            "rate_limit",
            (100, 100, 100),
        ),
        (
            waiting(limit_per_s=0.5, shares=(Share(1.0, 100, 100),)),
            "rate_limit",
            (200, 200, 200),
        ),
        (
            waiting(held=held("hold"), shares=(Share(1.0, 100, 100),)),
            "hold",
            (100, None, MAX_AGE_S),
        ),
        # What takes longer than a mail lives is given up.
        (
            waiting(held=held("rate_limit"), limit_per_s=0.001),
            "rate_limit",
            (MAX_AGE_S, MAX_AGE_S, MAX_AGE_S),
        ),
    ],
)
def test_the_arithmetic(
    facts: Waiting, basis: str, seconds: tuple[float, float | None, float]
) -> None:
    found = estimate(facts)
    assert found.basis == basis
    times = (found.earliest_unix_ms, found.expected_unix_ms, found.latest_unix_ms)
    assert times == tuple(None if each is None else T0 + each * 1000 for each in seconds)


async def test_the_answer_says_what_it_rests_on_and_what_nobody_knows(look: Look) -> None:
    await h.accept_many(look.spool, look.account, 3, at="down.test", campaign="spring")
    await h.accept_many(look.spool, look.account, 8, at="new.test", campaign="spring")
    await h.deliver(look.spool, await h.claim(look.spool, "new.test", 2))
    now = look.clock.now
    record = DestinationRecord(
        not_before_unix_ms=now + 60_000, cause="destination_unreachable", failures=1
    )
    await look.spool.settle([], [Rest("down.test", record)])
    look.clock.now += 1000
    told = await look.json("/v1/campaigns/spring/forecast")
    assert (told["total"], told["finished"], told["delivered"]) == (11, 2, 2)
    assert (told["waiting"], told["unknown"], told["finish_at"]) == (9, 9, None)
    assert told["rests_on"] == {"destination_unreachable": 3, "nothing_measured": 6}
    assert told["latest_at"] == "2026-11-27T09:30:01.000Z"
    assert told["earliest_at"] == "2026-11-24T09:31:00.000Z"
    assert {each["destination"] for each in told["destinations"]} == {"down.test", "new.test"}
    assert "Nobody can tell" in told["text"]
    german = await look.ask(
        "GET", "/v1/campaigns/spring/forecast", headers={"Accept-Language": "de"}
    )
    assert "weiß noch niemand" in german.json()["text"]


async def test_paused_mail_is_through_after_its_release(look: Look) -> None:
    await h.accept_many(look.spool, look.account, 5, campaign="slow", quota=Quota(per_day=2))
    await h.deliver(look.spool, await h.claim(look.spool))
    told = await look.json("/v1/campaigns/slow/forecast")
    assert (told["paused"], told["waiting"]) == (3, 3)
    assert told["finish_at"] == "2026-11-26T00:00:00.000Z"
    assert told["rests_on"] == {"quota": 3}


async def test_a_finished_campaign_is_through_and_a_strange_one_is_not_there(look: Look) -> None:
    bolt = await make_account(look.spool, "bolt")
    await h.accept_many(look.spool, bolt, 1, at="bolt.test", campaign="theirs")
    await h.accept_many(look.spool, look.account, 1, campaign="done")
    await h.deliver(look.spool, await h.claim(look.spool))
    told = await look.json("/v1/campaigns/done/forecast")
    assert (told["waiting"], told["finish_at"], told["latest_at"]) == (0, None, None)
    assert "through" in told["text"]
    for name in ("theirs", "none"):
        assert (await look.get(f"/v1/campaigns/{name}/forecast")).status_code == 404


def lookers(world: World, delivery: Delivery) -> tuple[Explainer, Forecaster]:
    def live() -> Any:
        return delivery.statistics().destinations

    now_unix_ms = world.clock.now_unix_ms
    explainer = Explainer(
        world.spool, world.config, live, now_unix_ms=now_unix_ms, delivering=delivery
    )
    return explainer, Forecaster(
        world.spool, world.config, live, explainer, delivery, now_unix_ms=now_unix_ms
    )


@pytest.mark.parametrize(
    ("behaviour", "rate", "basis", "within"),
    [
        (Behaviour(), "2/s", "rate_limit", 0.05),
        (Behaviour(), "30/min, burst 5", "rate_limit", 0.1),
        (Behaviour(reply_delay_s=0.5, connections_max=2), "", "measured_rate", 0.5),
    ],
)
async def test_it_comes_about_as_foretold(
    autojump_clock: MockClock, behaviour: Behaviour, rate: str, basis: str, within: float
) -> None:
    rules = []
    if rate:
        pattern = DomainPattern.parse("x.test")
        rules = [Rule(destination=pattern, rate=Rate.parse(rate))]
    world = World(config=config(rules))
    world.add("x.test", behaviour)
    async with world.delivering() as delivery:
        await world.send([f"r{number}@x.test" for number in range(200)], campaign="c")
        await trio.sleep(15.0)

        now_unix_ms = world.clock.now_unix_ms
        _, forecaster = lookers(world, delivery)
        told = await forecaster.forecast("c", Identity(operator=True), "en", None)
        assert told is not None
        assert told.rests_on.keys() == {basis}
        assert told.finish_at is not None
        assert told.earliest_at is not None
        assert told.latest_at is not None
        asked_unix_ms = now_unix_ms()
        await world.settle_down()
        took_ms = now_unix_ms() - asked_unix_ms
        assert await world.counts() == {Status.DELIVERED: 200}
        expected_ms = parse_time(told.finish_at) - asked_unix_ms
        assert abs(expected_ms - took_ms) <= within * took_ms + 2000
        assert parse_time(told.earliest_at) - 2000 <= now_unix_ms()
        assert now_unix_ms() <= parse_time(told.latest_at) + 2000


DOMAINS = tuple(f"d{number}.test" for number in range(4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "others", "within"),
    [
        # All of the account's mail to four destinations goes by one rate.
        ({"account": "acme", "rate": "2/s"}, {}, 0.05),
        ({"account": "acme", "rate": "10/min"}, {}, 0.05),
        # Its other mail takes every second turn.
        ({"account": "acme", "rate": "4/s"}, {"campaign": "other"}, 0.1),
        # Others' mail flows past at full speed.
        ({"campaign": "c", "rate": "2/s"}, {"campaign": "other"}, 0.05),
        ({"account": "acme", "rate": "2/s"}, {"account": "bolt"}, 0.05),
        ({"account": "acme", "destination": "d1.test", "rate": "1/s"}, {}, 0.05),
        ({"campaign": "c*", "site": "mx.d2.test", "rate": "1/s"}, {}, 0.05),
    ],
)
async def test_it_comes_about_as_foretold_behind_the_limit_of_an_account_or_campaign(
    autojump_clock: MockClock, rule: dict[str, str], others: dict[str, Any], within: float
) -> None:
    kinds: dict[str, Any] = {"rate": Rate, "destination": DomainPattern, "site": DomainPattern}
    fields = {name: kinds.get(name, NamePattern).parse(text) for name, text in rule.items()}
    world = World(config=config([Rule(**fields)]))
    for domain in DOMAINS:
        world.add(domain, Behaviour(reply_delay_s=0.01), mx=f"mx.{domain}")
    async with world.delivering() as delivery:
        await world.send([f"r{n}@{DOMAINS[n % 4]}" for n in range(200)], campaign="c")
        if others:
            await world.send([f"o{n}@{DOMAINS[n % 4]}" for n in range(200)], **others)
        await trio.sleep(10.0)
        now_unix_ms = world.clock.now_unix_ms
        explainer, forecaster = lookers(world, delivery)
        told = await forecaster.forecast("c", Identity(operator=True), "en", None)
        why = await explainer.campaign("c", Identity(operator=True), "en", None)
        assert told is not None
        assert why is not None
        assert told.rests_on == {"rate_limit": told.waiting}
        assert why.waiting_by_code == {"rate_limit": told.waiting}
        scope = "account" if "account" in rule else "campaign"
        assert {each.held_by.scope for each in why.destinations if each.held_by} == {scope}
        assert told.destinations[0].limit_per_s == fields["rate"].per_s
        assert told.finish_at is not None
        assert told.latest_at is not None
        asked_unix_ms = now_unix_ms()
        await world.wait_for(lambda: is_through(world), within_s=3000)
        took_ms = now_unix_ms() - asked_unix_ms
        expected_ms = parse_time(told.finish_at) - asked_unix_ms
        assert abs(expected_ms - took_ms) <= within * took_ms + 2000
        assert now_unix_ms() <= parse_time(told.latest_at) + 2000


def is_through(world: World) -> bool:
    """Say whether all mail of the campaign was delivered."""
    return not any(
        world.data.states[each].status is not Status.DELIVERED
        for each, fixed in world.data.fixed.items()
        if fixed.campaign == "c"
    )
