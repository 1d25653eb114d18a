"""The one module that knows every room: opens them, connects them, stops them in order.

It decides nothing. The five seams (clock, random, resolver, connect, run_blocking) are
arguments, so that the same engine runs on sockets and threads or in a simulation.

The order of the end: the port accepts nothing new, delivery pulls nothing new and brings
what is in flight to its end, the spool settles it and is closed. A cancellation skips all
of that and is a crash, which loses nothing either.
"""

import os
import random
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from engine.clock import Clock, SystemClock
from engine.config import Config, load_typos
from engine.delivery.resolver import DnsResolver, Resolver
from engine.delivery.service import Delivery, resolver_for
from engine.delivery.shaping_http import ShapingDoor
from engine.delivery.wire import Connect, connect_tcp
from engine.http_server import (
    HttpServer,
    HttpSettings,
    HttpSetupError,
    OperatorSessions,
    Route,
)
from engine.intake.accounts import Accounts
from engine.intake.accounts_http import AccountsDoor
from engine.intake.campaigns_http import CampaignsDoor
from engine.intake.check_http import CheckDoor
from engine.intake.quota_http import QuotaDoor
from engine.intake.send import SendDoor
from engine.intake.suppressions_http import SuppressionsDoor
from engine.spool import RunBlocking, open_spool
from engine.spool.housekeeping import run_housekeeping
from engine.spool.interface import Spool, SpoolSettings
from engine.spool.lmdb_files import sync_directory
from engine.watch.service import Watch
from engine.watch.sessions import operator_url
from engine.watch.status.service import Mailing


def in_a_thread() -> RunBlocking:
    """Return a way to wait for blocking work in worker threads, which are few and kept."""

    async def run(function: Callable[..., Any], /, *arguments: Any) -> Any:
        return await trio.to_thread.run_sync(function, *arguments)

    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What the world is to the engine. The defaults are the real one."""

    clock: Clock = field(default_factory=SystemClock)
    rand: random.Random = field(default_factory=random.SystemRandom)
    resolver: Resolver | None = None  # None: DNS, as the configuration asks.
    connect: Connect = connect_tcp
    run_blocking: RunBlocking = field(default_factory=in_a_thread)
    random_octets: Callable[[int], bytes] = os.urandom


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine."""

    config: Config
    spool: Spool
    delivery: Delivery
    http: HttpServer
    operators: OperatorSessions

    def operator_url(self) -> str:
        """Return a link to the dashboard that signs in one operator, once."""
        return operator_url(self.config.public_url, self.operators)


@asynccontextmanager
async def running_engine(config: Config, seams: Seams) -> AsyncIterator[Engine]:
    """Run the engine while the block runs, and stop it in order when the block is left."""
    async with open_spool(
        config.spool.url,
        config.data_dir,
        settings=spool_settings(config),
        clock=seams.clock,
        run_blocking=seams.run_blocking,
        random=seams.rand,
    ) as spool:
        # The spool's time, not the machine's: due times are made by a stamp that never runs
        # backwards, and whoever compares them with a clock that was set back waits for nothing.
        clock: Clock = spool
        resolver = seams.resolver or resolver_for(config)
        delivery = Delivery(spool, config, clock, seams.rand, resolver, seams.connect)
        operators = OperatorSessions(
            now_unix_ms=clock.now_unix_ms,
            secret_text=lambda: seams.random_octets(20).hex(),
            signing_key=signing_key(config.data_dir / "operator.key", seams.random_octets),
        )
        watch = Watch(
            spool,
            config,
            now_unix_ms=clock.now_unix_ms,
            secret_text=lambda: seams.random_octets(20).hex(),
            live=lambda: delivery.statistics().destinations,
            delivering=delivery,
            operators=operators,
            name_servers=resolver if isinstance(resolver, DnsResolver) else None,
            mailing=Mailing(
                signing_key(config.data_dir / "status.key", seams.random_octets),
                seams.random_octets,
            ),
        )
        http = HttpServer(
            http_settings(config),
            [
                *intake_routes(spool, config, clock, seams),
                *watch.routes(),
                *ShapingDoor(delivery, clock).routes(),
            ],
            authenticate=Accounts(spool).owner_of,
            operators=operators,
            now_unix_ms=clock.now_unix_ms,
        )
        watch.attach(http)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_housekeeping, spool, clock)
            nursery.start_soon(watch.run)
            delivered, served = trio.Event(), trio.Event()
            await nursery.start(_run_then_tell, delivery.run, delivered)
            await nursery.start(_run_then_tell, http.serve, served)
            watch.is_ready = True
            yield Engine(config, spool, delivery, http, operators)
            watch.is_ready = False
            http.stop()
            delivery.stop()
            await delivered.wait()
            await served.wait()
            nursery.cancel_scope.cancel()


