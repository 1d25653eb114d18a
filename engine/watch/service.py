"""The room's one entry: what people look on with, connected."""

from collections.abc import Callable, Iterator

import trio

from engine.config import Config
from engine.http_server import Route
from engine.spool.interface import Spool
from engine.watch import events, mailjet_reads, messages, pages, statistics, stream
from engine.watch.boards import Boards
from engine.watch.destinations import LiveDestinations
from engine.watch.hub import EventHub
from engine.watch.tickets import Tickets


class Watch:
    """Hub, boards and routes. `is_ready` is what `/readyz` tells; compose sets it."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        now_unix_ms: Callable[[], int],
        secret_text: Callable[[], str],
        live: LiveDestinations,
    ) -> None:
        self.is_ready = False
        self._spool = spool
        self._live = live
        self._now_unix_ms = now_unix_ms
        self._hub = EventHub(spool)
        self._boards = Boards(spool, live, now_unix_ms=now_unix_ms)
        tickets = Tickets(now_unix_ms=now_unix_ms, secret_text=secret_text)
        self._stream = stream.StreamServices(
            spool, self._hub, self._boards, tickets, lambda: config.public_url
        )

    async def run(self) -> None:
        """Keep hub and boards current until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hub.run)
            nursery.start_soon(self._boards.run)

    def routes(self) -> Iterator[Route]:
        """Return every route of the room."""
        yield from pages.routes()
        yield from stream.routes(self._stream)
        yield from messages.routes(self._spool, now_unix_ms=self._now_unix_ms)
        yield from statistics.routes(self._spool, self._live, now_unix_ms=self._now_unix_ms)
        yield from events.routes(self._spool, self._hub)
        yield from mailjet_reads.routes(self._spool)
