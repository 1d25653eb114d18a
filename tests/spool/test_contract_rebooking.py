"""Quotas over days: so many a day and no more, in order, and earlier under a wider plan."""

from collections import Counter
from collections.abc import Sequence

import pytest
import trio

from engine.spool.booking import day_of, day_start_unix_ms, zone_of
from engine.spool.interface import Finish, Quota, Spool, SpoolError
from protocols.records import Envelope, Reason, Status
from tests.spool import harness as h
from tests.spool.harness import Harness

FREE = Quota(per_day=200, per_month=6000)
DAY = h.START_UNIX_MS // h.DAY_MS


async def states(spool: Spool, ids: Sequence[int]) -> list[Envelope]:
    return [await h.state_of(spool, each) for each in ids]


async def days_of(spool: Spool, ids: Sequence[int]) -> list[int]:
    """Return the day of each mail, counted from today."""
    return [each.state.release_day - DAY for each in await states(spool, ids)]


async def test_a_thousand_requests_at_the_same_time_get_the_place_of_two_hundred(
    harness: Harness,
) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)

        async def send(number: int) -> None:
            await h.accept(spool, acme, h.message(f"r{number}@one.test"), quota=FREE)

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(send, number)
        found = await h.all_envelopes(spool)
        assert Counter(each.state.status for each in found) == {
            Status.QUEUED: 200,
            Status.PAUSED: 800,
        }
        assert Counter(each.state.release_day - DAY for each in found) == dict.fromkeys(
            range(5), 200
        )
        assert await spool.check_invariants() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zone_name", "start_unix_ms"),
    [
        ("UTC", h.START_UNIX_MS),
        ("America/New_York", h.START_UNIX_MS),
        # Over the nights of 2026 in which the clocks go forward and back again.
        ("Europe/Berlin", 1_774_609_200_000),
        ("Europe/Berlin", 1_792_753_200_000),
        # The third day begins at one o'clock: midnight is skipped.
        ("Africa/Cairo", 1_776_834_000_000),
    ],
)
async def test_a_thousand_mails_of_the_free_plan_are_five_days_of_two_hundred(
    harness: Harness, zone_name: str, start_unix_ms: int
) -> None:
    zone = zone_of(zone_name)
    harness.clock.now = start_unix_ms
    sent: list[str] = []
    ids: list[int] = []
    today = day_of(harness.clock.now, zone)
    for day in range(5):
        # Each day is a life of the process, which begins a millisecond before midnight.
        async with harness.open() as spool:
            if day == 0:
                acme = await h.make_account(spool, time_zone=zone_name)
                ids = await h.accept_many(spool, acme, 1000, quota=FREE)
            else:
                harness.clock.now = day_start_unix_ms(today + day, zone) - 1
                assert await spool.release(spool.now_unix_ms()) == 0
                harness.clock.now += 1
                assert await spool.release(spool.now_unix_ms()) == 200
            await h.sweep_all(spool)
            envelopes = await h.claim(spool)
            assert len(envelopes) == 200
            assert {each.state.due_unix_ms for each in envelopes} == (
                {harness.clock.now} if day else {start_unix_ms}
            )
            sent += [each.fixed.address for each in envelopes]
            await h.deliver(spool, envelopes)
            assert await spool.check_invariants() == []
            found = Counter(each.state.status for each in await states(spool, ids))
            assert found[Status.DELIVERED] == 200 * (day + 1)
            assert found[Status.PAUSED] == 800 - 200 * day
    assert sent == [f"r{number}@one.test" for number in range(1000)]


