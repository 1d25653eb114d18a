"""How many go before a mail: what a window would take first is what is counted."""

import random

from engine.spool.interface import WindowPosition
from protocols.records import Status
from tests.spool import harness as h
from tests.spool.harness import Harness

WHATEVER = 10_000


async def test_the_place_of_each_mail_is_the_one_that_a_window_gives_it(harness: Harness) -> None:
    rand = random.Random(4)
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for number in range(30):
            await h.accept_many(
                spool,
                account,
                rand.randrange(1, 40),
                campaign=f"c{number % 5}",
                lane=rand.randrange(2),
            )
            harness.clock.now += 7
        position = WindowPosition(flow=[2, 3], turn_taken=[5, 0], lane_0_run=3)
        envelopes = await h.all_envelopes(spool)
        ahead = {
            each.fixed.envelope_id: await spool.ahead(each, position, WHATEVER)
            for each in envelopes
        }
        assert position == WindowPosition(flow=[2, 3], turn_taken=[5, 0], lane_0_run=3)
        window = await spool.window("one.test", position, WHATEVER, spool.now_unix_ms())
        assert len(window.envelopes) == len(envelopes)
        for place, envelope in enumerate(window.envelopes):
            found = ahead[envelope.fixed.envelope_id]
            assert (found.count, found.is_exact) == (place, True)


async def test_what_is_claimed_or_not_due_by_then_is_not_ahead(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        first, second, third = await h.accept_many(spool, account, 3)
        claimed = await h.claim(spool, limit=1)
        assert [each.fixed.envelope_id for each in claimed] == [first]

        async def ahead(envelope_id: int) -> int:
            envelope = await h.state_of(spool, envelope_id)
            found = await spool.ahead(envelope, WindowPosition(), WHATEVER)
            assert found.is_exact
            return found.count

        assert await ahead(second) == 0
        assert await ahead(third) == 1
        deferred = h.result_of(
            spool, claimed[0], Status.DEFERRED, due_unix_ms=harness.clock.now + 60_000
        )
        await spool.settle([deferred])
        # Those that are due before it go before it; it goes before nobody who is due now.
        assert await ahead(first) == 2
        assert await ahead(third) == 1


async def test_a_place_far_from_the_head_is_told_roughly(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = []
        for _ in range(10):
            ids += await h.accept_many(spool, account, 100, campaign="long")
            harness.clock.now += 10
        await h.accept_many(spool, account, 100, campaign="short")
        for place in (500, 800, 990):
            envelope = await h.state_of(spool, ids[place])
            found = await spool.ahead(envelope, WindowPosition(), 200)
            assert place - 120 <= found.count <= place + 220
        last = await h.state_of(spool, ids[-1])
        assert (await spool.ahead(last, WindowPosition(), 2000)).count == 1099
        near = await h.state_of(spool, ids[20])
        assert (await spool.ahead(near, WindowPosition(), 200)).count == 20


async def test_a_campaign_has_its_own_counts_at_each_destination(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool, "acme")
        bolt = await h.make_account(spool, "bolt")
        await h.accept_many(spool, acme, 3, at="one.test", campaign="spring")
        await h.accept_many(spool, acme, 5, at="one.test", campaign="autumn")
        await h.accept_many(spool, bolt, 7, at="one.test", campaign="spring")
        await h.accept_many(spool, acme, 2, at="two.test", campaign="spring")
        await h.accept_many(spool, acme, 4, at="three.test")

        async def counts(**fields: object) -> dict[str, int]:
            rows = await spool.destinations(**fields)  # type: ignore[arg-type]  # tests choose
            return {row.destination: sum(row.counts) for row in rows}

        assert await counts(campaign="spring") == {"one.test": 10, "two.test": 2}
        spring = {"one.test": 3, "two.test": 2}
        assert await counts(campaign="spring", account_id=acme.account_id) == spring
        assert await counts(campaign="spring", after="one.test") == {"two.test": 2}
        assert await counts(campaign="") == {"three.test": 4}
        assert await counts(campaign="winter") == {}
        [row] = await spool.destinations(campaign="autumn")
        [whole] = await spool.destinations(after="one.tesa", limit=1)
        assert row.wake_unix_ms == whole.wake_unix_ms is not None
