"""Slow clients, too many clients, an end with requests in progress. Time is virtual."""

import logging
from base64 import b64encode
from pathlib import Path

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.http_server import HttpSettings
from tests.http.port import Port, read_response, read_to_end, running_port

GET = b"GET /open/a HTTP/1.1\r\nHost: x\r\n\r\n"
SIGNED = b"Authorization: Basic " + b64encode("key:sécret".encode()) + b"\r\n"


async def drip(port: Port, octets: bytes, pause_s: float) -> tuple[bytes, float]:
    """Send one octet at a time; return what came back and after how long it ended."""
    stream = await port.connect()
    began = trio.current_time()
    async with stream, trio.open_nursery() as nursery:

        async def send() -> None:
            try:
                for octet in octets:
                    await stream.send_all(bytes([octet]))
                    await trio.sleep(pause_s)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # Cut off, as is expected of a drip.

        nursery.start_soon(send)
        answer = await read_to_end(stream)
        ended = trio.current_time()
        nursery.cancel_scope.cancel()
    return answer, ended - began


async def test_a_head_in_drips_is_cut_off(autojump_clock: MockClock) -> None:
    async with running_port() as port:
        answer, after_s = await drip(port, b"GET /open/a HTTP/1.1\r\nX: " + b"y" * 1000, 1.0)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert after_s == pytest.approx(HttpSettings().head_s, abs=2.5)


async def test_a_body_below_the_minimum_rate_is_cut_off(autojump_clock: MockClock) -> None:
    head = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    settings = HttpSettings(rate_bytes_per_s_min=10, body_s=15.0)
    async with running_port(settings) as port:
        slow, after_s = await drip(port, head + b"a" * 5000, 0.5)
        assert slow.startswith(b"HTTP/1.1 408 ")
        # The head took half a minute and was allowed ten seconds: it is the head that is too slow.
        assert after_s < 15.0
        stream = await port.connect()
        async with stream:
            await stream.send_all(head)
            began = trio.current_time()
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for _ in range(1000):
                        await stream.send_all(b"a" * 4)
                        await trio.sleep(0.5)

                nursery.start_soon(send)
                answer = await read_response(stream)
                nursery.cancel_scope.cancel()
            assert answer.startswith(b"HTTP/1.1 408 ")
            # Eight octets a second use up 15 s and a tenth of a second an octet: 15 / (1 - 0.8).
            assert trio.current_time() - began == pytest.approx(75.0, abs=3.0)


async def test_a_slow_but_steady_body_is_waited_for(autojump_clock: MockClock) -> None:
    head = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n"
    async with running_port(HttpSettings(rate_bytes_per_s_min=10)) as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(head)
            for _ in range(900):
                await stream.send_all(b"a" * 10)
                await trio.sleep(0.9)
            assert b'"body":9000' in await read_response(stream)


async def test_idle_connections_are_closed_without_a_word(autojump_clock: MockClock) -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(GET)
            await read_response(stream)
            assert await read_to_end(stream) == b""
            assert trio.current_time() == pytest.approx(HttpSettings().idle_s, abs=1.0)


@pytest.mark.slow
async def test_a_client_that_never_reads_is_cut_off(autojump_clock: MockClock) -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(GET * 1_000_000)
        assert trio.current_time() == pytest.approx(HttpSettings().write_s, abs=5.0)


async def test_when_all_places_are_taken_the_longest_waiting_gives_way() -> None:
    async with running_port(HttpSettings(connections_max=3)) as port:
        streams = []
        for _ in range(3):
            streams.append(await port.connect())
            await streams[-1].send_all(GET)
            await read_response(streams[-1])
        # A half-sent head does not hold its place either: it waits longer than the other two.
        for stream in streams[1:]:
            await stream.send_all(GET)
            await read_response(stream)
        fourth = await port.connect()
        await fourth.send_all(GET)
        assert (await read_response(fourth)).startswith(b"HTTP/1.1 200 ")
        assert await read_to_end(streams[0]) == b""
        assert port.server.statistics().evicted == 1
        for stream in [*streams, fourth]:
            await stream.aclose()


async def test_strangers_who_send_slowly_give_way_and_who_is_known_does_not() -> None:
    body = b"Content-Length: 9\r\n\r\n123"
    async with running_port(HttpSettings(connections_max=2)) as port:
        known, stranger = await port.connect(), await port.connect()
        async with known, stranger:
            await known.send_all(b"POST /own HTTP/1.1\r\nHost: x\r\n" + SIGNED + body)
            await stranger.send_all(b"POST /open HTTP/1.1\r\nHost: x\r\n" + body)
            while port.server.statistics().bodies_bytes < 6:
                await wait_all_tasks_blocked(0.01)
            newcomer = await port.connect()
            async with newcomer:
                await newcomer.send_all(GET)
                assert (await read_response(newcomer)).startswith(b"HTTP/1.1 200 ")
            assert (await read_to_end(stranger)).startswith(b"HTTP/1.1 408 ")
            await known.send_all(b"456789")
            assert b'"body":9' in await read_response(known)
        assert port.server.statistics().evicted == 1


async def test_the_end_waits_for_a_strangers_body_too() -> None:
    async with running_port() as port:
        stranger = await port.connect()
        async with stranger:
            head = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
            await stranger.send_all(head + b"123")
            while port.server.statistics().bodies_bytes < 3:
                await wait_all_tasks_blocked(0.01)
            port.server.stop()
            await wait_all_tasks_blocked(0.01)
            await stranger.send_all(b"456789")
            assert b'"body":9' in await read_to_end(stranger)


