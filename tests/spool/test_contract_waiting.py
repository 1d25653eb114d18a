"""Some of what waits: whose it is, what was put off before what is due, and the next releases."""

import random

import pytest

from engine.spool import waiting_sample
from engine.spool.interface import Finish, Quota, Spool
from protocols.records import Account, Envelope, Status
from tests.spool import harness as h
from tests.spool.harness import Harness

EVERYTHING = 10_000


async def ids_at(spool: Spool, limit: int = EVERYTHING, **whose: object) -> list[int]:
    account, campaign = whose.get("account"), whose.get("campaign")
    assert account is None or isinstance(account, Account)
    assert campaign is None or isinstance(campaign, str)
    found = await spool.waiting_at(
        "one.test",
        account_id=account.account_id if account else None,
        campaign=campaign,
        limit=limit,
    )
    assert all(each.fixed.destination == "one.test" for each in found)
    return [each.fixed.envelope_id for each in found]


async def test_all_of_a_short_queue_is_seen_by_whom_it_belongs_to(harness: Harness) -> None:
    rand = random.Random(7)
    async with harness.open() as spool:
        accounts = [await h.make_account(spool, name) for name in ("acme", "bolt")]
        for number in range(40):
            await h.accept_many(
                spool,
                accounts[number % 2],
                rand.randrange(1, 6),
                at=rand.choice(["one.test", "one.tes", "two.test"]),
                campaign=rand.choice([None, "spring", "autumn"]),
                lane=rand.randrange(2),
            )
            harness.clock.now += 7
        waiting = [
            each.fixed
            for each in await h.all_envelopes(spool)
            if each.fixed.destination == "one.test"
        ]
        assert len(waiting) > 30
        assert sorted(await ids_at(spool)) == sorted(each.envelope_id for each in waiting)
        for account in accounts:
            for campaign in (None, "spring", "nobody's"):
                found = await ids_at(spool, account=account, campaign=campaign)
                assert sorted(found) == sorted(
                    each.envelope_id
                    for each in waiting
                    if each.account_id == account.account_id and campaign in (None, each.campaign)
                )


async def test_of_a_long_queue_what_was_put_off_is_seen_and_something_of_each_flow(
    harness: Harness,
) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        first = await h.accept_many(spool, account, 300, campaign="long")
        harness.clock.now += 10
        short = await h.accept_many(spool, account, 2, campaign="short")
        put_off = (await h.claim(spool, limit=3))[:3]
        due = harness.clock.now + h.HOUR_MS
        await spool.settle(
            [h.result_of(spool, each, Status.DEFERRED, due_unix_ms=due) for each in put_off]
        )
        found = await ids_at(spool, 20)
        assert len(found) == 20
        assert {each.fixed.envelope_id for each in put_off} | set(short) <= set(found)
        assert set(found) <= {*first, *short}
        assert await ids_at(spool, 1) == found[:1]


async def test_flows_beyond_the_bound_are_not_looked_at(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_sample, "FLOWS_LOOKED_AT_MAX", 3)
    async with harness.open() as spool:
        account = await h.make_account(spool)
        for number in range(5):
            await h.accept_many(spool, account, 1, campaign=f"c{number}")
        assert len(await ids_at(spool)) == 3


def released(envelopes: list[Envelope]) -> dict[str, int]:
    first: dict[str, int] = {}
    for each in sorted(envelopes, key=lambda each: -each.state.due_unix_ms):
        if each.state.status is Status.PAUSED:
            first[each.fixed.destination] = each.state.due_unix_ms
    return first


async def test_the_first_releases_are_those_of_the_mails(harness: Harness) -> None:
    async with harness.open() as spool:
        acme, bolt = [await h.make_account(spool, name) for name in ("acme", "bolt")]
        for name, campaign in (("one", "spring"), ("two", "spring"), ("three", "autumn")):
            for account, per_day in ((acme, 4), (bolt, 6)):
                await h.accept_many(
                    spool, account, 5, at=f"{name}.test", campaign=campaign, quota=Quota(per_day)
                )
        everything = await h.all_envelopes(spool)
        assert {len(released(everything)), len(everything)} == {3, 30}

        for whose in (None, acme, bolt):
            for part in (None, "spring", "autumn", "nobody's"):
                found = await spool.first_releases(
                    account_id=whose.account_id if whose else None,
                    campaign=part,
                    looked_at_max=EVERYTHING,
                )
                assert found.beyond_unix_ms is None
                assert found.by_destination == released(
                    [
                        each
                        for each in everything
                        if (whose is None or each.fixed.account_id == whose.account_id)
                        and part in (None, each.fixed.campaign)
                    ]
                )
        for looked_at_max in range(0, 25, 3):
            some = await spool.first_releases(
                account_id=bolt.account_id, campaign=None, looked_at_max=looked_at_max
            )
            for name, at_unix_ms in released(
                [each for each in everything if each.fixed.account_id == bolt.account_id]
            ).items():
                known = some.by_destination.get(name)
                if known is None:
                    assert some.beyond_unix_ms is not None
                    assert some.beyond_unix_ms <= at_unix_ms
                else:
                    assert known == at_unix_ms


async def test_what_is_cancelled_or_released_is_waited_for_no_more(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 3, quota=Quota(per_day=1))
        now = harness.clock.now
        await spool.settle([], [Finish(ids[1], Status.CANCELLED, now, None)])
        found = await spool.first_releases(account_id=None, campaign=None, looked_at_max=99)
        [third] = [e for e in await h.all_envelopes(spool) if e.fixed.envelope_id == ids[2]]
        assert found.by_destination == {"one.test": third.state.due_unix_ms}
        harness.clock.now += 3 * h.DAY_MS
        await spool.release(harness.clock.now)
        found = await spool.first_releases(account_id=None, campaign=None, looked_at_max=99)
        assert (found.by_destination, found.beyond_unix_ms) == ({}, None)
        assert set(await ids_at(spool)) == {ids[0], ids[2]}
