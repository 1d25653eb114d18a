"""Bodies that a handler reads as they come: any length, bounded memory, and every way to break."""

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.http_server import HttpSettings
from engine.http_server.bodies import CHUNKS_AT_ONCE
from tests.http.port import read_response, running_port

HEAD = b"POST /streamed HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /open/a HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = GET[:-2] + b"Connection: close\r\n\r\n"


def chunk(octets: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(octets), octets)


def body_of(answer: bytes) -> Any:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer
    return json.loads(body)


async def test_a_body_beyond_every_limit_is_read_in_parts() -> None:
    settings = HttpSettings(bodies_bytes_max=100_000)
    length = 5_000_000
    async with running_port(settings) as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(HEAD + b"Content-Length: %d\r\n\r\n" % length)
            await stream.send_all(bytes(length))
            answer = body_of(await read_response(stream))
            assert answer["read"] == length
            assert answer["parts"] > 50
            assert port.server.statistics().bodies_bytes == 0
            # The connection goes on.
            await stream.send_all(GET)
            assert (await read_response(stream)).startswith(b"HTTP/1.1 200 ")


async def test_small_chunks_come_together_and_the_next_request_follows() -> None:
    async with running_port() as port:
        answers = await port.say(CHUNKED + chunk(b"abc") * 100 + b"0\r\n\r\n" + LAST)
    first, second = answers.split(b"HTTP/1.1 200 ")[1:]
    assert b'{"read":300,"parts":1}' in first
    assert b'"path":"/open/a"' in second


async def test_so_many_small_chunks_leave_others_their_turn() -> None:
    async with running_port() as port:
        for path, expected in (
            (b"/streamed", b'{"read":5000,"parts":'),
            (b"/open", b'"body":5000'),
        ):
            head = CHUNKED.replace(b"/streamed", path)
            answer = await port.say(head + chunk(b"x") * 5_000 + b"0\r\n\r\n" + LAST)
            assert expected in answer
            if path == b"/streamed":
                parts = int(answer.partition(b'"parts":')[2].partition(b"}")[0])
                assert parts >= 5_000 // CHUNKS_AT_ONCE


async def test_a_body_split_at_every_octet_is_the_same() -> None:
    whole = CHUNKED + chunk(b"abc") + chunk(b"de") + b"0\r\n\r\n"
    async with running_port() as port:
        for place in range(len(CHUNKED), len(whole)):
            stream = await port.connect()
            async with stream:
                await stream.send_all(whole[:place])
                await stream.send_all(whole[place:])
                assert body_of(await read_response(stream))["read"] == 5, place


async def test_no_body_is_an_empty_one() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            for framing in (b"", b"Content-Length: 0\r\n"):
                await stream.send_all(HEAD + framing + b"\r\n")
                assert body_of(await read_response(stream))["read"] == 0


async def test_nothing_is_read_that_the_handler_does_not_ask_for() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(
                b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000
            )
            answer = b""
            with trio.fail_after(20):
                async for piece in stream:
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 409 ")
            assert b"connection: close" in answer.lower()


async def test_a_refused_request_whose_body_is_there_keeps_its_connection() -> None:
    async with running_port() as port:
        head = b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
        answers = await port.say(head + b"abc" + LAST)
    assert [each[:3] for each in answers.split(b"HTTP/1.1 ")[1:]] == [b"409", b"200"]


async def test_who_may_not_is_told_before_the_body() -> None:
    head = b"POST /streamed/own HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running_port() as port:
        answer = await port.say(head + chunk(b"abc"))
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_client_that_waits_for_leave_gets_it_when_the_body_is_wanted() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
            await stream.send_all(b"abc")
            assert body_of(await read_response(stream))["read"] == 3


@pytest.mark.parametrize("octets", [b"zz\r\nabc", b"3\r\nabcdef\r\n"])
async def test_what_is_no_chunk_ends_the_body_and_the_connection(octets: bytes) -> None:
    async with running_port() as port:
        answer = await port.say(CHUNKED + chunk(b"abc") + octets + GET)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert body_of(answer)["fault"] == "body_broken"
    assert body_of(answer)["read"] in (3, 6)


async def test_a_connection_cut_in_the_middle_is_told_to_the_handler() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(CHUNKED + chunk(b"abc"))
            await stream.send_eof()
            answer = b""
            with trio.fail_after(20):
                async for piece in stream:
                    answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert body_of(answer) == {"read": 3, "fault": "body_broken"}


async def test_a_body_that_stands_still_is_cut_off(autojump_clock: MockClock) -> None:
    async with running_port() as port:
        began = trio.current_time()
        answer = await port.say(CHUNKED + chunk(b"abc"))
        after_s = trio.current_time() - began
        assert port.server.statistics().timeouts == 1
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert body_of(answer) == {"read": 3, "fault": "timeout"}
    assert HttpSettings().body_s <= after_s < HttpSettings().body_s + 5


async def test_a_body_may_come_nearly_as_slowly_as_it_is_made(autojump_clock: MockClock) -> None:
    settings = HttpSettings()
    every_s = settings.body_s - 1
    part = bytes(int(every_s * settings.stream_bytes_per_s_min))
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(CHUNKED)
            for _ in range(600):
                await trio.sleep(every_s)
                await stream.send_all(chunk(part))
            await stream.send_all(b"0\r\n\r\n")
            assert body_of(await read_response(stream))["read"] == 600 * len(part)


@pytest.mark.parametrize("fast", [0, 10_000_000])
async def test_a_drip_is_cut_off_however_much_came_before(
    autojump_clock: MockClock, fast: int
) -> None:
    settings = HttpSettings()
    answer = b""
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(CHUNKED + (chunk(bytes(fast)) if fast else b""))
            began_s = trio.current_time()
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def drip() -> None:
                    while True:
                        await trio.sleep(settings.body_s - 1)
                        await stream.send_all(chunk(b"a"))

                answer = await read_response(stream)
                after_s = trio.current_time() - began_s
                nursery.cancel_scope.cancel()
        assert port.server.statistics().timeouts == 1
    assert answer.startswith(b"HTTP/1.1 408 ")
    told = body_of(answer)
    assert told["fault"] == "too_slow"
    assert fast < told["read"] < fast + 10
    assert settings.stream_behind_s_max <= after_s < settings.stream_behind_s_max + 5


async def test_time_that_the_reader_takes_is_not_the_senders(autojump_clock: MockClock) -> None:
    settings = HttpSettings(stream_behind_s_max=2.0)
    async with running_port(settings) as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(CHUNKED.replace(b"/streamed", b"/streamed?pause=10"))
            for _ in range(3):
                await stream.send_all(chunk(b"abc"))
                await trio.sleep(1)
            await stream.send_all(b"0\r\n\r\n")
            assert body_of(await read_response(stream))["read"] == 9


async def test_a_stopping_port_answers_with_what_was_read() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(CHUNKED + chunk(b"abc"))
            await wait_all_tasks_blocked(0.05)
            port.server.stop()
            await stream.send_all(chunk(b"de"))
            answer = b""
            with trio.fail_after(20):
                async for piece in stream:
                    answer += piece
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert body_of(answer)["fault"] == "stopping"
    assert body_of(answer)["read"] in (3, 5)
