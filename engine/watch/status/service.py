"""The status page behind one door: its routes and the task that keeps it true.

Connects the parts and decides nothing.
"""

from collections.abc import Callable
from typing import Final

from engine.config import Config
from engine.http_server import HttpStatistics, Route
from engine.spool.interface import Spool
from engine.watch.delivering import Delivering
from engine.watch.destinations import LiveDestinations
from engine.watch.hub import EventHub
from engine.watch.status.book import StatusBook
from engine.watch.status.monitor import Monitor, NameServers
from engine.watch.status.operator_door import OperatorDoor
from engine.watch.status.public_door import PublicDoor
from engine.watch.status.sites import SiteWalk
from engine.watch.status.views import Views


class StatusPage:
    """What `/status` and its siblings need. `run` measures until cancelled."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        hub: EventHub,
        live: LiveDestinations,
        delivering: Delivering,
        *,
        now_unix_ms: Callable[[], int],
        is_running: Callable[[], bool],
        http_statistics: Callable[[], HttpStatistics | None],
        name_servers: NameServers | None,
    ) -> None:
        settings = config.status
        self.book: Final = StatusBook(spool, now_unix_ms)
        self._monitor = Monitor(
            spool,
            self.book,
            hub,
            SiteWalk(
                spool,
                live,
                delivering,
                messages_min=settings.site_messages_min,
                accounts_min=settings.site_accounts_min,
                now_unix_ms=now_unix_ms,
            ),
            now_unix_ms=now_unix_ms,
            is_running=is_running,
            refuses_results=lambda: delivering.spool_refuses_since_unix_ms is not None,
            http_statistics=http_statistics,
            name_servers=name_servers,
            site_messages_min=settings.site_messages_min,
        )
        views = Views(settings.name, config.public_url, spool.stream_id[:12])
        self._public = PublicDoor(
            self.book,
            views,
            levels=self._monitor.levels,
            now_unix_ms=now_unix_ms,
            contact=config.contact,
            section=lambda language: "",
        )
        self._operator = OperatorDoor(
            self.book, views, now_unix_ms=now_unix_ms, dismiss=self._monitor.dismiss
        )

    def routes(self) -> list[Route]:
        return [*self._public.routes(), *self._operator.routes()]

    async def run(self) -> None:
        """Keep the page true until cancelled."""
        await self._monitor.run()
