"""Explanations while mail flows: what each account's mail waits for, and nobody else's affairs."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.config import Route, Rule
from engine.config_values import DomainPattern, NamePattern, NextHop, Rate, Step
from engine.delivery.learned import Learned, fallen, reacted
from engine.http_server import Identity
from engine.rehearsal.behaviour import Behaviour
from tests.delivery.world import World, config
from tests.watch.test_forecast import lookers

SLOWER = "451 4.7.0 Too many messages, slow down"


async def test_an_account_is_told_of_its_own_limits_and_of_nobody_elses(
    autojump_clock: MockClock,
) -> None:
    rules = [
        Rule(campaign=NamePattern.parse("secret"), rate=Rate.parse("1/s")),
        Rule(account=NamePattern.parse("acme"), rate=Rate.parse("1/s")),
    ]
    world = World(config=config(rules))
    world.add("x.test", Behaviour(reply_delay_s=0.01))
    async with world.delivering() as delivery:
        await world.send(["452-after-rcpt@x.test"], account="bolt")
        await world.send([f"r{n}@x.test" for n in range(30)], account="acme", campaign="secret")
        await world.wait_for(lambda: len(world.data.events) >= 33)
        explainer, _ = lookers(world, delivery)
        bolt, acme = (Identity(account=world.accounts[name]) for name in ("bolt", "acme"))
        [row] = await world.spool.destinations(account_id=world.accounts["bolt"].account_id)
        view = explainer.view(row, "en", world.accounts["bolt"])
        assert not any(name in str(view) for name in ("acme", "secret"))
        told = await explainer.destination("x.test", bolt, "en")
        assert told is not None
        assert "secret" not in str(told)
        assert "acme" not in str(told)
        assert [(each.code, each.count) for each in told.causes] == [("retry_wait", 1)]
        own = await explainer.destination("x.test", acme, "en")
        assert own is not None
        assert [(each.code, each.count) for each in own.causes] == [("rate_limit", 29)]
        assert own.held_by is not None
        assert own.held_by.key in ("acme", "secret")
        whole = await explainer.destination("x.test", Identity(operator=True), "en")
        assert whole is not None
        assert [(each.code, each.count) for each in whole.causes] == [
            ("rate_limit", 29),
            ("retry_wait", 1),
        ]


@pytest.mark.parametrize("is_routed", [True, False])
async def test_a_throttled_destination_that_rests_has_the_reply_that_throttled_it(
    autojump_clock: MockClock, is_routed: bool
) -> None:
    world = World()
    world.add("x.test")
    if is_routed:
        hop = NextHop(next(iter(world.receivers)), 25)
        route = Route(domain=DomainPattern.parse("*.test"), next_hop=hop)
        world.config = msgspec.structs.replace(world.config, routes=(route,))
    async with world.delivering() as delivery:
        await world.send(["first@x.test"])
        await world.settle_down()
        site = "x.test" if is_routed else "mx.x.test"
        taught = fallen(
            Learned(), world.clock.now_unix_ms(), flow_per_s=0.1, open_connections=1, reply=SLOWER
        )
        assert taught is not None
        delivery._throttles.set_learned(delivery._throttles.site(site), taught)
        await world.send([f"r{n}@x.test" for n in range(9)])
        await trio.sleep(10.0)
        explainer, _ = lookers(world, delivery)
        assert delivery.outlook("x.test", None) is None
        told = await explainer.destination("x.test", Identity(operator=True), "en")
    assert told is not None
    assert told.state == "throttled"
    assert told.held_by is not None
    assert (told.held_by.code, told.held_by.key) == ("rate_limit", site)
    assert (told.held_by.reply, told.held_by.limit) == (SLOWER, "3/min, burst 1")
    assert [(each.count, each.reply) for each in told.causes] == [(9, SLOWER)]


async def test_connections_that_a_reply_took_away_are_explained_with_it(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.add("x.test", Behaviour(reply_delay_s=2.0))
    async with world.delivering() as delivery:
        await world.send([f"r{n}@x.test" for n in range(400)])
        await trio.sleep(60.0)
        step = Step.parse("connections 1 for 30min")
        now_unix_ms = world.clock.now_unix_ms()
        taught = reacted(Learned(), now_unix_ms, step, flow_per_s=1.0, reply=SLOWER)
        assert taught is not None
        delivery._throttles.set_learned(delivery._throttles.site("mx.x.test"), taught)
        await trio.sleep(10.0)
        explainer, _ = lookers(world, delivery)
        told = await explainer.destination("x.test", Identity(operator=True), "en")
    assert told is not None
    assert told.held_by is not None
    held = told.held_by
    assert (held.code, held.scope, held.key) == ("connection_limit", "site", "mx.x.test")
    assert (held.limit, held.reply, held.reason) == ("1 connection", SLOWER, "throttled")
    assert held.text == "All connections that the mail servers mx.x.test may have are in use: 1."
