"""A real port with a handful of routes, and raw conversations with it."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from engine.http_server import (
    Access,
    BodyFault,
    HttpError,
    HttpServer,
    HttpSettings,
    OperatorSessions,
    Request,
    Response,
    Route,
)
from protocols.records import Account

ANN = Account(account_id=1, name="ann", plan="", created_unix_ms=0)
NOW_UNIX_MS = 1_795_512_600_000
BODY_BYTES_MAX = 200_000
ANSWER_S = 20.0  # Far from any limit under test: a connection left open fails the test.


async def authenticate(api_key: str, secret: str) -> Account | None:
    if api_key == "broken":
        raise RuntimeError("the accounts are out of order")
    return ANN if (api_key, secret) == ("key", "sécret") else None


async def echo(request: Request) -> Response:
    return Response.json(
        {
            "method": request.method,
            "path": request.path,
            "params": request.params,
            "query": request.query,
            "body": len(request.body),
            "peer": request.peer,
            "account": request.identity.account.name if request.identity.account else None,
            "operator": request.identity.operator,
        }
    )


async def read_streamed(request: Request) -> Response:
    """Read a body in its parts; tell how it ended and what was read until then.

    `?pause=` has so many seconds go by after each part.
    """
    read = parts = 0
    pause_s = float(dict(request.query).get("pause", 0))
    try:
        async for octets in request.body_parts():
            assert octets, "a part has at least one octet"
            read, parts = read + len(octets), parts + 1
            await trio.sleep(pause_s)
    except BodyFault as fault:
        return Response.json({"read": read, "fault": fault.code}, fault.status)
    return Response.json({"read": read, "parts": parts})


async def fail(request: Request) -> Response:
    raise KeyError("a secret detail of the inside")


@dataclass
class Gate:
    """A handler that answers when the test lets it."""

    entered: trio.Event
    opened: trio.Event

    async def wait(self, request: Request) -> Response:
        self.entered.set()
        await self.opened.wait()
        return Response.json("through")


@dataclass
class Port:
    server: HttpServer
    port: int
    gate: Gate
    operators: OperatorSessions
    control: Path | None

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def say(self, *pieces: bytes) -> bytes:
        """Send pieces in writes of their own and return everything until the server closes."""
        with trio.fail_after(ANSWER_S):
            stream = await self.connect()
            async with stream:
                for piece in pieces:
                    await stream.send_all(piece)
                return await read_to_end(stream)


def routes(gate: Gate) -> list[Route]:
    return [
        Route("GET", "/open/{name}", echo, Access.OPEN),
        Route("GET", "/open/literal", fail, Access.OPEN),
        Route("POST", "/open", echo, Access.OPEN, body_bytes_max=BODY_BYTES_MAX),
        Route("GET", "/own", echo),
        Route("POST", "/own", echo),
        Route("GET", "/optional", echo, Access.OPTIONAL),
        Route("GET", "/operator", echo, Access.OPERATOR),
        Route("GET", "/fail", fail, Access.OPEN),
        Route("GET", "/wait", gate.wait, Access.OPEN),
        Route("GET", "/Folded/{id}", echo, Access.OPEN, folds_case=True),
        Route("GET", "/refused", refuse, Access.OPEN),
        Route("POST", "/streamed", read_streamed, Access.OPEN, streamed=True),
        Route("POST", "/unread", refuse, Access.OPEN, streamed=True),
        Route("POST", "/streamed/own", read_streamed, streamed=True),
    ]


async def refuse(request: Request) -> Response:
    raise HttpError(409, "conflict", "It is there already.", "name")


@asynccontextmanager
async def running_port(
    settings: HttpSettings = HttpSettings(),  # noqa: B008 -- frozen, so shared without harm
) -> AsyncIterator[Port]:
    settings = replace(settings, listen=("127.0.0.1:0",)) if settings.listen else settings
    gate = Gate(trio.Event(), trio.Event())
    secrets = (f"secret number {n}" for n in itertools.count())
    operators = OperatorSessions(
        now_unix_ms=lambda: NOW_UNIX_MS, secret_text=secrets.__next__, signing_key=bytes(32)
    )
    server = HttpServer(
        settings,
        routes(gate),
        authenticate=authenticate,
        operators=operators,
        now_unix_ms=lambda: NOW_UNIX_MS,
    )
    async with trio.open_nursery() as nursery:
        [(_, port)] = await nursery.start(server.serve)
        yield Port(server, port, gate, operators, settings.control_socket)
        server.stop()
        gate.opened.set()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    try:
        async for piece in stream:
            data += piece
    except trio.BrokenResourceError:
        data += b"<reset>"
    return data


async def read_response(stream: trio.abc.ReceiveStream) -> bytes:
    """Read one response with a Content-Length from a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    head, _, body = data.partition(b"\r\n\r\n")
    [length] = [
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.startswith(b"content-length")
    ]
    while len(body) < length:
        body += await stream.receive_some()
    assert len(body) == length
    return data[: len(head) + 4] + body
