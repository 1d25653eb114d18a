"""Explanations while mail flows: what each account's mail waits for, and nobody else's affairs."""

from trio.testing import MockClock

from engine.config import Rule
from engine.config_values import NamePattern, Rate
from engine.http_server import Identity
from engine.rehearsal.behaviour import Behaviour
from tests.delivery.world import World, config
from tests.watch.test_forecast import lookers


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
