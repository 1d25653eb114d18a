"""A send door over a real port and the memory spool, with the account of a sender."""

import base64
import http.client
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.clock import SystemClock
from engine.config import Config, Delivery, load_typos
from engine.http_server import HttpServer, HttpSettings, OperatorSessions
from engine.intake.accounts import Accounts, NewAccount, create_account
from engine.intake.accounts_http import AccountsDoor
from engine.intake.campaigns_http import CampaignsDoor
from engine.intake.check_http import CheckDoor
from engine.intake.quota_http import QuotaDoor
from engine.intake.send import SendDoor
from engine.intake.suppressions_http import SuppressionsDoor
from engine.spool import open_spool
from engine.spool.interface import Spool, SpoolSettings
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import Envelope


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Door:
    """The running door, and what is behind it."""

    spool: Spool
    config: Config
    sender: NewAccount
    port: int
    control: Path | None

    async def post(
        self,
        root: object,
        *,
        headers: Mapping[str, str] = {},
        path: str = "/v3.1/send",
        secret: str | None = None,
        method: str = "POST",
    ) -> Answer:
        body = root if isinstance(root, bytes) else json.dumps(root).encode()
        pair = f"{self.sender.api_key}:{self.sender.secret_key if secret is None else secret}"
        sent = {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode(), **headers}
        return await trio.to_thread.run_sync(self._ask, method, path, body, sent)

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    async def envelopes(self) -> list[Envelope]:
        """Everything accepted, oldest first."""
        page = await self.spool.find(EnvelopeFilter(), None, 1000)
        return sorted(page.envelopes, key=lambda envelope: envelope.fixed.envelope_id)

    async def octets(self) -> list[bytes]:
        """The content of each envelope, oldest first."""
        ids = [envelope.fixed.content_id for envelope in await self.envelopes()]
        contents = await self.spool.content(ids)
        return [contents[content_id].octets for content_id in ids]


OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]


@asynccontextmanager
async def open_door(
    config: Config | None = None,
    *,
    plan: str = "",
    control: Path | None = None,
    url: str = "memory:",
    data_dir: Path = Path(),
    sender: NewAccount | None = None,
    wrap: Callable[[Spool], Spool] = lambda spool: spool,
) -> AsyncIterator[Door]:
    config = config or Config(delivery=Delivery(ehlo_name="mail.out.example"))
    clock = SystemClock()
    async with open_spool(
        url,
        data_dir,
        settings=SpoolSettings(),
        clock=clock,
        run_blocking=trio.to_thread.run_sync,
        random=random.Random(1),
    ) as inner:
        spool = wrap(inner)
        sender = sender or await create_account(
            spool,
            config,
            "sender",
            plan=plan,
            now_unix_ms=clock.now_unix_ms(),
            random_octets=os.urandom,
        )
        typos = load_typos(config.intake.typo_files)
        send_door = SendDoor(
            spool,
            config,
            typos=typos,
            clock=clock,
            random_octets=os.urandom,
            run_blocking=trio.to_thread.run_sync,
        )
        accounts_door = AccountsDoor(spool, config, clock=clock, random_octets=os.urandom)
        check_door = CheckDoor(typos, run_blocking=trio.to_thread.run_sync)
        campaigns_door = CampaignsDoor(spool, config, typos=typos, random_octets=os.urandom)
        server = HttpServer(
            HttpSettings(listen=("127.0.0.1:0",), control_socket=control),
            [
                *send_door.routes(),
                *accounts_door.routes(),
                *QuotaDoor(spool, config, clock=clock).routes(),
                *SuppressionsDoor(spool, clock=clock).routes(),
                *check_door.routes(),
                *campaigns_door.routes(),
            ],
            authenticate=Accounts(spool).owner_of,
            operators=OperatorSessions(
                now_unix_ms=clock.now_unix_ms,
                secret_text=lambda: os.urandom(20).hex(),
                signing_key=os.urandom(32),
            ),
            now_unix_ms=clock.now_unix_ms,
        )
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(server.serve)
            yield Door(spool, config, sender, addresses[0][1], control)
            server.stop()


@pytest.fixture
def door() -> OpenDoor:
    """How to open the door: `async with door(...) as opened`."""
    return open_door
