"""Listings and statistics: exact filters, newest first, every page, sums that agree."""

from dataclasses import replace
from typing import Any

import pytest

from engine.spool.interface import Group, Quota, Spool
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import Status
from tests.spool import harness as h
from tests.spool.harness import Harness


async def test_a_listing_is_newest_first_and_every_page_goes_on(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = []
        for _ in range(5):
            ids += await h.accept_many(spool, account, 5)
            harness.clock.now += 3
        for limit in (1, 7, 25, 100):
            found, after = [], None
            while True:
                page = await spool.find(EnvelopeFilter(), after, limit)
                assert len(page.envelopes) <= limit
                found += [each.fixed.envelope_id for each in page.envelopes]
                if page.after is None:
                    break
                after = page.after
            assert found == ids[::-1]
        assert (await spool.find(EnvelopeFilter(), ids[0], 5)).envelopes == []


async def test_each_filter_of_a_listing_matches_exactly(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool, "acme")
        bolt = await h.make_account(spool, "bolt")
        early = harness.clock.now
        [first] = await h.accept_many(spool, acme, 1, campaign="spring", custom_id="c1")
        harness.clock.now += 1000
        [second] = await h.accept_many(spool, acme, 1, at="two.test")
        harness.clock.now += 1000
        [third] = await h.accept_many(spool, bolt, 1, campaign="spring")
        await h.deliver(spool, await h.claim(spool, "two.test"))

        async def ids(**fields: Any) -> list[int]:
            wanted = replace(EnvelopeFilter(), **fields)
            return [each.fixed.envelope_id for each in await h.all_envelopes(spool, wanted)]

        assert await ids() == [third, second, first]
        assert await ids(account_id=acme.account_id) == [second, first]
        assert await ids(statuses=frozenset({Status.DELIVERED})) == [second]
        assert await ids(statuses=frozenset({Status.QUEUED, Status.DELIVERED})) == [
            third,
            second,
            first,
        ]
        assert await ids(destination="one.test") == [third, first]
        assert await ids(destination="one.tes") == []
        assert await ids(address="r0@two.test") == [second]
        assert await ids(address="r0@one.test", account_id=bolt.account_id) == [third]
        assert await ids(campaign="spring") == [third, first]
        assert await ids(custom_id="c1") == [first]
        assert await ids(from_unix_ms=early + 1) == [third, second]
        assert await ids(to_unix_ms=early + 1000) == [first]
        assert await ids(from_unix_ms=early + 1000, to_unix_ms=early + 1001) == [second]
        assert await ids(account_id=99) == []


async def two_accounts_over_two_days(harness: Harness, spool: Spool) -> None:
    """Half past nine: acme 3 to one.test (1 delivered), 2 to two.test; next day bolt 1, acme 4."""
    acme = await h.make_account(spool, "acme")
    bolt = await h.make_account(spool, "bolt")
    await h.accept_many(spool, acme, 3, campaign="spring")
    await h.accept_many(spool, acme, 2, at="two.test")
    await h.deliver(spool, await h.claim(spool, limit=1))
    harness.clock.now += h.DAY_MS
    await h.accept_many(spool, bolt, 1)
    harness.clock.now += h.HOUR_MS
    await h.accept_many(spool, acme, 4, at="two.test", quota=Quota(per_day=1))


async def test_statistics_group_by_everything_they_are_asked_for(harness: Harness) -> None:
    async with harness.open() as spool:
        await two_accounts_over_two_days(harness, spool)

        async def rows(group: Group, **fields: Any) -> dict[str, tuple[int, ...]]:
            found = await spool.statistics(group, **fields)
            assert [row.key for row in found] == sorted(row.key for row in found)
            # Queued, paused and delivered; nothing else happens here.
            assert all(sum(row.counts) == sum(row.counts[i] for i in (0, 1, 3)) for row in found)
            return {row.key: (row.counts[0], row.counts[1], row.counts[3]) for row in found}

        assert await rows(Group.TOTAL) == {"total": (6, 3, 1)}
        assert await rows(Group.ACCOUNT) == {"acme": (5, 3, 1), "bolt": (1, 0, 0)}
        assert await rows(Group.DESTINATION) == {"one.test": (3, 0, 1), "two.test": (3, 3, 0)}
        assert await rows(Group.CAMPAIGN) == {"": (4, 3, 0), "spring": (2, 0, 1)}
        assert await rows(Group.DAY) == {"2026-11-24": (4, 0, 1), "2026-11-25": (2, 3, 0)}
        assert await rows(Group.HOUR) == {
            "2026-11-24T09": (4, 0, 1),
            "2026-11-25T09": (1, 0, 0),
            "2026-11-25T10": (1, 3, 0),
        }
        assert await rows(Group.TOTAL, account_id=2) == {"total": (1, 0, 0)}
        assert await rows(Group.DESTINATION, account_id=1) == {
            "one.test": (2, 0, 1),
            "two.test": (3, 3, 0),
        }
        assert await rows(Group.CAMPAIGN, account_id=2) == {"": (1, 0, 0)}


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (Group.TOTAL, {"total": 5}),
        (Group.ACCOUNT, {"acme": 4, "bolt": 1}),
        (Group.DESTINATION, {"one.test": 1, "two.test": 4}),
        (Group.HOUR, {"2026-11-25T09": 1, "2026-11-25T10": 4}),
        (Group.DAY, {"2026-11-25": 5}),
        (Group.CAMPAIGN, {"": 5}),
    ],
)
async def test_a_range_is_of_acceptance(
    harness: Harness, group: Group, expected: dict[str, int]
) -> None:
    async with harness.open() as spool:
        await two_accounts_over_two_days(harness, spool)
        from_unix_ms = h.START_UNIX_MS + h.HOUR_MS
        rows = await spool.statistics(group, from_unix_ms=from_unix_ms + 16 * h.HOUR_MS)
        assert {row.key: sum(row.counts) for row in rows} == expected
        first = await spool.statistics(group, to_unix_ms=from_unix_ms)
        assert sum(sum(row.counts) for row in first) == 5


