"""Who waits for others without an actor is woken by them, also while it is on its way to rest."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.delivery.scheduler import Scheduler
from engine.rehearsal.behaviour import Behaviour
from engine.spool.interface import AttemptResult, Decision, Rest
from protocols.records import Status
from tests.delivery.world import World, config


class SlowRests:
    """Has each rest of some destinations take a while to be durable, as on a busy disk."""

    def __init__(self, world: World, names: Sequence[str], rest_s: float) -> None:
        self._settle: Any = world.spool.settle
        self._names = names
        self._rest_s = rest_s
        self.rests = 0
        world.spool.settle = self.settle  # type: ignore[method-assign]  # that is the point

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None:
        for each in decisions:
            if isinstance(each, Rest) and each.destination in self._names:
                self.rests += 1
                await trio.sleep(self._rest_s)
        await self._settle(results, decisions)


async def through_one_connection(world: World, reply_delay_s: float) -> None:
    """Two domains at a site with one connection, others waiting, and rests that take seconds."""
    for name in ("a.test", "b.test"):
        world.add(name, Behaviour(reply_delay_s=reply_delay_s), mx="mx.crowd.test")
    for n in range(8):
        world.add(f"d{n}.test", Behaviour(reply_delay_s=0.3))
    await world.send(["r@a.test", "r@b.test"])
    await world.send([f"r@d{n}.test" for n in range(8)])
    slow = SlowRests(world, ["a.test", "b.test"], rest_s=4.0)
    async with world.delivering():
        await world.settle_down(within_s=60)
        assert slow.rests, "nobody gave up his place"
    assert await world.counts() == {Status.DELIVERED: 10}
    assert await world.faults() == []


@pytest.mark.parametrize("reply_delay_s", [0.4, 0.7])
async def test_a_place_that_gets_free_at_a_full_site_is_no_place_lost(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, reply_delay_s: float
) -> None:
    """The only connection comes back while the one who waits for it is on his way to bed.

    With the slower replies the one who opens it has had his turn before it is open.
    """
    monkeypatch.setattr(Scheduler.__init__, "__kwdefaults__", {"residents_max": 2})
    world = World(config=config(connections_per_destination_max=1))
    await through_one_connection(world, reply_delay_s)
    # Who has to look by himself does so after thirty seconds.
    assert trio.current_time() < 25
