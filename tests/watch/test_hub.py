"""The hub's memory of recent events: whoever stands anywhere in the log hears all that follows."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from engine.spool.interface import EventFilter, Spool, SpoolSettings
from engine.watch.hub import PERIOD_S, EventHub, Place, place_of
from tests.spool.harness import DAY_MS, HOUR_MS, Harness, accept_many, make_account, sweep_all
from tests.watch.looking import place

RING_EVENTS = 4


@asynccontextmanager
async def running_hub(spool: Spool) -> AsyncIterator[EventHub]:
    hub = EventHub(spool, ring_events=RING_EVENTS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        yield hub
        nursery.cancel_scope.cancel()


def messages_of(frames: bytes) -> list[dict[str, object]]:
    """The JSON of whole, unmasked text frames (RFC 6455 5.2)."""
    messages = []
    while frames:
        assert frames[0] == 0x81
        start, length = 2, frames[1]
        if length == 126:
            start, length = 4, int.from_bytes(frames[2:4], "big")
        messages.append(json.loads(frames[start : start + length]))
        frames = frames[start + length :]
    return messages


async def heard_from(hub: EventHub, seq: int) -> list[int]:
    """Follow the log from a place to its end; return the places of the events."""
    heard: list[int] = []
    told_seq = seq
    while seq < hub.head_seq:
        batch = await hub.batch_after(seq, told_seq, EventFilter(), binary=False)
        for message in messages_of(batch.frames):
            if "gap" not in message:
                events = message["events"]
                assert isinstance(events, list)
                heard += [place(event["cursor"]) for event in events]
        seq = told_seq = batch.seq
    return heard


async def test_nothing_is_missed_where_memory_ends_and_the_log_begins(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with Harness("memory", tmp_path).open() as spool, running_hub(spool) as hub:
        account = await make_account(spool)
        for count in (1, 2, 5, 1, 1, 3, 1):
            await accept_many(spool, account, count)
            await trio.sleep(2 * PERIOD_S)
            head_seq = spool.head()
            assert hub.head_seq == head_seq
            for seq in range(head_seq):
                assert await heard_from(hub, seq) == [*range(seq + 1, head_seq + 1)]
        assert hub.statistics().log_reads > 0


async def test_nobody_is_told_of_more_than_the_period_has_brought(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with Harness("memory", tmp_path).open() as spool, running_hub(spool) as hub:
        account = await make_account(spool)
        await accept_many(spool, account, 1)
        await trio.sleep(PERIOD_S / 2)
        await accept_many(spool, account, 2)
        # The first news are told at once, the next ones together, a period later.
        assert await heard_from(hub, 0) == [1]
        await trio.sleep(PERIOD_S)
        assert await heard_from(hub, 0) == [1, 2, 3]


@pytest.mark.parametrize("behind", [0, 2])
async def test_who_is_overtaken_by_retention_is_told_of_the_gap_and_goes_on_from_it(
    tmp_path: Path, autojump_clock: MockClock, behind: int
) -> None:
    settings = SpoolSettings(
        events_retention_ms=HOUR_MS, max_age_ms=2 * DAY_MS, disk_free_bytes_min=0
    )
    harness = Harness("memory", tmp_path, settings)
    async with harness.open() as spool, running_hub(spool) as hub:
        account = await make_account(spool)
        await accept_many(spool, account, 5)
        harness.clock.now += 2 * HOUR_MS
        await accept_many(spool, account, 9)
        await sweep_all(spool)
        await trio.sleep(2 * PERIOD_S)
        batch = await hub.batch_after(2, 2 - behind, EventFilter(), binary=False)
        gap, events = messages_of(batch.frames)
        cursors = [f"{spool.stream_id}-{seq}" for seq in range(6)]
        assert gap == {"gap": {"from": cursors[2 - behind], "to": cursors[5]}}
        assert events["after"] == cursors[5]
        assert (batch.has_gap, batch.events, batch.seq) == (True, 9, 14)
        # Who has heard of all that is gone has lost nothing; who lacks one of them has.
        assert place_of(spool, hub.head_seq, cursors[5]) == Place(5)
        assert place_of(spool, hub.head_seq, cursors[4]) == Place(5, cursors[4])
        assert place_of(spool, hub.head_seq, "start") == Place(5)


async def test_memory_says_how_far_nothing_fits(tmp_path: Path, autojump_clock: MockClock) -> None:
    wanted = EventFilter(destinations=frozenset({"two.test"}))
    async with Harness("memory", tmp_path).open() as spool, running_hub(spool) as hub:
        account = await make_account(spool)
        assert hub.passed_over(0, wanted) == 0
        await accept_many(spool, account, 3)
        await trio.sleep(2 * PERIOD_S)
        assert hub.passed_over(0, wanted) == 3
        await accept_many(spool, account, 1, at="two.test")
        await accept_many(spool, account, 1)
        await trio.sleep(2 * PERIOD_S)
        assert [hub.passed_over(seq, wanted) for seq in range(6)] == [3, 3, 3, 3, 5, 5]
        await accept_many(spool, account, 2 * RING_EVENTS)
        await trio.sleep(2 * PERIOD_S)
        # What has left memory only the log knows.
        head_seq = spool.head()
        assert [hub.passed_over(seq, wanted) for seq in (0, 3, 8, 9)] == [0, 3, 8, head_seq]
