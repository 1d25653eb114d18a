"""One bit wrong in a record of each class: it is put aside and named, and the rest goes on."""

import logging
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from engine.spool.activity import count_of
from engine.spool.campaign_calls import NewCampaign
from engine.spool.figure_calls import TimesGroup
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    CampaignEnded,
    EventFilter,
    Group,
    Quota,
    Rest,
    Spool,
)
from engine.spool.lmdb_layout import U64, Tables, split_counter_key
from engine.spool.projections import Projection
from protocols.records import Account, DestinationRecord, Status, Suppression
from tests.spool import harness as h
from tests.spool.harness import Harness


@pytest.fixture
def disk_spool(tmp_path: Path) -> Harness:
    return Harness("lmdb", tmp_path / "data")


def flip(
    tmp_path: Path, table: str, *, wanted: Callable[[bytes], bool] = lambda key: True, bit: int = 7
) -> bytes:
    """Flip a bit in the middle of the first wanted record of a closed spool; return its key."""
    place = tmp_path / "data" / "spool"
    with lmdb.open(
        str(place), max_dbs=len(Tables.NAMES), map_size=1 << 30, lib_version=0
    ) as environment:
        database = environment.open_db(table.encode())
        with environment.begin(write=True) as txn, txn.cursor(database) as cursor:
            for key, stored in cursor:
                if wanted(key):
                    damaged = bytearray(stored)
                    damaged[len(damaged) // 2] ^= 1 << bit
                    txn.put(key, bytes(damaged), db=database)
                    return key
    raise AssertionError(f"no such record in {table}")


async def begin(harness: Harness) -> list[int]:
    """Three mails with contents of their own to one destination, one to another."""
    async with harness.open() as spool:
        account = await h.make_account(spool)
        answer = await h.accept(
            spool,
            account,
            h.message("a@one.test"),
            h.message("b@one.test"),
            h.message("c@one.test"),
            h.message("d@two.test"),
            digest=bytes(16),
        )
        await spool.settle([], [Rest("one.test", DestinationRecord(failures=3))])
        return [each.envelope_id for each in answer.envelopes]


async def account_of(spool: Spool) -> Account:
    return (await spool.accounts())[0]


async def test_a_damaged_envelope_is_put_aside_and_its_neighbours_are_delivered(
    disk_spool: Harness, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await begin(disk_spool)
    key = flip(tmp_path, "envelope", wanted=lambda key: key == U64.pack(ids[1]))
    async with disk_spool.open() as spool:
        claimed = await h.claim(spool)
        assert [each.fixed.envelope_id for each in claimed] == [ids[0], ids[2]]
        await h.deliver(spool, claimed)
        assert await h.claim(spool) == []
        assert spool.spool_statistics().quarantined == 1
        assert await spool.next_wake_unix_ms() is not None, "two.test has mail"
        assert [row.destination for row in await spool.due_destinations(2**60, 9)] == ["two.test"]
        assert await spool.envelope(ids[1]) is None
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert (
        record.getMessage() == f"spool: record {key.hex()} of table envelope is damaged; put aside"
    )
    async with disk_spool.open() as spool:
        assert spool.spool_statistics().quarantined == 1, "it is remembered"


async def test_the_sweeper_finds_damage_that_nobody_asked_for(
    disk_spool: Harness, tmp_path: Path
) -> None:
    ids = await begin(disk_spool)
    flip(tmp_path, "envelope", wanted=lambda key: key == U64.pack(ids[3]))
    async with disk_spool.open() as spool:
        await h.sweep_all(spool)
        await spool.settle([])  # nobody waits for what is put aside; this commit comes with it
        assert spool.spool_statistics().quarantined == 1
        assert await h.claim(spool, "two.test") == []
        assert len(await h.claim(spool)) == 3


async def test_damage_is_found_where_an_envelope_is_asked_for_by_name(
    disk_spool: Harness, tmp_path: Path
) -> None:
    ids = await begin(disk_spool)
    flip(tmp_path, "envelope", wanted=lambda key: key == U64.pack(ids[0]))
    async with disk_spool.open() as spool:
        assert await spool.envelope(ids[0]) is None
        found = await h.all_envelopes(spool)
        assert sorted(each.fixed.envelope_id for each in found) == ids[1:]
        await spool.settle([])
        assert spool.spool_statistics().quarantined == 1


@pytest.mark.parametrize("table", ["content", "content_head"])
async def test_damaged_content_is_never_handed_out(
    disk_spool: Harness, tmp_path: Path, table: str
) -> None:
    await begin(disk_spool)
    flip(tmp_path, table)
    async with disk_spool.open() as spool:
        claimed = await h.claim(spool)
        wanted = [each.fixed.content_id for each in claimed]
        assert sorted(await spool.content(wanted)) == wanted[1:]
        # Ended or delivered, its envelope is as any other.
        await h.deliver(spool, claimed)
        await h.sweep_all(spool)
        assert spool.spool_statistics().quarantined == 1
        assert await spool.check_invariants() == []


async def test_a_damaged_suppression_stops_no_mail_and_no_other_suppression(
    disk_spool: Harness, tmp_path: Path
) -> None:
    await begin(disk_spool)
    async with disk_spool.open() as spool:
        acme = await account_of(spool)
        for name in ("x", "y"):
            await spool.suppress(acme.account_id, Suppression(f"{name}@one.test", 1, 0))
    flip(tmp_path, "suppression")
    async with disk_spool.open() as spool:
        assert [each.address for each in await spool.suppressions(acme.account_id)] == [
            "y@one.test"
        ]
        assert await spool.suppression(acme.account_id, "x@one.test") is None
        answer = await h.accept(spool, acme, h.message("x@one.test", "y@one.test"))
        assert [each.status for each in answer.envelopes] == [Status.QUEUED, Status.BLOCKED]
        await h.sweep_all(spool)
        assert spool.spool_statistics().quarantined == 1
        assert await spool.check_invariants() == []
    flip(tmp_path, "suppression")
    async with disk_spool.open() as spool:
        # Nobody asks; the sweeper finds it.
        await h.sweep_all(spool)
        await spool.settle([])
        assert spool.spool_statistics().quarantined == 2
        assert await spool.suppressions(acme.account_id) == []


async def test_a_damaged_event_is_left_out_and_the_log_goes_on(
    disk_spool: Harness, tmp_path: Path
) -> None:
    await begin(disk_spool)
    flip(tmp_path, "event", wanted=lambda key: key == U64.pack(2))
    async with disk_spool.open() as spool:
        page = await spool.events(0, EventFilter(), 100)
        assert [event.seq for event in page.events] == [1, 3, 4]
        assert (page.seq, page.gap) == (4, None)
        assert [event.seq for event in await spool.events_at([1, 2, 3])] == [1, 3]
        await h.deliver(spool, await h.claim(spool, "two.test"))
        page = await spool.events(0, EventFilter(), 100)
        assert [event.seq for event in page.events] == [1, 3, 4, 5]
        assert spool.spool_statistics().quarantined == 1


async def test_a_destination_that_was_forgotten_begins_anew(
    disk_spool: Harness, tmp_path: Path
) -> None:
    await begin(disk_spool)
    flip(tmp_path, "destination", wanted=lambda key: key == b"one.test")
    async with disk_spool.open() as spool:
        assert await spool.destination("one.test") is None
        rows = await spool.destinations()
        assert [row.destination for row in rows] == ["one.test", "two.test"]
        account = await account_of(spool)
        disk_spool.clock.now += h.HOUR_MS
        await h.accept_many(spool, account, 1)
        await h.sweep_all(spool)
        assert await spool.check_invariants() == []
        await h.deliver(spool, await h.claim(spool))
        assert [row.destination for row in await spool.due_destinations(2**60, 9)] == ["two.test"]


@pytest.mark.slow
async def test_a_damaged_counter_is_counted_again(disk_spool: Harness, tmp_path: Path) -> None:
    await begin(disk_spool)
    damaged = 0
    while damaged < 9:
        seen = 0

        def is_next(key: bytes, after: int = damaged) -> bool:
            nonlocal seen
            seen += 1
            return seen == after + 1

        flip(tmp_path, "counter", wanted=is_next)
        async with disk_spool.open() as spool:
            account = await account_of(spool)
            await h.accept(spool, account, h.message("e@one.test"), h.message("f@two.test"))
            await h.sweep_all(spool)
            assert await spool.check_invariants() == []
            damaged += 1
            [total] = await spool.statistics(Group.TOTAL)
            assert total.counts[0] == 4 + 2 * damaged


@pytest.mark.parametrize("place", range(7))
async def test_damaged_figures_of_what_happened_are_made_anew_from_the_log(
    disk_spool: Harness, tmp_path: Path, place: int
) -> None:
    """A minute, an hour and a day's times, of all and of one; and a destination's day."""
    await begin(disk_spool)
    async with disk_spool.open() as spool:
        first, *others = await h.claim(spool)
        await h.deliver(spool, [first])
        spool.give_back(each.fixed.envelope_id for each in others)
        before = await spool.series(h.START_UNIX_MS, h.START_UNIX_MS + 60_000, 60_000)
    keys: list[bytes] = []

    def is_next(key: bytes) -> bool:
        keys.append(key)
        return len(keys) > place

    is_times = place == 6
    if is_times:
        flip(tmp_path, "counter", wanted=is_day)
    else:
        flip(tmp_path, "activity", wanted=is_next)
    async with disk_spool.open() as spool:
        [mail, *_] = await h.claim(spool)
        await h.deliver(spool, [mail])
        await h.accept_many(spool, await account_of(spool), 2)
        await h.sweep_all(spool)
        assert spool.spool_statistics().quarantined == 1
        assert await spool.check_invariants() == []
        [point] = await spool.series(h.START_UNIX_MS, h.START_UNIX_MS + 60_000, 60_000)
        assert point.counts[0] == before[0].counts[0] + 2
        [times] = await spool.delivery_times(TimesGroup.DESTINATION)
        assert count_of(times.times) == 2


def is_day(key: bytes) -> bool:
    projection, _, _, _, destination = split_counter_key(key)
    return projection == Projection.DAY_DESTINATION and destination == "one.test"


async def test_a_damaged_answer_is_no_answer(disk_spool: Harness, tmp_path: Path) -> None:
    await begin(disk_spool)
    flip(tmp_path, "request")
    async with disk_spool.open() as spool:
        account = await account_of(spool)
        answer = await h.accept(spool, account, h.message("a@one.test"), digest=bytes(16))
        assert not answer.repeated
        assert spool.spool_statistics().quarantined == 1


async def test_a_damaged_account_cannot_hand_in_mail_but_its_mail_goes(
    disk_spool: Harness, tmp_path: Path
) -> None:
    await begin(disk_spool)
    flip(tmp_path, "account")
    async with disk_spool.open() as spool:
        assert await spool.accounts() == []
        assert await spool.api_key("key-acme") is None
        assert len(await h.claim(spool)) == 3
        rows = await spool.statistics(Group.ACCOUNT)
        assert [row.key for row in rows] == ["1"]


async def test_damaged_bookings_and_flows_do_not_stop_intake(
    disk_spool: Harness, tmp_path: Path
) -> None:
    await begin(disk_spool)
    for table in ("usage", "flow_name", "flow", "api_key"):
        flip(tmp_path, table)
    async with disk_spool.open() as spool:
        account = await account_of(spool)
        [answer] = await spool.accept(
            [AcceptRequest(account, [h.message("a@one.test")], Quota(per_day=1))]
        )
        assert not isinstance(answer, Exception)
        assert answer.envelopes[0].status is Status.QUEUED
        assert await spool.api_key("key-acme") is None
        assert spool.spool_statistics().quarantined == 2
        assert len(await h.claim(spool)) == 4


async def test_lost_rows_are_given_back_by_the_sweeper(disk_spool: Harness, tmp_path: Path) -> None:
    await begin(disk_spool)
    place = tmp_path / "data" / "spool"
    with lmdb.open(str(place), max_dbs=30, map_size=1 << 30, lib_version=0) as environment:
        databases = [environment.open_db(name) for name in (b"queue", b"expiry", b"agenda")]
        with environment.begin(write=True) as txn:
            for database in databases:
                txn.drop(database, delete=False)
    async with disk_spool.open() as spool:
        assert await h.claim(spool) == []
        assert await spool.check_invariants() != []
        await h.sweep_all(spool)
        assert len(await h.claim(spool)) == 3
        assert [fault for fault in await spool.check_invariants() if "agenda" not in fault] == []


async def test_a_damaged_campaign_takes_nobody_and_others_go_on(
    disk_spool: Harness, tmp_path: Path
) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        made = [
            (await spool.create_campaign(NewCampaign(account, name, b"x", bytes(16), "")))[0]
            for name in ("spring", "autumn")
        ]
    flip(tmp_path, "campaign")
    async with disk_spool.open() as spool:
        account_id = account.account_id
        assert await spool.campaign(account_id, "spring") is None
        assert await spool.campaigns(account_id) == await spool.campaigns(None) == [made[1]]
        parts = [
            h.message("a@one.test", content=b"", campaign=each.name, campaign_id=each.campaign_id)
            for each in made
        ]
        damaged, whole = await spool.accept([h.request_of(account, part) for part in parts])
        assert isinstance(damaged, CampaignEnded)
        assert isinstance(whole, Accepted)
        await h.sweep_all(spool)
        assert spool.spool_statistics().quarantined == 1
        anew, is_new = await spool.create_campaign(
            NewCampaign(account, "spring", b"x", bytes(16), "")
        )
        assert is_new
        assert anew.campaign_id > made[1].campaign_id
