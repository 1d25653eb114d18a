"""A subscriber that does not keep up slows nobody, misses nothing, and is cut off in the end."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from engine.watch import hub
from engine.watch.subscriber import PING_S, SEND_S
from tests.spool.harness import accept_many
from tests.watch.looking import Look, credentials, place

# Some 350 octets an event: more than all buffers between us and a client hold.
EVENTS = 40_000


@asynccontextmanager
async def inside_stream(look: Look) -> AsyncIterator[WebSocketConnection]:
    """A client in our own loop, so that it lives in virtual time; it reads only when told to."""
    headers = [(name.encode(), value.encode()) for name, value in credentials("acme").items()]
    stream = await trio.open_tcp_stream("127.0.0.1", look.port)
    async with stream, trio.open_nursery() as nursery:
        client = await wrap_client_stream(
            nursery, stream, "x", "/v1/stream", extra_headers=headers, message_queue_size=1
        )
        yield client
        nursery.cancel_scope.cancel()


async def gone(look: Look) -> float:
    """Wait until the last subscriber is gone; return for how long, to the second."""
    began = trio.current_time()
    while look.watch.hub.subscribers:  # noqa: ASYNC110 -- the hub tells nobody of departures
        await trio.sleep(1.0)
    return trio.current_time() - began


async def hear_all(client: WebSocketConnection) -> None:
    while True:
        await client.get_message()


async def subscribe(client: WebSocketConnection, after: str) -> None:
    await client.send_message(json.dumps({"subscribe": {"after": after}}))


async def hear_to(client: WebSocketConnection, seq: int) -> list[int]:
    """Read until the cursor is at `seq`; return the places of all events."""
    places: list[int] = []
    after: str | None = None
    while True:
        batch: Any = json.loads(await client.get_message())
        assert after in (None, batch["after"]), "a hole between two batches"
        after = batch["cursor"]
        places += [place(event["cursor"]) for event in batch["events"]]
        if place(batch["cursor"]) >= seq:
            return places


@pytest.mark.slow
async def test_a_slow_reader_falls_behind_and_reads_on_from_the_log(
    look: Look,
) -> None:
    # A ring that this test's events pass over many times.
    look.watch.hub.ring_events = 500
    async with inside_stream(look) as slow, inside_stream(look) as quick:
        await subscribe(slow, "now")
        await subscribe(quick, "now")
        heard: list[int] = []
        for _ in range(EVENTS // 1_000):
            await accept_many(look.spool, look.account, 1_000)
            heard += await hear_to(quick, look.spool.head())
        assert heard == [*range(1, EVENTS + 1)]
        reads_before = look.watch.hub.statistics().log_reads
        assert await hear_to(slow, EVENTS) == [*range(1, EVENTS + 1)]
        assert look.watch.hub.statistics().log_reads > reads_before


@pytest.mark.slow
async def test_who_takes_nothing_is_cut_off(autojump_clock: MockClock, look: Look) -> None:
    async with inside_stream(look) as stuck:
        await subscribe(stuck, "start")
        await accept_many(look.spool, look.account, EVENTS)
        assert await gone(look) == pytest.approx(SEND_S, abs=5.0)
        with pytest.raises(ConnectionClosed):
            await hear_all(stuck)


async def test_a_vanished_client_is_noticed(autojump_clock: MockClock, look: Look) -> None:
    """A client that neither answers pings nor closes holds its place for two limits at most."""
    stream = await trio.open_tcp_stream("127.0.0.1", look.port)
    async with stream:
        lines = [
            "GET /v1/stream HTTP/1.1",
            "Host: x",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            f"Authorization: {credentials('acme')['Authorization']}",
        ]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        assert await gone(look) == pytest.approx(PING_S + 2 * SEND_S, abs=3.0)


async def test_many_at_the_same_place_share_what_is_built(look: Look) -> None:
    async with trio.open_nursery() as nursery:
        ready = trio.Event()
        subscribed = 0

        async def listen() -> None:
            nonlocal subscribed
            async with inside_stream(look) as client:
                await subscribe(client, "now")
                await client.get_message()
                subscribed += 1
                if subscribed == 20:
                    ready.set()
                assert len(await hear_to(client, 300)) == 300

        for _ in range(20):
            nursery.start_soon(listen)
        await ready.wait()
        before = look.watch.hub.statistics()
        for _ in range(3):
            await accept_many(look.spool, look.account, 100)
            await trio.sleep(2 * hub.PERIOD_S)
    after = look.watch.hub.statistics()
    built = after.batches_built - before.batches_built
    shared = after.batches_shared - before.batches_shared
    assert built <= 8
    assert shared >= 19 * 3
