"""The sweeper on disk: in small steps, from where it was, and nothing where there is nothing."""

from pathlib import Path

import lmdb
import pytest

from engine.spool.interface import EventFilter, SpoolSettings
from engine.spool.lmdb_changes import GARBAGE_KEPT
from engine.spool.lmdb_layout import CHUNK_OCTETS_MAX
from engine.spool.lmdb_spool import LmdbSpool
from engine.spool.lmdb_sweeping import GARBAGE_CHUNKS_MAX, ROWS_MAX, read_overdue
from protocols.records import Status
from tests.spool import harness as h
from tests.spool.harness import Harness


@pytest.fixture
def disk_spool(tmp_path: Path) -> Harness:
    return Harness("lmdb", tmp_path / "data")


def rows_in(spool: object, table: str) -> int:
    assert isinstance(spool, LmdbSpool)
    store = spool._store
    with store.environment.begin() as txn:
        entries: int = txn.stat(getattr(store.tables, table))["entries"]
    return entries


async def test_a_sweep_with_nothing_to_do_commits_nothing(disk_spool: Harness) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        await h.accept(spool, account, h.message("a@one.test"), digest=bytes(16))
        before = spool.spool_statistics().commits
        for _ in range(10):
            assert not await spool.sweep(spool.now_unix_ms(), 1000)
        assert spool.spool_statistics().commits == before


async def test_the_walk_goes_on_after_a_restart(disk_spool: Harness, tmp_path: Path) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 2 * ROWS_MAX + 50)
        # The step that is saved is one that had something to do: here, a row to give back.
        spool_place = tmp_path / "data" / "spool"
    with lmdb.open(str(spool_place), max_dbs=30, map_size=1 << 30, lib_version=0) as environment:
        table = environment.open_db(b"expiry")
        with environment.begin(write=True) as txn:
            txn.drop(table, delete=False)
    async with disk_spool.open() as spool:
        assert await spool.sweep(spool.now_unix_ms(), ROWS_MAX)
        assert rows_in(spool, "expiry") == ROWS_MAX
    async with disk_spool.open() as spool:
        assert await spool.sweep(spool.now_unix_ms(), ROWS_MAX)
        assert rows_in(spool, "expiry") == 2 * ROWS_MAX
        assert not await spool.sweep(spool.now_unix_ms(), ROWS_MAX)
        assert rows_in(spool, "expiry") == len(ids)
        assert await spool.check_invariants() == []


@pytest.mark.slow
async def test_garbage_waits_to_be_deleted_in_order_but_not_for_ever(disk_spool: Harness) -> None:
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        for start in range(0, GARBAGE_KEPT + 400, 200):
            await h.accept(
                spool, account, *(h.message(f"u{start + each}@one.test") for each in range(200))
            )
        claimed = await h.claim(spool, limit=10_000)
        for start in range(0, len(claimed), 100):
            await h.deliver(spool, claimed[start : start + 100])
            assert rows_in(spool, "garbage") <= GARBAGE_KEPT + 100
        assert rows_in(spool, "garbage") > 0
        assert rows_in(spool, "content") == rows_in(spool, "garbage")
        await h.sweep_all(spool)
        assert rows_in(spool, "garbage") == rows_in(spool, "content") == 0
        assert await spool.check_invariants() == []


async def test_a_large_content_is_deleted_in_several_commits(disk_spool: Harness) -> None:
    chunks = 2 * GARBAGE_CHUNKS_MAX + 5
    octets = bytes(CHUNK_OCTETS_MAX * (chunks - 1)) + b"end"
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 2, content=octets)
        assert rows_in(spool, "content") == chunks
        claimed = await h.claim(spool)
        found = await spool.content([claimed[0].fixed.content_id])
        assert found[claimed[0].fixed.content_id].octets == octets
        await h.deliver(spool, claimed[:1])
        await h.sweep_all(spool)
        assert rows_in(spool, "content") == chunks, "one envelope still needs it"
        await h.deliver(spool, claimed[1:])
        left = [rows_in(spool, "content")]
        while await spool.sweep(spool.now_unix_ms(), ROWS_MAX):
            left.append(rows_in(spool, "content"))
        assert left == [chunks, chunks - GARBAGE_CHUNKS_MAX, 5]
        assert rows_in(spool, "content") == rows_in(spool, "content_head") == 0


@pytest.mark.slow
async def test_trimming_takes_few_rows_a_commit(disk_spool: Harness) -> None:
    disk_spool.settings = SpoolSettings(disk_free_bytes_min=0, events_retention_ms=h.DAY_MS)
    async with disk_spool.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 2 * ROWS_MAX + 10)
        disk_spool.clock.now += 2 * h.DAY_MS
        left = []
        while await spool.sweep(spool.now_unix_ms(), ROWS_MAX):
            left.append(rows_in(spool, "event"))
        assert left[0] == ROWS_MAX + 10
        assert rows_in(spool, "event") == 0
        assert spool.spool_statistics().oldest_seq == 2 * ROWS_MAX + 11
        page = await spool.events(5, EventFilter(), 10)
        assert page.gap == (6, 2 * ROWS_MAX + 10)
        assert await spool.check_invariants() == []


async def test_expiry_looks_at_what_is_overdue_and_nothing_else(disk_spool: Harness) -> None:
    disk_spool.settings = SpoolSettings(disk_free_bytes_min=0, max_age_ms=h.HOUR_MS)
    async with disk_spool.open() as spool:
        assert isinstance(spool, LmdbSpool)
        account = await h.make_account(spool)
        early = await h.accept_many(spool, account, 3)
        disk_spool.clock.now += h.HOUR_MS // 2
        late = await h.accept_many(spool, account, ROWS_MAX)
        # The stamp is a little ahead of a clock that stands still.
        disk_spool.clock.now += h.HOUR_MS // 2 + h.SECOND_MS
        assert len(read_overdue(spool._store, spool.now_unix_ms(), b"")) == len(early)
        await h.sweep_all(spool)
        states = [(await h.state_of(spool, each)).state.status for each in (*early, late[0])]
        assert states == [Status.SOFT_BOUNCED] * 3 + [Status.QUEUED]
        assert read_overdue(spool._store, spool.now_unix_ms(), b"") == []


async def test_a_key_is_remembered_and_an_unknown_one_is_not(disk_spool: Harness) -> None:
    async with disk_spool.open() as spool:
        assert await spool.api_key("key-acme") is None
        account = await h.make_account(spool)
        first = await spool.api_key("key-acme")
        assert first is not None
        assert first[1] == account
        assert await spool.api_key("key-acme") is first
