"""Somebody has a destination tried before its time: at once, and without harm to its schedule."""

import trio
from trio.testing import MockClock

from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.zones import Fault, Records
from engine.spool.interface import TryNow
from protocols.records import DestinationRecord, Status
from tests.delivery.world import World


async def back_off_of(world: World, domain: str) -> DestinationRecord:
    """Wait until a destination has failed and rests."""
    while True:
        record = await world.record(domain)
        if record.not_before_unix_ms > world.clock.now_unix_ms():
            return record
        await trio.sleep(0.1)


async def test_mail_goes_at_once_when_the_server_is_back(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("dead.test", Behaviour(down_s=((0.0, 100.0),)))
    await world.send(["a@dead.test", "b@dead.test"])
    async with world.delivering():
        await trio.sleep(110)
        assert not receiver.acceptances
        asked_s = trio.current_time()
        await world.spool.settle([], [TryNow("dead.test")])
        await world.settle_down(within_s=5)
        assert trio.current_time() - asked_s < 2
        await trio.sleep(5)
    assert await world.counts() == {Status.DELIVERED: 2}
    record = await world.record("dead.test")
    assert (record.failures, record.cause, record.scheduled_unix_ms) == (0, "", 0)


async def test_tries_that_fail_leave_the_schedule_as_it_was(autojump_clock: MockClock) -> None:
    """However many: the next attempt comes when it would have, and counts as the second one."""
    world = World()
    receiver = world.add("dead.test", Behaviour(down_s=((0.0, 10_000.0),)))
    [mail] = await world.send(["a@dead.test"])
    async with world.delivering():
        first = await back_off_of(world, "dead.test")
        assert first.failures == 1
        for _ in range(5):
            await trio.sleep(10)
            await world.spool.settle([], [TryNow("dead.test")])
            assert (await world.record("dead.test")).not_before_unix_ms == 0
            assert await back_off_of(world, "dead.test") == first
        scheduled_s = (first.not_before_unix_ms - world.clock.now_unix_ms()) / 1000
        await trio.sleep(scheduled_s + 1)
        second = await back_off_of(world, "dead.test")
        assert second.failures == 2
        assert second.since_unix_ms == first.since_unix_ms
        assert second.not_before_unix_ms > first.not_before_unix_ms + 400_000
        assert receiver.connections == 0
        assert [event.attempt for event in await world.story(mail)] == [0]


async def test_a_try_that_outlasts_the_back_off_counts_as_the_attempt_that_was_due(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.add("dead.test", Behaviour(down_s=((0.0, 10_000.0),)))
    world.network = type(world.network)(world.receivers, connect_s=20.0)
    await world.send(["a@dead.test"])
    async with world.delivering():
        first = await back_off_of(world, "dead.test")
        await trio.sleep((first.not_before_unix_ms - world.clock.now_unix_ms()) / 1000 - 5)
        await world.spool.settle([], [TryNow("dead.test")])
        await trio.sleep(30)
        second = await back_off_of(world, "dead.test")
        assert second.failures == 2
        assert second.scheduled_unix_ms == 0


async def test_a_name_that_did_not_resolve_is_looked_up_again(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("lost.test")
    hosts = world.zones.look_up("lost.test")
    assert hosts is not None
    world.zones.set("lost.test", Records(fault=Fault.SERVFAIL))
    await world.send(["a@lost.test"])
    async with world.delivering():
        first = await back_off_of(world, "lost.test")
        assert first.cause == "dns_failure"
        await world.spool.settle([], [TryNow("lost.test")])
        await trio.sleep(1)
        assert await back_off_of(world, "lost.test") == first
        world.zones.set("lost.test", hosts)
        await world.spool.settle([], [TryNow("lost.test")])
        await world.settle_down(within_s=5)
    assert len(receiver.acceptances) == 1
