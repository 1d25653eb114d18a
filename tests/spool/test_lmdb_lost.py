"""Mail whose record is damaged ends as what the log knows of it, in every book."""

from pathlib import Path

import pytest

from engine.spool.campaign_calls import NewCampaign
from engine.spool.interface import EventFilter, Group, Quota, Spool, SpoolSettings
from engine.spool.lmdb_changes import Changes
from engine.spool.lmdb_layout import U64
from engine.spool.lmdb_lost import REPLY
from engine.spool.lmdb_spool import LmdbSpool
from engine.spool.lmdb_writer import Turn
from protocols.records import STATUSES, CampaignState, Envelope, Reason, Status
from tests.spool import harness as h
from tests.spool.harness import Harness
from tests.spool.test_lmdb_damage import flip


@pytest.fixture
def disk_spool(tmp_path: Path) -> Harness:
    return Harness("lmdb", tmp_path / "data")


def damage(tmp_path: Path, envelope_id: int) -> None:
    flip(tmp_path, "envelope", wanted=lambda key: key == U64.pack(envelope_id))


async def found(spool: Spool, envelope_id: int) -> Envelope:
    envelope = await spool.envelope(envelope_id)
    assert envelope is not None
    return envelope


async def counts(spool: Spool, group: Group = Group.TOTAL) -> dict[str, int]:
    [row] = await spool.statistics(group)
    return {str(status): count for status, count in zip(STATUSES, row.counts, strict=True) if count}


async def swept(spool: Spool) -> None:
    """What is damaged is seen, put aside, and ended with the next step."""
    await h.sweep_all(spool)
    await h.sweep_all(spool)


async def test_queued_mail_is_ended_once_and_told(disk_spool: Harness, tmp_path: Path) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        part = h.message("a@one.test", "b@one.test", custom_id="c-1", event_payload="{}")
        answer = await h.accept(spool, account, part)
    lost, other = (each.envelope_id for each in answer.envelopes)
    damage(tmp_path, lost)
    async with disk_spool.open() as spool:
        await swept(spool)
        fixed, state = (await found(spool, lost)).fixed, (await found(spool, lost)).state
        assert fixed.address == fixed.recipient == "a@one.test"
        assert (fixed.custom_id, fixed.uuid) == ("c-1", answer.envelopes[0].uuid)
        assert (state.status, state.reason) == (Status.SOFT_BOUNCED, Reason.OTHER)
        assert state.reply == REPLY
        told = await spool.events_at(state.event_seqs)
        assert [each.status for each in told] == [Status.QUEUED, Status.SOFT_BOUNCED]
        assert await counts(spool) == {"queued": 1, "soft_bounced": 1}
        assert await spool.suppressions(account.account_id) == []
        [waiting] = await h.claim(spool)
        assert waiting.fixed.envelope_id == other
        assert spool.spool_statistics().quarantined == 1
    async with disk_spool.open() as spool:
        head = spool.head()
        await swept(spool)
        assert spool.head() == head, "it is ended once"
        await h.deliver(spool, await h.claim(spool))
        assert await counts(spool) == {"delivered": 1, "soft_bounced": 1}


async def test_what_was_put_aside_before_a_stop_is_ended_after_it(
    disk_spool: Harness, tmp_path: Path
) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        [lost] = await h.accept_many(spool, account, 1)
        [envelope] = await h.claim(spool)
        later = disk_spool.clock.now + h.HOUR_MS
        await spool.settle([h.result_of(spool, envelope, Status.DEFERRED, due_unix_ms=later)])
    damage(tmp_path, lost)
    async with disk_spool.open() as spool:
        assert await spool.envelope(lost) is None
        await spool.settle([])
        assert await counts(spool) == {"deferred": 1}
    async with disk_spool.open() as spool:
        await h.sweep_all(spool)
        state = (await found(spool, lost)).state
        assert (state.status, state.attempts) == (Status.SOFT_BOUNCED, 1)
        assert await counts(spool) == {"soft_bounced": 1}


async def test_delivered_mail_stays_delivered(disk_spool: Harness, tmp_path: Path) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        [lost] = await h.accept_many(spool, account, 1)
        await h.deliver(spool, await h.claim(spool))
        before = (await found(spool, lost)).state
    damage(tmp_path, lost)
    async with disk_spool.open() as spool:
        head = spool.head()
        await swept(spool)
        after = (await found(spool, lost)).state
        assert (after.status, after.reply) == (Status.DELIVERED, before.reply)
        assert after.event_seqs == before.event_seqs
        assert (spool.head(), await counts(spool)) == (head, {"delivered": 1})
        assert await spool.check_invariants() == []


