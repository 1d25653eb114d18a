"""Limits of single accounts and campaigns: shared over destinations, and in nobody else's way."""

import pytest
import trio
from trio.testing import MockClock

from engine.config import Rule
from engine.config_values import DomainPattern, NamePattern, Rate
from engine.rehearsal.behaviour import Behaviour
from engine.shaping.book import RuleBook
from protocols.records import Status
from tests.delivery.rates import assert_within, receivers_of, times_of
from tests.delivery.world import World, config


def rule(rate: str, account: str = "", campaign: str = "", destination: str = "") -> Rule:
    return Rule(
        account=NamePattern.parse(account) if account else None,
        campaign=NamePattern.parse(campaign) if campaign else None,
        destination=DomainPattern.parse(destination) if destination else None,
        rate=Rate.parse(rate),
    )


def world_of(*rules: Rule) -> World:
    return World(config=config(rules))


async def accepted(world: World, ids: list[int]) -> int:
    envelopes = [await world.spool.envelope(each) for each in ids]
    return sum(each is not None and each.state.status is Status.DELIVERED for each in envelopes)


@pytest.mark.parametrize("rate", ["20/s", "2/s, burst 5"])
async def test_an_account_shares_its_rate_over_all_destinations_and_uses_it_up(
    rate: str, autojump_clock: MockClock
) -> None:
    world = world_of(rule(rate, account="shop"))
    names = [f"d{number}.test" for number in range(10)]
    receivers = receivers_of(world, names)
    mails = round(Rate.parse(rate).per_s * 40)
    await world.send([f"r{n}@{names[n % 10]}" for n in range(mails)], account="shop")
    async with world.delivering():
        await world.settle_down(within_s=60)
    times = times_of(receivers)
    assert_within(times, Rate.parse(rate))
    assert len(times) == mails
    assert (mails - 1) / (times[-1] - times[0]) >= 0.98 * Rate.parse(rate).per_s
    assert await world.faults() == []


@pytest.mark.parametrize("rate", ["100/s", "2/s", "1/min", "2/h"])
async def test_others_pass_the_mail_of_a_throttled_account(
    rate: str, autojump_clock: MockClock
) -> None:
    """Two thousand of one account stand before a few hundred of another, at one destination."""
    world = world_of(rule(rate, account="shop"))
    receiver = world.add("a.test", Behaviour(reply_delay_s=0.005))
    slow = await world.send([f"s{n}@a.test" for n in range(2000)], account="shop")
    quick = await world.send([f"q{n}@a.test" for n in range(300)], account="acme")
    async with world.delivering():
        await trio.sleep(10)
        assert await accepted(world, quick) == 300
        assert await accepted(world, slow) <= 10 * Rate.parse(rate).per_s + Rate.parse(rate).burst
        assert await world.faults() == []
        # Its destination is at rest, or busy with the other: whoever comes now goes at once.
        late = await world.send(["late@a.test"], account="acme")
        await trio.sleep(3)
        assert await accepted(world, late) == 1
        assert await world.faults() == []
    times = [each.at_s for each in receiver.acceptances if each.recipient.startswith("s")]
    assert not times or len(times) <= Rate.parse(rate).per_s * 13 + Rate.parse(rate).burst


async def test_a_campaign_is_limited_and_the_rest_of_its_account_is_not(
    autojump_clock: MockClock,
) -> None:
    world = world_of(rule("6/min", campaign="spring*"))
    world.add("a.test")
    world.add("b.test")
    limited = await world.send(
        [f"s{n}@{name}.test" for n in range(30) for name in "ab"], campaign="spring sale"
    )
    other = await world.send([f"o{n}@{name}.test" for n in range(30) for name in "ab"])
    autumn = await world.send([f"a{n}@a.test" for n in range(30)], campaign="autumn")
    async with world.delivering():
        await trio.sleep(60)
        assert await accepted(world, other) == 60
        assert await accepted(world, autumn) == 30
        assert 5 <= await accepted(world, limited) <= 7
        await world.settle_down(within_s=700)
    assert await world.faults() == []


