"""Limits that a site's domains share, and what replies teach: in virtual time, over restarts."""

import json
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.config import Reaction, Rule, ShapingTable
from engine.config_values import DomainPattern, Rate, ReplyPattern, Step
from engine.delivery.service import Delivery
from engine.delivery.shaping_http import ShapingDoor
from engine.delivery.throttles import StepTaken, Throttles
from engine.http_server import HttpError, Request
from engine.rehearsal.behaviour import Action, Behaviour, Mischief
from engine.rehearsal.behaviour import Stage as Moment
from engine.shaping.book import Way as ShapedWay
from engine.shaping.loading import load_book
from protocols.outcomes import Bounced, Deferred, outcome_of
from protocols.records import Status
from protocols.replies import ReplyParser
from protocols.smtp_states import Stage
from tests.delivery.rates import assert_within
from tests.delivery.world import World, config
from tests.spool.harness import SettableClock

MX = "mx.big.test"
# More than there are places for actors. Ten thousand take five times as long and say the same.
DOMAINS = 2_200


def world_of(*, rate: str = "", reactions: tuple[Reaction, ...] = ()) -> World:
    site = DomainPattern.parse("*.big.test")
    rules = [Rule(site=site, rate=Rate.parse(rate))] if rate else []
    made = msgspec.structs.replace(
        config(rules), reactions=reactions, shaping=ShapingTable(defaults=False)
    )
    return World(config=made)


async def asked(delivery: Delivery, world: World, route: str, **body: object) -> dict[str, object]:
    door = ShapingDoor(delivery, world.clock)
    handler = {each.pattern: each.handler for each in door.routes()}[f"/v1/shaping/{route}"]
    query = urlencode(body) if route == "audit" else ""
    octets = b"" if route == "audit" else json.dumps(body).encode()
    response = await handler(Request("", route, query, (), body=octets))
    answer: dict[str, object] = json.loads(response.body)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["40/s, burst 20", "5/s"])
async def test_the_domains_at_a_site_share_its_rate_and_use_it_up(
    rate: str, autojump_clock: MockClock
) -> None:
    world = world_of(rate=rate)
    receiver = world.add("d0.test", mx=MX)
    for number in range(1, 200):
        world.add(f"d{number}.test", mx=MX)
    mails = round(Rate.parse(rate).per_s * 60)
    await world.send([f"r{n}@d{n % 200}.test" for n in range(mails)])
    async with world.delivering():
        await world.settle_down(within_s=200)
    times = [acceptance.at_s for acceptance in receiver.acceptances]
    assert_within(times, Rate.parse(rate))
    assert len(times) == mails
    assert mails / (times[-1] - times[0]) >= 0.98 * Rate.parse(rate).per_s


@pytest.mark.slow
async def test_thousands_of_domains_at_one_site_share_its_limit(
    autojump_clock: MockClock,
) -> None:
    world = world_of(rate="250/s")
    receiver = world.add("d0.test", mx=MX)
    for number in range(1, DOMAINS):
        world.add(f"d{number}.test", mx=MX)
    await world.send([f"r@d{number}.test" for number in range(DOMAINS)])
    async with world.delivering():
        await world.settle_down(within_s=400)
    times = [acceptance.at_s for acceptance in receiver.acceptances]
    assert_within(times, Rate.parse("250/s"))
    assert await world.counts() == {Status.DELIVERED: DOMAINS}
    assert DOMAINS / (times[-1] - times[0]) >= 0.98 * 250


async def test_domains_that_wait_for_a_slow_site_are_woken_one_by_one(
    autojump_clock: MockClock,
) -> None:
    world = world_of(rate="20/min")
    receiver = world.add("d0.test", mx=MX)
    for number in range(1, 30):
        world.add(f"d{number}.test", mx=MX)
    await world.send([f"r@d{number}.test" for number in range(30)])
    async with world.delivering():
        await world.settle_down(within_s=150)
    times = [acceptance.at_s for acceptance in receiver.acceptances]
    assert_within(times, Rate.parse("20/min"))
    assert 29 / (times[-1] - times[0]) >= 0.95 * 20 / 60


