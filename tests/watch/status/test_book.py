"""The book of incidents on both adapters: durable, bounded, and whole after damage."""

from pathlib import Path

import pytest

from engine.watch.status import book as book_module
from engine.watch.status.book import KEPT_MS, UPDATE_PREFIX, BookRefused, StatusBook
from engine.watch.status.components import Component, Impact, Level
from engine.watch.status.records import Entry, Kind, Stage, Words
from tests.spool.harness import ADAPTERS, Harness

TITLE = Words("Störung", "Trouble")
TEXT = Words("Wir schauen.", "We look.")


@pytest.fixture(params=ADAPTERS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    return Harness(request.param, tmp_path)


async def written(book: StatusBook, **more: object) -> Entry:
    return await book.write(
        Kind.INCIDENT,
        TITLE,
        TEXT,
        stage=Stage.INVESTIGATING,
        impact=Impact.MAJOR,
        components={Component.DNS: Level.MAJOR},
        **more,  # type: ignore[arg-type]  # each test gives what `write` takes
    )


async def test_what_is_written_survives_a_restart(harness: Harness) -> None:
    async with harness.open() as spool:
        book = StatusBook(spool, spool.now_unix_ms)
        await book.begin()
        begun = book.begun_unix_ms
        first = await written(book, cause="dns_down", code="dns_down")
        second = await written(book)
        harness.clock.now += 60_000
        await book.add(first.incident.incident_id, Stage.MONITORING, TEXT)
        before = book.entries
        assert book.open_causes() == {"dns_down": first.incident.incident_id}
    harness.clock.now += 60_000
    async with harness.open() as spool:
        book = StatusBook(spool, spool.now_unix_ms)
        await book.begin()
        assert book.entries == before
        assert book.begun_unix_ms == begun
        assert [len(each.updates) for each in book.entries] == [1, 2]
        assert await book.withdraw(second.incident.incident_id)
        assert not await book.withdraw(second.incident.incident_id)
        resolved = await book.add(first.incident.incident_id, Stage.RESOLVED, TEXT)
        assert resolved.incident.resolved_unix_ms >= harness.clock.now
        assert book.open_causes() == {}
    async with harness.open() as spool:
        book = StatusBook(spool, spool.now_unix_ms)
        await book.load()
        assert book.entries == [resolved]


async def test_old_entries_leave_no_note_behind(harness: Harness) -> None:
    async with harness.open() as spool:
        book = StatusBook(spool, spool.now_unix_ms)
        await book.load()
        old = await written(book)
        await book.add(old.incident.incident_id, Stage.RESOLVED, TEXT)
        still_open = await written(book)
        harness.clock.now += KEPT_MS + 1_000
        new = await written(book)
        assert [entry.incident.incident_id for entry in book.entries] == [
            new.incident.incident_id,
            still_open.incident.incident_id,
        ]
        notes = await spool.notes("status/")
        assert not [name for name, _ in notes if old.incident.incident_id in name]


async def test_a_full_book_and_a_long_story_are_refused(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "ENTRIES_MAX", 3)
    monkeypatch.setattr(book_module, "UPDATES_MAX", 3)
    async with harness.open() as spool:
        book = StatusBook(spool, spool.now_unix_ms)
        await book.load()
        entries = [await written(book) for _ in range(3)]
        with pytest.raises(BookRefused, match="3 entries"):
            await written(book)
        incident_id = entries[0].incident.incident_id
        for _ in range(2):
            await book.add(incident_id, Stage.IDENTIFIED, TEXT)
        with pytest.raises(BookRefused, match="3 updates"):
            await book.add(incident_id, Stage.IDENTIFIED, TEXT)
        # An end is always possible.
        await book.add(incident_id, Stage.RESOLVED, TEXT)
        with pytest.raises(BookRefused, match="no entry"):
            await book.add("nothing", Stage.RESOLVED, TEXT)
        assert len({each.incident.incident_id for each in entries}) == 3


async def test_a_damaged_note_is_left_out(harness: Harness) -> None:
    async with harness.open() as spool:
        book = StatusBook(spool, spool.now_unix_ms)
        await book.load()
        first, second = await written(book), await written(book)
        incident_id = first.incident.incident_id
        await book.add(incident_id, Stage.IDENTIFIED, TEXT)
        await spool.put_notes({f"{UPDATE_PREFIX}{incident_id}/0001": b"rubbish"})
        await spool.put_notes({f"status/incident/{second.incident.incident_id}": b"rubbish"})
        book = StatusBook(spool, spool.now_unix_ms)
        await book.load()
        [entry] = book.entries
        assert entry.incident.incident_id == incident_id
        assert [each.number for each in entry.updates] == [0]


async def test_an_incident_that_comes_back_soon_is_the_same_one(harness: Harness) -> None:
    async with harness.open() as spool:
        book = StatusBook(spool, spool.now_unix_ms)
        await book.load()
        entry = await written(book, cause="site:a", code="site_unreachable", name="a.test")
        now = spool.now_unix_ms()
        assert book.recent("site:a", now) is None
        await book.add(entry.incident.incident_id, Stage.RESOLVED, TEXT)
        found = book.recent("site:a", now + 1_000)
        assert found is not None
        assert found.incident.incident_id == entry.incident.incident_id
        assert book.recent("site:b", now + 1_000) is None
        assert book.times_back(entry.incident.incident_id) == 0
        for times in (1, 2):
            await book.add(entry.incident.incident_id, Stage.INVESTIGATING, TEXT)
            await book.add(entry.incident.incident_id, Stage.RESOLVED, TEXT)
            assert book.times_back(entry.incident.incident_id) == times
        assert book.recent("site:a", now + 3_601_000) is None
