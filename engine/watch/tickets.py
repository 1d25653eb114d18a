"""Tickets for the stream: browsers cannot send credentials with a websocket's request.

A ticket stands in a URL and so may reach a log; it lives for a minute and serves
once. Tickets are held in memory: after a restart the page asks for a new one.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from engine.http_server import Identity

TICKET_MS: Final = 60_000
TICKETS_MAX: Final = 10_000  # A minute's worth of pages that reconnect; the oldest goes.


class Tickets:
    """Tickets given out and not yet used. `secret_text` returns 160 random bits or more."""

    def __init__(self, *, now_unix_ms: Callable[[], int], secret_text: Callable[[], str]) -> None:
        self._now_unix_ms = now_unix_ms
        self._secret_text = secret_text
        self._issued: dict[bytes, tuple[int, Identity]] = {}

    def issue(self, identity: Identity) -> tuple[str, int]:
        """Return a ticket and when it expires."""
        expires = self._now_unix_ms() + TICKET_MS
        while len(self._issued) >= TICKETS_MAX:
            del self._issued[next(iter(self._issued))]
        ticket = self._secret_text()
        self._issued[sha256(ticket.encode()).digest()] = (expires, identity)
        return ticket, expires

    def redeem(self, ticket: str) -> Identity | None:
        """Spend a ticket; None if it is unknown, spent or too old."""
        expires, identity = self._issued.pop(
            sha256(ticket.encode("utf-8", "replace")).digest(), (0, None)
        )
        return identity if expires > self._now_unix_ms() else None
