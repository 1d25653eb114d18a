"""The doctor's quick look: finds what changes a number or concerns a mail that it looks at."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine.spool import lmdb_quick_look
from engine.spool.lmdb_layout import META_MARKS, Marks, split_queue_key
from engine.spool.lmdb_spool import LmdbSpool
from protocols.records import pack_record, unpack_record
from tests.spool import harness as h
from tests.spool.test_lmdb_writer import opened

Break = Callable[[Any, Any], None]


async def filled(spool: LmdbSpool) -> None:
    """Nine mails: queued ones at two destinations, delivered ones, one that was put off."""
    account = await h.make_account(spool)
    await h.accept_many(spool, account, 6, at="one.test")
    await h.accept_many(spool, account, 3, at="two.test", campaign="spring")
    claimed = await h.claim(spool, "one.test")
    await h.deliver(spool, claimed[:2])
    spool.give_back([each.fixed.envelope_id for each in claimed[2:]])


async def test_a_sound_spool_has_no_fault_and_all_of_a_small_one_is_looked_at(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as spool:
        nothing = await spool.check_some()
        assert (nothing.faults, nothing.looked_at, nothing.mails) == ([], 0, 0)
        await filled(spool)
        found = await spool.check_some()
        assert (found.faults, found.looked_at, found.mails) == ([], 9, 9)


async def test_of_a_large_one_the_newest_and_some_from_all_over_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_quick_look, "NEWEST", 10)
    monkeypatch.setattr(lmdb_quick_look, "SPREAD", 20)
    async with opened(tmp_path) as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 200)
        seen: list[int] = []
        faults_of_mail = lmdb_quick_look._faults_of_mail

        def noted(tables: Any, envelope: Any) -> Any:
            seen.append(envelope.fixed.envelope_id)
            return faults_of_mail(tables, envelope)

        monkeypatch.setattr(lmdb_quick_look, "_faults_of_mail", noted)
        found = await spool.check_some()
    assert (found.faults, found.looked_at, found.mails) == ([], 30, 200)
    assert len(set(seen)) == 30
    assert seen[:10] == ids[:-11:-1]
    assert max(later - earlier for earlier, later in pairwise(seen[10:])) <= 10


def first_key(txn: Any, table: Any) -> bytes:
    with txn.cursor(table) as cursor:
        assert cursor.first()
        return bytes(cursor.key())


def without_first(name: str) -> Break:
    def break_it(txn: Any, tables: Any) -> None:
        table = getattr(tables, name)
        assert txn.delete(first_key(txn, table), db=table)

    return break_it


def late_agenda(txn: Any, tables: Any) -> None:
    key = first_key(txn, tables.agenda)
    cause = txn.pop(key, db=tables.agenda)
    txn.put(b"\xff" + key[1:], cause, db=tables.agenda)


def moved_queue_row(txn: Any, tables: Any) -> None:
    key = first_key(txn, tables.queue)
    assert split_queue_key(key)[0] == "one.test"
    txn.delete(key, db=tables.queue)
    txn.put(key[:-8] + b"\x00\x0f" + key[-6:], b"", db=tables.queue)


def wrong_sum(txn: Any, tables: Any) -> None:
    marks = unpack_record(txn.get(META_MARKS, db=tables.meta), Marks)
    marks.counts = (*marks.counts[:-1], 5)
    txn.put(META_MARKS, pack_record(marks), db=tables.meta)


def flipped(name: str) -> Break:
    def break_it(txn: Any, tables: Any) -> None:
        table = getattr(tables, name)
        key = first_key(txn, table)
        stored = bytearray(txn.get(key, db=table))
        stored[len(stored) // 2] ^= 0x10
        txn.put(key, bytes(stored), db=table)

    return break_it


BROKEN: dict[str, tuple[Break, str]] = {
    "a queue row is lost": (without_first("queue"), "queue: there are 6 rows, and 7"),
    "a queue row is another's": (moved_queue_row, "queue: envelope"),
    "an agenda row is lost": (without_first("agenda"), "agenda: one.test has mail in the queue"),
    "an agenda row is late": (late_agenda, "too late"),
    "an expiry row is lost": (without_first("expiry"), "expiry: there are 6 rows"),
    "an event is lost": (without_first("event"), "event: there are 10 rows, and 11"),
    "a counter is lost": (without_first("counter"), "counter: projection"),
    "the sum is wrong": (wrong_sum, "counter: projection"),
    "an envelope is damaged": (flipped("envelope"), "envelope: "),
    "a counter is damaged": (flipped("counter"), "a record is damaged"),
    "a content is damaged": (flipped("content"), "envelope: "),
    "a head is lost": (without_first("content_head"), "content_head: "),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_broken_is_found(name: str, tmp_path: Path) -> None:
    break_it, expected = BROKEN[name]
    async with opened(tmp_path) as spool:
        await filled(spool)
        store = spool._store
        with store.environment.begin(write=True) as txn:
            break_it(txn, store.tables)
        faults = (await spool.check_some()).faults
    assert any(expected in fault for fault in faults), faults
