"""The event stream over real sockets: every event, in order, once; or a notice of what is gone."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import websocket

from engine.spool.interface import SpoolSettings
from protocols.records import Status
from tests.spool.harness import (
    ADAPTERS,
    DAY_MS,
    Harness,
    accept,
    accept_many,
    claim,
    deliver,
    message,
    result_of,
    sweep_all,
)
from tests.watch.looking import Look, looking, make_account, place


async def test_the_server_is_silent_until_asked(look: Look) -> None:
    async with look.stream() as listener:
        await accept_many(look.spool, look.account, 3)
        listener.client.settimeout(0.2)
        with pytest.raises(websocket.WebSocketTimeoutException):
            await listener.hear()
        listener.client.settimeout(10)
        await listener.say({"subscribe": {"after": "start"}})
        assert len(await listener.hear_events(3)) == 3


async def test_an_event_has_what_the_design_says(look: Look) -> None:
    [envelope_id] = await accept_many(
        look.spool, look.account, 1, campaign="spring", custom_id="c1", subject="Hi"
    )
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": "start"}})
        [envelope] = await claim(look.spool)
        result = result_of(
            look.spool, envelope, Status.DEFERRED, due_unix_ms=look.clock.now + 300_250
        )
        await look.spool.settle([msgspec.structs.replace(result, at_unix_ms=look.clock.now)])
        queued, deferred = await listener.hear_events(2)
    assert queued["status"] == "queued"
    assert deferred == {
        "cursor": f"{look.spool.stream_id}-2",
        "at": "2026-11-24T09:30:00.000Z",
        "kind": "status",
        "message_id": envelope_id,
        "uuid": queued["uuid"],
        "account": "acme",
        "campaign": "spring",
        "custom_id": "c1",
        "address": "r0@one.test",
        "destination": "one.test",
        "status": "deferred",
        "attempt": 1,
        "reply": "451 4.7.1 Later",
        "reason": "greylisted",
        "next_attempt_at": "2026-11-24T09:35:00.250Z",
    }
    assert len(queued["uuid"]) == 36


async def test_both_subprotocols_tell_the_same(look: Look) -> None:
    await accept_many(look.spool, look.account, 500)
    told = []
    for subprotocol in ("eilpost.v1+json", "eilpost.v1+msgpack"):
        async with look.stream(subprotocol=subprotocol) as listener:
            assert listener.client.getsubprotocol() == subprotocol
            await listener.say({"subscribe": {"after": "start"}})
            told.append(await listener.hear_events(500))
    assert told[0] == told[1]
    async with look.stream(subprotocol=None) as listener:
        await listener.say({"subscribe": {"after": "start"}})
        assert await listener.hear_events(500) == told[0]


async def test_the_clients_order_chooses_the_subprotocol(look: Look) -> None:
    async with look.stream(
        subprotocol=["other", "eilpost.v1+msgpack", "eilpost.v1+json"]
    ) as listener:
        assert listener.client.getsubprotocol() == "eilpost.v1+msgpack"
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        async with look.stream(subprotocol="other"):
            pass
    assert refused.value.status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_a_client_that_resumes_has_missed_nothing(adapter: str, tmp_path: Path) -> None:
    """Cut off again and again, across a restart of the engine: all cursors, once, in order."""
    harness = Harness(adapter, tmp_path)
    cursors: list[str] = []
    after = "start"

    async def follow(look: Look, batches: int) -> None:
        nonlocal after
        async with look.stream() as listener:
            await listener.say({"subscribe": {"after": after}})
            for _ in range(batches):
                batch = await listener.hear()
                assert after in ("start", batch["after"])
                after = batch["cursor"]
                cursors.extend(event["cursor"] for event in batch["events"])
                if place(after) == look.spool.head():
                    await accept_many(look.spool, look.account, 50)

    for _ in range(3):
        async with looking(harness) as look:
            await accept_many(look.spool, look.account, 1_300)
            for batches in (1, 3, 2):
                await follow(look, batches)
            await deliver(look.spool, await claim(look.spool, limit=700))
    async with looking(harness) as look:
        stream_id, head = look.spool.stream_id, look.spool.head()
        async with look.stream() as listener:
            await listener.say({"subscribe": {"after": after}})
            cursors += [event["cursor"] for event in await listener.hear_to(head)]
    assert cursors == [f"{stream_id}-{seq}" for seq in range(1, head + 1)]


async def test_now_begins_with_the_next_event_and_says_where(look: Look) -> None:
    await accept_many(look.spool, look.account, 5)
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": "now"}})
        first = await listener.hear()
        assert first["events"] == []
        assert first["after"] == first["cursor"] == f"{look.spool.stream_id}-5"
        await accept_many(look.spool, look.account, 1, at="two.test")
        [event] = await listener.hear_events(1)
        assert event["cursor"] == f"{look.spool.stream_id}-6"


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ({"campaign": "spring"}, {3}),
        ({"campaign": None}, {1, 2}),
        ({"campaign": ["spring", None]}, {1, 2, 3}),
        ({"destination": "two.test"}, {2}),
        ({"destination": ["TWO.test", "three.test"]}, {2, 3}),
        ({"status": "queued"}, {1, 2, 3}),
        ({"status": ["delivered"]}, set()),
        ({"reason": "outcome_unknown"}, set()),
        ({"account": "acme"}, {1, 2, 3}),
        ({"account": "other"}, set()),
        ({"message_id": 7}, set()),
        ({"destination": "two.test", "campaign": "spring"}, set()),
    ],
)
async def test_filters(look: Look, wanted: dict[str, Any], seen: set[int]) -> None:
    await accept(look.spool, look.account, message("a@one.test"))
    await accept(look.spool, look.account, message("a@two.test"))
    await accept(look.spool, look.account, message("a@three.test", campaign="spring"))
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": "start", "filter": wanted}})
        # The cursor passes what the filter holds back.
        assert {place(event["cursor"]) for event in await listener.hear_to(3)} == seen


async def test_an_empty_batch_moves_the_cursor_on_under_a_filter(look: Look) -> None:
    async with look.stream() as listener:
        subscribe = {"after": "now", "filter": {"destination": "two.test"}}
        await listener.say({"subscribe": subscribe})
        cursor = (await listener.hear())["cursor"]
        await accept_many(look.spool, look.account, 20)
        batch = await listener.hear()
        assert batch["events"] == []
        assert batch["after"] == cursor
        assert place(batch["cursor"]) > place(cursor)
        await accept_many(look.spool, look.account, 20)
        assert await listener.hear_to(40) == []


async def test_an_account_sees_its_own_and_an_operator_sees_all(look: Look) -> None:
    other = await make_account(look.spool, "other")
    await accept_many(look.spool, look.account, 2)
    await accept_many(look.spool, other, 3)
    expected: list[tuple[str | tuple[str, str], list[str]]] = [
        ("acme", ["acme"] * 2),
        ("other", ["other"] * 3),
        (look.operator(), ["acme"] * 2 + ["other"] * 3),
    ]
    for who, names in expected:
        async with look.stream(who) as listener:
            await listener.say({"subscribe": {"after": "start"}})
            events = await listener.hear_events(len(names))
            assert [event["account"] for event in events] == names


async def test_what_retention_has_removed_is_told(tmp_path: Path) -> None:
    harness = Harness(
        "memory", tmp_path, SpoolSettings(events_retention_ms=DAY_MS, disk_free_bytes_min=0)
    )
    async with looking(harness) as look:
        await accept_many(look.spool, look.account, 10)
        look.clock.now += 2 * DAY_MS
        await accept_many(look.spool, look.account, 5)
        await sweep_all(look.spool)
        stream_id = look.spool.stream_id
        head = look.spool.head()
        async with look.stream() as listener:
            await listener.say({"subscribe": {"after": f"{stream_id}-4"}})
            gap = await listener.hear()
            assert gap == {"gap": {"from": f"{stream_id}-4", "to": f"{stream_id}-10"}}
            first = await listener.hear()
            assert first["after"] == gap["gap"]["to"]
            events = first["events"]
            if place(first["cursor"]) < head:
                events += await listener.hear_to(head)
            assert [place(event["cursor"]) for event in events] == [*range(11, head + 1)]
        async with look.stream() as listener:
            # "start" is where the log starts; nothing was promised before it.
            await listener.say({"subscribe": {"after": "start"}})
            assert (await listener.hear())["after"] == f"{stream_id}-10"


@pytest.mark.parametrize("foreign", ["00ff00ff00ff00ff-3", "x-y-3"])
async def test_a_cursor_of_another_log_is_told(look: Look, foreign: str) -> None:
    await accept_many(look.spool, look.account, 2)
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": foreign}})
        own = look.spool.stream_id
        assert await listener.hear() == {"gap": {"from": foreign, "to": f"{own}-0"}}
        assert len(await listener.hear_events(2)) == 2


async def test_a_cursor_from_beyond_the_end_is_told(look: Look) -> None:
    await accept_many(look.spool, look.account, 2)
    async with look.stream() as listener:
        own = look.spool.stream_id
        await listener.say({"subscribe": {"after": f"{own}-900"}})
        assert await listener.hear() == {"gap": {"from": f"{own}-900", "to": f"{own}-2"}}
        assert (await listener.hear())["events"] == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "bad_json"),
        ("[1]", "bad_frame"),
        ("{}", "bad_frame"),
        ('{"subscribe": {"after": "x"}}', "bad_cursor"),
        ('{"subscribe": {"after": "now", "filter": {"stauts": "queued"}}}', "bad_frame"),
        ('{"subscribe": {"filter": {"status": "sent"}}}', "bad_frame"),
        ('{"subscribe": {}, "watch": "totals"}', "bad_frame"),
        ('{"watch": "everything"}', "bad_frame"),
        ("[" * 60_000, "bad_json"),
        (b"\xff\xfe", "bad_json"),
    ],
)
async def test_a_refused_frame_is_answered_and_the_stream_goes_on(
    look: Look, frame: str | bytes, code: str
) -> None:
    async with look.stream() as listener:
        await listener.say(frame)
        answer = await listener.hear()
        assert answer["error"]["code"] == code
        assert answer["error"]["message"]
        await listener.say({"subscribe": {"after": "start"}})
        assert (await listener.hear())["events"] == []


async def test_the_place_of_a_fault_is_named(look: Look) -> None:
    async with look.stream() as listener:
        await listener.say({"subscribe": {"filter": {"status": ["queued", "sent"]}}})
        assert "$.subscribe.filter.status[1]" in (await listener.hear())["error"]["message"]


async def test_a_second_subscription_takes_the_place_of_the_first(look: Look) -> None:
    await accept_many(look.spool, look.account, 3)
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": "start"}})
        await listener.hear_events(3)
        await listener.say({"subscribe": {"after": "start", "filter": {"status": "delivered"}}})
        assert (await listener.hear())["events"] == []
        await deliver(look.spool, await claim(look.spool))
        assert {event["status"] for event in await listener.hear_events(3)} == {"delivered"}


async def test_a_message_that_is_too_long_ends_the_connection_only(look: Look) -> None:
    async with look.stream() as listener, look.stream() as neighbour:
        await listener.say("x" * 70_000)
        opcode, data = await trio.to_thread.run_sync(listener.client.recv_data)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert int.from_bytes(data[:2], "big") == 1009
        await neighbour.say({"subscribe": {"after": "now"}})
        assert (await neighbour.hear())["events"] == []


async def test_a_ping_is_answered_while_nothing_else_happens(look: Look) -> None:
    async with look.stream() as listener:
        await trio.to_thread.run_sync(listener.client.ping, "are you there")
        opcode, frame = await trio.to_thread.run_sync(
            lambda: listener.client.recv_data_frame(control_frame=True)
        )
        assert opcode == websocket.ABNF.OPCODE_PONG
        assert frame.data == b"are you there"


async def test_the_engine_does_not_wait_for_subscribers_when_it_ends(look: Look) -> None:
    async with look.stream() as listener:
        await listener.say({"subscribe": {"after": "start"}})
        await listener.hear()
        look.server.stop()
        opcode, data = await trio.to_thread.run_sync(listener.client.recv_data)
        assert (opcode, data) == (websocket.ABNF.OPCODE_CLOSE, b"\x03\xe9")  # 1001, going away
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
            await trio.to_thread.run_sync(listener.client.recv)
    while look.server.statistics().connections:
        await trio.lowlevel.checkpoint()
