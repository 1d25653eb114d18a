"""What a server may have when the process dies: the next one tells of it, and of nothing else."""

from protocols.records import Reason, Status
from tests.spool import harness as h
from tests.spool.harness import Harness


async def test_what_was_handed_over_and_not_settled_is_told_at_the_next_start(
    harness: Harness,
) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 4)
        delivered, deferred, sent, waiting = await h.claim(spool)
        spool.handing_over((each.fixed.envelope_id, 1) for each in (delivered, deferred, sent))
        await h.deliver(spool, [delivered])
        due_unix_ms = harness.clock.now + h.DAY_MS
        later = h.result_of(spool, deferred, Status.DEFERRED, due_unix_ms=due_unix_ms)
        await spool.settle([later])
        head = spool.head()
    async with harness.open() as spool:
        assert spool.spool_statistics().doubts_at_start == 1
        (event,) = (await h.all_events(spool))[head:]
        assert (event.envelope_id, event.attempt) == (sent.fixed.envelope_id, 1)
        assert (event.status, event.reason) == (Status.DEFERRED, Reason.OUTCOME_UNKNOWN)
        assert event.reply.startswith("451 4.4.2 ")
        assert event.start_count == spool.start_count
        # At once, as before, and with those that nobody has tried.
        due = {each.fixed.envelope_id for each in await h.claim(spool)}
        assert due == {sent.fixed.envelope_id, waiting.fixed.envelope_id}
        assert await spool.check_invariants() == []
    async with harness.open() as spool:
        assert spool.spool_statistics().doubts_at_start == 0


async def test_each_attempt_that_was_cut_off_is_told(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        (envelope_id,) = await h.accept_many(spool, account, 1)
    for attempt in (1, 2, 3):
        async with harness.open() as spool:
            spool.handing_over([(envelope_id, attempt)])
    async with harness.open() as spool:
        told = [each.attempt for each in await h.all_events(spool) if each.reason is not None]
        assert told == [1, 2, 3]
        found = await spool.envelope(envelope_id)
        assert found is not None
        assert found.state.attempts == 3


async def test_what_has_its_end_is_in_no_doubt(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        (envelope_id,) = await h.accept_many(spool, account, 1)
        spool.handing_over([(envelope_id, 1), (envelope_id + 1000, 1)])
        harness.clock.now += 30 * h.DAY_MS
        await spool.sweep(harness.clock.now, 100)
        head = spool.head()
    async with harness.open() as spool:
        assert spool.spool_statistics().doubts_at_start == 0
        assert spool.head() == head
