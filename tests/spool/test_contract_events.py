"""The log: gap-free, in order, by pages, and honest about what retention has removed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.spool.interface import EventFilter, Finish, Group, SpoolSettings
from engine.spool.projections import rebuild
from protocols.records import Event, Status, pack_record
from tests.spool import harness as h
from tests.spool.harness import ADAPTERS, Harness


async def test_the_log_is_read_in_order_by_any_page_size(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for at in ("one.test", "two.test"):
            await h.accept_many(spool, account, 7, at=at)
            await h.deliver(spool, await h.claim(spool, at))
        assert spool.head() == 28
        for limit in (1, 3, 28, 100):
            seq, seqs = 0, []
            while seq < spool.head():
                page = await spool.events(seq, EventFilter(), limit)
                assert page.gap is None
                assert 1 <= len(page.events) <= limit
                assert page.seq == page.events[-1].seq
                seqs += [each.seq for each in page.events]
                seq = page.seq
            assert seqs == list(range(1, 29))
        at_head = await spool.events(28, EventFilter(), 10)
        assert (list(at_head.events), at_head.seq, at_head.gap) == ([], 28, None)


async def test_a_filter_moves_the_cursor_over_what_it_leaves_out(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 30, at="one.test")
        await h.accept_many(spool, account, 1, at="two.test")
        await h.accept_many(spool, account, 30, at="one.test")
        wanted = EventFilter(destinations=frozenset({"two.test"}))
        page = await spool.events(0, wanted, 10, scan_max=20)
        assert (list(page.events), page.seq) == ([], 20)
        page = await spool.events(20, wanted, 10, scan_max=20)
        assert ([each.seq for each in page.events], page.seq) == ([31], 40)
        page = await spool.events(40, wanted, 10)
        assert (list(page.events), page.seq) == ([], 61)


async def test_each_filter_admits_what_it_names(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool, "acme")
        bolt = await h.make_account(spool, "bolt")
        ids = await h.accept_many(spool, acme, 2, campaign="spring")
        await h.accept_many(spool, acme, 2, at="two.test")
        await h.accept_many(spool, bolt, 2)
        [first, *others] = await h.claim(spool)
        await h.deliver(spool, [first])

        async def seqs(**fields: Any) -> list[int]:
            return [
                each.seq for each in await h.all_events(spool, replace(EventFilter(), **fields))
            ]

        assert await seqs(account_id=bolt.account_id) == [5, 6]
        assert await seqs(accounts=frozenset({"acme"})) == [1, 2, 3, 4, 7]
        assert await seqs(campaigns=frozenset({"spring"})) == [1, 2, 7]
        assert await seqs(campaigns=frozenset({None})) == [3, 4, 5, 6]
        assert await seqs(destinations=frozenset({"two.test", "no.test"})) == [3, 4]
        assert await seqs(envelope_ids=frozenset({ids[0]})) == [1, 7]
        assert await seqs(statuses=frozenset({Status.DELIVERED, Status.PAUSED})) == [7]
        assert await seqs(account_id=bolt.account_id, campaigns=frozenset({"spring"})) == []
        assert len(others) == 3


async def test_events_of_one_envelope_are_found_by_their_places(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 3)
        events = await spool.events_at([3, 1, 99])
        assert sorted(each.seq for each in events) == [1, 3]


def limited(adapter: str, path: Path, **limits: int) -> Harness:
    return Harness(adapter, path, SpoolSettings(disk_free_bytes_min=0, **limits))


async def fill(harness: Harness, count: int, hours: int) -> None:
    """Accept `count` mails every hour."""
    async with harness.open() as spool:
        accounts = await spool.accounts()
        account = accounts[0] if accounts else await h.make_account(spool)
        for _ in range(hours):
            await h.accept_many(spool, account, count)
            harness.clock.now += h.HOUR_MS


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_reader_from_before_the_trimmed_part_gets_the_gap_first(
    adapter: str, tmp_path: Path
) -> None:
    harness = limited(adapter, tmp_path, events_retention_ms=5 * h.HOUR_MS, max_age_ms=h.DAY_MS)
    await fill(harness, 10, 8)
    async with harness.open() as spool:
        await h.sweep_all(spool)
        page = await spool.events(4, EventFilter(), 100)
        # Written at hours 0 to 7, now it is hour 8: what is older than hour 3 is gone.
        assert page.gap == (5, 30)
        assert [each.seq for each in page.events] == list(range(31, 81))
        assert spool.spool_statistics().oldest_seq == 31
        at_edge = await spool.events(30, EventFilter(), 1)
        assert at_edge.gap is None
        assert at_edge.events[0].seq == 31
        assert await spool.events_at([30, 31]) == [at_edge.events[0]]
        envelope = (await h.all_envelopes(spool))[-1]
        assert envelope.state.event_seqs == [1]
        assert await spool.events_at(envelope.state.event_seqs) == []
        [total] = await spool.statistics(Group.TOTAL)
        assert sum(total.counts) == 80
        assert await spool.check_invariants() == []


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_log_that_was_trimmed_away_goes_on_with_its_numbers(
    adapter: str, tmp_path: Path
) -> None:
    harness = limited(adapter, tmp_path, events_retention_ms=h.HOUR_MS, max_age_ms=2 * h.DAY_MS)
    await fill(harness, 5, 1)
    harness.clock.now += h.DAY_MS
    async with harness.open() as spool:
        await h.sweep_all(spool)
        page = await spool.events(2, EventFilter(), 100)
        assert (list(page.events), page.seq, page.gap) == ([], 5, (3, 5))
    await fill(harness, 1, 1)
    async with harness.open() as spool:
        page = await spool.events(5, EventFilter(), 100)
        assert [each.seq for each in page.events] == [6]
        assert page.gap is None
        assert spool.head() == 6


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_trimming_keeps_the_log_within_its_size(adapter: str, tmp_path: Path) -> None:
    limit = 200_000
    harness = limited(adapter, tmp_path, events_retention_bytes=limit)
    await fill(harness, 700, 3)
    async with harness.open() as spool:
        await h.sweep_all(spool)
        events: list[Event] = await h.all_events(spool)
        kept = sum(len(pack_record(each)) for each in events)
        # An adapter may count its keys, too; but it keeps about as much as it may.
        assert limit * 0.8 < kept <= limit
        assert events[-1].seq == spool.head() == 2100
        assert events[0].seq == spool.spool_statistics().oldest_seq
        page = await spool.events(0, EventFilter(), 1)
        assert page.gap == (1, events[0].seq - 1)


async def test_the_counters_can_be_rebuilt_from_the_log(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 20, campaign="spring")
        envelopes = await h.claim(spool)
        due = spool.now_unix_ms()
        await h.deliver(spool, envelopes[:7])
        await spool.settle(
            [
                h.result_of(spool, each, Status.DEFERRED, due_unix_ms=due)
                for each in envelopes[7:15]
            ],
            [
                Finish(each.fixed.envelope_id, Status.BLOCKED, due, None)
                for each in envelopes[15:18]
            ],
        )
        counters = rebuild(await h.all_events(spool))
        by_campaign = {key: counts for key, counts in counters.items() if key.campaign}
        assert set(by_campaign.values()) == {(2, 0, 8, 7, 0, 0, 3, 0)}
        assert len(by_campaign) == 3, "all its days, one day, one destination"
        [row] = await spool.statistics(Group.CAMPAIGN)
        assert (row.key, row.counts) == ("spring", (2, 0, 8, 7, 0, 0, 3, 0))
        assert await spool.check_invariants() == []
