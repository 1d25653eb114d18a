"""Who goes when: rates, connection ceilings, turns among destinations, order at the end."""

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from engine.config import Rule
from engine.config_values import DomainPattern, Rate
from engine.delivery.content_room import LOAD_BYTES, ContentBudget
from engine.delivery.scheduler import Scheduler
from engine.rehearsal.behaviour import Action, Behaviour, Mischief, Stage
from engine.rehearsal.zones import Records
from protocols.records import Status
from protocols.smtp_server import ServerSettings
from tests.delivery.rates import assert_within
from tests.delivery.world import World, config


def rule(domain: str, rate: str = "", **fields: int) -> Rule:
    parsed = Rate.parse(rate) if rate else None
    return Rule(destination=DomainPattern.parse(domain), rate=parsed, **fields)  # type: ignore[arg-type]  # tests choose


async def test_a_rate_is_kept_and_used_up(autojump_clock: MockClock) -> None:
    world = World(config=config([rule("slow.test", "20/s, burst 10")]))
    receiver = world.add("slow.test")
    await world.send([f"r{n}@slow.test" for n in range(400)])
    async with world.delivering():
        await world.settle_down(within_s=60)
    times = [acceptance.at_s for acceptance in receiver.acceptances]
    assert_within(times, Rate(20.0, 10))
    assert len(times) / (times[-1] - times[0] + 0.5) > 0.95 * 20


async def test_a_slow_rate_is_kept_without_an_actor_in_memory(autojump_clock: MockClock) -> None:
    world = World(config=config([rule("*.test", "6/min, burst 2")]))
    receiver = world.add("slow.test")
    await world.send([f"r{n}@slow.test" for n in range(40)])
    async with world.delivering() as delivery:
        await trio.sleep(27)
        assert not delivery.statistics().destinations
        assert len(receiver.acceptances) == 4
        record = await world.record("slow.test")
        assert record.cause == "rate_limit"
        assert record.failures == 0
        await world.settle_down(within_s=450)
    assert_within([acceptance.at_s for acceptance in receiver.acceptances], Rate(0.1, 2))


@pytest.mark.slow
async def test_a_site_takes_its_connections_for_all_its_domains(
    autojump_clock: MockClock,
) -> None:
    world = World()
    behaviour = Behaviour(reply_delay_s=0.05, connections_max=20)
    names = [f"d{n}.test" for n in range(120)]
    receiver = world.add(names[0], behaviour, mx="mx.host.test")
    for name in names[1:]:
        world.add(name, mx="mx.host.test")
    await world.send([f"r{n}@{name}" for name in names for n in range(10)])
    most = 0
    async with world.delivering(), trio.open_nursery() as nursery:

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, receiver.connections_open)
                await trio.sleep(0.02)

        nursery.start_soon(watch)
        await world.settle_down(within_s=120)
        nursery.cancel_scope.cancel()
    assert await world.counts() == {Status.DELIVERED: 1200}
    assert 10 < most <= 20
    # Borrowed, not opened for each: 1,200 mails at 100 a connection need twelve.
    assert receiver.connections < 60
    assert receiver.refused == 0


@pytest.mark.slow
async def test_everybody_gets_one_before_anybody_gets_a_second(
    autojump_clock: MockClock,
) -> None:
    world = World(connections_max=10)
    slow = Behaviour(reply_delay_s=0.2)
    receivers = [world.add(f"d{n}.test", slow) for n in range(10)]
    await world.send([f"r{n}@d{d}.test" for n in range(100) for d in range(10)])
    async with world.delivering() as delivery:
        await trio.sleep(5)
        assert [receiver.connections_open for receiver in receivers] == [1] * 10
        assert delivery.statistics().connections == 10
        before = [len(receiver.acceptances) for receiver in receivers]
        await trio.sleep(10)
        done = [len(r.acceptances) - n for r, n in zip(receivers, before, strict=True)]
        assert min(done) > 0.8 * max(done)
        await world.settle_down()


