"""The named cause is the true one: lift it and the mail moves, lift any other and it does not."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import msgspec
import pytest
import trio
from _pytest.mark import ParameterSet
from trio.testing import MockClock

from engine.config import Rule
from engine.config_values import DomainPattern, NamePattern, Rate
from engine.delivery.holding import Holding, holding
from engine.delivery.learned import Learned, suspended
from engine.delivery.service import Delivery
from engine.rehearsal.behaviour import Action, Behaviour, Mischief, Stage
from engine.rehearsal.zones import Fault, Records
from engine.shaping.book import Found
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import AcceptRequest, Finish, NewMessage, Quota, Rest, RetryAt
from engine.watch.explain_facts import KnownFacts
from protocols.records import Status
from tests.delivery.world import CONTENT, World, config

# Within so long a mail moves once what held it is lifted, and does not before. A mail whose turn
# was waited for has a window of others before it that can no longer be cancelled.
SOON_S = {"waiting_turn": 300.0}


def rule(domain: str, **fields: object) -> Rule:
    return Rule(destination=DomainPattern.parse(domain), **fields)  # type: ignore[arg-type]  # tests choose


@dataclass
class Scene:
    """A world, its engine, and the one mail that is looked at."""

    world: World
    delivery: Delivery
    domain: str
    message_id: int = 0

    def facts(self) -> KnownFacts:
        return KnownFacts(
            self.world.spool,
            self.world.config,
            now_unix_ms=self.world.clock.now_unix_ms,
            delivering=self.delivery,
        )

    async def explained(self) -> Holding:
        envelope = await self.world.spool.envelope(self.message_id)
        assert envelope is not None
        held = holding(envelope, await self.facts().of_mail(envelope))
        assert held is not None
        return held

    async def attempts(self) -> tuple[int, bool]:
        envelope = await self.world.spool.envelope(self.message_id)
        assert envelope is not None
        return envelope.state.attempts, envelope.state.status is Status.DELIVERED

    async def clear_back_off(self, *causes: str) -> None:
        """What `retry now` does for a destination; what its bucket holds stays."""
        record = await self.world.record(self.domain)
        if record.cause in causes:
            cleared = msgspec.structs.replace(record, not_before_unix_ms=0, failures=0, cause="")
            await self.world.spool.settle([], [Rest(self.domain, cleared)])
            self.delivery._scheduler.start_soon(self.domain)


# What can be lifted.


async def lift_retry_wait(scene: Scene) -> None:
    now_unix_ms = scene.world.clock.now_unix_ms()
    await scene.world.spool.settle([], [RetryAt(scene.message_id, now_unix_ms)])
    scene.delivery._scheduler.start_soon(scene.domain)


async def lift_destination_unreachable(scene: Scene) -> None:
    for receiver in scene.world.receivers.values():
        receiver.behaviour = replace(receiver.behaviour, down_s=())
    await scene.clear_back_off("destination_unreachable")


async def lift_dns_failure(scene: Scene) -> None:
    scene.world.zones.set(scene.domain, Records(mx=((10, f"mx.{scene.domain}"),)))
    await scene.clear_back_off("dns_failure")


async def lift_rate_limit(scene: Scene) -> None:
    around = scene.delivery._around
    effective_for = around.effective_for
    object.__setattr__(
        around,
        "effective_for",
        lambda name, hosts: replace(effective_for(name, hosts), rate=Found(None)),
    )
    for actor in scene.delivery._scheduler.residents.values():
        actor.stop()
    await trio.sleep(0.5)
    await scene.clear_back_off("rate_limit")


async def lift_site_throttle(scene: Scene) -> None:
    throttles = scene.delivery._throttles
    throttle = throttles.known(f"mx.{scene.domain}")
    if throttle is not None:
        throttles.set_learned(throttle, Learned())
        await scene.clear_back_off("rate_limit")


async def lift_account_limit(scene: Scene) -> None:
    """What other rules do that are taken over while the engine runs."""
    delivery = scene.delivery
    rules = [each for each in delivery._book.rules if not each.rule.is_of_flow]
    delivery._book = replace(delivery._book, rules=rules)
    await delivery.apply_rules()


async def lift_quota(scene: Scene) -> None:
    """What a larger plan does: the day that was booked is today."""
    envelope = await scene.world.spool.envelope(scene.message_id)
    assert envelope is not None
    if envelope.state.status is Status.PAUSED:
        await scene.world.spool.release(envelope.state.due_unix_ms)
        await lift_retry_wait(scene)


async def lift_hold(scene: Scene) -> None:
    spool = scene.world.spool
    if holds := [hold.hold_id for hold in spool.holds()]:
        await spool.lift_holds(holds)
        scene.delivery._scheduler.start_soon(scene.domain)


async def lift_waiting_turn(scene: Scene) -> None:
    now_unix_ms = scene.world.clock.now_unix_ms()
    others = [
        Finish(each.fixed.envelope_id, Status.CANCELLED, now_unix_ms, None)
        for each in await scene.world.envelopes()
        if each.fixed.envelope_id != scene.message_id
    ]
    await scene.world.spool.settle([], others)


async def lift_connection_limit(scene: Scene) -> None:
    for actor in scene.delivery._scheduler.residents.values():
        actor._sessions.set_ceiling(20)
        actor._sessions.concurrency.earned = 20.0
        allowance = actor._allowance
        allowance.limits = msgspec.structs.replace(allowance.limits, connections_max=20)
        actor._changed.set()


LIFTS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "retry_wait": lift_retry_wait,
    "destination_unreachable": lift_destination_unreachable,
    "dns_failure": lift_dns_failure,
    "rate_limit": lift_rate_limit,
    "site_throttle": lift_site_throttle,
    "account_limit": lift_account_limit,
    "quota": lift_quota,
    "hold": lift_hold,
    "waiting_turn": lift_waiting_turn,
    "connection_limit": lift_connection_limit,
}


# What can hold a mail.


async def held_by_retry_wait(scene: Scene) -> None:
    scene.world.add(scene.domain, Behaviour(greylist_s=1.0))
    [scene.message_id] = await scene.world.send([f"ann@{scene.domain}"])
    await trio.sleep(5.0)


async def held_by_destination_unreachable(scene: Scene) -> None:
    scene.world.add(scene.domain, Behaviour(down_s=((0.0, 100_000.0),)))
    [scene.message_id] = await scene.world.send([f"ann@{scene.domain}"])
    await trio.sleep(5.0)


async def held_by_dns_failure(scene: Scene) -> None:
    scene.world.add(scene.domain)
    scene.world.zones.set(scene.domain, Records(fault=Fault.SERVFAIL))
    [scene.message_id] = await scene.world.send([f"ann@{scene.domain}"])
    await trio.sleep(30.0)


async def held_by_rate_limit(scene: Scene) -> None:
    """Resting: one mail in ten minutes, and one has gone."""
    scene.world.add(scene.domain)
    ids = await scene.world.send([f"r{number}@{scene.domain}" for number in range(3)])
    await trio.sleep(5.0)
    scene.message_id = ids[-1]


async def held_by_site_throttle(scene: Scene) -> None:
    """Its server asked to be left alone for a while, in a reply to somebody else's mail."""
    scene.world.add(scene.domain)
    throttles, now_unix_ms = scene.delivery._throttles, scene.world.clock.now_unix_ms()
    throttle = throttles.site(f"mx.{scene.domain}")
    reply = "450 4.7.0 come back in ten minutes"
    learned = suspended(throttle.learned, now_unix_ms, 600_000, reply)
    assert learned is not None
    throttles.set_learned(throttle, learned)
    [scene.message_id] = await scene.world.send([f"ann@{scene.domain}"])
    await trio.sleep(5.0)


