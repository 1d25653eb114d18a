"""Times from acceptance to delivery: exact counts, honest percentiles, on every adapter."""

from typing import Any

import pytest

from engine.spool.activity import (
    BOUNDS_MS,
    BUCKET_FACTOR,
    FIRST_ATTEMPT,
    LONGEST,
    count_of,
    percentiles_ms,
)
from engine.spool.figure_calls import TimesGroup, TimesRow
from engine.spool.interface import Quota, Spool
from protocols.records import Status
from tests.spool import harness as h
from tests.spool.harness import Harness


async def times_by(spool: Spool, group: TimesGroup, **fields: Any) -> dict[str, tuple[int, ...]]:
    """Return count, those at the first attempt and the longest, by key."""
    rows = await spool.delivery_times(group, **fields)
    assert [row.key for row in rows] == sorted(row.key for row in rows)
    return {
        row.key: (count_of(row.times), row.times[FIRST_ATTEMPT], row.times[LONGEST]) for row in rows
    }


async def test_a_time_counts_from_acceptance_to_the_reply(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 3)
        harness.clock.now += 1500
        first, second, third = await h.claim(spool)
        due = harness.clock.now + 600_000
        await spool.settle(
            [
                h.result_of(spool, first),
                h.result_of(spool, second, Status.DEFERRED, due_unix_ms=due),
                h.result_of(spool, third, Status.HARD_BOUNCED),
            ]
        )
        harness.clock.now = due
        await h.deliver(spool, await h.claim(spool))
        for group, key in [
            (TimesGroup.TOTAL, "total"),
            (TimesGroup.DESTINATION, "one.test"),
            (TimesGroup.ACCOUNT, "acme"),
            (TimesGroup.DAY, "2026-11-24"),
        ]:
            assert await times_by(spool, group) == {key: (2, 1, 601_500)}
    async with harness.open() as spool:
        await h.accept_many(spool, account, 1)
        await h.deliver(spool, await h.claim(spool))
        assert await times_by(spool, TimesGroup.TOTAL) == {"total": (3, 2, 601_500)}
        assert await spool.check_invariants() == []


async def test_a_pause_is_in_the_time_that_its_sender_waited(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 2, quota=Quota(per_day=1))
        await h.deliver(spool, await h.claim(spool))
        harness.clock.now += h.DAY_MS
        await spool.release(harness.clock.now)
        await h.deliver(spool, await h.claim(spool))
        assert await times_by(spool, TimesGroup.TOTAL) == {"total": (2, 2, h.DAY_MS)}
        assert list(await times_by(spool, TimesGroup.DAY)) == ["2026-11-24"], "of its acceptance"


async def test_times_by_group_account_and_range(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool, "acme")
        bolt = await h.make_account(spool, "bolt")
        for account, at, count in [(acme, "one.test", 2), (bolt, "one.test", 3)]:
            await h.accept_many(spool, account, count, at=at)
            await h.deliver(spool, await h.claim(spool, at))
        harness.clock.now += h.DAY_MS
        await h.accept_many(spool, acme, 4, at="two.test")
        await h.deliver(spool, await h.claim(spool, "two.test"))
        await h.accept_many(spool, acme, 1, at="three.test")
        first_day = {"to_unix_ms": h.START_UNIX_MS - h.START_UNIX_MS % h.DAY_MS + h.DAY_MS}

        async def counts(group: TimesGroup, **fields: Any) -> dict[str, int]:
            return {key: row[0] for key, row in (await times_by(spool, group, **fields)).items()}

        assert await counts(TimesGroup.DESTINATION) == {"one.test": 5, "two.test": 4}
        assert await counts(TimesGroup.DESTINATION, account_id=2) == {"one.test": 3}
        assert await counts(TimesGroup.DESTINATION, **first_day) == {"one.test": 5}
        some = {"one.test", "three.test", "no.test"}
        assert await counts(TimesGroup.DESTINATION, names=some) == {"one.test": 5}
        assert await counts(TimesGroup.DESTINATION, names=some, account_id=1) == {"one.test": 2}
        assert await counts(TimesGroup.DESTINATION, names={"two.test"}, **first_day) == {}
        assert await counts(TimesGroup.DESTINATION, limit=1) == {"one.test": 5}
        assert await counts(TimesGroup.DESTINATION, after="one.test", limit=5) == {"two.test": 4}
        assert await counts(TimesGroup.ACCOUNT) == {"acme": 6, "bolt": 3}
        assert await counts(TimesGroup.ACCOUNT, account_id=2) == {"bolt": 3}
        assert await counts(TimesGroup.ACCOUNT, **first_day) == {"acme": 2, "bolt": 3}
        assert await counts(TimesGroup.DAY) == {"2026-11-24": 5, "2026-11-25": 4}
        assert await counts(TimesGroup.DAY, account_id=1) == {"2026-11-24": 2, "2026-11-25": 4}
        assert await counts(TimesGroup.DAY, account_id=2) == {"2026-11-24": 3}
        after = first_day["to_unix_ms"]
        assert await counts(TimesGroup.TOTAL, account_id=1, from_unix_ms=after) == {"total": 4}
        assert await counts(TimesGroup.TOTAL, account_id=2, from_unix_ms=after) == {}
        assert await counts(TimesGroup.TOTAL, account_id=99) == {}


@pytest.mark.slow
async def test_percentiles_are_bounds_a_quarter_apart(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        times = [0, *(round(3 * 1.4**step) for step in range(50)), 900_000_000]
        for time_ms in times:
            await h.accept_many(spool, account, 1)
            harness.clock.now += time_ms
            [mail] = await h.claim(spool)
            await h.deliver(spool, [mail])
        [row] = await spool.delivery_times(TimesGroup.TOTAL)
        assert count_of(row.times) == len(times)
        for percent in range(1, 101):
            exact = sorted(times)[-(-len(times) * percent // 100) - 1]
            [told] = percentiles_ms(row.times, [percent])
            assert exact <= told <= max(10, exact * BUCKET_FACTOR + 1), percent
        assert percentiles_ms(row.times, [100]) == [900_000_000]
        assert BOUNDS_MS[-1] < 900_000_000


async def test_a_percentile_is_no_more_than_the_longest_time(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 1)
        harness.clock.now += 1001
        await h.deliver(spool, await h.claim(spool))
        [row] = await spool.delivery_times(TimesGroup.DESTINATION)
        assert row == TimesRow("one.test", row.times)
        assert percentiles_ms(row.times, (1, 50, 99, 100)) == [1001] * 4
