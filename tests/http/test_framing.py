"""What the octets of a request may look like, and what is answered to all others."""

import pytest
import trio

from tests.http.port import BODY_BYTES_MAX, read_response, read_to_end, running_port

HOST = b"Host: x\r\n"
CLOSE = b"Connection: close\r\n"

# Each of these could be read in two ways, or asks for what is not ours to do: one answer, the end.
REFUSED = {
    "two framings": (
        b"POST /open HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n",
        400,
    ),
    "two framings, swapped": (
        b"POST /open HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"
        b"0\r\n\r\n",
        400,
    ),
    "two lengths": (
        b"POST /open HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        400,
    ),
    "length with a sign": (
        b"POST /open HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nabcde",
        400,
    ),
    "length in hexadecimal": (
        b"POST /open HTTP/1.1\r\n" + HOST + b"Content-Length: 0x5\r\n\r\nabcde",
        400,
    ),
    "negative length": (b"POST /open HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "chunked in HTTP/1.0": (
        b"POST /open HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "another transfer coding": (
        b"POST /open HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "chunk size overflow": (
        b"POST /open HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"F" * 40
        + b"\r\nabc",
        400,
    ),
    "chunk without its end": (
        b"POST /open HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
        400,
    ),
    "folded header": (b"GET /open/a HTTP/1.1\r\n" + HOST + b"X-Long: one\r\n two\r\n\r\n", 400),
    "bare line feeds": (b"GET /open/a HTTP/1.1\nHost: x\n\n", 400),
    "one bare line feed": (b"GET /open/a HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400),
    "space before the colon": (b"GET /open/a HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n", 400),
    "NUL in a header": (b"GET /open/a HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", 400),
    "no Host": (b"GET /open/a HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /open/a HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "SMTP": (b"EHLO out.example\r\n\r\n", 400),
    "a target without a slash": (b"GET open HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "a path that is not UTF-8": (b"GET /open/%FF HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "CONNECT": (b"CONNECT x:25 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 405),
    "a head of 17 kB": (
        b"GET /open/a HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 17_000 + b"\r\n\r\n",
        431,
    ),
    "a head without an end": (b"GET /" + b"a" * 17_000, 431),
    "an expectation": (
        b"POST /open HTTP/1.1\r\n" + HOST + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\na",
        417,
    ),
    "gzip": (
        b"POST /open HTTP/1.1\r\n"
        + HOST
        + CLOSE
        + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        415,
    ),
    "too long by its own word": (
        b"POST /open HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999\r\n\r\n",
        413,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str) -> None:
    octets, status = REFUSED[name]
    async with running_port() as port:
        answer = await port.say(octets)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert answer.count(b"HTTP/1.1") == 1
        assert b'{"error":{"code":"' in answer
        assert b"connection: close" in answer.lower()


async def test_what_strangers_send_is_no_failure_of_ours() -> None:
    """The status page tells of failures: nobody without credentials may write on it."""
    unknown = b"GET /open/a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n"
    async with running_port() as port:
        assert (await port.say(unknown)).startswith(b"HTTP/1.1 501 ")
        for octets, _ in REFUSED.values():
            await port.say(octets)
        assert port.server.statistics().failures == 0
        await port.say(b"GET /fail HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        assert port.server.statistics().failures == 1


async def test_two_readers_cannot_be_made_to_disagree() -> None:
    """What follows a refused request is never taken for a request."""
    smuggled = b"GET /open/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    async with running_port() as port:
        for octets, _ in REFUSED.values():
            await port.say(octets + smuggled)
        answered = port.server.statistics().responses_by_class
        assert set(answered) <= {4, 5}
        assert sum(answered.values()) == len(REFUSED)


async def test_a_length_said_twice_alike_is_one_length() -> None:
    async with running_port() as port:
        head = (
            b"POST /open HTTP/1.1\r\n"
            + HOST
            + CLOSE
            + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n"
        )
        assert b'"body":2' in await port.say(head + b"ab")


async def test_absolute_form_and_escapes() -> None:
    async with running_port() as port:
        answer = await port.say(
            b"GET http://x/open/b%C3%A4%2Fr?a=1&a=%20&b HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
        )
        assert '"params":{"name":"bä/r"}'.encode() in answer
        assert b'"query":[["a","1"],["a"," "],["b",""]]' in answer


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            requests = [b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n"]
            requests += [b"GET /open/%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(20)]
            requests += [b"GET /open/last HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"]
            await stream.send_all(b"".join(requests))
            await port.gate.entered.wait()
            port.gate.opened.set()
            data = b""
            async for piece in stream:
                data += piece
        paths = [part.split(b'"')[0] for part in data.split(b'"path":"')[1:]]
        assert data.index(b"through") < data.index(b'"path"')
        assert paths == [b"/open/%d" % n for n in range(20)] + [b"/open/last"]


async def test_every_split_of_a_request_is_the_same_request() -> None:
    head = b"POST /open HTTP/1.1\r\n" + HOST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
    request = head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: t\r\n\r\n"
    async with running_port() as port:
        async with trio.open_nursery() as nursery:

            async def split_at(place: int) -> None:
                assert b'"body":5' in await port.say(request[:place], request[place:])

            for place in range(1, len(request)):
                nursery.start_soon(split_at, place)
        assert port.server.statistics().responses_by_class == {2: len(request) - 1}


async def test_a_kept_connection_survives_refusals_without_a_body() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            for target, status in [(b"/nowhere", 404), (b"/own", 401), (b"/open/a", 200)]:
                await stream.send_all(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
                assert (await read_response(stream)).startswith(b"HTTP/1.1 %d " % status)
            # A small body that has arrived is thrown away, and the connection goes on, too.
            await stream.send_all(
                b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}"
            )
            assert (await read_response(stream)).startswith(b"HTTP/1.1 404 ")
            await stream.send_all(b"GET /open/a HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (await read_response(stream)).startswith(b"HTTP/1.1 200 ")


async def test_head_is_get_without_the_body() -> None:
    async with running_port() as port:
        answer = await port.say(b"HEAD /open/a HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-length: 1" in head
        assert body == b""


async def test_a_body_in_chunks_is_cut_off_where_it_becomes_too_long() -> None:
    chunk = b"%x\r\n" % 65_536 + b"a" * 65_536 + b"\r\n"
    async with running_port() as port:
        head = b"POST /open HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = await port.say(head, *[chunk] * (BODY_BYTES_MAX // 65_536 + 2))
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
        assert port.server.statistics().bodies_bytes == 0


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_may_be_as_long_as_its_route_says(is_chunked: bool) -> None:
    async with running_port() as port:
        for length, status in ((BODY_BYTES_MAX, b"200"), (BODY_BYTES_MAX + 1, b"413")):
            framing, body = b"Content-Length: %d\r\n" % length, b"a" * length
            if is_chunked:
                framing = b"Transfer-Encoding: chunked\r\n"
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (length, body)
            head = b"POST /open HTTP/1.1\r\n" + HOST + CLOSE + framing + b"\r\n"
            answer = await port.say(head, body)
            assert answer.startswith(b"HTTP/1.1 %b " % status), answer[:200]


async def test_a_client_that_waits_to_be_asked_is_asked_only_for_what_is_wanted() -> None:
    expect = HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n"
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(b"POST /open HTTP/1.1\r\n" + expect + b"\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
            await stream.send_all(b"abc")
            assert b'"body":3' in await read_response(stream)
        refused = await port.say(b"POST /own HTTP/1.1\r\n" + expect + b"\r\n")
        assert refused.startswith(b"HTTP/1.1 401 ")


async def test_a_client_that_leaves_in_a_body_costs_nothing() -> None:
    async with running_port() as port:
        stream = await port.connect()
        async with stream:
            await stream.send_all(
                b"POST /open HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nabc"
            )
            await stream.send_eof()
            assert (await read_to_end(stream)).startswith(b"HTTP/1.1 400 ")
        assert port.server.statistics().bodies_bytes == 0


@pytest.mark.parametrize(
    ("request_octets", "text"),
    [
        (b"GET /open/a HTTP/1.1\r\nno colon\r\n\r\n", b"Not valid HTTP: illegal header line."),
        (b"GET /open/a HTTP/1.1\r\n" + HOST + b"a\xff: b\r\n\r\n", b"illegal header line."),
        (b"G\xff /open/a HTTP/1.1\r\n" + HOST + b"\r\n", b"illegal request line."),
        (
            b"POST /open HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"illegal chunk header.",
        ),
        (b"GET /open/a?a=%ff HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", b"is not UTF-8"),
        (
            b"GET /open/a?" + b"a&" * 201 + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
            b"has more than 200 fields.",
        ),
    ],
)
async def test_refusals_are_in_our_own_words(request_octets: bytes, text: bytes) -> None:
    async with running_port() as port:
        answer = await port.say(request_octets)
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert text in answer, answer
        for foreign in (b"bytearray", b"b'", b"codec", b"\\x"):
            assert foreign not in answer, answer
