"""Campaigns: one template, each address once, kept as long as anything of it can be seen."""

from typing import Any

import pytest
import trio
import trio.testing

from engine.spool.campaign_calls import NewCampaign
from engine.spool.interface import (
    Accepted,
    CampaignEnded,
    NewMessage,
    Quota,
    QuotaBeyondReach,
    Spool,
    SpoolSettings,
)
from protocols.records import (
    STATUSES,
    Account,
    Campaign,
    CampaignState,
    Status,
    Suppression,
)
from tests.spool import harness as h
from tests.spool.harness import Harness

TEMPLATE = b"Subject: Hello {{name}}\r\n\r\nDear {{name}}\r\n"


def new_campaign(account: Account, name: str = "spring", **fields: Any) -> NewCampaign:
    given = {"template": TEMPLATE, "digest": bytes(16), "subject": "Hello {{name}}", **fields}
    return NewCampaign(account, name, reverse_path="sender@out.example", **given)


async def make_campaign(spool: Spool, account: Account, name: str = "spring") -> Campaign:
    campaign, is_new = await spool.create_campaign(new_campaign(account, name))
    assert is_new
    return campaign


def part_of(campaign: Campaign, *addresses: str) -> NewMessage:
    return h.message(
        *addresses,
        content=b"",
        campaign=campaign.name,
        campaign_id=campaign.campaign_id,
        lane=campaign.lane,
    )


async def take_in(
    spool: Spool, account: Account, campaign: Campaign, *addresses: str, **fields: Any
) -> Accepted:
    return await h.accept(spool, account, part_of(campaign, *addresses), **fields)


async def references_hold(spool: Spool) -> None:
    assert await spool.check_invariants() == []


async def row_of(spool: Spool, campaign: Campaign) -> Campaign:
    found = await spool.campaign(campaign.account_id, campaign.name)
    assert found is not None
    return found