async def test_paused_mail_gives_its_day_back(disk_spool: Harness, tmp_path: Path) -> None:
    quota = Quota(per_day=1)
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        answer = await h.accept(spool, account, h.message("a@x.test", "b@x.test"), quota=quota)
        lost = answer.envelopes[1]
        assert lost.status is Status.PAUSED
    damage(tmp_path, lost.envelope_id)
    async with disk_spool.open() as spool:
        await swept(spool)
        assert await counts(spool) == {"queued": 1, "soft_bounced": 1}
        answer = await h.accept(spool, account, h.message("c@x.test"), quota=quota)
        assert answer.envelopes[0].due_unix_ms == lost.due_unix_ms


async def test_a_campaign_is_through_although_a_record_was_damaged(
    disk_spool: Harness, tmp_path: Path
) -> None:
    disk_spool.settings = SpoolSettings(
        disk_free_bytes_min=0,
        max_age_ms=h.HOUR_MS,
        finished_retention_ms=h.HOUR_MS,
        paused_max_ms=h.HOUR_MS,
    )
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        new = NewCampaign(account, "spring", b"template", bytes(16), "a@out.example")
        campaign, _ = await spool.create_campaign(new)
        shared = {"campaign": "spring", "campaign_id": campaign.campaign_id}
        part = h.message("jörg@one.test", "b@one.test", content=b"", **shared)
        answer = await h.accept(spool, account, part)
    damage(tmp_path, answer.envelopes[0].envelope_id)
    async with disk_spool.open() as spool:
        await swept(spool)
        await h.deliver(spool, await h.claim(spool))
        assert await counts(spool, Group.CAMPAIGN) == {"delivered": 1, "soft_bounced": 1}
        await spool.end_campaign(account.account_id, campaign.campaign_id, CampaignState.CLOSED)
        assert await spool.check_invariants() == []
        disk_spool.clock.now += 10 * h.HOUR_MS
        await swept(spool)
        assert await spool.campaign(account.account_id, "spring") is None
        assert await spool.content([campaign.content_id]) == {}
        assert await spool.check_invariants() == []


async def test_in_flight_it_is_whole_in_memory(disk_spool: Harness) -> None:
    async with disk_spool.open() as spool:
        assert isinstance(spool, LmdbSpool)
        account = await h.make_account(spool)
        lost, given_back = await h.accept_many(spool, account, 2)
        claimed = await h.claim(spool)

        def spoil(changes: Changes) -> None:
            for envelope_id in (lost, given_back):
                changes.put("envelope", U64.pack(envelope_id), b"\x01rubbish")

        await spool.writer.do(Turn.HOUSEKEEPING, spoil)
        await swept(spool)
        assert await counts(spool) == {"queued": 2}
        spool.give_back([given_back])
        await swept(spool)
        assert await counts(spool) == {"queued": 1, "soft_bounced": 1}
        await h.deliver(spool, claimed[:1])
        assert await counts(spool) == {"delivered": 1, "soft_bounced": 1}
        assert (await found(spool, lost)).fixed.reverse_path == "sender@out.example"


async def test_a_long_log_is_gone_through_in_several_steps(
    disk_spool: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.spool.lmdb_lost.READ_ROWS", 3)
    monkeypatch.setattr("engine.spool.lmdb_lost.READS_MAX", 2)
    monkeypatch.setattr("engine.spool.lmdb_lost.AT_ONCE_MAX", 2)
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 30)
        disk_spool.clock.now += 5 * h.HOUR_MS
        later = await h.accept_many(spool, account, 30)
    lost = [*ids[3:6], later[29]]
    for envelope_id in lost:
        damage(tmp_path, envelope_id)
    async with disk_spool.open() as spool:
        await h.sweep_all(spool)
        steps = 0
        while await spool.sweep(disk_spool.clock.now, 500):
            steps += 1
        assert steps > 4
        assert await counts(spool) == {"queued": 56, "soft_bounced": 4}
        for envelope_id in lost:
            assert (await found(spool, envelope_id)).state.status is Status.SOFT_BOUNCED


async def test_without_its_events_it_stays_as_it_was_counted(
    disk_spool: Harness, tmp_path: Path
) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        [lost] = await h.accept_many(spool, account, 1)
        await h.accept_many(spool, account, 1)
    damage(tmp_path, lost)
    flip(tmp_path, "event", wanted=lambda key: key == U64.pack(1))
    async with disk_spool.open() as spool:
        await swept(spool)
        assert await spool.envelope(lost) is None
        assert await counts(spool) == {"queued": 2}
        page = await spool.events(0, EventFilter(), 100)
        assert lost not in {each.envelope_id for each in page.events}