async def test_accounts_that_match_a_star_have_a_rate_each_and_the_narrowest_rule_wins(
    autojump_clock: MockClock,
) -> None:
    world = world_of(rule("6/min", account="shop*"), rule("60/min", account="shop-b"))
    world.add("a.test")
    sent = {
        name: await world.send([f"{name}{n}@a.test" for n in range(200)], account=name)
        for name in ("shop-a", "shop-b", "shop-c")
    }
    async with world.delivering():
        await trio.sleep(120)
        counts = {name: await accepted(world, ids) for name, ids in sent.items()}
    assert 11 <= counts["shop-a"] <= 13
    assert 11 <= counts["shop-c"] <= 13
    assert 117 <= counts["shop-b"] <= 121


async def test_a_limit_at_one_destination_is_for_each_destination_by_itself(
    autojump_clock: MockClock,
) -> None:
    world = world_of(rule("6/min", account="shop", destination="*.slow.test"))
    for name in ("a.slow.test", "b.slow.test", "fast.test"):
        world.add(name)
    sent = {
        name: await world.send([f"r{n}@{name}" for n in range(100)], account="shop")
        for name in ("a.slow.test", "b.slow.test", "fast.test")
    }
    async with world.delivering():
        await trio.sleep(120)
        counts = {name: await accepted(world, ids) for name, ids in sent.items()}
    assert counts["fast.test"] == 100
    assert 11 <= counts["a.slow.test"] <= 13
    assert 11 <= counts["b.slow.test"] <= 13


async def test_destinations_that_wait_for_an_account_are_woken_one_by_one(
    autojump_clock: MockClock,
) -> None:
    world = world_of(rule("20/min", account="shop"))
    receivers = receivers_of(world, [f"d{number}.test" for number in range(40)])
    await world.send([f"r@d{number}.test" for number in range(40)], account="shop")
    async with world.delivering():
        await world.settle_down(within_s=150)
    times = times_of(receivers)
    assert_within(times, Rate.parse("20/min"))
    assert 39 / (times[-1] - times[0]) >= 0.95 * 20 / 60


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["account", "site"])
async def test_what_many_destinations_share_keeps_few_actors_busy(
    kind: str, autojump_clock: MockClock
) -> None:
    rate = Rate.parse("10/s")
    site = Rule(site=DomainPattern.parse("*.big.test"), rate=rate)
    world = world_of(rule("10/s", account="shop") if kind == "account" else site)
    names = [f"d{number}.test" for number in range(600)]
    receivers = receivers_of(world, names, mx="mx.big.test" if kind == "site" else "")
    await world.send([f"r@{name}" for name in names], account="shop")
    async with world.delivering() as delivery:
        await trio.sleep(10)
        for _ in range(20):
            # Twenty that are busy, and some that come or go.
            assert len(delivery.statistics().destinations) <= 40
            await trio.sleep(1)
        assert await world.faults() == []
        await world.settle_down(within_s=60)
    times = times_of(receivers)
    assert_within(times, rate)
    assert 599 / (times[-1] - times[0]) >= 0.98 * rate.per_s


@pytest.mark.parametrize("rate", ["1/min", "30/min", "20/s"])
async def test_a_rule_that_goes_lets_go_of_what_waits_here(
    rate: str, autojump_clock: MockClock
) -> None:
    """Mail is here already, and counted as limited, when the rules are read anew without it."""
    world = world_of(rule(rate, account="shop"))
    world.add("a.test", Behaviour(reply_delay_s=0.005))
    ids = await world.send([f"r{n}@a.test" for n in range(200)], account="shop")
    async with world.delivering() as delivery:
        await trio.sleep(3.0)
        before = await accepted(world, ids)
        assert before < len(ids)
        delivery._book = RuleBook()
        for actor in delivery._scheduler.residents.values():
            actor.rules_changed()
        delivery._scheduler.start_soon("a.test")
        await trio.sleep(5.0)
        # What rests without an actor looks again when its wait ends; what was here has gone.
        assert await accepted(world, ids) > before
        await world.settle_down(within_s=600)
    assert await accepted(world, ids) == len(ids)
    assert await world.faults() == []
