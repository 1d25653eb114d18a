"""A spool that an older version wrote stays readable: a sample of each format is kept for ever."""

import itertools
import lzma
from pathlib import Path

import lmdb
import pytest
from trio.testing import MockClock

from engine.spool.interface import ContentKind, Group, Quota
from engine.spool.lmdb_layout import FORMAT, META_CAMPAIGN_DAYS, Tables
from engine.spool.projections import Projection
from protocols.records import Account, Reason, Status
from tests.spool import format_sample
from tests.spool import harness as h
from tests.spool.format_sample import LARGE_CONTENT, LISTED, REST, TEMPLATE
from tests.spool.harness import Harness

SAMPLES = Path(__file__).parent / "samples"

# What was only added, so that older spools are read as they are and older programs read newer ones,
# needs no new number; the spools of before and after are all kept.
FORMAT_1 = [
    "format_1.mdb.xz",
    "format_1_with_suppressions.mdb.xz",
    "format_1_with_notes.mdb.xz",
    "format_1_with_activity.mdb.xz",
    "format_1_with_campaigns.mdb.xz",
    "format_1_with_waits.mdb.xz",
    "format_1_with_times.mdb.xz",
    "format_1_with_parts.mdb.xz",
    "format_1_with_tries.mdb.xz",
]


@pytest.fixture(params=FORMAT_1)
def sample(tmp_path: Path, request: pytest.FixtureRequest) -> Harness:
    place = tmp_path / "spool"
    place.mkdir()
    compressed = (SAMPLES / request.param).read_bytes()
    (place / "data.mdb").write_bytes(lzma.decompress(compressed))
    return Harness("lmdb", tmp_path)


def test_each_format_has_its_sample() -> None:
    assert FORMAT == 1
    assert {path.name for path in SAMPLES.glob("*.xz")} == set(FORMAT_1)


async def test_every_record_of_format_1_says_what_it_said(sample: Harness) -> None:
    async with sample.open() as spool:
        assert (spool.start_count, spool.stream_id) == (2, "f5b165224a58b791")
        assert await spool.check_invariants() == []
        acme, other = await spool.accounts()
        assert acme == Account(1, "acme", "", h.START_UNIX_MS)
        assert (other.name, other.time_zone) == ("other", "Europe/Berlin")
        found_key = await spool.api_key("key-other")
        assert found_key is not None
        assert found_key[0].secret_sha256 == bytes(32)
        found = {each.fixed.address: each for each in await h.all_envelopes(spool)}
        # Before somebody asked what mails are made of, nobody had said it.
        assert found["tina@two.test"].fixed.parts in (0, 3)
        listed = found.pop(LISTED, None)
        campaigns = await spool.campaigns(None)
        assert len(campaigns) == (listed is not None)
        for row in campaigns:
            assert listed is not None
            assert (row.name, row.account_id, row.accepted) == ("Herbst ☂", other.account_id, 1)
            assert (listed.fixed.content_id, row.content_size) == (row.content_id, len(TEMPLATE))
        assert {address: each.state.status for address, each in found.items()} == {
            "large@one.test": Status.QUEUED,
            "copy@one.test": Status.QUEUED,
            "tina@two.test": Status.QUEUED,
            "delivered@three.test": Status.DELIVERED,
            "bounced@three.test": Status.HARD_BOUNCED,
            "cancelled@three.test": Status.CANCELLED,
            "deferred@four.test": Status.DEFERRED,
            "dead@five.test": Status.QUEUED,
            "paused@one.test": Status.PAUSED,
        }
        bounced = found["bounced@three.test"]
        assert bounced.fixed.custom_id == "bounced"
        assert bounced.state.reply == "550 5.1.1 No"
        assert bounced.state.reason is Reason.UNKNOWN_USER
        assert [event.status for event in await spool.events_at(bounced.state.event_seqs)] == [
            Status.QUEUED,
            Status.HARD_BOUNCED,
        ]
        assert await spool.destination("five.test") == REST
        rows = {row.key: row for row in await spool.statistics(Group.CAMPAIGN)}
        assert sum(rows["Frühling ☀"].counts) == 1
        by_day = await spool.statistics(Group.CAMPAIGN, from_unix_ms=h.START_UNIX_MS)
        assert by_day == await spool.statistics(Group.CAMPAIGN)