async def held_by_account_limit(scene: Scene) -> None:
    """Resting: its account may send one mail in ten minutes, and another one has gone elsewhere."""
    scene.world.add(scene.domain)
    scene.world.add("elsewhere.test")
    await scene.world.send(["first@elsewhere.test"], account="slow")
    await trio.sleep(700.0)
    await scene.world.send(["first@elsewhere.test"], account="slow")
    await trio.sleep(5.0)
    [scene.message_id] = await scene.world.send([f"ann@{scene.domain}"], account="slow")
    await scene.world.send([f"bob@{scene.domain}"])
    await trio.sleep(5.0)


async def held_by_quota(scene: Scene) -> None:
    scene.world.add(scene.domain)
    await scene.world.send([f"first@{scene.domain}"])
    await trio.sleep(5.0)
    assert scene.world.account is not None
    message = NewMessage(CONTENT, [scene.world._new(f"ann@{scene.domain}")], "a@out.example")
    request = AcceptRequest(scene.world.account, [message], Quota(per_day=1))
    [answer] = await scene.world.spool.accept([request])
    scene.message_id = answer.envelopes[0].envelope_id  # type: ignore[union-attr]  # accepted


async def held_by_hold(scene: Scene) -> None:
    scene.world.add(scene.domain)
    now_unix_ms = scene.world.clock.now_unix_ms()
    wanted = MailFilter(campaign="spring")
    await scene.world.spool.put_hold(Hold(0, wanted, None, "operator", "complaints", now_unix_ms))
    await scene.world.send([f"first@{scene.domain}"])
    [scene.message_id] = await scene.world.send([f"ann@{scene.domain}"], campaign="spring")
    await trio.sleep(5.0)


async def held_by_waiting_turn(scene: Scene) -> None:
    """A server that takes its time, and a connection for which there is no other limit."""
    scene.world.add(scene.domain, Behaviour(reply_delay_s=3.0))
    ids = await scene.world.send([f"r{number}@{scene.domain}" for number in range(1500)])
    await trio.sleep(12.0)
    scene.message_id = ids[-1]


