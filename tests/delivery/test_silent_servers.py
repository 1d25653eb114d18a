"""Servers that say nothing more: mail expires where that is safe, and explanations say so."""

import pytest
import trio
from msgspec import structs
from trio.testing import MockClock

from engine.delivery.connection import TIMEOUT_S
from engine.delivery.holding import Facts, holding
from engine.delivery.service import Delivery
from engine.rehearsal.behaviour import Action, Behaviour, Mischief, Stage
from protocols.records import Envelope, Reason, Status
from protocols.smtp_states import Stage as ClientStage
from tests.delivery.world import World, config

MAX_AGE_S = 60.0
# What is promised of every expiry.
EXPIRES_WITHIN_S = 5.0


def world_with(stage: Stage, *, max_age_s: float = MAX_AGE_S) -> World:
    made = World(config=config(max_age_s=max_age_s))
    made.add("x.test", Behaviour(mischief=Mischief(Action.STALL, stage)))
    return made


async def envelope_of(world: World, envelope_id: int) -> Envelope:
    found = await world.spool.envelope(envelope_id)
    assert found is not None
    return found


async def held_by(world: World, delivery: Delivery, envelope_id: int) -> object:
    envelope = await envelope_of(world, envelope_id)
    outlook = delivery.outlook("x.test", envelope.fixed)
    assert outlook is not None
    now_unix_ms = world.clock.now_unix_ms()
    facts = Facts(now_unix_ms=now_unix_ms, record=outlook.record, outlook=outlook)
    return holding(envelope, facts)


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_before_the_final_dot_a_silent_server_keeps_no_mail_beyond_its_age(
    autojump_clock: MockClock, stage: Stage
) -> None:
    world = world_with(stage)
    async with world.delivering():
        (envelope_id,) = await world.send(["a@x.test"])
        await trio.sleep(MAX_AGE_S + EXPIRES_WITHIN_S)
        state = (await envelope_of(world, envelope_id)).state
    assert (state.status, state.reason) == (Status.SOFT_BOUNCED, Reason.EXPIRED)
    assert "no answer before the mail's time was over" in state.reply


async def test_after_the_final_dot_the_standards_time_is_waited_out(
    autojump_clock: MockClock,
) -> None:
    world = world_with(Stage.DOT)
    async with world.delivering() as delivery:
        (envelope_id,) = await world.send(["a@x.test"])
        await trio.sleep(MAX_AGE_S + EXPIRES_WITHIN_S)
        envelope = await envelope_of(world, envelope_id)
        assert envelope.state.status is Status.QUEUED
        held = await held_by(world, delivery, envelope_id)
        assert getattr(held, "is_silent")  # noqa: B009  # the verdict may be None
        await trio.sleep(TIMEOUT_S[ClientStage.DOT])
        state = (await envelope_of(world, envelope_id)).state
    assert (state.status, state.reason) == (Status.SOFT_BOUNCED, Reason.EXPIRED)
    assert "no reply to final dot" in state.reply


async def test_a_server_that_is_slow_and_answers_is_not_cut_off(autojump_clock: MockClock) -> None:
    world = World(config=config(max_age_s=6.0))
    # It takes ten seconds over a mail, and is never silent for as long as would count.
    world.add("x.test", Behaviour(reply_delay_s=2.5))
    async with world.delivering():
        (envelope_id,) = await world.send(["a@x.test"])
        await world.settle_down()
        state = (await envelope_of(world, envelope_id)).state
    assert state.status is Status.DELIVERED


async def test_what_is_younger_is_put_off_and_not_lost(autojump_clock: MockClock) -> None:
    """One transaction, two ages: the connection ends with the first, the other is tried again."""
    world = world_with(Stage.RCPT)
    async with world.delivering():
        first, second = await world.send(["a@x.test", "b@x.test"], together=True)
        older = world.data.states[first]
        expires_unix_ms = older.expires_unix_ms - 30_000
        world.data.states[first] = structs.replace(older, expires_unix_ms=expires_unix_ms)
        await trio.sleep(MAX_AGE_S - 30.0 + EXPIRES_WITHIN_S)
        states = [(await envelope_of(world, each)).state for each in (first, second)]
    assert states[0].reason is Reason.EXPIRED
    assert states[1].status in (Status.QUEUED, Status.DEFERRED)


async def test_who_waits_behind_a_silent_server_is_told(autojump_clock: MockClock) -> None:
    world = world_with(Stage.RCPT, max_age_s=86_400.0)
    async with world.delivering() as delivery:
        ids = await world.send([f"a{number}@x.test" for number in range(3)])
        await trio.sleep(30.0)
        holdings = [await held_by(world, delivery, each) for each in ids]
        now_unix_ms = world.clock.now_unix_ms()
    codes = [(held.code, held.is_silent) for held in holdings]  # type: ignore[attr-defined]  # None fails
    assert codes == [("in_flight", True), ("waiting_turn", True), ("waiting_turn", True)]
    for held in holdings:
        since_s = (now_unix_ms - held.since_unix_ms) / 1000.0  # type: ignore[attr-defined]  # as above
        left_s = (held.next_attempt_unix_ms - now_unix_ms) / 1000.0  # type: ignore[attr-defined]  # as above
        assert 25.0 < since_s <= 30.0
        assert since_s + left_s >= TIMEOUT_S[ClientStage.RCPT]
