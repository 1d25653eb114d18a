"""The next attempt comes when it was foretold, and as many go before it as were counted."""

import pytest
import trio
from trio.testing import MockClock

from engine.config import Rule
from engine.config_values import DomainPattern, Rate
from engine.rehearsal.behaviour import Behaviour
from protocols.records import Status
from tests.delivery.test_holding_truth import Scene
from tests.delivery.world import World, config


def delivered(world: World, message_id: int) -> bool:
    return world.data.states[message_id].status is Status.DELIVERED


@pytest.mark.parametrize(
    ("rate", "place", "within_s"),
    [
        ("2/s", 80, 2.0),
        ("30/min, burst 5", 60, 4.0),
        ("6/min", 5, 4.0),  # At rest when it is asked.
    ],
)
async def test_behind_a_rate(
    autojump_clock: MockClock, rate: str, place: int, within_s: float
) -> None:
    pattern = DomainPattern.parse("x.test")
    world = World(config=config([Rule(destination=pattern, rate=Rate.parse(rate))]))
    receiver = world.add("x.test")
    async with world.delivering() as delivery:
        scene = Scene(world, delivery, "x.test")
        ids = await world.send([f"r{number}@x.test" for number in range(100)])
        scene.message_id = ids[place]
        await trio.sleep(5.0)
        told, taken = await scene.explained(), len(receiver.acceptances)
        assert told.code == "rate_limit"
        assert told.next_attempt_unix_ms is not None
        [envelope] = [e for e in await world.envelopes() if e.fixed.envelope_id == ids[place]]
        facts = await scene.facts().of_mail(envelope)
        assert facts.ahead == place - taken
        await world.wait_for(lambda: delivered(world, scene.message_id))
        late_ms = world.clock.now_unix_ms() - told.next_attempt_unix_ms
        assert abs(late_ms) <= within_s * 1000


async def test_behind_others_at_a_steady_pace(autojump_clock: MockClock) -> None:
    world = World(config=config())
    world.add("x.test", Behaviour(reply_delay_s=0.5, connections_max=2))
    async with world.delivering() as delivery:
        scene = Scene(world, delivery, "x.test")
        ids = await world.send([f"r{number}@x.test" for number in range(200)])
        scene.message_id = ids[150]
        await trio.sleep(20.0)
        told, asked_unix_ms = await scene.explained(), world.clock.now_unix_ms()
        assert told.code == "waiting_turn"
        assert told.next_attempt_unix_ms is not None
        await world.wait_for(lambda: delivered(world, scene.message_id))
        took_ms = world.clock.now_unix_ms() - asked_unix_ms
        assert told.next_attempt_unix_ms - asked_unix_ms == pytest.approx(took_ms, rel=0.4)
