"""Statistics of every group and range are what the log tells, on every adapter."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from engine.spool.activity import HOUR_MS
from engine.spool.interface import Finish, Group, Quota, Spool
from engine.spool.projections import DAY_MS, day_text, hour_text
from protocols.records import STATUSES, Event, Status
from tests.spool import harness as h
from tests.spool.harness import Harness

ACCOUNTS = ("acme", "bolt", "calm")
DESTINATIONS = ("one.test", "two.test", "a-b.test", "two.test.test")
CAMPAIGNS = (None, "spring", "autumn ☂")


async def four_days(harness: Harness, spool: Spool, rand: random.Random) -> None:
    """Mail of three accounts comes at any hour and takes every way that mail can take."""
    accounts = [await h.make_account(spool, name) for name in ACCOUNTS]
    for _ in range(60):
        harness.clock.now += rand.choice([1000, 20 * 60_000, HOUR_MS, 5 * HOUR_MS])
        await h.accept_many(
            spool,
            rand.choice(accounts),
            rand.randrange(1, 5),
            at=rand.choice(DESTINATIONS),
            campaign=rand.choice(CAMPAIGNS),
            quota=Quota(per_day=15),
        )
        await spool.release(harness.clock.now)
        claimed = await h.claim(spool, rand.choice(DESTINATIONS), 3)
        spool.give_back(each.fixed.envelope_id for each in claimed)
        for envelope in claimed:
            status = rand.choice(
                [Status.DELIVERED, Status.DEFERRED, Status.SOFT_BOUNCED, Status.HARD_BOUNCED]
            )
            due = harness.clock.now + HOUR_MS if status is Status.DEFERRED else 0
            await spool.settle([h.result_of(spool, envelope, status, due_unix_ms=due)])
        if claimed and rand.random() < 0.2:
            gone = claimed[0].fixed.envelope_id + 1
            await spool.settle([], [Finish(gone, Status.CANCELLED, harness.clock.now, None)])


def told_by(
    events: Sequence[Event],
    group: Group,
    account_id: int | None,
    start: int | None,
    end: int | None,
) -> dict[str, tuple[int, ...]]:
    """Count the envelopes of a log by their last status, in whole periods that overlap a range."""
    last = {event.envelope_id: event for event in events}
    period = DAY_MS if group in (Group.DESTINATION, Group.CAMPAIGN) else HOUR_MS
    found = Counter[tuple[str, Status]]()
    for event in last.values():
        at = event.accepted_unix_ms
        if account_id not in (None, event.account_id):
            continue
        if start is not None and at - at % period + period <= start:
            continue
        if end is not None and at - at % period >= end:
            continue
        key = {
            Group.TOTAL: "total",
            Group.DESTINATION: event.destination,
            Group.ACCOUNT: event.account,
            Group.CAMPAIGN: event.campaign or "",
            Group.HOUR: hour_text(at // HOUR_MS),
            Group.DAY: day_text(at // DAY_MS),
        }[group]
        found[key, event.status] += 1
    keys = {key for key, _ in found} | ({"total"} if group is Group.TOTAL else set())
    return {key: tuple(found[key, status] for status in STATUSES) for key in sorted(keys)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_every_group_and_range_is_what_the_log_tells(harness: Harness, seed: int) -> None:
    async with harness.open() as spool:
        rand = random.Random(seed)
        await four_days(harness, spool, rand)
        events = await h.all_events(spool)
        begin, now = h.START_UNIX_MS, harness.clock.now
        midnight = begin - begin % DAY_MS + DAY_MS
        moments = [None, begin, midnight - 1, midnight, midnight + 1, midnight + HOUR_MS, now]
        moments += [rand.randrange(begin, now) for _ in range(3)]
        for group in Group:
            for account_id in (None, 1, 3, 9):
                for start in moments:
                    end = rand.choice(moments)
                    rows = await spool.statistics(
                        group, account_id=account_id, from_unix_ms=start, to_unix_ms=end
                    )
                    told = told_by(events, group, account_id, start, end)
                    assert {row.key: row.counts for row in rows} == {
                        # A row that stands for nothing any more may be there with zeros.
                        **{row.key: (0,) * 8 for row in rows if not any(row.counts)},
                        **told,
                    }, (group, account_id, start, end)
                    part = await spool.statistics(
                        group,
                        account_id=account_id,
                        from_unix_ms=start,
                        to_unix_ms=end,
                        after=rows[0].key if rows else None,
                        limit=2,
                    )
                    assert part == rows[1:3] if rows else part == []
        assert await spool.check_invariants() == []
