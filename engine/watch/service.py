"""The whole room behind one door: its routes, and the tasks that keep watchers current.

Compose makes one `Watch`, runs it, and gives its routes to the HTTP port. Nothing
is decided here.
"""

from collections.abc import Callable
from typing import Final

import trio

from engine.config import Config
from engine.http_server import HttpServer, HttpStatistics, OperatorSessions, Route
from engine.spool.interface import Spool
from engine.watch import (
    campaigns,
    delivery_times,
    doctor,
    events,
    explain,
    explain_http,
    forecast,
    health,
    holds,
    mailjet_reads,
    messages,
    openapi,
    pages,
    series,
    sessions,
    statistics,
    stream,
)
from engine.watch.boards import Boards
from engine.watch.cancellations import Cancellations
from engine.watch.delivering import Delivering, NothingDelivered
from engine.watch.destinations import LiveDestinations
from engine.watch.hub import EventHub
from engine.watch.status.monitor import NameServers
from engine.watch.status.service import Mailing, StatusPage
from engine.watch.tickets import Tickets

# A listing under a narrow filter may have to walk through everything, beside deliveries.
LISTINGS_MAX: Final = 2


class Watch:
    """What people look at. `live` tells of the destinations that have an actor now.

    `delivering` knows how actors stand towards their mail; without it nothing is delivered.
    `operators` is None where nobody signs in with a link, `name_servers` where nobody is asked,
    `mailing` where nobody subscribes to the status page. `is_ready` is for whoever runs the engine
    to set: it accepts and delivers.
    """

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        now_unix_ms: Callable[[], int],
        secret_text: Callable[[], str],
        live: LiveDestinations,
        delivering: Delivering | None = None,
        operators: OperatorSessions | None = None,
        name_servers: NameServers | None = None,
        mailing: Mailing | None = None,
    ) -> None:
        self.is_ready = False
        self.hub: Final = EventHub(spool)
        self._spool = spool
        self._tickets = Tickets(now_unix_ms=now_unix_ms, secret_text=secret_text)
        self.public_url = config.public_url
        self._contact = config.contact
        self._now_unix_ms = now_unix_ms
        self._live = live
        self._explainer = explain.Explainer(
            spool,
            config,
            live,
            now_unix_ms=now_unix_ms,
            delivering=delivering or NothingDelivered(),
        )
        self.boards: Final = Boards(spool, self._explainer)
        self._forecaster = forecast.Forecaster(
            spool,
            config,
            live,
            self._explainer,
            delivering or NothingDelivered(),
            now_unix_ms=now_unix_ms,
        )
        self.status: Final = StatusPage(
            spool,
            config,
            self.hub,
            live,
            delivering or NothingDelivered(),
            now_unix_ms=now_unix_ms,
            is_running=lambda: self.is_ready,
            http_statistics=self._http_statistics,
            name_servers=name_servers,
            mailing=mailing,
        )
        self._cancellations = Cancellations(spool)
        self._operators = operators
        self._http: HttpServer | None = None

    def attach(self, http: HttpServer) -> None:
        """Say which port serves the routes: its figures and routes are shown, too."""
        self._http = http

    async def run(self) -> None:
        """Wake watchers until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hub.run)
            nursery.start_soon(self.boards.run)
            nursery.start_soon(self.status.run)
            nursery.start_soon(self._cancellations.run)

    def routes(self) -> list[Route]:
        spool, live, now_unix_ms = self._spool, self._live, self._now_unix_ms
        listings = trio.CapacityLimiter(LISTINGS_MAX)
        services = stream.StreamServices(
            spool, self.hub, self.boards, self._tickets, self.public_url
        )
        own = [
            *messages.routes(spool, live, listings, now_unix_ms=now_unix_ms),
            *explain_http.routes(self._explainer, spool),
            *forecast.routes(self._forecaster, spool),
            *campaigns.CampaignsBoard(spool, self._cancellations, now_unix_ms=now_unix_ms).routes(),
            *holds.HoldsDoor(spool, now_unix_ms=now_unix_ms).routes(),
            *statistics.routes(spool, self._explainer),
            *delivery_times.routes(spool),
            *series.routes(spool, now_unix_ms=now_unix_ms),
            *events.routes(spool, self.hub),
            *doctor.routes(spool),
            *stream.routes(services),
            *mailjet_reads.routes(spool, listings),
            *(sessions.routes(self._operators, self.public_url) if self._operators else ()),
            *health.routes(
                spool,
                self.hub,
                live,
                readiness=self._missing,
                http_statistics=self._http_statistics,
            ),
            *self.status.routes(),
            *pages.routes(self._contact),
        ]
        return [*own, *openapi.routes(lambda: self._http.routes if self._http else own)]

    def _missing(self) -> list[str]:
        missing = [] if self.is_ready else ["the engine is starting or stopping"]
        if not self._spool.spool_statistics().intake_open:
            missing.append("the spool takes no mail: too little room on the disk")
        return missing

    def _http_statistics(self) -> HttpStatistics | None:
        return self._http.statistics() if self._http else None
