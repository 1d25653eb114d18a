"""A destination that backs off is tried now because somebody says so, on every adapter."""

import pytest

from engine.spool.hold_calls import NO_END_UNIX_MS, Hold, MailFilter
from engine.spool.interface import CommitNotice, Rest, RetryAt, Spool, TryNow
from protocols.records import DestinationRecord, Reason, Status
from tests.spool import harness as h


def backing_off(spool: Spool) -> DestinationRecord:
    return DestinationRecord(
        not_before_unix_ms=spool.now_unix_ms() + h.HOUR_MS,
        cause="destination_unreachable",
        since_unix_ms=h.START_UNIX_MS,
        failures=3,
        reply="connect: refused",
        reason=Reason.CONNECTION,
        site="mx.one.test",
    )


def told_by(spool: Spool) -> list[str]:
    """The names that listeners are told from now on, in order."""
    told: list[str] = []

    def listen(notice: CommitNotice) -> None:
        told.extend(notice.due_destinations)

    spool.add_listener(listen)
    return told


async def test_its_mail_is_due_and_listeners_are_told(harness: h.Harness) -> None:
    async with harness.open() as spool:
        await h.accept_many(spool, await h.make_account(spool), 2)
        record = backing_off(spool)
        await spool.settle([], [Rest("one.test", record)])
        told = told_by(spool)
        await spool.settle([], [TryNow("one.test")])
        assert told == ["one.test"]
        [row] = await spool.due_destinations(spool.now_unix_ms(), 10)
        assert (row.destination, row.cause) == ("one.test", "")
        kept = await spool.destination("one.test")
        assert kept is not None
        assert (kept.not_before_unix_ms, kept.scheduled_unix_ms) == (0, record.not_before_unix_ms)
        assert (kept.failures, kept.cause, kept.reply) == (3, record.cause, record.reply)
        # Once more is nothing more: it does not back off now.
        await spool.settle([], [TryNow("one.test")])
        assert told == ["one.test"]
        assert await spool.destination("one.test") == kept
        assert await spool.check_invariants() == []
    async with harness.open() as spool:
        assert await spool.destination("one.test") == kept


async def test_mail_that_is_made_due_in_the_same_commit_goes_too(harness: h.Harness) -> None:
    async with harness.open() as spool:
        await h.accept_many(spool, await h.make_account(spool), 1)
        [mail] = await h.claim(spool)
        later = spool.now_unix_ms() + h.HOUR_MS
        deferred = h.result_of(spool, mail, Status.DEFERRED, due_unix_ms=later)
        await spool.settle([deferred], [Rest("one.test", backing_off(spool))])
        told = told_by(spool)
        await spool.settle([], [TryNow("one.test")])
        assert told == [], "nothing of its mail is due"
        await spool.settle([], [Rest("one.test", backing_off(spool))])
        due = RetryAt(mail.fixed.envelope_id, spool.now_unix_ms(), unless_in_flight=True)
        await spool.settle([], [due, TryNow("one.test")])
        assert told == ["one.test"]
        assert len(await h.claim(spool)) == 1
        assert await spool.check_invariants() == []


async def test_what_is_held_stays_at_rest(harness: h.Harness) -> None:
    async with harness.open() as spool:
        await h.accept_many(spool, await h.make_account(spool), 1, campaign="spring")
        await spool.settle([], [Rest("one.test", backing_off(spool))])
        wanted = MailFilter(campaign="spring")
        hold = await spool.put_hold(Hold(0, wanted, None, "operator", "", spool.now_unix_ms()))
        told = told_by(spool)
        await spool.settle([], [TryNow("one.test")])
        assert told == []
        assert await spool.due_destinations(NO_END_UNIX_MS - 1, 10) == []
        await spool.lift_holds([hold.hold_id])
        assert told == ["one.test"]
        assert await spool.check_invariants() == []


@pytest.mark.parametrize("cause", ["rate_limit", "connection_limit"])
async def test_a_limit_is_no_back_off(harness: h.Harness, cause: str) -> None:
    async with harness.open() as spool:
        await h.accept_many(spool, await h.make_account(spool), 1)
        record = DestinationRecord(spool.now_unix_ms() + h.HOUR_MS, cause)
        await spool.settle([], [Rest("one.test", record)])
        told = told_by(spool)
        await spool.settle([], [TryNow("one.test"), TryNow("unknown.test")])
        assert told == []
        assert await spool.destination("one.test") == record
        assert await spool.destination("unknown.test") is None
        assert await spool.due_destinations(spool.now_unix_ms(), 10) == []


async def test_a_destination_without_mail_gets_no_row(harness: h.Harness) -> None:
    async with harness.open() as spool:
        await spool.settle([], [Rest("one.test", backing_off(spool))])
        told = told_by(spool)
        await spool.settle([], [TryNow("one.test")])
        assert told == []
        assert await spool.due_destinations(NO_END_UNIX_MS, 10) == []
        assert await spool.check_invariants() == []