@pytest.mark.slow
async def test_latecomers_are_not_starved(autojump_clock: MockClock) -> None:
    """Ten connections, all busy with long queues; then one mail for each of five others."""
    world = World(connections_max=10)
    slow = Behaviour(reply_delay_s=0.05)
    for n in range(15):
        world.add(f"d{n}.test", slow)
    await world.send([f"r{n}@d{d}.test" for n in range(300) for d in range(10)])
    async with world.delivering():
        await trio.sleep(10)
        late = await world.send([f"late@d{d}.test" for d in range(10, 15)])
        await trio.sleep(20)
        for envelope_id in late:
            envelope = await world.spool.envelope(envelope_id)
            assert envelope is not None
            assert envelope.state.status is Status.DELIVERED


@pytest.mark.slow
async def test_more_destinations_than_places_take_turns(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scheduler.__init__, "__kwdefaults__", {"residents_max": 4})
    world = World()
    slow = Behaviour(reply_delay_s=0.1)
    receivers = [world.add(f"d{n}.test", slow) for n in range(20)]
    await world.send([f"r{n}@d{d}.test" for n in range(150) for d in range(20)])
    async with world.delivering() as delivery:
        await trio.sleep(9)
        assert len(delivery.statistics().destinations) <= 4
        # Each has had a turn though nobody is through.
        assert all(receiver.acceptances for receiver in receivers)
        assert not any(len(receiver.acceptances) == 150 for receiver in receivers)
        await world.settle_down()
    assert await world.counts() == {Status.DELIVERED: 3000}
    assert await world.faults() == []


