"""What subscribers are told and when: at once or in digests, once each, whatever dies meanwhile."""

import email
import email.policy
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import trio
from trio.testing import MockClock

from engine.config import StatusTable
from engine.spool.interface import AcceptRequest, Spool, SpoolError, SpoolFull
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.status.book import StatusBook
from engine.watch.status.digests import last_due_unix_ms
from engine.watch.status.links import Links, Wish
from engine.watch.status.mails import MailWriter
from engine.watch.status.records import Entry, Kind, Stage, Words
from engine.watch.status.sender import MAILS_AT_ONCE, StatusSender, Stretch
from engine.watch.status.subscribers import Frequency, Subscriber, Subscribers
from protocols.addresses import Address
from protocols.languages import Language
from tests.spool.harness import ADAPTERS, DAY_MS, HOUR_MS, Harness
from tests.watch.status.running import Running

SENDER = Address("status", "out.example", "status@out.example")


@pytest.fixture(params=ADAPTERS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    return Harness(request.param, tmp_path)


class Desk:
    """A sender over a spool, and what it handed in."""

    def __init__(self, spool: Spool, settings: StatusTable | None = None) -> None:
        self.spool = spool
        self.book = StatusBook(spool, spool.now_unix_ms)
        self.subscribers = Subscribers(spool)
        rand = random.Random(1)
        self.writer = MailWriter(
            Links(bytes(32), "https://mail.example"),
            name="Post",
            url="https://mail.example",
            sender=SENDER,
            now_unix_ms=spool.now_unix_ms,
            random_octets=rand.randbytes,
        )
        self.sender = StatusSender(
            spool,
            self.book,
            self.subscribers,
            self.writer,
            settings or StatusTable(),
            now_unix_ms=spool.now_unix_ms,
        )

    async def load(self) -> None:
        await self.book.load()
        await self.subscribers.load()
        await self.sender._load_stretches()

    async def subscribe(
        self, address: str, frequency: Frequency = Frequency.EACH, language: Language = "en"
    ) -> None:
        now = self.spool.now_unix_ms()
        await self.subscribers.put(Subscriber(address, language, frequency, now))

    async def announce(self, title: str) -> Entry:
        words = Words(f"DE {title}", title)
        return await self.book.write(Kind.ANNOUNCEMENT, words, words, stage=Stage.RESOLVED)

    async def told(self, address: str) -> list[str]:
        """The subjects of what was accepted for an address, oldest first."""
        page = await self.spool.find(EnvelopeFilter(address=address), None, 1000)
        return [each.fixed.subject for each in page.envelopes][::-1]


@asynccontextmanager
async def desk(harness: Harness) -> AsyncIterator[Desk]:
    async with harness.open() as spool:
        made = Desk(spool)
        await made.load()
        yield made


async def test_each_is_told_at_once_and_nobody_of_what_was_before(harness: Harness) -> None:
    async with desk(harness) as room:
        await room.announce("before")
        harness.clock.now += 1_000
        await room.subscribe("ann@one.test")
        await room.sender.look()
        assert await room.told("ann@one.test") == []
        harness.clock.now += 1_000
        await room.announce("first")
        await room.sender.look()
        await room.subscribe("bob@one.test", language="de")
        harness.clock.now += 1_000
        await room.announce("second")
        for _ in range(3):
            await room.sender.look()
        assert await room.told("ann@one.test") == [
            "[Post] Announcement: first",
            "[Post] Announcement: second",
        ]
        assert await room.told("bob@one.test") == ["[Post] Ankündigung: DE second"]


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", ["before the mails", "after some", "after all"])
async def test_whoever_dies_while_telling_tells_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    names = [f"r{number:03d}@one.test" for number in range(MAILS_AT_ONCE + 50)]
    async with desk(harness) as room:
        for name in names:
            await room.subscribe(name)
        harness.clock.now += 1_000
        await room.announce("news")
        accepts = 0
        accept = room.sender._accept

        async def mortal_accept(mails: object) -> None:
            nonlocal accepts
            if dies_at == "before the mails" or (dies_at == "after some" and accepts == 1):
                raise ProcessDied
            await accept(mails)  # type: ignore[arg-type]  # whatever it was given
            accepts += 1

        note = room.sender._note

        async def mortal_note(frequency: Frequency, stretch: Stretch) -> None:
            if not stretch.telling_unix_ms and dies_at == "after all":
                raise ProcessDied
            await note(frequency, stretch)

        monkeypatch.setattr(room.sender, "_accept", mortal_accept)
        monkeypatch.setattr(room.sender, "_note", mortal_note)
        with pytest.raises(ProcessDied):
            await room.sender.look()
    harness.clock.now += 60_000
    async with desk(harness) as room:
        # What is said meanwhile is news of its own.
        await room.announce("more")
        await room.sender.look()
        await room.sender.look()
        for name in names:
            assert await room.told(name) == [
                "[Post] Announcement: news",
                "[Post] Announcement: more",
            ]


class ProcessDied(Exception):
    """As if by kill -9."""


async def test_a_full_spool_delays_and_loses_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(harness) as room:
        await room.subscribe("ann@one.test")
        harness.clock.now += 1_000
        await room.announce("news")

        async def full(requests: list[AcceptRequest]) -> list[SpoolError]:
            return [SpoolFull("no room") for _ in requests]

        with monkeypatch.context() as patch:
            patch.setattr(room.spool, "accept", full)
            with pytest.raises(SpoolFull):
                await room.sender.look()
        await room.sender.look()
        assert await room.told("ann@one.test") == ["[Post] Announcement: news"]


async def told_by_hour(room: Desk, harness: Harness, address: str, days: int) -> dict[str, str]:
    """Live for some days; return the subjects with the time at which each was accepted."""
    found: dict[str, str] = {}
    count = len(await room.told(address))
    for _ in range(days * 24):
        await room.sender.look()
        for subject in (await room.told(address))[count:]:
            at = datetime.fromtimestamp(harness.clock.now / 1000, UTC)
            found[f"{at:%a %d %H}h"] = subject
            count += 1
        harness.clock.now += HOUR_MS
    return found


async def test_a_daily_digest_comes_at_its_hour_and_only_with_news(harness: Harness) -> None:
    # It is Tuesday the 24th, half past nine.
    async with desk(harness) as room:
        await room.subscribe("ann@one.test", Frequency.DAILY)
        harness.clock.now += HOUR_MS
        await room.announce("one")
        await room.announce("two")
        told = await told_by_hour(room, harness, "ann@one.test", 3)
        await room.announce("three")
        told |= await told_by_hour(room, harness, "ann@one.test", 3)
    assert told == {
        "Wed 25 08h": "[Post] What happened in the last day",
        "Sat 28 08h": "[Post] What happened in the last day",
    }


async def test_a_weekly_digest_comes_on_mondays_and_says_when_all_is_well(
    harness: Harness,
) -> None:
    async with desk(harness) as room:
        await room.subscribe("ann@one.test", Frequency.WEEKLY, "de")
        harness.clock.now += HOUR_MS
        await room.announce("one")
        told = await told_by_hour(room, harness, "ann@one.test", 14)
        page = await room.spool.find(EnvelopeFilter(address="ann@one.test"), None, 10)
        contents = await room.spool.content([each.fixed.content_id for each in page.envelopes])
    assert told == {
        "Mon 30 08h": "[Post] Was in der letzten Woche geschah",
        "Mon 07 08h": "[Post] Was in der letzten Woche geschah",
    }
    octets = [contents[each.fixed.content_id].octets for each in page.envelopes[::-1]]
    mails = [email.message_from_bytes(each, policy=email.policy.default) for each in octets]
    texts = []
    for mail in mails:
        assert isinstance(mail, EmailMessage)
        body = mail.get_body(("plain",))
        assert body is not None
        texts.append(body.get_content())
    assert "DE one" in texts[0]
    assert "Alles ist in Ordnung" in texts[1]


async def test_a_digest_that_was_missed_is_one_and_comes_late(harness: Harness) -> None:
    async with desk(harness) as room:
        await room.subscribe("ann@one.test", Frequency.DAILY)
        harness.clock.now += HOUR_MS
        await room.announce("one")
        await room.sender.look()
    harness.clock.now += 5 * DAY_MS
    async with desk(harness) as room:
        for _ in range(3):
            await room.sender.look()
        assert len(await room.told("ann@one.test")) == 1


@pytest.mark.parametrize(
    ("now", "zone", "frequency", "due"),
    [
        ("2026-11-24T09:30", "UTC", Frequency.DAILY, "2026-11-24T08:00"),
        ("2026-11-24T07:59", "UTC", Frequency.DAILY, "2026-11-23T08:00"),
        ("2026-11-24T08:00", "UTC", Frequency.DAILY, "2026-11-24T08:00"),
        ("2026-11-24T07:30", "Europe/Berlin", Frequency.DAILY, "2026-11-24T07:00"),
        ("2026-07-24T06:30", "Europe/Berlin", Frequency.DAILY, "2026-07-24T06:00"),
        ("2026-11-24T09:30", "UTC", Frequency.WEEKLY, "2026-11-23T08:00"),
        ("2026-11-23T07:59", "UTC", Frequency.WEEKLY, "2026-11-16T08:00"),
        # It is Monday there already.
        ("2026-11-22T20:00", "Pacific/Auckland", Frequency.WEEKLY, "2026-11-22T19:00"),
    ],
)
def test_when_a_digest_is_due(now: str, zone: str, frequency: Frequency, due: str) -> None:
    def unix_ms(text: str) -> int:
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

    assert last_due_unix_ms(unix_ms(now), frequency, 8, ZoneInfo(zone)) == unix_ms(due)


async def test_an_incident_that_opens_by_itself_is_told_and_its_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    place = Running(tmp_path, "memory:status-telling")
    place.add("reader.test")
    receiver = place.add("down.test", is_up=False)
    async with place.running() as engine:
        await place.subscribe(Wish("ann@reader.test", "en", Frequency.EACH, 2**53))
        await place.send(await place.account("one"), "down.test", 20)
        await place.wait_for(lambda status: status["incidents"], 300)
        place.receivers[place.address_of("down.test")] = receiver
        await place.wait_for(lambda status: not status["incidents"], 600)
        await trio.sleep(60)
        page = await engine.spool.find(EnvelopeFilter(address="ann@reader.test"), None, 10)
    assert [(each.fixed.subject, each.state.status) for each in page.envelopes[::-1]] == [
        ("[Eilpost] Investigating: Delayed delivery to down.test", "delivered"),
        ("[Eilpost] Resolved: Delayed delivery to down.test", "delivered"),
    ]
    assert {(each.fixed.account, each.fixed.lane) for each in page.envelopes} == {("status", 0)}
