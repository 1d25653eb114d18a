"""The straight line: from the spool over the wire and back, in virtual time."""

from trio.testing import MockClock

from protocols.records import Status
from tests.delivery.world import World


async def test_a_mail_arrives_and_says_so(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("one.test")
    (envelope_id,) = await world.send(["ann@one.test"])
    async with world.delivering():
        await world.settle_down(within_s=5)
    (acceptance,) = receiver.acceptances
    assert acceptance.recipient == "ann@one.test"
    events = await world.story(envelope_id)
    assert [event.status for event in events] == [Status.QUEUED, Status.DELIVERED]
    last = events[-1]
    assert (last.attempt, last.mx_host, last.mx_address) == (1, "mx.one.test", "127.0.0.1")
    assert last.reply.startswith("250 2.")


async def test_an_international_address_arrives_as_it_is(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("one.test")
    await world.send(["jürgen@one.test"], needs_utf8=True)
    async with world.delivering():
        await world.settle_down(within_s=5)
    assert await world.counts() == {Status.DELIVERED: 1}
    assert [acceptance.recipient for acceptance in receiver.acceptances] == ["jürgen@one.test"]


async def test_thousands_to_many_places(autojump_clock: MockClock) -> None:
    world = World()
    names = [f"d{n}.test" for n in range(40)]
    for name in names:
        world.add(name)
    await world.send([f"r{n}@{names[n % 40]}" for n in range(2000)])
    async with world.delivering():
        await world.settle_down(within_s=20)
    assert await world.counts() == {Status.DELIVERED: 2000}
    assert sum(len(receiver.acceptances) for receiver in world.receivers.values()) == 2000