@pytest.mark.slow
async def test_a_full_site_takes_nobodys_place(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """150 domains at one slow host with two connections, 20 places, and 40 other domains."""
    monkeypatch.setattr(Scheduler.__init__, "__kwdefaults__", {"residents_max": 20})
    world = World(config=config(connections_per_destination_max=2))
    for n in range(150):
        world.add(f"crowd{n}.test", Behaviour(reply_delay_s=0.5), mx="mx.crowd.test")
    await world.send([f"r@crowd{n}.test" for n in range(150)])
    for n in range(40):
        world.add(f"d{n}.test")
    others = await world.send([f"r{m}@d{n}.test" for m in range(5) for n in range(40)])
    async with world.delivering():
        await trio.sleep(15)
        for envelope_id in others:
            envelope = await world.spool.envelope(envelope_id)
            assert envelope is not None
            assert envelope.state.status is Status.DELIVERED
        parked = [await world.record(f"crowd{n}.test") for n in range(150)]
        assert sum(record.cause == "connection_limit" for record in parked) > 50
        # Half a second for each reply, two connections: all the time they are busy.
        await world.settle_down(within_s=100)
    assert await world.faults() == []


@pytest.mark.slow
async def test_a_tarpit_and_a_dead_host_cost_the_others_nothing(
    autojump_clock: MockClock,
) -> None:
    async def seconds_for_good(with_bad: bool) -> float:
        world = World()
        good = [f"d{n}.test" for n in range(30)]
        for name in good:
            world.add(name, Behaviour(reply_delay_s=0.02))
        if with_bad:
            world.add("tarpit.test", Behaviour(reply_delay_s=60.0))
            world.add("mute.test", Behaviour(mischief=Mischief(Action.STALL, Stage.CONNECT)))
            world.add("dead.test", Behaviour(down_s=((0.0, 1e9),)))
            names = ("tarpit.test", "mute.test", "dead.test")
            await world.send([f"r{n}@{d}" for n in range(1000) for d in names])
        await world.send([f"r{n}@{name}" for n in range(100) for name in good])
        began_s = trio.current_time()
        async with world.delivering():
            wanted = [r for r in world.receivers.values() if r.name[3:] in good]
            await world.wait_for(lambda: sum(len(r.acceptances) for r in wanted) == 3000)
            return trio.current_time() - began_s

    alone_s = await seconds_for_good(False)
    assert await seconds_for_good(True) < 1.1 * alone_s + 0.1


async def test_concurrency_grows_up_to_the_ceiling_of_the_rule(
    autojump_clock: MockClock,
) -> None:
    world = World(config=config([rule("one.test", connections_max=5)]))
    receiver = world.add("one.test", Behaviour(reply_delay_s=0.1))
    await world.send([f"r{n}@one.test" for n in range(600)])
    seen = set()
    async with world.delivering() as delivery:
        await trio.sleep(0.3)
        assert receiver.connections_open == 2
        for _ in range(100):
            seen.add(receiver.connections_open)
            await trio.sleep(0.1)
        statistics = delivery.statistics().destinations["one.test"]
        assert statistics.state == "flowing"
        assert 4 <= statistics.connections <= 5
        assert statistics.rate_per_s > 10
        await world.settle_down()
    assert max(seen) == 5


@pytest.mark.slow
async def test_a_server_with_few_connections_is_kept_busy_with_those(
    autojump_clock: MockClock,
) -> None:
    """It refuses the ninth with 421: the other eight go on, and that is tried again rarely."""
    world = World()
    receiver = world.add("eight.test", Behaviour(reply_delay_s=0.05, connections_max=8))
    await world.send([f"r{n}@eight.test" for n in range(6000)])
    async with world.delivering():
        await world.settle_down(within_s=120)
    assert len(receiver.acceptances) == 6000
    times = [acceptance.at_s for acceptance in receiver.acceptances]
    middle = times[1000:5000]
    assert len(middle) / (middle[-1] - middle[0]) >= 0.85 * 8 / 0.05
    assert receiver.refused < 20


@pytest.mark.slow
async def test_the_pipe_is_full_on_a_long_line(autojump_clock: MockClock) -> None:
    """20 connections over 50 ms: at least 0.9 mail per connection and round trip."""
    world = World()
    receiver = world.add("far.test", Behaviour(reply_delay_s=0.05))
    await world.send([f"r{n}@far.test" for n in range(6000)])
    async with world.delivering():
        await world.settle_down(within_s=120)
    times = [acceptance.at_s for acceptance in receiver.acceptances]
    # Once all twenty are there; a connection is renewed every hundred mails.
    middle = times[2000:5000]
    assert len(middle) / (middle[-1] - middle[0]) >= 0.9 * 20 / 0.05


async def test_a_connection_carries_no_more_than_it_may(autojump_clock: MockClock) -> None:
    limits = rule("one.test", messages_per_connection_max=7, connections_max=1)
    world = World(config=config([limits]))
    receiver = world.add("one.test")
    await world.send([f"r{n}@one.test" for n in range(70)])
    async with world.delivering():
        await world.settle_down()
    assert receiver.connections == 10


async def test_recipients_of_one_content_share_transactions(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("one.test")
    await world.send([f"r{n}@one.test" for n in range(120)], together=True)
    async with world.delivering():
        await world.settle_down()
    assert len(receiver.acceptances) == 120
    # What one final dot brought has one time; the content went over the wire three or four times.
    groups = Counter(acceptance.at_s for acceptance in receiver.acceptances)
    assert len(groups) <= 4
    assert max(groups.values()) >= 50


async def test_a_server_with_room_for_few_recipients_gets_few(autojump_clock: MockClock) -> None:
    world = World()
    behaviour = Behaviour(settings=ServerSettings(recipients_max=3))
    receiver = world.add("narrow.test", behaviour)
    await world.send([f"r{n}@narrow.test" for n in range(30)], together=True)
    async with world.delivering():
        await world.settle_down(within_s=10)
    assert len(receiver.acceptances) == 30
    assert all(envelope.state.attempts == 1 for envelope in await world.envelopes())


async def test_hosts_are_tried_in_order_and_addresses_of_both_kinds(
    autojump_clock: MockClock,
) -> None:
    world = World()
    best = world.add("best.test", Behaviour(down_s=((0.0, 100.0),)))
    second = world.add("second.test")
    address = world.zones.look_up("mx.second.test")
    assert address is not None
    world.zones.set("mx.second.test", Records(a=address.a, aaaa=("2a00::1",)))
    world.zones.set("both.test", Records(mx=((20, "mx.second.test"), (10, "mx.best.test"))))
    await world.send(["a@both.test"])
    async with world.delivering():
        await world.settle_down(within_s=5)
        assert (len(best.acceptances), len(second.acceptances)) == (0, 1)
        await trio.sleep(300)
        await world.send(["b@both.test"])
        await world.settle_down(within_s=5)
    assert (len(best.acceptances), len(second.acceptances)) == (1, 1)


@pytest.mark.slow
async def test_an_orderly_stop_loses_and_repeats_nothing(autojump_clock: MockClock) -> None:
    world = World()
    names = [f"d{n}.test" for n in range(10)]
    for name in names:
        world.add(name, Behaviour(reply_delay_s=0.05))
    await world.send([f"r{n}@{name}" for n in range(200) for name in names])
    for _ in range(40):
        async with trio.open_nursery() as nursery:
            await nursery.start(world.network.serve)
            delivery = world.new_delivery()
            await nursery.start(delivery.run)
            await trio.sleep(1.0)
            delivery.stop()
            await trio.sleep(3.0)
            assert delivery.statistics().connections == 0
            assert delivery.statistics().unsettled == 0
            assert delivery.statistics().content_bytes == 0
            assert world.spool.spool_statistics().in_flight == 0
            nursery.cancel_scope.cancel()
        if not world.spool.spool_statistics().envelopes_open:
            break
    assert await world.counts() == {Status.DELIVERED: 2000}
    assert sum(len(receiver.acceptances) for receiver in world.receivers.values()) == 2000


async def test_a_stop_waits_no_longer_than_its_limit(autojump_clock: MockClock) -> None:
    world = World()
    world.add("mute.test", Behaviour(mischief=Mischief(Action.STALL, Stage.DOT)))
    await world.send(["a@mute.test"])
    async with world.delivering() as delivery:
        await trio.sleep(1)
        began_s = trio.current_time()
        delivery.stop()
        await world.wait_for(lambda: not delivery.statistics().destinations)
        assert trio.current_time() - began_s < 12
        await trio.sleep(1)
    envelope = (await world.envelopes())[0]
    assert envelope.state.status is Status.DEFERRED
    assert envelope.state.reason == "outcome_unknown"


async def test_no_destination_gets_more_than_it_leaves_free() -> None:
    budget = ContentBudget(90)
    usual, large = budget.room_for(LOAD_BYTES), budget.room_for(LOAD_BYTES + 1)
    assert (usual.free, large.free) == (60, 30)
    assert usual.ask(40, lambda: None).is_granted
    assert budget.may_ask(1, held=19)
    assert not budget.may_ask(1, held=20)
    assert budget.may_ask(LOAD_BYTES + 1, held=20)
    assert usual.ask(20, lambda: None).is_granted
    # Who has nothing waits in order, and is heard.
    assert budget.may_ask(1, held=0)
    assert budget.used == 60


def content_of(octets: int) -> bytes:
    return b"Subject: large\r\n\r\n" + b"y\r\n" * (octets // 3)


@pytest.mark.slow
@pytest.mark.parametrize(("octets", "others_octets"), [(900_000, 900_000), (3_000_000, 1_000)])
async def test_receivers_that_take_nothing_leave_memory_to_the_others(
    octets: int, others_octets: int, autojump_clock: MockClock
) -> None:
    """What is in memory for them stays there: the others must not wait for that."""
    world = World()
    for number in range(8):
        stalls = Mischief(Action.STALL, Stage.DOT, times=1000)
        world.add(f"stall{number}.test", Behaviour(mischief=stalls))
    good = world.add("good.test")
    stalled = [f"r{n}@stall{n % 8}.test" for n in range(320)]
    await world.send(stalled, content=content_of(octets))
    async with world.delivering():
        await trio.sleep(5)
        others = [f"r{n}@good.test" for n in range(20)]
        await world.send(others, content=content_of(others_octets))
        await trio.sleep(5)
        assert len(good.acceptances) == 20
