"""The composed engine in virtual time, with receivers without sockets, asked like over HTTP."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from engine.clock import VirtualClock
from engine.compose import Engine, Seams, running_engine
from engine.config import Config, Http, Route, Rule, SpoolTable, StatusTable
from engine.config_values import ListenAddress
from engine.delivery.resolver import Resolver
from engine.http_server import HttpError, Identity, Request, Response, error_response
from engine.http_server.routing import Router
from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.memory_network import MemoryNetwork
from engine.rehearsal.receiver import Receiver
from engine.rehearsal.resolver import TableResolver
from engine.rehearsal.zones import Records, Zones
from engine.watch.status.links import Links, Wish
from protocols.records import Account
from tests.delivery.world import config as delivery_config
from tests.spool.harness import accept, make_account, message, run_inline

# A Tuesday, half past nine in UTC.
START_UNIX_MS = 1_795_512_600_000
OPERATOR = Identity(operator=True)


@dataclass
class Running:
    """A place for engines: what the world is, and the spool's name. `engine` is the living one."""

    data_dir: Path
    spool_url: str
    zones: Zones = field(default_factory=lambda: Zones({}))
    receivers: dict[str, Receiver] = field(default_factory=dict)
    status: StatusTable = field(default_factory=lambda: StatusTable(site_messages_min=20))
    rules: tuple[Rule, ...] = ()
    routes: tuple[Route, ...] = ()
    resolver: Resolver | None = None
    engine: Engine | None = None
    seed: int = 1
    _known: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = VirtualClock(START_UNIX_MS)
        self.network = MemoryNetwork(self.receivers, connect_s=0.01)

    def add(
        self, domain: str, behaviour: Behaviour | None = None, *, is_up: bool = True
    ) -> Receiver:
        """Let `domain` have mail servers, at which somebody answers if they are up."""
        host, address = f"mx.{domain}", f"127.0.0.{len(self._known) + 1}"
        self.zones.set(host, Records(a=(address,)))
        self.zones.set(domain, Records(mx=((10, host),)))
        receiver = Receiver(host, behaviour or Behaviour())
        self._known.append(domain)
        if is_up:
            self.receivers[address] = receiver
        return receiver

    def address_of(self, domain: str) -> str:
        return f"127.0.0.{self._known.index(domain) + 1}"

    @property
    def config(self) -> Config:
        settings = delivery_config(retry_s=(60.0, 120.0))
        return Config(
            data_dir=self.data_dir,
            http=Http(listen=ListenAddress("127.0.0.1", 0), public_url="https://mail.example"),
            spool=SpoolTable(url=self.spool_url),  # type: ignore[arg-type]  # a memory spool has a name
            delivery=settings.delivery,
            rules=self.rules,
            routes=self.routes,
            status=self.status,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        rand = random.Random(self.seed)
        self.seed += 1
        seams = Seams(
            clock=self.clock,
            rand=rand,
            resolver=self.resolver or TableResolver(self.zones),
            connect=self.network.connect,
            run_blocking=run_inline,
            random_octets=rand.randbytes,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.network.serve)
            async with running_engine(self.config, seams) as engine:
                self.engine = engine
                try:
                    yield engine
                finally:
                    self.engine = None
            nursery.cancel_scope.cancel()

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        who: Identity = OPERATOR,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        peer: str = "192.0.2.1",
    ) -> Response:
        """Ask the engine's handlers; `body` is octets, or a value that is sent as JSON."""
        assert self.engine is not None
        path, _, raw_query = target.partition("?")
        octets = body if isinstance(body, bytes) else msgspec.json.encode(body) if body else b""
        try:
            route, params, path = Router(self.engine.http.routes).find(method, path)
            request = Request(method, path, raw_query, headers, params, octets, who, peer=peer)
            return await route.handler(request)
        except HttpError as error:
            return error_response(error)

    async def status_now(self) -> Any:
        return msgspec.json.decode((await self.ask("GET", "/v1/status")).body)

    def links(self) -> Links:
        """What the engine signs with."""
        return Links((self.data_dir / "status.key").read_bytes(), "https://mail.example")

    async def subscribe(self, wish: Wish) -> None:
        """Press the button behind the link in a confirmation."""
        link = urlsplit(self.links().confirmation(wish))
        answer = await self.ask("POST", f"{link.path}?{link.query}")
        assert answer.status == 200, answer.body

    async def subscribers(self) -> list[str]:
        answer = msgspec.json.decode((await self.ask("GET", "/v1/status/subscribers")).body)
        return [each["address"] for each in answer["subscribers"]]

    async def account(self, name: str) -> Account:
        assert self.engine is not None
        return await make_account(self.engine.spool, name)

    async def send(self, account: Account, domain: str, count: int) -> None:
        assert self.engine is not None
        for number in range(count):
            address = f"{account.name}{number}@{domain}"
            await accept(self.engine.spool, account, message(address))

    async def wait_for(self, met: Callable[[Any], object], within_s: float) -> Any:
        """Wait until `/v1/status` is as wanted; return it, having asked every few seconds."""
        with trio.fail_after(within_s):
            while True:
                status = await self.status_now()
                if met(status):
                    return status
                await trio.sleep(5.0)