async def test_when_all_are_busy_new_ones_wait_their_turn() -> None:
    async with running_port(HttpSettings(connections_max=1)) as port:
        busy = await port.connect()
        await busy.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await port.gate.entered.wait()
        waiting = await port.connect()
        async with busy, waiting:
            await waiting.send_all(GET)
            await wait_all_tasks_blocked()
            assert port.server.statistics().connections == 1
            port.gate.opened.set()
            assert b"through" in await read_to_end(busy)
            assert (await read_response(waiting)).startswith(b"HTTP/1.1 200 ")


async def test_bodies_together_have_a_bound() -> None:
    head = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    async with running_port(HttpSettings(bodies_bytes_max=150_000)) as port:
        holding = await port.connect()
        async with holding:
            await holding.send_all(head + b"a" * 99_999)
            while port.server.statistics().bodies_bytes < 99_999:
                await wait_all_tasks_blocked(0.01)
            answer = await port.say(head + b"a" * 100_000)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in answer
            await holding.send_all(b"a")
            assert b'"body":100000' in await read_response(holding)
            statistics = port.server.statistics()
            assert statistics.bodies_bytes == 0
            # One client can bring this about: it must not open a public incident.
            assert (statistics.responses_by_class[5], statistics.failures) == (1, 0)


async def test_one_account_has_at_most_half_of_the_room_for_bodies() -> None:
    own = b"POST /own HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n" + SIGNED + b"\r\n"
    anybodys = b"POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
    async with running_port(HttpSettings(bodies_bytes_max=200_000)) as port:
        holding = await port.connect()
        async with holding:
            await holding.send_all(own + b"a" * 59_999)
            while port.server.statistics().bodies_bytes < 59_999:
                await wait_all_tasks_blocked(0.01)
            more, other = await port.connect(), await port.connect()
            async with more, other:
                await more.send_all(own + b"a" * 60_000)
                assert (await read_response(more)).startswith(b"HTTP/1.1 503 ")
                await other.send_all(anybodys + b"a" * 60_000)
                assert b'"body":60000' in await read_response(other)
            await holding.send_all(b"a")
            assert b'"body":60000' in await read_response(holding)
            # What was given back may be taken again.
            await holding.send_all(own + b"a" * 60_000)
            assert b'"body":60000' in await read_response(holding)
            assert port.server.statistics().bodies_bytes == 0


async def test_the_end_finishes_what_was_begun_and_nothing_else() -> None:
    async with running_port() as port:
        idle, busy = await port.connect(), await port.connect()
        async with idle, busy:
            await idle.send_all(GET)
            await read_response(idle)
            await busy.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
            await port.gate.entered.wait()
            port.server.stop()
            assert await read_to_end(idle) == b""
            with pytest.raises(OSError, match="all attempts"):
                await port.connect()
            port.gate.opened.set()
            answer = await read_to_end(busy)
            assert b"through" in answer
            assert b"connection: close" in answer
            assert answer.count(b"HTTP/1.1 ") == 1


async def test_the_end_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with running_port(HttpSettings(stop_s=10.0)) as port:
        busy = await port.connect()
        async with busy:
            await busy.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await port.gate.entered.wait()
            port.server.stop()
            assert await read_to_end(busy) in (b"", b"<reset>")
            assert trio.current_time() == pytest.approx(10.0, abs=0.5)


async def test_what_a_handler_raises_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    async with running_port() as port:
        with caplog.at_level(logging.ERROR, "eilpost.http"):
            answer = await port.say(b"GET /fail HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b'"code":"internal"' in answer
        assert b"secret" not in answer
        assert b"Traceback" not in answer
        assert "a secret detail of the inside" in caplog.text


async def test_nothing_is_logged_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    request = b"GET /open/a?ticket=t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with caplog.at_level(logging.DEBUG, "eilpost"):
        async with running_port() as port:
            assert b" 200 " in await port.say(request)
    assert caplog.text == ""


async def test_what_signing_in_raises_costs_one_client_one_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_port() as port:
        with caplog.at_level(logging.ERROR, "eilpost.http"):
            # base64 of "broken:x", for which the harness's accounts fail
            answer = await port.say(
                b"GET /own HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YnJva2VuOng=\r\n\r\n"
            )
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert "accounts are out of order" in caplog.text
        assert b"out of order" not in answer
        assert b" 200 " in await port.say(GET[:-2] + b"Connection: close\r\n\r\n")


async def test_a_handshake_that_is_never_begun_is_cut_off(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    async with running_port(HttpSettings(tls_certificate=tmp_path / "own.pem")) as port:
        stream = await port.connect()
        async with stream:
            assert await read_to_end(stream) in (b"", b"<reset>")
        assert trio.current_time() == pytest.approx(HttpSettings().handshake_s, abs=3.0)


async def test_half_sent_heads_take_no_place_from_whole_requests() -> None:
    async with running_port(HttpSettings(connections_max=20)) as port, trio.open_nursery() as slow:
        for _ in range(20):
            stream = await port.connect()
            slow.start_soon(hold_with_half_a_head, stream)
        await wait_all_tasks_blocked(0.01)
        for _ in range(60):
            answer = await port.say(GET[:-2] + b"Connection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
        slow.cancel_scope.cancel()


async def hold_with_half_a_head(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(GET[:20])
        await read_to_end(stream)