async def test_a_wider_quota_releases_at_once_what_fits_into_today(harness: Harness) -> None:
    async with harness.open() as spool:
        acme, other = await h.make_account(spool), await h.make_account(spool, "other")
        ids = await h.accept_many(spool, acme, 10, quota=Quota(per_day=2))
        others = await h.accept_many(spool, other, 4, quota=Quota(per_day=2))
        assert await days_of(spool, ids) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        harness.clock.now += h.HOUR_MS
        head = spool.head()
        assert await spool.rebook(acme.account_id, Quota(per_day=5)) == 8
        assert await days_of(spool, ids) == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
        released, paused = (await states(spool, ids))[4:6]
        assert (released.state.status, released.state.reason) == (Status.QUEUED, None)
        assert released.state.due_unix_ms == harness.clock.now
        assert released.state.expires_unix_ms == harness.clock.now + harness.settings.max_age_ms
        assert (paused.state.status, paused.state.reason) == (Status.PAUSED, Reason.QUOTA)
        assert paused.state.due_unix_ms == day_start_unix_ms(DAY + 1, zone_of("UTC"))
        # Each has its event, and a paused one's tells of the new release.
        told = [each for each in await h.all_events(spool) if each.seq > head]
        assert [each.envelope_id for each in told] == ids[2:]
        assert (told[3].status, told[3].next_attempt_unix_ms) == (
            Status.PAUSED,
            paused.state.due_unix_ms,
        )
        assert await days_of(spool, others) == [0, 0, 1, 1]
        assert [each.fixed.envelope_id for each in await h.claim(spool)][:5] == ids[:5]
        # The new quota's places are taken: the next mail goes after those that wait.
        assert await days_of(spool, await h.accept_many(spool, acme, 1, quota=Quota(5))) == [2]
        assert await spool.check_invariants() == []
    async with harness.open() as spool:
        harness.clock.now = day_start_unix_ms(DAY + 1, zone_of("UTC"))
        assert await spool.release(spool.now_unix_ms()) == 7
        assert await spool.check_invariants() == []


async def test_no_quota_releases_everything_in_steps(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        ids = await h.accept_many(spool, acme, 1203, quota=Quota(per_day=30))
        sizes: list[int] = []
        spool.add_listener(lambda notice: sizes.append(len(notice.events)))
        assert await spool.rebook(acme.account_id, Quota()) == 1173
        assert sizes == [500, 500, 173]
        assert [each.fixed.envelope_id for each in await h.claim(spool, limit=2000)] == ids
        harness.clock.now += 45 * h.DAY_MS
        assert await spool.release(spool.now_unix_ms()) == 0
        await h.sweep_all(spool)
        assert await spool.check_invariants() == []


async def test_a_narrower_quota_is_for_new_mail_only(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        ids = await h.accept_many(spool, acme, 9, quota=Quota(per_day=3))
        assert await spool.rebook(acme.account_id, Quota(per_day=1)) == 0
        assert await days_of(spool, ids) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        new = await h.accept_many(spool, acme, 2, quota=Quota(per_day=1))
        assert await days_of(spool, new) == [3, 4]


async def test_a_full_month_stays_full(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        # Today is the 24th of a month of 30 days: the next one begins on day 7, the third on 38.
        ids = await h.accept_many(spool, acme, 9, quota=Quota(per_day=2, per_month=4))
        assert await days_of(spool, ids) == [0, 0, 1, 1, 7, 7, 8, 8, 38]
        assert await spool.rebook(acme.account_id, Quota(per_day=3, per_month=6)) == 6
        assert await days_of(spool, ids) == [0, 0, 0, 1, 1, 1, 7, 7, 7]
        assert await spool.check_invariants() == []


async def test_a_place_that_was_given_back_is_taken(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        ids = await h.accept_many(spool, acme, 6, quota=Quota(per_day=2))
        now_unix_ms = spool.now_unix_ms()
        await spool.settle([], [Finish(ids[2], Status.CANCELLED, now_unix_ms, None)])
        assert await spool.rebook(acme.account_id, Quota(per_day=2)) == 1
        assert await days_of(spool, ids) == [0, 0, 1, 1, 1, 2]
        assert await spool.check_invariants() == []
        with pytest.raises(SpoolError, match="no such account"):
            await spool.rebook(77, Quota())
