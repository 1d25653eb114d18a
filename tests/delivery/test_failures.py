"""What goes wrong at a destination, and what becomes of the mail behind it."""

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from engine.rehearsal.behaviour import Action, Behaviour, Mischief, Stage
from engine.rehearsal.zones import NULL_MX, Fault, Records
from protocols.records import Reason, Status
from tests.delivery.world import START_UNIX_MS, World, config


def ago_s(unix_ms: int) -> float:
    return (unix_ms - START_UNIX_MS) / 1000.0


async def test_a_dead_host_holds_its_mail_as_a_whole_and_uses_up_no_attempt(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.add("dead.test", Behaviour(down_s=((0.0, 1000.0),)))
    world.add("good.test")
    ids = await world.send([f"r{n}@dead.test" for n in range(300)])
    await world.send([f"r{n}@good.test" for n in range(10)])
    async with world.delivering() as delivery:
        await trio.sleep(30)
        record = await world.record("dead.test")
        assert record.cause == "destination_unreachable"
        assert record.reason is Reason.CONNECTION
        assert "refused" in record.reply
        assert record.failures == 1
        assert 0 <= ago_s(record.since_unix_ms) < 2
        assert 240 < ago_s(record.not_before_unix_ms) < 362
        assert await world.counts() == {Status.QUEUED: 300, Status.DELIVERED: 10}
        assert not delivery.statistics().destinations
        await trio.sleep(500)
        assert (await world.record("dead.test")).failures == 2
        await world.settle_down()
        # 300, 600, 1200 s with their jitter: the third try after 1,000 s is the one that works.
        assert 1000 < ago_s(world.clock.now_unix_ms()) < 2600
        await trio.sleep(5)
    assert await world.counts() == {Status.DELIVERED: 310}
    # No event and no attempt but the last one for any of the three hundred.
    for envelope_id in ids[:3]:
        events = await world.story(envelope_id)
        assert [event.status for event in events] == [Status.QUEUED, Status.DELIVERED]
        assert events[-1].attempt == 1
    record = await world.record("dead.test")
    assert (record.failures, record.cause, record.reply, record.reason) == (0, "", "", None)
    assert await world.faults() == []


async def test_new_mail_does_not_wake_a_destination_that_backs_off(
    autojump_clock: MockClock,
) -> None:
    world = World()
    receiver = world.add("dead.test", Behaviour(down_s=((0.0, 200.0),)))
    await world.send(["a@dead.test"])
    async with world.delivering():
        await trio.sleep(1)
        first = await world.record("dead.test")
        for _ in range(50):
            await world.send(["b@dead.test"])
            await trio.sleep(4.2)
        assert await world.record("dead.test") == first
        assert receiver.connections == 0
        await world.settle_down()
    assert await world.counts() == {Status.DELIVERED: 51}


async def test_a_back_off_survives_a_restart(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("dead.test", Behaviour(down_s=((0.0, 50.0),)))
    await world.send(["a@dead.test"])
    for _ in range(5):
        async with world.delivering():
            await trio.sleep(11)
        world.open_spool()
    record = await world.record("dead.test")
    assert record.failures == 1
    async with world.delivering():
        await trio.sleep(100)
        assert receiver.acceptances == []
        await world.settle_down()
    assert 240 < ago_s(world.clock.now_unix_ms()) < 363


async def test_one_full_mailbox_delays_only_itself(autojump_clock: MockClock) -> None:
    world = World()
    world.add("one.test")
    (full,) = await world.send(["452-after-rcpt.2@one.test"])
    await world.send([f"r{n}@one.test" for n in range(50)])
    async with world.delivering():
        await trio.sleep(60)
        assert await world.counts() == {Status.DEFERRED: 1, Status.DELIVERED: 50}
        await world.settle_down()
    events = await world.story(full)
    assert [event.status for event in events] == [
        Status.QUEUED,
        Status.DEFERRED,
        Status.DEFERRED,
        Status.DELIVERED,
    ]
    assert [event.attempt for event in events] == [0, 1, 2, 3]
    first, second = (ago_s(event.next_attempt_unix_ms) for event in events[1:3])
    assert 240 < first < 361
    assert first + 480 < second < first + 722
    assert events[1].reply.startswith("452 ")


async def test_greylisting_has_its_own_schedule(autojump_clock: MockClock) -> None:
    world = World(config=config(retry_s=(3600.0,), greylist_retry_s=(300.0, 900.0)))
    world.add("grey.test", Behaviour(greylist_s=200.0))
    (envelope_id,) = await world.send(["a@grey.test"])
    async with world.delivering():
        await world.settle_down()
    events = await world.story(envelope_id)
    assert [event.status for event in events][1:] == [Status.DEFERRED, Status.DELIVERED]
    assert events[1].reason is Reason.GREYLISTED
    assert 240 < ago_s(events[1].next_attempt_unix_ms) < 361


async def test_unknown_users_bounce_hard_and_the_rest_arrives(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("one.test", Behaviour(unknown_share=0.3))
    await world.send([f"r{n}@one.test" for n in range(100)], together=True)
    async with world.delivering():
        await world.settle_down(within_s=30)
    counts = await world.counts()
    assert set(counts) == {Status.DELIVERED, Status.HARD_BOUNCED}
    assert counts[Status.DELIVERED] == len(receiver.acceptances)
    bounced = [e for e in await world.envelopes() if e.state.status is Status.HARD_BOUNCED]
    assert {envelope.state.reason for envelope in bounced} == {Reason.UNKNOWN_USER}
    assert all(envelope.state.reply.startswith("550 5.1.1 ") for envelope in bounced)


@pytest.mark.parametrize(
    ("records", "status", "reason"),
    [
        (None, Status.HARD_BOUNCED, Reason.NO_SUCH_DOMAIN),
        (NULL_MX, Status.HARD_BOUNCED, Reason.NULL_MX),
        (Records(), Status.HARD_BOUNCED, Reason.NO_SUCH_DOMAIN),
        (Records(mx=((10, "nowhere.test"),)), Status.SOFT_BOUNCED, Reason.DNS),
        (Records(mx=((10, "out.example"),)), Status.SOFT_BOUNCED, Reason.DNS),
        (Records(a=("10.1.2.3",)), Status.BLOCKED, Reason.POLICY),
    ],
)
async def test_what_the_name_says_for_good_ends_all_mail_at_once(
    autojump_clock: MockClock, records: Records | None, status: Status, reason: Reason
) -> None:
    world = World()
    world.zones.set("x.test", records)
    await world.send([f"r{n}@x.test" for n in range(600)])
    async with world.delivering():
        await world.settle_down(within_s=5)
    assert await world.counts() == {status: 600}
    envelope = (await world.envelopes())[0]
    assert (envelope.state.reason, envelope.state.attempts) == (reason, 0)
    assert envelope.state.reply.startswith("55")
    assert await world.faults() == []


async def test_a_failing_name_server_backs_off_the_destination(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("x.test")
    good = world.zones.look_up("x.test")
    world.zones.set("x.test", Records(fault=Fault.SERVFAIL))
    await world.send(["a@x.test", "b@x.test"])
    async with world.delivering():
        await trio.sleep(20)
        record = await world.record("x.test")
        assert (record.cause, record.reason, record.failures) == ("dns_failure", Reason.DNS, 1)
        assert record.reply.startswith("451 4.4.3 ")
        world.zones.set("x.test", good)
        await world.settle_down()
    assert len(receiver.acceptances) == 2
    assert all(envelope.state.attempts == 1 for envelope in await world.envelopes())


async def test_what_never_works_ends_as_expired_with_the_last_reply(
    autojump_clock: MockClock,
) -> None:
    world = World(config=config(max_age_s=7200.0))
    world.add("dead.test", Behaviour(down_s=((0.0, 1e9),)))
    world.add("slow.test")
    await world.send(["a@dead.test", "451-after-rcpt@slow.test"])
    async with world.delivering():
        await world.settle_down(within_s=7300)
    assert 7200 <= ago_s(world.clock.now_unix_ms()) <= 7206
    for envelope in await world.envelopes():
        state = envelope.state
        assert (state.status, state.reason) == (Status.SOFT_BOUNCED, Reason.EXPIRED)
    by_address = {e.fixed.address: e.state for e in await world.envelopes()}
    assert "refused" in by_address["a@dead.test"].reply
    assert by_address["a@dead.test"].attempts == 0
    assert by_address["451-after-rcpt@slow.test"].reply.startswith("451 ")
    assert by_address["451-after-rcpt@slow.test"].attempts > 3


async def test_expiry_does_not_wait_for_a_tarpit(autojump_clock: MockClock) -> None:
    world = World(config=config(max_age_s=60.0, connections_per_destination_max=1))
    receiver = world.add("tarpit.test", Behaviour(mischief=Mischief(Action.STALL, Stage.DOT)))
    await world.send([f"r{n}@tarpit.test" for n in range(30)])
    async with world.delivering():
        await trio.sleep(66)
        assert receiver.connections_open == 1
        counts = await world.counts()
    # Only what is with the server (two in its pipe) is still open.
    assert counts[Status.QUEUED] <= 2
    assert counts[Status.SOFT_BOUNCED] >= 28


@pytest.mark.parametrize("action", [Action.CLOSE, Action.RUBBISH, Action.HUGE, Action.TWICE])
@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.EHLO, Stage.MAIL, Stage.DATA])
async def test_a_hostile_server_is_left_alone_for_a_while(
    autojump_clock: MockClock, action: Action, stage: Stage
) -> None:
    """Whatever it does, the mail stays, the server is not hammered, and nothing arrives twice."""
    world = World()
    receiver = world.add("bad.test", Behaviour(mischief=Mischief(action, stage)))
    await world.send([f"r{n}@bad.test" for n in range(500)])
    async with world.delivering():
        await trio.sleep(200)
        assert receiver.connections <= 4
        counts = await world.counts()
        assert counts[Status.QUEUED] + counts[Status.DEFERRED] + counts[Status.DELIVERED] == 500
        assert counts[Status.DEFERRED] <= 200
    seen = Counter(acceptance.recipient for acceptance in receiver.acceptances)
    assert max(seen.values(), default=1) == 1
    assert await world.faults() == []


async def test_a_server_that_says_421_to_everything_is_unreachable(
    autojump_clock: MockClock,
) -> None:
    world = World()
    trick = Mischief(Action.REPLY, Stage.MAIL, 421)
    receiver = world.add("busy.test", Behaviour(mischief=trick))
    await world.send([f"r{n}@busy.test" for n in range(500)])
    async with world.delivering():
        await trio.sleep(200)
        record = await world.record("busy.test")
        assert record.cause == "destination_unreachable"
        assert record.reply.startswith("421 ")
        assert receiver.connections <= 4
        receiver.behaviour = Behaviour()
        await world.settle_down(within_s=36_000)
    assert await world.counts() == {Status.DELIVERED: 500}


async def test_a_lost_reply_is_told_as_unknown(autojump_clock: MockClock) -> None:
    world = World()
    receiver = world.add("one.test")
    (envelope_id,) = await world.send(["close-after-dot.1@one.test"])
    async with world.delivering():
        await world.settle_down()
    events = await world.story(envelope_id)
    assert [event.status for event in events][1:] == [Status.DEFERRED, Status.DELIVERED]
    assert events[1].reason is Reason.OUTCOME_UNKNOWN
    assert len(receiver.acceptances) == 2


async def test_a_receiver_that_counts_gets_no_more_than_it_takes(
    autojump_clock: MockClock,
) -> None:
    """A server with 421 above its rate: waits grow, everything arrives, once."""
    world = World(config=config(retry_s=(10.0, 20.0, 40.0)))
    receiver = world.add("slow.test", Behaviour(rate_per_s=5.0, rate_burst=50))
    await world.send([f"r{n}@slow.test" for n in range(400)])
    async with world.delivering():
        await world.settle_down(within_s=3600)
    assert await world.counts() == {Status.DELIVERED: 400}
    assert len(receiver.acceptances) == 400
    assert receiver.connections < 400