async def held_by_connection_limit(scene: Scene) -> None:
    scene.world.add(scene.domain, Behaviour(reply_delay_s=0.6))
    ids = await scene.world.send([f"r{number}@{scene.domain}" for number in range(500)])
    await trio.sleep(12.0)
    scene.message_id = ids[200]


HELD = {
    "retry_wait": held_by_retry_wait,
    "destination_unreachable": held_by_destination_unreachable,
    "dns_failure": held_by_dns_failure,
    "rate_limit": held_by_rate_limit,
    "site_throttle": held_by_site_throttle,
    "account_limit": held_by_account_limit,
    "quota": held_by_quota,
    "hold": held_by_hold,
    "waiting_turn": held_by_waiting_turn,
    "connection_limit": held_by_connection_limit,
}
# These throttles have one code; they differ in their scope.
CODES = {"site_throttle": "rate_limit", "account_limit": "rate_limit"}
# A queue long enough to wait in takes its time to make.
SLOW = ("waiting_turn", "connection_limit")
RULES = (
    rule("rate-limit.test", rate=Rate.parse("6/h")),
    rule("connection-limit.test", connections_max=1),
    Rule(account=NamePattern.parse("slow"), rate=Rate.parse("6/h")),
)


async def test_a_throttle_that_is_shared_names_its_site_and_the_reply(
    autojump_clock: MockClock,
) -> None:
    told, _ = await moves("site_throttle", None)
    assert (told.scope, told.key) == ("site", "mx.site-throttle.test")
    assert told.reply == "450 4.7.0 come back in ten minutes"
    assert told.next_attempt_unix_ms is not None
    account, _ = await moves("account_limit", None)
    assert (account.scope, account.key) == ("account", "slow")
    assert account.limit == "6/h, burst 1"
    assert account.next_attempt_unix_ms is not None
    own, _ = await moves("rate_limit", None)
    assert (own.scope, own.key, own.reply) == ("destination", "rate-limit.test", "")


async def moves(held: str, lifted: str | None) -> tuple[Holding, bool]:
    """Run one world: what is said to hold the mail, and whether it moved once something was
    lifted."""
    world = World(config=config(RULES))
    async with world.delivering() as delivery:
        scene = Scene(world, delivery, f"{held.replace('_', '-')}.test")
        await HELD[held](scene)
        told = await scene.explained()
        before = await scene.attempts()
        if lifted is not None:
            await LIFTS[lifted](scene)
        await trio.sleep(SOON_S.get(held, 30.0))
        return told, await scene.attempts() != before


def marked(held: str, *more: str) -> ParameterSet:
    return pytest.param(held, *more, marks=[pytest.mark.slow] if held in SLOW else [])


@pytest.mark.parametrize("held", [marked(held) for held in HELD])
async def test_what_is_named_holds_it(autojump_clock: MockClock, held: str) -> None:
    told, moved = await moves(held, None)
    assert told.code == CODES.get(held, held)
    assert not moved, "it would have gone anyway"
    told, moved = await moves(held, held)
    assert told.code == CODES.get(held, held)
    assert moved


@pytest.mark.parametrize(
    ("held", "lifted"),
    [
        marked(held, lifted)
        for held in HELD
        for lifted in LIFTS
        # The mails ahead are a part of how a connection limit holds: without them it is its turn.
        if held != lifted and (held, lifted) != ("connection_limit", "waiting_turn")
    ],
)
async def test_what_is_not_named_does_not_hold_it(
    autojump_clock: MockClock, held: str, lifted: str
) -> None:
    told, moved = await moves(held, lifted)
    assert told.code == CODES.get(held, held)
    assert not moved


async def test_a_mail_that_is_with_a_server_is_in_flight(autojump_clock: MockClock) -> None:
    world = World(config=config(RULES))
    stall = Mischief(Action.STALL, Stage.DOT, times=1)
    world.add("stall.test", Behaviour(mischief=stall))
    async with world.delivering() as delivery:
        scene = Scene(world, delivery, "stall.test")
        [scene.message_id] = await world.send(["ann@stall.test"])
        await trio.sleep(5.0)
        told = await scene.explained()
        assert (told.code, told.scope, told.key) == ("in_flight", "envelope", str(scene.message_id))


async def test_a_destination_without_a_connection_names_who_has_none_left(
    autojump_clock: MockClock,
) -> None:
    """One connection for the whole engine, and a slow destination has it."""
    world = World(config=config(RULES), connections_max=1)
    world.add("slow.test", Behaviour(reply_delay_s=20.0))
    world.add("fast.test")
    async with world.delivering() as delivery:
        await world.send(["ann@slow.test"])
        await trio.sleep(5.0)
        scene = Scene(world, delivery, "fast.test")
        [scene.message_id] = await world.send(["bob@fast.test"])
        await trio.sleep(5.0)
        told = await scene.explained()
        assert (told.code, told.scope) == ("connection_limit", "engine")
        assert told.limit == "1 connection"
        before = await scene.attempts()
        delivery._pool.slots._total.ceiling = 2
        delivery._pool.slots._grant_free()
        await trio.sleep(5.0)
        assert await scene.attempts() != before
