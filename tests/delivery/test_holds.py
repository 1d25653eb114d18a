"""Holds in delivery: what is held stays, what is not goes on, and lifting moves it at once."""

import trio
from trio.testing import MockClock

from engine.delivery.service import Delivery
from engine.rehearsal.behaviour import Behaviour
from engine.spool.hold_calls import Hold, MailFilter
from protocols.records import Status
from tests.delivery.world import World

# With so many connections a receiver takes ten to forty mails a second.
SLOW = Behaviour(reply_delay_s=0.1, connections_max=4)


async def suspend(world: World, wanted: MailFilter, for_s: float | None = None) -> Hold:
    now_unix_ms = world.spool.now_unix_ms()
    until = None if for_s is None else now_unix_ms + round(for_s * 1000)
    return await world.spool.put_hold(Hold(0, wanted, until, "operator", "", now_unix_ms))


def in_flight(delivery: Delivery) -> int:
    return sum(each.in_flight for each in delivery.statistics().destinations.values())


async def test_a_suspended_destination_stops_within_what_is_in_flight(
    autojump_clock: MockClock,
) -> None:
    world = World()
    receiver = world.add("slow.test", SLOW)
    other = world.add("other.test", SLOW)
    await world.send([f"r{n}@slow.test" for n in range(400)])
    await world.send([f"r{n}@other.test" for n in range(400)])
    async with world.delivering() as delivery:
        await trio.sleep(3)
        with_servers = delivery.statistics().destinations["slow.test"].in_flight
        hold = await suspend(world, MailFilter(destination="slow.test"))
        taken = len(receiver.acceptances)
        await trio.sleep(30)
        stopped = len(receiver.acceptances)
        assert 0 < taken <= stopped <= taken + with_servers < 400
        assert "slow.test" not in delivery.statistics().destinations
        assert len(other.acceptances) == 400
        assert await world.faults() == []
        # New mail waits with the others.
        await world.send(["new@slow.test"])
        await trio.sleep(30)
        assert len(receiver.acceptances) == stopped
        lifted_s = trio.current_time()
        await world.spool.lift_holds([hold.hold_id])
        await world.wait_for(lambda: len(receiver.acceptances) > stopped, within_s=5)
        assert trio.current_time() - lifted_s < 2
        await world.settle_down(within_s=200)
    assert await world.counts() == {Status.DELIVERED: 801}
    assert len(receiver.acceptances) == 401


async def test_a_site_is_held_as_soon_as_it_is_known(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("a.test", mx="mx.host.test")
    world.add("b.test", mx="mx.host.test")
    await suspend(world, MailFilter(site="mx.host.test"), for_s=100)
    await world.send(["r@a.test", "r@b.test"])
    async with world.delivering():
        await trio.sleep(50)
        assert receiver.connections == 0
        assert (await world.record("b.test")).site == "mx.host.test"
        await world.settle_down(within_s=60)
    assert len(receiver.acceptances) == 2


async def test_a_held_campaign_lets_the_others_pass(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("slow.test", SLOW)
    spring = await world.send([f"s{n}@slow.test" for n in range(100)], campaign="spring")
    hold = await suspend(world, MailFilter(campaign="spring"))
    await world.send([f"r{n}@slow.test" for n in range(100)])
    async with world.delivering() as delivery:
        await trio.sleep(60)
        assert len(receiver.acceptances) == 100
        assert in_flight(delivery) == 0
        assert not delivery.statistics().destinations
        waiting = [
            each.fixed.envelope_id
            for each in await world.envelopes()
            if each.state.status is Status.QUEUED
        ]
        assert sorted(waiting) == sorted(spring)
        await world.spool.lift_holds([hold.hold_id])
        await world.settle_down(within_s=60)
    assert await world.faults() == []


async def test_a_hold_ends_by_itself_also_after_a_restart(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("one.test")
    await suspend(world, MailFilter(destination="one.test"), for_s=600)
    began_s = trio.current_time()
    await world.send(["r@one.test"])
    async with world.delivering():
        await trio.sleep(200)
    world.open_spool()
    async with world.delivering():
        await trio.sleep(200)
        assert not receiver.acceptances
        await world.settle_down(within_s=300)
    assert 600 <= trio.current_time() - began_s < 602


async def test_a_mail_held_by_its_reply_is_passed_over(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("grey.test", Behaviour(greylist_s=60))
    await world.send(["first@grey.test"])
    async with world.delivering():
        await world.wait_for(lambda: world.spool.head() >= 2)
        [envelope] = await world.envelopes()
        assert envelope.state.status is Status.DEFERRED
        hold = await suspend(world, MailFilter(reply=envelope.state.reply[:7]))
        await trio.sleep(2000)
        assert not receiver.acceptances
        await world.spool.lift_holds([hold.hold_id])
        await world.settle_down(within_s=5)
    assert len(receiver.acceptances) == 1


async def test_held_mail_expires_in_time(autojump_clock: MockClock) -> None:
    world = World()
    world.add("one.test")
    await suspend(world, MailFilter(destination="one.test"))
    await world.send(["r@one.test"])
    max_age_s = world.config.delivery.max_age_s
    async with world.delivering():
        await world.settle_down(within_s=max_age_s + 5)
    assert await world.counts() == {Status.SOFT_BOUNCED: 1}
