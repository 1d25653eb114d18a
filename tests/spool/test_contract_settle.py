"""What `settle` promises: facts count once, final is final, and one event for each change."""

import pytest
import trio

from engine.spool.interface import Finish, Group, Rest, RetryAt, Spool, WindowPosition
from protocols.records import (
    FINAL_STATUSES,
    DestinationRecord,
    Envelope,
    Reason,
    Status,
)
from tests.spool import harness as h
from tests.spool.harness import Harness


async def one_claimed(spool: Spool) -> Envelope:
    account = await h.make_account(spool)
    await h.accept_many(spool, account, 1)
    [envelope] = await h.claim(spool)
    return envelope


async def test_a_delivery_ends_the_envelope_with_its_reply_and_its_event(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        harness.clock.now += 70
        await h.deliver(spool, [envelope])
        state = (await h.state_of(spool, envelope.fixed.envelope_id)).state
        assert (state.status, state.attempts, state.due_unix_ms) == (Status.DELIVERED, 1, 0)
        assert (state.reply, state.reason) == ("250 2.0.0 Ok", None)
        assert state.finished_unix_ms == harness.clock.now
        accepted, delivered = await spool.events_at(state.event_seqs)
        assert accepted.status is Status.QUEUED
        assert delivered.status is Status.DELIVERED
        assert (delivered.attempt, delivered.next_attempt_unix_ms) == (1, 0)
        assert (delivered.mx_host, delivered.mx_address, delivered.tls) == (
            "mx.one.test",
            "192.0.2.1",
            "TLSv1.3",
        )
        assert delivered.accepted_unix_ms == envelope.fixed.accepted_unix_ms
        assert delivered.uuid == envelope.fixed.uuid
        assert await spool.due_destinations(2**60, 10) == []
        await h.sweep_all(spool)
        assert await spool.content([envelope.fixed.content_id]) == {}


async def test_a_deferral_waits_for_its_time_and_keeps_its_story(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        due = spool.now_unix_ms() + 300_000
        await spool.settle([h.result_of(spool, envelope, Status.DEFERRED, due_unix_ms=due)])
    harness.clock.now += 299_999
    async with harness.open() as spool:
        state = (await h.state_of(spool, envelope.fixed.envelope_id)).state
        assert (state.status, state.attempts, state.due_unix_ms) == (Status.DEFERRED, 1, due)
        assert (state.reply, state.reason) == ("451 4.7.1 Later", Reason.GREYLISTED)
        assert state.mx_host == "mx.one.test"
        assert await h.claim(spool) == []
        harness.clock.now += 1
        [again] = await h.claim(spool)
        await spool.settle([h.result_of(spool, again)])
        story = await spool.events_at(
            (await h.state_of(spool, envelope.fixed.envelope_id)).state.event_seqs
        )
        assert [(each.status, each.attempt, each.next_attempt_unix_ms) for each in story] == [
            (Status.QUEUED, 0, h.START_UNIX_MS),
            (Status.DEFERRED, 1, due),
            (Status.DELIVERED, 2, 0),
        ]


async def test_a_result_counts_once(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        due = spool.now_unix_ms()
        first = h.result_of(spool, envelope, Status.DEFERRED, due_unix_ms=due)
        await spool.settle([first, first])
        await spool.settle([first])
        # A result that comes late with another outcome is a repeat, too.
        await spool.settle([h.result_of(spool, envelope, Status.HARD_BOUNCED)])
    async with harness.open() as spool:
        await spool.settle([first])
        state = (await h.state_of(spool, envelope.fixed.envelope_id)).state
        assert (state.status, state.attempts, len(state.event_seqs)) == (Status.DEFERRED, 1, 2)
        assert spool.head() == 2
        assert await spool.check_invariants() == []


@pytest.mark.parametrize("last", sorted(FINAL_STATUSES))
async def test_final_is_final(harness: Harness, last: Status) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        envelope_id = envelope.fixed.envelope_id
        now = spool.now_unix_ms()
        if last is Status.DELIVERED:
            await h.deliver(spool, [envelope])
        else:
            spool.give_back([envelope_id])
            await spool.settle([], [Finish(envelope_id, last, now, Reason.POLICY)])
        before = await h.state_of(spool, envelope_id)
        assert before.state.status is last
        await spool.settle(
            [h.result_of(spool, envelope, Status.DELIVERED, attempt=7)],
            [
                Finish(envelope_id, Status.CANCELLED, now, None),
                Finish(envelope_id, Status.HARD_BOUNCED, now, Reason.NULL_MX),
                RetryAt(envelope_id, now),
            ],
        )
        harness.clock.now += 2 * harness.settings.max_age_ms
        await h.sweep_all(spool)
        assert await h.state_of(spool, envelope_id) == before
        assert spool.head() == 2
        assert await spool.check_invariants() == []


async def test_one_commit_moves_many_and_keeps_the_books(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for at in ("one.test", "two.test"):
            await h.accept_many(spool, account, 6, at=at, campaign="spring")
        envelopes = await h.claim(spool) + await h.claim(spool, "two.test")
        statuses = [
            Status.DELIVERED,
            Status.DELIVERED,
            Status.DEFERRED,
            Status.SOFT_BOUNCED,
            Status.HARD_BOUNCED,
        ]
        results = [
            h.result_of(
                spool,
                envelope,
                statuses[index % 5],
                due_unix_ms=spool.now_unix_ms() + 1 if index % 5 == 2 else 0,
            )
            for index, envelope in enumerate(envelopes[:10])
        ]
        await spool.settle(
            results,
            [
                Finish(
                    envelopes[10].fixed.envelope_id,
                    Status.BLOCKED,
                    spool.now_unix_ms(),
                    Reason.SUPPRESSED,
                )
            ],
        )
        [total] = await spool.statistics(Group.TOTAL)
        assert total.counts == (1, 0, 2, 4, 2, 2, 1, 0)
        assert await spool.check_invariants() == []


async def test_unknown_envelopes_are_passed_over(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        stranger = h.result_of(spool, envelope)
        gone = type(stranger)(12345, 1, Status.DELIVERED, spool.now_unix_ms())
        await spool.settle(
            [gone, stranger],
            [RetryAt(12345, 0), Finish(12345, Status.CANCELLED, spool.now_unix_ms(), None)],
        )
        assert (await h.state_of(spool, envelope.fixed.envelope_id)).state.attempts == 1
        assert await spool.envelope(12345) is None


async def test_what_is_in_flight_is_not_cancelled_and_does_not_expire(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        envelope_id = envelope.fixed.envelope_id
        cancel = Finish(envelope_id, Status.CANCELLED, spool.now_unix_ms(), None)
        await spool.settle([], [cancel])
        harness.clock.now += harness.settings.max_age_ms + 1
        await h.sweep_all(spool)
        assert (await h.state_of(spool, envelope_id)).state.status is Status.QUEUED
        # Still claimed: the cancellation that did nothing did not end the claim either.
        assert await h.claim(spool) == []
        spool.give_back([envelope_id])
        await h.sweep_all(spool)
        assert (await h.state_of(spool, envelope_id)).state.reason is Reason.EXPIRED


async def test_its_own_actor_may_finish_what_is_in_flight(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        finish = Finish(
            envelope.fixed.envelope_id,
            Status.HARD_BOUNCED,
            spool.now_unix_ms(),
            Reason.NO_SUCH_DOMAIN,
            "no such domain: one.test",
        )
        await spool.settle([], [finish])
        state = (await h.state_of(spool, envelope.fixed.envelope_id)).state
        assert (state.status, state.reason) == (Status.HARD_BOUNCED, Reason.NO_SUCH_DOMAIN)
        assert (state.attempts, state.reply) == (0, "no such domain: one.test")
        assert spool.spool_statistics().in_flight == 0


async def test_retry_at_moves_the_time_without_event_or_attempt(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        envelope_id = envelope.fixed.envelope_id
        later = spool.now_unix_ms() + h.HOUR_MS
        await spool.settle([], [RetryAt(envelope_id, later)])
        assert spool.head() == 1
        state = (await h.state_of(spool, envelope_id)).state
        assert (state.attempts, state.due_unix_ms, state.status) == (0, later, Status.QUEUED)
        assert await h.claim(spool) == []
        # Back again: the agenda row may not be later than that.
        await spool.settle([], [Rest("one.test", DestinationRecord())])
        assert await spool.next_wake_unix_ms() == later
        await spool.settle([], [RetryAt(envelope_id, spool.now_unix_ms())])
        assert await spool.next_wake_unix_ms() == spool.now_unix_ms()
        assert len(await h.claim(spool)) == 1
        assert await spool.check_invariants() == []


async def test_expiry_ends_everything_overdue_whatever_holds_it(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        [heard, unheard, alone] = [
            (await h.accept_many(spool, account, 1, at=at))[0]
            for at in ("one.test", "two.test", "three.test")
        ]
        [envelope] = await h.claim(spool)
        far = spool.now_unix_ms() + 30 * h.DAY_MS
        deferral = h.result_of(spool, envelope, Status.DEFERRED, due_unix_ms=far)
        record = DestinationRecord(far, "destination_unreachable", 1, 5, "421 4.3.2 Closing")
        await spool.settle([deferral], [Rest("two.test", record)])
        harness.clock.now += harness.settings.max_age_ms - 1
        fresh = (await h.accept_many(spool, account, 1, at="two.test"))[0]
        await h.sweep_all(spool)
        assert (await h.state_of(spool, unheard)).state.status is Status.QUEUED
        harness.clock.now += 1
        await h.sweep_all(spool)
        replies = {heard: "451 4.7.1 Later", unheard: "421 4.3.2 Closing", alone: ""}
        for envelope_id, reply in replies.items():
            state = (await h.state_of(spool, envelope_id)).state
            assert (state.status, state.reason) == (Status.SOFT_BOUNCED, Reason.EXPIRED)
            assert state.reply == reply
            assert state.finished_unix_ms == harness.clock.now
            [last] = (await spool.events_at(state.event_seqs))[-1:]
            assert (last.status, last.reason, last.reply) == (state.status, state.reason, reply)
        assert (await h.state_of(spool, fresh)).state.status is Status.QUEUED
        assert await spool.check_invariants() == []


async def test_expiry_of_very_many_is_complete_in_one_sweep(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 1203)
        harness.clock.now += harness.settings.max_age_ms
        await spool.sweep(spool.now_unix_ms(), 10)
        [total] = await spool.statistics(Group.TOTAL)
        assert total.counts == (0, 0, 0, 0, 1203, 0, 0, 0)
        assert await spool.due_destinations(2**60, 10) == []


async def test_claims_end_with_the_process(harness: Harness) -> None:
    async with harness.open() as spool:
        envelope = await one_claimed(spool)
        assert await h.claim(spool) == []
    async with harness.open() as spool:
        assert [each.fixed for each in await h.claim(spool)] == [envelope.fixed]


async def test_a_cancelled_caller_has_settled_or_not_but_never_half(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 40)
        envelopes = await h.claim(spool)
        with trio.move_on_after(0) as scope:
            await spool.settle([h.result_of(spool, each) for each in envelopes])
        assert scope.cancelled_caught
        await spool.settle([])
    async with harness.open() as spool:
        [total] = await spool.statistics(Group.TOTAL)
        assert total.counts[0] in (0, 40)
        assert await spool.check_invariants() == []


async def test_purged_mail_is_gone_but_still_counted(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 4)
        envelopes = await h.claim(spool)
        await h.deliver(spool, envelopes[:3])
        harness.clock.now += harness.settings.max_age_ms
        await h.sweep_all(spool)
        spool.give_back([ids[3]])
        await h.sweep_all(spool)
        harness.clock.now = h.START_UNIX_MS + harness.settings.finished_retention_ms + 1
        await h.sweep_all(spool)
        assert [each.fixed.envelope_id for each in await h.all_envelopes(spool)] == [ids[3]]
        assert await spool.envelope(ids[0]) is None
        [total] = await spool.statistics(Group.TOTAL)
        assert total.counts == (0, 0, 0, 3, 1, 0, 0, 0)
        assert await spool.check_invariants() == []


async def test_a_window_leaves_the_actor_its_position(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for campaign in ("a", "b"):
            await h.accept_many(spool, account, 100, campaign=campaign)
        position = WindowPosition()
        order = []
        for _ in range(8):
            window = await spool.window("one.test", position, 24, spool.now_unix_ms())
            order += [each.fixed.campaign for each in window.envelopes]
            await h.deliver(spool, window.envelopes)
        assert order[:96] == ["a"] * 32 + ["b"] * 32 + ["a"] * 32