async def test_the_mail_of_format_1_goes_on(sample: Harness) -> None:
    async with sample.open() as spool:
        first, second = await h.claim(spool)
        assert (first.fixed.lane, first.fixed.content_id) == (1, second.fixed.content_id)
        [tina] = await h.claim(spool, "two.test")
        contents = await spool.content([first.fixed.content_id, tina.fixed.content_id])
        assert contents[first.fixed.content_id].octets == LARGE_CONTENT
        assert contents[tina.fixed.content_id].octets == TEMPLATE
        assert contents[tina.fixed.content_id].kind is ContentKind.TEMPLATE
        await h.deliver(spool, [first, second, tina])
        acme, other = await spool.accounts()
        again = await h.accept(spool, acme, h.message("x@one.test"), digest=bytes(range(16)))
        assert again.repeated
        assert [each.envelope_id for each in again.envelopes] == sorted(
            each.fixed.envelope_id for each in (first, second, tina)
        )
        sample.clock.now += 35 * h.DAY_MS
        assert await spool.release(spool.now_unix_ms()) == 1
        assert [each.fixed.address for each in await h.claim(spool)] == ["paused@one.test"]
        await h.accept(spool, other, h.message("new@one.test"), quota=Quota(per_day=1))
        await h.sweep_all(spool)
        assert await spool.check_invariants() == []


async def test_campaigns_are_counted_by_day_even_after_a_purge(tmp_path: Path) -> None:
    """Of a spool in which that was not done yet, as far as its mail is still there."""
    harness = Harness("lmdb", tmp_path)
    async with harness.open() as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 3)
        await h.deliver(spool, await h.claim(spool))
        harness.clock.now += 40 * h.DAY_MS
        await h.sweep_all(spool)
        await h.accept_many(spool, account, 2)
    place = str(tmp_path / "spool")
    with lmdb.open(place, max_dbs=len(Tables.NAMES), map_size=1 << 30, lib_version=0) as env:
        counter, meta = (env.open_db(name, create=False) for name in (b"counter", b"meta"))
        with env.begin(write=True) as txn:
            assert txn.delete(META_CAMPAIGN_DAYS, db=meta)
            with txn.cursor(counter) as cursor:
                keys = [key for key, _ in cursor if key[0] == Projection.CAMPAIGN_DAY]
            assert len(keys) == 2
            assert all(txn.delete(key, db=counter) for key in keys)
    async with harness.open() as spool:
        assert await spool.check_invariants() == []
        await h.deliver(spool, await h.claim(spool))
        assert await spool.check_invariants() == []
        [row] = await spool.statistics(Group.CAMPAIGN, from_unix_ms=h.START_UNIX_MS)
        assert (row.counts[0], row.counts[3]) == (0, 2)
        [row] = await spool.statistics(Group.CAMPAIGN)
        assert (row.counts[0], row.counts[3]) == (0, 5)


def dump(data: bytes, place: Path) -> dict[str, dict[bytes, bytes]]:
    """Return every row of every table of a data file."""
    place.mkdir()
    (place / "data.mdb").write_bytes(data)
    rows: dict[str, dict[bytes, bytes]] = {}
    with lmdb.open(str(place), max_dbs=len(Tables.NAMES), map_size=1 << 24, lib_version=0) as env:
        tables = [(name, env.open_db(name.encode(), create=False)) for name in Tables.NAMES]
        with env.begin() as txn:
            for name, table in tables:
                with txn.cursor(table) as cursor:
                    rows[name] = dict(cursor)
    return rows


async def test_the_newest_sample_is_what_this_program_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    # If this fails, the layout has changed: it needs a new number and a sample of its own.
    monkeypatch.setattr(h, "_numbers", itertools.count(1))
    await format_sample.write_spool(Harness("lmdb", tmp_path / "data"))
    written = dump((tmp_path / "data" / "spool" / "data.mdb").read_bytes(), tmp_path / "written")
    compressed = (SAMPLES / FORMAT_1[-1]).read_bytes()
    assert written == dump(lzma.decompress(compressed), tmp_path / "kept")
    # `hold` has no writer yet; nothing was damaged, and nothing is garbage for long.
    empty = {name for name, rows in written.items() if not rows}
    assert empty == {"hold", "quarantine"}