async def test_a_throttling_receiver_is_heard_and_the_trail_says_so(
    autojump_clock: MockClock,
) -> None:
    world = world_of()
    world.add("a.test", Behaviour(rate_per_s=10.0, rate_burst=20, reply_delay_s=0.05), mx=MX)
    world.add("b.test", mx=MX)
    await world.send([f"r{n}@{name}.test" for n in range(150) for name in "ab"])
    async with world.delivering() as delivery:
        await trio.sleep(5)
        answer = await asked(delivery, world, "audit", site="a.test")
        steps = answer["audit"]
        assert isinstance(steps, list)
        first = steps[-1]
        assert (first["site"], first["who"], first["cause"]) == (MX, "engine", "throttled")
        assert first["reply"] == "421 4.7.0 Too many messages, slow down"
        assert first["before"] == "no limit"
        none = {"rate_per_s": None, "connections": None, "suspended_until": None, "pinned": False}
        assert first["limits_before"] == none
        assert 0 < first["limits_after"]["rate_per_s"] < 100
        assert [step["can_undo"] for step in steps] == [True] + [False] * (len(steps) - 1)
        paged: list[object] = []
        after: dict[str, object] = {}
        while len(paged) < len(steps):
            page = await asked(delivery, world, "audit", limit=1, **after)
            assert isinstance(page["audit"], list)
            paged += page["audit"]
            after = {"after": page["after"]}
        assert (paged, after) == (steps, {"after": None})
        learned = delivery._throttles.site(MX).learned
        assert 0 < learned.rate_at(world.clock.now_unix_ms()) < 100
    world.open_spool()
    async with world.delivering() as delivery:
        await trio.sleep(1)
        # A restart has forgotten neither what was learned nor why.
        assert delivery._throttles.site(MX).learned == learned
        assert await asked(delivery, world, "audit") == answer
        await world.settle_down(within_s=7200)
    assert await world.counts() == {Status.DELIVERED: 300}


@pytest.mark.parametrize(
    "said", [(Mischief(Action.REPLY, Moment.RCPT, 450)), Mischief(Action.REPLY, Moment.RCPT, 550)]
)
async def test_what_is_no_throttle_teaches_nothing(
    said: Mischief, autojump_clock: MockClock
) -> None:
    world = world_of()
    world.add("a.test", Behaviour(mischief=said), mx=MX)
    world.add("full.test", Behaviour(full_share=1.0))
    world.add("grey.test", Behaviour(greylist_s=100.0))
    await world.send([f"r{n}@{name}.test" for n in range(5) for name in ("a", "full", "grey")])
    async with world.delivering() as delivery:
        await trio.sleep(60)
        assert await asked(delivery, world, "audit") == {"audit": [], "after": None}


async def test_a_reaction_suspends_a_site_and_undo_lets_it_go_on(
    autojump_clock: MockClock,
) -> None:
    reaction = Reaction(
        site=DomainPattern.parse("*.big.test"),
        reply=ReplyPattern.parse("^421 4[.]7[.]0 Too many"),
        sample="421 4.7.0 Too many",
        then=Step.parse("suspend 2h"),
    )
    world = world_of(reactions=(reaction,))
    receiver = world.add("a.test", Behaviour(rate_per_s=10.0, rate_burst=20), mx=MX)
    world.add("b.test", mx=MX)
    await world.send([f"r{n}@{name}.test" for n in range(40) for name in "ab"])
    async with world.delivering() as delivery:
        await trio.sleep(600)
        taken = len(receiver.acceptances)
        assert taken < 60
        await trio.sleep(3000)
        assert len(receiver.acceptances) == taken
        assert (await world.record("b.test")).cause == "rate_limit"
        step = await asked(delivery, world, "undo", site="b.test")
        assert (step["site"], step["who"], step["after"]) == (MX, "operator", "no limit")
        assert step["pinned"] is step["can_undo"] is False
        await trio.sleep(60)
        assert len(receiver.acceptances) > taken
        with pytest.raises(HttpError, match="not pinned"):
            await asked(delivery, world, "unpin", site=MX)
        with pytest.raises(HttpError, match="no site that is known"):
            await asked(delivery, world, "undo", site="unknown.test")


async def test_rules_that_are_taken_over_hold_for_those_who_rest_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    file = tmp_path / "rules.toml"
    world = World(config=msgspec.structs.replace(config(), shaping=ShapingTable(files=(file,))))
    for text in ('destination = "*.test"\nrate = "1/h"', 'site = "*.big.test"\nrate = "1/h"'):
        file.write_text(f"[[rule]]\n{text}\n")
        receiver = world.add("a.test", mx=MX)
        taken = len(receiver.acceptances)
        await world.send([f"r{n}@a.test" for n in range(20)])
        async with world.delivering() as delivery:
            await trio.sleep(30)
            assert len(receiver.acceptances) <= taken + 1
            assert (await world.record("a.test")).cause == "rate_limit"
            file.write_text("[[rule]]\nsite = 5\n")
            with pytest.raises(HttpError, match=r"rules\.toml:2: .* The old rules go on"):
                await asked(delivery, world, "reload")
            await trio.sleep(30)
            assert len(receiver.acceptances) <= taken + 1
            file.write_text('[[rule]]\ndestination = "*.test"\nrate = "10/s"\n')
            assert await asked(delivery, world, "reload") == {"rules": 12, "reactions": 20}
            await world.settle_down(within_s=10)
        world.open_spool()


