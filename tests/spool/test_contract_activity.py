"""What happened when: counts of events by the time at which they happened, on every adapter."""

import pytest

from engine.spool.activity import ACTIVITIES, DAY_MS, HOUR_MS, MINUTE_MS
from engine.spool.interface import Finish, Quota, Spool
from protocols.records import Reason, Status, Suppression
from tests.spool import harness as h
from tests.spool.harness import Harness

START = h.START_UNIX_MS  # half past nine, on a minute


async def happened(
    spool: Spool, start: int, end: int, step: int = MINUTE_MS, account_id: int | None = None
) -> list[dict[str, int]]:
    """Return the steps of a range, each with the counts that are not 0."""
    points = await spool.series(start, end, step, account_id=account_id)
    assert [each.start_unix_ms for each in points] == [*range(start, end, step)]
    return [
        {name: count for name, count in zip(ACTIVITIES, each.counts, strict=True) if count}
        for each in points
    ]


async def test_each_event_counts_in_the_minute_in_which_it_happened(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await h.accept_many(spool, acme, 5)
        harness.clock.now += MINUTE_MS
        first, second, third, fourth, fifth = await h.claim(spool)
        later = harness.clock.now + 1
        deferred = [
            h.result_of(spool, each, Status.DEFERRED, due_unix_ms=later) for each in (first, second)
        ]
        await spool.settle(
            [
                *deferred,
                h.result_of(spool, third),
                h.result_of(spool, fourth, Status.HARD_BOUNCED),
                h.result_of(spool, fifth, Status.SOFT_BOUNCED),
            ]
        )
        harness.clock.now += 59_999
        [first, second] = await h.claim(spool)
        await spool.settle(
            [h.result_of(spool, first, Status.DEFERRED, due_unix_ms=harness.clock.now + 1)],
            [Finish(second.fixed.envelope_id, Status.SOFT_BOUNCED, harness.clock.now, None)],
        )
        harness.clock.now += 2
        await h.deliver(spool, await h.claim(spool))
        expected = [
            {"accepted": 5},
            {"deferred": 3, "delivered": 1, "soft_bounced": 2, "hard_bounced": 1},
            {"delivered": 1},
            {},
        ]
        end = START + 4 * MINUTE_MS
        assert await happened(spool, START, end) == expected
        assert await happened(spool, START, end, account_id=acme.account_id) == expected
        assert await happened(spool, START, end, account_id=99) == [{}, {}, {}, {}]
        whole = {"accepted": 5, "deferred": 3, "delivered": 2, "soft_bounced": 2} | {
            "hard_bounced": 1
        }
        assert await happened(spool, START, end, 4 * MINUTE_MS) == [whole]
        hour = START - START % HOUR_MS
        assert await happened(spool, hour, hour + HOUR_MS, HOUR_MS) == [whole]
        day = START - START % DAY_MS
        assert await happened(spool, day - DAY_MS, day + DAY_MS, DAY_MS) == [{}, whole]
    async with harness.open() as spool:
        assert await happened(spool, START, end) == expected, "after a restart"


async def test_paused_mail_is_accepted_and_later_released(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        ids = await h.accept_many(spool, acme, 6, quota=Quota(per_day=2))
        await spool.settle([], [Finish(ids[-1], Status.CANCELLED, harness.clock.now, Reason.OTHER)])
        midnight = START - START % DAY_MS + DAY_MS
        harness.clock.now = midnight + 5_000
        assert await spool.release(harness.clock.now) == 2
        assert await happened(spool, START, START + MINUTE_MS) == [{"accepted": 6, "cancelled": 1}]
        assert await happened(spool, midnight, midnight + MINUTE_MS) == [{"released": 2}]


async def test_what_is_suppressed_is_accepted_and_blocked(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await spool.suppress(acme.account_id, Suppression("r0@one.test", START, 0))
        await h.accept_many(spool, acme, 2)
        assert await happened(spool, START, START + MINUTE_MS) == [{"accepted": 2, "blocked": 1}]


async def test_accounts_are_counted_alone_and_together(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        bolt = await h.make_account(spool, "bolt")
        await h.accept_many(spool, acme, 3)
        await h.accept_many(spool, bolt, 4)
        end = START + MINUTE_MS
        assert await happened(spool, START, end) == [{"accepted": 7}]
        assert await happened(spool, START, end, account_id=acme.account_id) == [{"accepted": 3}]
        assert await happened(spool, START, end, account_id=bolt.account_id) == [{"accepted": 4}]


@pytest.mark.parametrize("days", [1, 3])
async def test_minutes_are_kept_for_two_days_and_hours_for_good(
    harness: Harness, days: int
) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        for _ in range(3):
            await h.accept_many(spool, acme, 1)
            harness.clock.now += MINUTE_MS
        harness.clock.now += days * DAY_MS
        await h.accept_many(spool, acme, 1)
        await h.sweep_all(spool)
        kept = [{"accepted": 1}] * 3 if days == 1 else [{}] * 3
        assert await happened(spool, START, START + 3 * MINUTE_MS) == kept
        hour = START - START % HOUR_MS
        assert await happened(spool, hour, hour + HOUR_MS, HOUR_MS) == [{"accepted": 3}]
        now = harness.clock.now
        [last] = await happened(spool, now, now + MINUTE_MS)
        assert last["accepted"] == 1
        assert await spool.check_invariants() == []