async def serve(
    config: Config,
    stop: trio.Event,
    *,
    announce: Callable[[Engine], None],
    seams: Seams | None = None,
) -> None:
    """Run the engine until `stop` is set; `announce` is called once it accepts and delivers.

    Raises SpoolUnusable, HttpSetupError or OSError, naming what stands in the way of a start,
    and SpoolFailed when the engine had to end because a commit failed.
    """
    async with running_engine(config, seams or Seams()) as engine:
        announce(engine)
        await stop.wait()


def intake_routes(spool: Spool, config: Config, clock: Clock, seams: Seams) -> list[Route]:
    typos = load_typos(config.intake.typo_files)
    send = SendDoor(
        spool,
        config,
        typos=typos,
        clock=clock,
        random_octets=seams.random_octets,
        run_blocking=seams.run_blocking,
    )
    accounts = AccountsDoor(spool, config, clock=clock, random_octets=seams.random_octets)
    check = CheckDoor(typos, run_blocking=seams.run_blocking)
    suppressions = SuppressionsDoor(spool, clock=clock)
    campaigns = CampaignsDoor(spool, config, typos=typos, random_octets=seams.random_octets)
    quota = QuotaDoor(spool, config, clock=clock)
    doors = (send, accounts, quota, suppressions, check, campaigns)
    return [route for door in doors for route in door.routes()]


def signing_key(file: Path, random_octets: Callable[[int], bytes]) -> bytes:
    """Return a key to sign with, of 32 octets; make it the first time, durably.

    Raises HttpSetupError for one that others may have read, or put there for us to find: whoever
    knows it is an operator.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        key = random_octets(32)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
            made.write(key)
            made.flush()
            os.fsync(made.fileno())
        sync_directory(file.parent)
    else:
        with open(descriptor, "rb") as given:
            mode = os.fstat(descriptor).st_mode
            key = given.read(33)
        if mode & 0o077:
            text = (
                f"{file} is open to others (mode {stat.S_IMODE(mode):o}): remove it, and the next"
            )
            raise HttpSetupError(f"{text} start makes a new one; links that it signed end with it.")
    if len(key) != 32:
        # Torn by a crash in the moment it was made: nobody can have signed with it yet.
        file.unlink()
        return signing_key(file, random_octets)
    return key


def spool_settings(config: Config) -> SpoolSettings:
    return SpoolSettings(
        max_age_ms=round(config.delivery.max_age_s * 1000),
        events_retention_ms=round(config.events.retention_s * 1000),
        events_retention_bytes=config.events.retention_bytes,
    )


def http_settings(config: Config) -> HttpSettings:
    return HttpSettings(
        listen=(str(config.http.listen),),
        tls_certificate=config.http.tls_certificate,
        tls_key=config.http.tls_key,
        behind_proxy=config.http.behind_proxy,
        control_socket=config.control_socket,
        public_url=config.public_url,
        contact=config.contact,
    )


async def _run_then_tell(
    run: Callable[..., Awaitable[None]], done: trio.Event, *, task_status: trio.TaskStatus[Any]
) -> None:
    await run(task_status=task_status)
    done.set()