async def test_what_was_learned_outlives_other_rules_and_broken_ones(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\nsite = "*.big.test"\nrate = "50/s"\n')
    table = ShapingTable(files=(file,), defaults=False)
    world = World(config=msgspec.structs.replace(config(), shaping=table))
    world.add("a.test", Behaviour(rate_per_s=10.0, rate_burst=20, reply_delay_s=0.05), mx=MX)
    await world.send([f"r{n}@a.test" for n in range(150)])
    async with world.delivering() as delivery:
        await trio.sleep(5)
        learned = delivery._throttles.site(MX).learned
        trail = await asked(delivery, world, "audit")
        assert learned.rate > 0
        for text in ("[[reaction]]\nreply = '('\n", '[[rule]]\nsite = "*"\nrate = "40/s"\n'):
            file.write_text(text)
            if "reaction" in text:
                with pytest.raises(HttpError, match=r"rules\.toml:2: \[\[reaction\]\] 1 reply"):
                    await asked(delivery, world, "reload")
            else:
                assert (await asked(delivery, world, "reload"))["rules"] == 1
            assert delivery._throttles.site(MX).learned == learned
            assert await asked(delivery, world, "audit") == trail


async def test_notes_that_cannot_be_read_are_forgotten(autojump_clock: MockClock) -> None:
    world = world_of()
    world.add("a.test", mx=MX)
    await world.spool.put_notes({"shaping/step/0": b"rubbish", "shaping/site/0": b""})
    await world.send(["r@a.test"])
    async with world.delivering() as delivery:
        await world.settle_down()
        assert await asked(delivery, world, "audit") == {"audit": [], "after": None}
    assert await world.spool.notes("shaping/") == []


async def test_a_pinned_site_keeps_to_what_it_was_pinned_at(autojump_clock: MockClock) -> None:
    world = world_of()
    receiver = world.add("a.test", Behaviour(reply_delay_s=0.01), mx=MX)
    await world.send(["first@a.test"])
    async with world.delivering() as delivery:
        await world.settle_down()
        step = await asked(delivery, world, "pin", site="a.test", rate="2/s", connections=1)
        assert step["after"] == "2/s; 1 connection; pinned"
        await world.send([f"r{n}@a.test" for n in range(60)])
        await trio.sleep(20.5)
        assert 39 <= len(receiver.acceptances) <= 43
        assert receiver.connections_open <= 1
        with pytest.raises(HttpError, match="unpin it first"):
            await asked(delivery, world, "undo", site="a.test")
        step = await asked(delivery, world, "unpin", site="a.test")
        assert (step["cause"], step["after"]) == ("unpin, as before the pin", "no limit")
        await world.settle_down(within_s=3)


@pytest.mark.parametrize(
    ("said", "stage", "teaches"),
    [
        ("451 4.7.1 Too many messages, slow down", Stage.RCPT, True),
        ("421 4.7.28 rate limit", Stage.MAIL, True),
        ("452 4.7.0 too many messages in this session", Stage.DOT, True),
        # About one mailbox, which is full or gets too much from others, or one transaction.
        ("450 4.2.1 The user is receiving mail at a rate that prevents more", Stage.RCPT, False),
        ("452 4.2.2 over quota: too many messages in the mailbox", Stage.RCPT, False),
        ("452 4.5.3 Too many recipients", Stage.RCPT, False),
        # About connections, which each destination counts itself.
        ("421 4.7.0 Too many connections", Stage.BANNER, False),
        ("451 4.7.1 Greylisted, too many messages for a stranger", Stage.RCPT, False),
        ("454 4.7.0 rate limit of our own backend", Stage.RCPT, False),
        ("550 5.7.1 rate limit", Stage.RCPT, False),
    ],
)
def test_which_replies_are_about_going_too_fast(said: str, stage: Stage, teaches: bool) -> None:
    rules = load_book(msgspec.structs.replace(config(), shaping=ShapingTable(defaults=False)))
    told: list[StepTaken | None] = []
    throttles = Throttles(
        SettableClock(), wake=lambda name: False, changed=lambda throttle, step: told.append(step)
    )
    [reply] = ReplyParser().receive(f"{said}\r\n".encode())
    outcome = outcome_of(reply, stage=stage)
    assert isinstance(outcome, Deferred | Bounced)
    heard = throttles.heard(
        throttles.site(MX),
        rules.effective(ShapedWay("a.test", [MX], "out.example")),
        outcome,
        open_connections=4,
    )
    assert (heard, len(told)) == (teaches, int(teaches))
