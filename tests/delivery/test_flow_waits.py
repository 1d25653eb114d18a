"""Very many accounts and campaigns with limits at one destination: bounded looks, exact rates."""

import random
from pathlib import Path

import pytest
from trio.testing import MockClock

from engine.config_values import Rate
from engine.delivery.flow_waits import LOOKS_MAX, PassedFlows
from engine.delivery.flows import LIMITED_HERE_MAX, PASS_OVER_MS_MIN, FlowLimits
from engine.delivery.throttles import Throttle, Throttles
from engine.rehearsal.behaviour import Behaviour
from engine.shaping.book import PlacedRule
from engine.shaping.places import Place
from protocols.records import FlowWait
from tests.delivery.rates import assert_within
from tests.delivery.test_flows import accepted, rule, world_of

START_UNIX_MS = 1_800_000_000_000
CAMPAIGNS = 10_000


class StillClock:
    """Wall time that only the test moves."""

    def __init__(self) -> None:
        self.unix_ms = START_UNIX_MS

    def now_unix_ms(self) -> int:
        return self.unix_ms


def flow_limits(clock: StillClock, rate: str) -> FlowLimits:
    throttles = Throttles(clock, wake=lambda _: True, changed=lambda *_: None)
    placed = PlacedRule(rule(rate, campaign="*"), Place(Path("rules.toml"), 1))
    return FlowLimits("a.test", "mx.a.test", [placed], throttles)


def wait_of(number: int) -> FlowWait:
    return FlowWait(1, "shop", f"c{number}", 0)


@pytest.mark.slow
def test_a_pull_looks_at_few_limits_however_many_were_met(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = StillClock(), 0
    flows = flow_limits(clock, "1/min")
    ready_at_unix_ms = Throttle.ready_at_unix_ms

    def counted(self: Throttle, now_unix_ms: int) -> float:
        nonlocal looks
        looks += 1
        return ready_at_unix_ms(self, now_unix_ms)

    monkeypatch.setattr(Throttle, "ready_at_unix_ms", counted)

    def looks_of_a_pull() -> int:
        nonlocal looks
        looks = 0
        flows.waits(flows.counted([]), clock.unix_ms)
        return looks

    # They are met a window at a time; each bucket is empty, as the process has just begun.
    for first in range(0, CAMPAIGNS, 250):
        flows.meet(wait_of(number) for number in range(first, first + 250))
        assert looks_of_a_pull() == 250
    assert looks_of_a_pull() == 0
    passed = flows.waits(flows.counted([]), clock.unix_ms)
    assert passed is not None
    assert {passed.until_unix_ms(1, f"c{number}") for number in range(CAMPAIGNS)} == {
        START_UNIX_MS + 60_000
    }
    # A minute later all of them may go at once: nobody is passed over, and few are looked at.
    clock.unix_ms += 60_000
    assert looks_of_a_pull() == LOOKS_MAX
    assert passed.until_unix_ms(1, f"c{CAMPAIGNS - 1}") <= clock.unix_ms
    while looks_of_a_pull():
        pass
    assert flows.waits(flows.counted([]), clock.unix_ms) is None


def test_of_what_waits_at_rest_few_stand_in_line() -> None:
    clock = StillClock()
    flows = flow_limits(clock, "1/min")
    flows.meet(wait_of(number) for number in range(2_000))
    assert len(flows.rest(clock.unix_ms)) == 257


def test_who_is_passed_over_is_who_was_put_and_whose_wait_lasts() -> None:
    """Against a model that walks all of them; seeded."""
    rand = random.Random(7)
    passed, until = PassedFlows(), dict[Throttle, int]()
    whose: dict[Throttle, FlowWait] = {}
    for number in range(60):
        throttle = Throttle("campaign", str(number), 0)
        campaign = None if number % 7 == 0 else f"c{number % 20}"
        whose[throttle] = FlowWait(1 + number % 3, "shop", campaign, 0)
        passed.meet(throttle, whose[throttle])
    now_unix_ms = 1_000
    for _ in range(3_000):
        for throttle in rand.sample([*whose], 5):
            until[throttle] = rand.choice((0, now_unix_ms + rand.randint(1, 90)))
            passed.put(throttle, until[throttle])
        now_unix_ms += rand.randint(0, 40)
        ended = {each for each, end in until.items() if 0 < end <= now_unix_ms}
        assert set(passed.over(now_unix_ms)) == ended
        until.update(dict.fromkeys(ended, 0))
        account_id, campaign = rand.randint(1, 3), rand.choice((None, f"c{rand.randint(0, 20)}"))
        assert passed.until_unix_ms(account_id, campaign) == max(
            (end for each, end in until.items() if whose[each].concerns(account_id, campaign)),
            default=0,
        )
        assert passed.has_any == any(until.values())


def test_when_enough_is_here_all_limited_mail_is_passed_over_for_a_moment() -> None:
    clock = StillClock()
    flows = flow_limits(clock, "60/min")
    flows.meet(wait_of(number) for number in range(3))
    clock.unix_ms += 60_000
    path = flows._path(1, "shop", "c0")
    here = flows.counted([])
    here.update({path[0]: LIMITED_HERE_MAX})
    passed = flows.waits(here, clock.unix_ms)
    assert passed is not None
    assert passed.until_unix_ms(1, "c2") == clock.unix_ms + PASS_OVER_MS_MIN
    assert passed.until_unix_ms(1, None) == 0
    passed = flows.waits(flows.counted([]), clock.unix_ms)
    assert passed is None


@pytest.mark.slow
async def test_hundreds_of_campaigns_at_one_destination_keep_to_their_rates_and_use_them(
    autojump_clock: MockClock,
) -> None:
    """More than a record or a window's look has room for; mail without a limit passes them."""
    world = world_of(rule("30/min", campaign="*"))
    receiver = world.add("a.test", Behaviour(reply_delay_s=0.005))
    for number in range(400):
        await world.send([f"c{number}.{mail}@a.test" for mail in range(3)], campaign=f"c{number}")
    free = await world.send([f"free{number}@a.test" for number in range(300)])
    async with world.delivering():
        await world.settle_down(within_s=60)
        assert await accepted(world, free) == 300
    by_campaign: dict[str, list[float]] = {}
    for each in receiver.acceptances:
        by_campaign.setdefault(each.recipient.partition(".")[0], []).append(each.at_s)
    campaigns = {name: times for name, times in by_campaign.items() if name.startswith("c")}
    assert len(campaigns) == 400
    for times in campaigns.values():
        assert len(times) == 3
        assert_within(times, Rate.parse("30/min"))
    assert await world.faults() == []
