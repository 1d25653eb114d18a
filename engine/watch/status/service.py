"""The status page behind one door: its routes, and the tasks that keep it true and tell of it.

Connects the parts and decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from engine.config import Config
from engine.http_server import HttpStatistics, Route
from engine.spool.interface import Spool
from engine.watch.delivering import Delivering
from engine.watch.destinations import LiveDestinations
from engine.watch.hub import EventHub
from engine.watch.status.book import StatusBook
from engine.watch.status.links import Links
from engine.watch.status.mails import MailWriter
from engine.watch.status.monitor import Monitor, NameServers
from engine.watch.status.operator_door import OperatorDoor
from engine.watch.status.public_door import PublicDoor
from engine.watch.status.sender import StatusSender
from engine.watch.status.sites import SiteWalk
from engine.watch.status.subscribers import Subscribers
from engine.watch.status.subscription_door import ListDoor, SubscriptionDoor
from engine.watch.status.subscription_pages import form
from engine.watch.status.views import Views


@dataclass(frozen=True, slots=True)
class Mailing:
    """What it takes to write to subscribers: `signing_key` has 32 octets."""

    signing_key: bytes
    random_octets: Callable[[int], bytes]


class StatusPage:
    """What `/status` and its siblings need. `run` measures and tells until cancelled.

    Without `mailing`, or without an address to write from, nobody can subscribe.
    """

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
        mailing: Mailing | None,
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
        self.subscribers: Final = Subscribers(spool)
        self._sender: StatusSender | None = None
        self._subscriptions: SubscriptionDoor | None = None
        if mailing is not None and config.status_sender is not None:
            links = Links(mailing.signing_key, config.public_url)
            writer = MailWriter(
                links,
                name=settings.name,
                url=config.public_url,
                sender=config.status_sender,
                now_unix_ms=now_unix_ms,
                random_octets=mailing.random_octets,
            )
            self._sender = StatusSender(
                spool, self.book, self.subscribers, writer, settings, now_unix_ms=now_unix_ms
            )
            self._subscriptions = SubscriptionDoor(
                self.subscribers,
                self._sender,
                links,
                name=settings.name,
                now_unix_ms=now_unix_ms,
            )
        self._public = PublicDoor(
            self.book,
            views,
            levels=self._monitor.levels,
            now_unix_ms=now_unix_ms,
            contact=config.contact,
            section=form if self._subscriptions is not None else lambda language: "",
        )
        self._operator = OperatorDoor(
            self.book, views, now_unix_ms=now_unix_ms, dismiss=self._monitor.dismiss
        )

    def routes(self) -> list[Route]:
        subscriptions = self._subscriptions
        return [
            *self._public.routes(),
            *self._operator.routes(),
            *ListDoor(self.subscribers).routes(),
            *(subscriptions.routes() if subscriptions is not None else ()),
        ]

    async def run(self) -> None:
        """Keep the page true, and tell of it, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._monitor.run)
            if self._sender is not None:
                nursery.start_soon(self._sender.run)