async def test_a_campaign_is_stored_once_and_survives_a_restart(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        assert campaign.state is CampaignState.OPEN
        assert campaign.content_size == len(TEMPLATE)
        other = new_campaign(account, template=b"another", digest=b"x" * 16)
        assert await spool.create_campaign(other) == (campaign, False)
        await references_hold(spool)
    async with harness.open() as spool:
        assert await row_of(spool, campaign) == campaign
        assert await spool.campaign(account.account_id, "autumn") is None
        assert await spool.campaign(account.account_id + 1, "spring") is None
        content = (await spool.content([campaign.content_id]))[campaign.content_id]
        assert content.octets == TEMPLATE


async def test_its_recipients_share_the_stored_template(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        accepted = await take_in(spool, account, campaign, "a@one.test", "b@two.test")
        assert [each.status for each in accepted.envelopes] == [Status.QUEUED] * 2
        for each in accepted.envelopes:
            fixed = (await h.state_of(spool, each.envelope_id)).fixed
            assert (fixed.content_id, fixed.content_size) == (campaign.content_id, len(TEMPLATE))
            assert (fixed.campaign, fixed.lane) == ("spring", 1)
        await references_hold(spool)
        await h.deliver(spool, [*await h.claim(spool), *await h.claim(spool, "two.test")])
        await references_hold(spool)
        content = await spool.content([campaign.content_id])
        assert content[campaign.content_id].octets == TEMPLATE, "others may still come"


async def test_each_address_is_taken_once_also_after_a_restart(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        first = await take_in(
            spool, account, campaign, "a@one.test", "b@one.test", "a@one.test", "A@one.test"
        )
        assert (len(first.envelopes), list(first.repeats)) == (3, [2])
    async with harness.open() as spool:
        again = await take_in(spool, account, campaign, "b@one.test", "c@one.test", "a@one.test")
        assert (len(again.envelopes), list(again.repeats)) == (1, [0, 2])
        assert len(await h.all_envelopes(spool)) == 4
        row = await row_of(spool, campaign)
        assert (row.accepted, row.repeated) == (4, 3)
        await references_hold(spool)


async def test_a_list_that_is_all_repeats_changes_only_the_count(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        await take_in(spool, account, campaign, "a@one.test")
        head, last = spool.head(), (await row_of(spool, campaign)).last_accepted_unix_ms
        harness.clock.now += h.HOUR_MS
        again = await take_in(spool, account, campaign, "a@one.test")
        assert (list(again.envelopes), list(again.repeats)) == ([], [0])
        assert spool.head() == head
        assert (await row_of(spool, campaign)).last_accepted_unix_ms == last
        await references_hold(spool)


async def test_requests_of_one_commit_see_each_others_recipients(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        request = h.request_of(account, part_of(campaign, "a@one.test", "b@one.test"))
        answers = await spool.accept([request, request])
        assert [len(each.repeats) for each in answers if isinstance(each, Accepted)] == [0, 2]
        assert len(await h.all_envelopes(spool)) == 2


async def test_the_same_address_is_free_in_other_campaigns_and_accounts(harness: Harness) -> None:
    async with harness.open() as spool:
        one, two = await h.make_account(spool), await h.make_account(spool, "bolt")
        for account, name in ((one, "spring"), (one, "autumn"), (two, "spring")):
            campaign = await make_campaign(spool, account, name)
            assert not (await take_in(spool, account, campaign, "a@one.test")).repeats
        assert len(await h.all_envelopes(spool)) == 3
        await references_hold(spool)


async def test_another_accounts_campaign_takes_nobody(harness: Harness) -> None:
    async with harness.open() as spool:
        one, two = await h.make_account(spool), await h.make_account(spool, "bolt")
        campaign = await make_campaign(spool, one)
        with pytest.raises(CampaignEnded):
            await take_in(spool, two, campaign, "a@one.test")
        assert await h.all_envelopes(spool) == []


@pytest.mark.parametrize("state", [CampaignState.CLOSED, CampaignState.CANCELLED])
async def test_an_ended_campaign_takes_nobody_and_lets_its_template_go(
    harness: Harness, state: CampaignState
) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        await take_in(spool, account, campaign, "a@one.test")
        ended = await spool.end_campaign(account.account_id, campaign.campaign_id, state)
        assert (ended.state, ended.ended_unix_ms > 0) == (state, True)
        assert await spool.end_campaign(account.account_id, campaign.campaign_id, state) == ended
        with pytest.raises(CampaignEnded):
            await take_in(spool, account, campaign, "b@one.test")
        await references_hold(spool)
        assert await spool.content([campaign.content_id]), "one mail waits"
        await h.deliver(spool, await h.claim(spool))
        await references_hold(spool)
        assert not await spool.content([campaign.content_id])
        await h.sweep_all(spool)
        await references_hold(spool)


async def test_closed_becomes_cancelled_and_never_the_other_way(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        key = (account.account_id, (await make_campaign(spool, account)).campaign_id)
        closed = await spool.end_campaign(*key, CampaignState.CLOSED)
        harness.clock.now += h.HOUR_MS
        cancelled = await spool.end_campaign(*key, CampaignState.CANCELLED)
        assert cancelled.state is CampaignState.CANCELLED
        assert cancelled.ended_unix_ms == closed.ended_unix_ms
        again = await spool.end_campaign(*key, CampaignState.CLOSED)
        assert again.state is CampaignState.CANCELLED
        await references_hold(spool)
        with pytest.raises(CampaignEnded):
            await spool.end_campaign(account.account_id, 77, CampaignState.CLOSED)


async def test_suppressed_recipients_end_blocked_and_are_in_it(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        await spool.suppress(account.account_id, Suppression("b@one.test", 1, 0))
        people = ("a@one.test", "b@one.test", "c@one.test", "a@one.test")
        accepted = await take_in(spool, account, campaign, *people)
        statuses = [each.status for each in accepted.envelopes]
        assert statuses == [Status.QUEUED, Status.BLOCKED, Status.QUEUED]
        await references_hold(spool)
        again = await take_in(spool, account, campaign, "b@one.test")
        assert list(again.repeats) == [0]


async def test_only_new_recipients_take_part_of_the_quota(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        quota = Quota(per_day=3)
        await spool.suppress(account.account_id, Suppression("b@one.test", 1, 0))
        await take_in(spool, account, campaign, "a@one.test", quota=quota)
        people = [f"{name}@one.test" for name in "abcdea"]
        accepted = await take_in(spool, account, campaign, *people, quota=quota)
        assert list(accepted.repeats) == [0, 5]
        assert [each.status for each in accepted.envelopes] == [
            Status.BLOCKED,
            Status.QUEUED,
            Status.QUEUED,
            Status.PAUSED,
        ]
        await references_hold(spool)


async def test_what_a_quota_refuses_leaves_no_trace(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        with pytest.raises(QuotaBeyondReach):
            await take_in(spool, account, campaign, "a@one.test", quota=Quota(per_day=0))
        assert await row_of(spool, campaign) == campaign
        assert not (await take_in(spool, account, campaign, "a@one.test")).repeats
        await references_hold(spool)


async def test_the_counts_are_those_of_all_mail_under_the_name(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        await take_in(spool, account, campaign, "a@one.test", "b@one.test")
        await h.accept(spool, account, h.message("c@one.test", campaign="spring"))
        await h.accept(spool, account, h.message("d@one.test"))
        await h.deliver(spool, (await h.claim(spool))[:1])
        counts = await spool.campaign_counts(account.account_id, ["spring", "", "no such"])
        assert [sum(each) for each in counts] == [3, 1, 0]
        assert counts[0][STATUSES.index(Status.DELIVERED)] == 1
        await spool.count_refused(account.account_id, campaign.campaign_id, 7)
        await spool.count_refused(account.account_id, 99, 7)
        row = await row_of(spool, campaign)
        assert (row.accepted, row.refused) == (2, 7)


async def test_campaigns_are_listed_newest_first_in_pages(harness: Harness) -> None:
    async with harness.open() as spool:
        accounts = [await h.make_account(spool, name) for name in ("acme", "bolt")]
        made = [
            await make_campaign(spool, accounts[number % 2], f"c{number}") for number in range(9)
        ]
        own = [each for each in reversed(made) if each.account_id == accounts[0].account_id]
        assert await spool.campaigns(accounts[0].account_id) == own
        assert await spool.campaigns(None) == made[::-1]
        for account_id, whole in ((accounts[0].account_id, own), (None, made[::-1])):
            first = await spool.campaigns(account_id, limit=2)
            rest = await spool.campaigns(account_id, before=first[-1].campaign_id)
            assert first + rest == whole
        assert await spool.campaigns(accounts[0].account_id, before=2**40) == own


async def test_names_of_single_mails_are_listed_newest_first_in_pages(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is passed over is bounded, too: pages may be empty and go on.
    monkeypatch.setattr("engine.spool.lmdb_campaigns.NAMES_PASSED_MAX", 2)
    async with harness.open() as spool:
        acme, bolt = [await h.make_account(spool, name) for name in ("acme", "bolt")]
        for number in range(12):
            for account in (acme, bolt):
                name = f"n{number}" if number else None
                await h.accept(spool, account, h.message("a@x.test", campaign=name))
        for number in (3, 5, 6, 7, 8):
            await make_campaign(spool, acme, f"n{number}")
        for account, expected in (
            (acme, [11, 10, 9, 4, 2, 1]),
            (bolt, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        ):
            for limit in (1, 2, 5, 100):
                names: list[str] = []
                before: int | None = None
                while True:
                    page = await spool.single_names(account.account_id, before=before, limit=limit)
                    assert len(page.names) <= limit
                    names += page.names
                    before = page.before
                    if before is None:
                        break
                assert names == [f"n{number}" for number in expected]


async def test_a_campaign_is_forgotten_after_all_its_mail(harness: Harness) -> None:
    harness.settings = SpoolSettings(
        max_age_ms=h.DAY_MS,
        paused_max_ms=2 * h.DAY_MS,
        finished_retention_ms=3 * h.DAY_MS,
        disk_free_bytes_min=0,
    )
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        other = await make_campaign(spool, account, "kept")
        people = [f"r{number}@one.test" for number in range(1200)]
        await take_in(spool, account, campaign, *people)
        await h.deliver(spool, await h.claim(spool, limit=2000))
        harness.clock.now += 6 * h.DAY_MS - 10 * h.SECOND_MS
        await h.sweep_all(spool)
        assert await h.all_envelopes(spool) == []
        await row_of(spool, campaign)  # its mail has just been purged
        await take_in(spool, account, other, "a@one.test")
        harness.clock.now += h.HOUR_MS
        await h.sweep_all(spool)
        assert await spool.campaign(account.account_id, "spring") is None
        assert [each.name for each in await spool.campaigns(None)] == ["kept"]
        await references_hold(spool)
        with pytest.raises(CampaignEnded):
            await take_in(spool, account, campaign, people[0])
        anew = await make_campaign(spool, account)
        assert anew.campaign_id > other.campaign_id
        assert not (await take_in(spool, account, anew, people[0])).repeats
        await references_hold(spool)


async def test_what_still_waits_keeps_its_campaign(harness: Harness) -> None:
    harness.settings = SpoolSettings(
        max_age_ms=20 * h.DAY_MS,
        paused_max_ms=0,
        finished_retention_ms=0,
        disk_free_bytes_min=0,
    )
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        await take_in(spool, account, campaign, "a@one.test")
        [envelope] = await h.claim(spool)
        # In flight it does not expire, however long that lasts.
        harness.clock.now += 30 * h.DAY_MS
        await h.sweep_all(spool)
        await row_of(spool, campaign)
        await h.deliver(spool, [envelope])
        harness.clock.now += h.HOUR_MS
        await h.sweep_all(spool)
        assert await spool.campaign(account.account_id, "spring") is None
        await references_hold(spool)


async def test_a_cancelled_waiter_has_taken_in_all_or_nothing(harness: Harness) -> None:
    async with harness.open() as spool:
        account = await h.make_account(spool)
        campaign = await make_campaign(spool, account)
        with trio.CancelScope() as scope:
            scope.cancel()
            await take_in(spool, account, campaign, "a@one.test", "b@one.test")
        await trio.testing.wait_all_tasks_blocked()
        people = ["a@one.test", "b@one.test", "c@one.test"]
        again = await take_in(spool, account, campaign, *people)
        assert len(again.envelopes) + len(again.repeats) == 3
        assert len(await h.all_envelopes(spool)) == 3
        await references_hold(spool)