async def test_an_empty_spool_has_a_total_of_nothing(harness: Harness) -> None:
    async with harness.open() as spool:
        [total] = await spool.statistics(Group.TOTAL)
        assert (total.key, total.counts) == ("total", (0,) * 8)
        for group in set(Group) - {Group.TOTAL}:
            assert await spool.statistics(group) == []
        assert await spool.destinations() == []
        assert (await spool.find(EnvelopeFilter(), None, 10)).after is None
        assert spool.head() == 0


async def test_destinations_are_listed_by_name_in_pages(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool, "acme")
        bolt = await h.make_account(spool, "bolt")
        names = [f"d{number:02}.test" for number in range(12)]
        for name in reversed(names):
            await h.accept_many(spool, acme, 1, at=name)
        await h.accept_many(spool, bolt, 2, at=names[3])
        found, after = [], ""
        while page := await spool.destinations(after=after, limit=5):
            found += [row.destination for row in page]
            after = found[-1]
        assert found == names
        [of_bolt] = await spool.destinations(account_id=bolt.account_id)
        assert (of_bolt.destination, of_bolt.counts[0]) == (names[3], 2)
        of_all = (await spool.destinations(after=names[2], limit=1))[0]
        assert (of_all.destination, of_all.counts[0]) == (names[3], 3)
        await h.deliver(spool, await h.claim(spool, names[3]))
        of_all = (await spool.destinations(after=names[2], limit=1))[0]
        assert (of_all.counts[0], of_all.counts[3]) == (0, 3)
        assert of_all.wake_unix_ms is None


async def test_statistics_of_the_spool_itself(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 5, quota=Quota(per_day=4))
        await h.deliver(spool, (await h.claim(spool))[:1])
        statistics = spool.spool_statistics()
        assert statistics.envelopes_open == 4
        assert statistics.in_flight == 3
        assert statistics.commits >= 2
        assert statistics.waiting_for_commit == 0
        assert (statistics.oldest_seq, statistics.head_seq) == (1, 6)
        assert statistics.start_count == 1
        assert statistics.quarantined == 0
        assert statistics.intake_open
