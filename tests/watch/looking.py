"""A watch room over a real port and a spool, and people who look: over HTTP and by websocket."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import requests
import trio
import websocket

from engine.clock import Clock
from engine.config import Config
from engine.http_server import HttpServer, HttpSettings, OperatorSessions
from engine.intake.accounts import Accounts
from engine.spool.interface import Spool
from engine.watch.service import Watch
from protocols.records import Account, ApiKey
from tests.spool.harness import Harness, SettableClock

API_KEY = "key-acme"
SECRET = "a secret"
PATIENCE_S = 10.0  # A frame that has not come by then will not come.


@dataclass(frozen=True, slots=True)
class LiveOne:
    """What delivery would say of a destination with an actor."""

    state: str
    site: str = ""
    connections: int = 0
    rate_per_s: float = 0.0


@dataclass
class Look:
    """The room, its port, and one account."""

    spool: Spool
    clock: SettableClock
    watch: Watch
    server: HttpServer
    port: int
    operators: OperatorSessions
    account: Account
    live: dict[str, LiveOne] = field(default_factory=dict)

    def operator(self) -> tuple[str, str]:
        session = self.operators.exchange(self.operators.new_token())
        assert session is not None
        return session.api_key, session.secret_key

    async def get(self, path: str, who: str | tuple[str, str] = "acme") -> requests.Response:
        """Ask as an account by name, with a key and secret, or ("", "") as nobody."""
        return await self.ask("GET", path, who)

    async def ask(
        self, method: str, path: str, who: str | tuple[str, str] = "acme", **more: Any
    ) -> requests.Response:
        headers = {**more.pop("headers", {}), **credentials(who)}
        url = f"http://127.0.0.1:{self.port}{path}"
        return await trio.to_thread.run_sync(
            lambda: requests.request(method, url, headers=headers, timeout=PATIENCE_S, **more)
        )

    async def json(self, path: str, who: str | tuple[str, str] = "acme") -> Any:
        response = await self.get(path, who)
        assert response.status_code == 200, response.text
        return response.json()

    @asynccontextmanager
    async def stream(
        self,
        who: str | tuple[str, str] = "acme",
        *,
        query: str = "",
        subprotocol: str | list[str] | None = "eilpost.v1+json",
        **options: Any,
    ) -> AsyncIterator["Listener"]:
        """Open a stream. websocket.WebSocketBadStatusException says what was refused."""

        def connect() -> websocket.WebSocket:
            return websocket.create_connection(
                f"{'wss' if 'sslopt' in options else 'ws'}://127.0.0.1:{self.port}/v1/stream{query}",
                header=credentials(who),
                subprotocols=[subprotocol] if isinstance(subprotocol, str) else subprotocol,
                suppress_origin="origin" not in options,
                timeout=PATIENCE_S,
                **options,
            )

        client = await trio.to_thread.run_sync(connect)
        try:
            yield Listener(client)
        finally:
            client.shutdown()  # type: ignore[no-untyped-call] # the library's own lack


async def make_account(spool: Spool, name: str) -> Account:
    key = ApiKey(f"key-{name}", 0, sha256(SECRET.encode()).digest(), 0)
    return await spool.create_account(Account(0, name, "", 0), key)


def credentials(who: str | tuple[str, str]) -> dict[str, str]:
    key, secret = who if isinstance(who, tuple) else (f"key-{who}", SECRET)
    if not key:
        return {}
    pair = base64.b64encode(f"{key}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


class Listener:
    """One client of the stream, by a websocket library that is not ours."""

    def __init__(self, client: websocket.WebSocket) -> None:
        self.client = client
        self.is_binary = client.getsubprotocol() == "eilpost.v1+msgpack"

    async def say(self, frame: Mapping[str, Any] | str | bytes) -> None:
        octets: str | bytes
        if isinstance(frame, str | bytes):
            octets = frame
        else:
            octets = msgpack.packb(frame) if self.is_binary else json.dumps(frame)
        opcode = websocket.ABNF.OPCODE_BINARY if isinstance(octets, bytes) else 1
        await trio.to_thread.run_sync(self.client.send, octets, opcode)

    async def hear(self) -> Any:
        """Return the next frame, decoded."""
        data = await trio.to_thread.run_sync(self.client.recv)
        assert data, "the server closed"
        return msgpack.unpackb(data) if self.is_binary else json.loads(data)

    async def hear_to(self, seq: int) -> list[dict[str, Any]]:
        """Return the events of all batches until the cursor has reached a place in the log."""
        events: list[dict[str, Any]] = []
        while True:
            batch = await self.hear()
            events += batch["events"]
            if place(batch["cursor"]) >= seq:
                return events

    async def hear_events(self, count: int) -> list[dict[str, Any]]:
        """Return `count` events, having checked that each batch begins where the last ended."""
        events: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(events) < count:
            batch = await self.hear()
            assert set(batch) == {"after", "events", "cursor"}, batch
            assert cursor is None or batch["after"] == cursor
            cursor = batch["cursor"]
            events += batch["events"]
            if batch["events"]:
                assert place(batch["cursor"]) >= place(batch["events"][-1]["cursor"])
        assert len(events) == count
        return events


def place(cursor: str) -> int:
    return int(cursor.rpartition("-")[2])


@asynccontextmanager
async def looking(
    harness: Harness,
    *,
    config: Config | None = None,
    certificate: Path | None = None,
) -> AsyncIterator[Look]:
    """Open the spool, the room and the port; one account, "acme", is there or is made."""
    live: dict[str, LiveOne] = {}
    secrets = (f"unguessable-{number}" for number in range(100_000))
    clock: Clock = harness.clock
    async with harness.open() as spool, trio.open_nursery() as nursery:
        operators = OperatorSessions(
            now_unix_ms=clock.now_unix_ms, secret_text=secrets.__next__, signing_key=bytes(32)
        )
        watch = Watch(
            spool,
            config or Config(),
            now_unix_ms=clock.now_unix_ms,
            secret_text=secrets.__next__,
            live=lambda: live,
            operators=operators,
        )
        server = HttpServer(
            HttpSettings(listen=("127.0.0.1:0",), tls_certificate=certificate),
            watch.routes(),
            authenticate=Accounts(spool).authenticate,
            operators=operators,
            now_unix_ms=clock.now_unix_ms,
        )
        watch.attach(server)
        nursery.start_soon(watch.run)
        [(_, port)] = await nursery.start(server.serve)
        known = await spool.api_key(API_KEY)
        account = known[1] if known else await make_account(spool, "acme")
        yield Look(spool, harness.clock, watch, server, port, operators, account, live)
        nursery.cancel_scope.cancel()
