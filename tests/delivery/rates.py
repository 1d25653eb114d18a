"""A rate as its receiver sees it, and worlds that are restarted in the middle of one."""

from collections.abc import Callable, Iterable, Sequence

import trio
from trio.testing import MockClock

from engine.config_values import Rate
from engine.rehearsal.receiver import Receiver
from tests.delivery.world import World


def assert_within(times_s: Sequence[float], rate: Rate) -> None:
    """Check that no window has more than rate x time + burst: the bucket as a receiver keeps it."""
    level, at_s = float(rate.burst), times_s[0]
    for now_s in times_s:
        level = min(float(rate.burst), level + (now_s - at_s) * rate.per_s) - 1.0
        at_s = now_s
        # Two hundredths of a mail for the clock's whole milliseconds.
        assert level >= -2e-2, now_s


def times_of(receivers: Iterable[Receiver]) -> list[float]:
    return sorted(each.at_s for receiver in receivers for each in receiver.acceptances)


def receivers_of(world: World, names: Iterable[str], *, mx: str = "") -> list[Receiver]:
    """Make receivers whose times begin together; at `mx` it is one for all names."""
    receivers = {id(each): each for each in [world.add(name, mx=mx) for name in names]}
    for receiver in receivers.values():
        receiver.now_s()
    return list(receivers.values())


def restarted(
    make: Callable[[], tuple[World, list[Receiver]]],
    batches: Sequence[Sequence[str]],
    lives_s: Sequence[float],
) -> list[float]:
    """Send batches from the account "shop", kill and restart the engine after each of `lives_s`.

    Returns when what was accepted, having checked the books after each life.
    """

    async def scenario() -> list[float]:
        world, receivers = make()
        for batch in batches:
            await world.send(batch, together=True, account="shop")
        for life_s in lives_s:
            async with world.delivering():
                await trio.sleep(life_s)
            assert await world.faults() == []
            world.open_spool()
        async with world.delivering():
            await world.settle_down(within_s=3600)
        assert await world.faults() == []
        return times_of(receivers)

    return trio.run(scenario, clock=MockClock(autojump_threshold=0))
