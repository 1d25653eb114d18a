"""Mail that an actor holds grows too old in time, whatever the connections before it are doing."""

import pytest
import trio
from trio.testing import MockClock

from engine.delivery.content_room import LOAD_BYTES, ContentBudget
from engine.rehearsal.behaviour import Action, Behaviour, Mischief, Stage
from protocols.records import Reason, Status
from tests.delivery.world import World, config


async def test_what_waits_behind_a_stalling_session_expires(autojump_clock: MockClock) -> None:
    world = World(config=config(max_age_s=100.0))
    world.add("stall.test", Behaviour(mischief=Mischief(Action.STALL, Stage.DOT, times=2)))
    async with world.delivering() as delivery:
        ids = await world.send([f"u{number}@stall.test" for number in range(60)])
        await trio.sleep(99.0)
        actor = delivery.statistics().destinations["stall.test"]
        assert actor.ready > 0
        await trio.sleep(4.0)
        counts = await world.counts()
        # Two sessions hold what they have sent; nobody knows yet what became of that.
        assert counts[Status.SOFT_BOUNCED] == len(ids) - actor.in_flight
        assert delivery.statistics().destinations["stall.test"].ready == 0
    for envelope in await world.envelopes():
        if envelope.state.status is Status.SOFT_BOUNCED:
            assert envelope.state.reason is Reason.EXPIRED
            assert envelope.state.finished_unix_ms >= envelope.state.expires_unix_ms
    assert await world.faults() == []


async def test_what_waits_for_a_connection_expires(autojump_clock: MockClock) -> None:
    world = World(config=config(max_age_s=10.0))
    world.add("gone.test")
    world.network._connect_s = 100.0
    async with world.delivering():
        await world.send(["ann@gone.test"])
        await trio.sleep(14.0)
        assert await world.counts() == {Status.SOFT_BOUNCED: 1}
    assert await world.faults() == []


async def test_a_destination_that_stops_holds_only_what_is_with_a_server(
    autojump_clock: MockClock,
) -> None:
    """Its claims end when it hands out no more, not when its last session ends."""
    world = World()
    world.add("stall.test", Behaviour(mischief=Mischief(Action.STALL, Stage.DOT, times=2)))
    async with world.delivering() as delivery:
        await world.send([f"u{number}@stall.test" for number in range(60)])
        await trio.sleep(1.0)
        in_flight = delivery.statistics().destinations["stall.test"].in_flight
        delivery.stop()
        await trio.sleep(1.0)
        assert 0 < in_flight == world.spool.spool_statistics().in_flight


async def with_memory_full(world: World) -> int:
    """Let a large mail wait for memory that a stalling receiver keeps; return its id."""
    world.add("stall.test", Behaviour(mischief=Mischief(Action.STALL, Stage.DOT, times=2)))
    world.add("late.test")
    content = b"Subject: large\r\n\r\n" + b"y\r\n" * (LOAD_BYTES // 3)
    await world.send(["ann@stall.test"], content=content)
    await trio.sleep(5.0)
    (large,) = await world.send(["large@late.test"], content=content)
    await trio.sleep(1.0)
    return large


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for one large content and no second one."""
    monkeypatch.setattr(ContentBudget.__init__, "__defaults__", (5 * LOAD_BYTES,))


@pytest.mark.usefixtures("little_memory")
async def test_what_waits_for_memory_expires_and_lets_others_pass(
    autojump_clock: MockClock,
) -> None:
    world = World(config=config(max_age_s=100.0))
    async with world.delivering() as delivery:
        large = await with_memory_full(world)
        assert delivery.statistics().destinations["late.test"].ready == 1
        (small,) = await world.send(["small@late.test"])
        await trio.sleep(2.0)
        envelope = await world.spool.envelope(small)
        assert envelope is not None
        assert envelope.state.status is Status.DELIVERED
        await trio.sleep(100.0)
        envelope = await world.spool.envelope(large)
        assert envelope is not None
        state = envelope.state
        assert (state.status, state.reason) == (Status.SOFT_BOUNCED, Reason.EXPIRED)
        assert 0 <= state.finished_unix_ms - state.expires_unix_ms <= 5000
    assert await world.faults() == []


@pytest.mark.usefixtures("little_memory")
async def test_what_waits_for_memory_goes_once_there_is_some(autojump_clock: MockClock) -> None:
    world = World()
    async with world.delivering():
        large = await with_memory_full(world)
        await trio.sleep(620.0)
        envelope = await world.spool.envelope(large)
        assert envelope is not None
        assert envelope.state.status is Status.DELIVERED
    assert await world.faults() == []


@pytest.mark.usefixtures("little_memory")
async def test_a_stop_does_not_wait_for_memory(autojump_clock: MockClock) -> None:
    world = World()
    async with world.delivering() as delivery:
        await with_memory_full(world)
        delivery.stop()
        await trio.sleep(1.0)
        assert set(delivery.statistics().destinations) == {"stall.test"}
        assert world.spool.spool_statistics().in_flight == 1
