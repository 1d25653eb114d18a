"""Where a connection goes, and the TLS settings and sessions that all of them share."""

import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from engine.delivery.wire import TlsWire, Wire
from protocols.transactions import TlsPolicy

# TLS sessions kept for resumption; one is a few kB, and most mail goes to few sites.
TLS_SESSIONS_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes and as whom. `host` is the MX name (or the address itself)."""

    host: str
    address: str
    port: int
    ehlo_name: str
    source: str | None = None
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC


class TlsContexts:
    """The TLS settings and sessions that all connections share: making one takes 23 ms.

    Neither policy checks names: with MX records from plain DNS there is no name
    that could be trusted. `required` means that nothing goes in plain text.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        """`context` replaces the default one, for example to trust certain issuers only."""
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._context = context
        self._sessions: OrderedDict[tuple[str, str, int], ssl.SSLSession] = OrderedDict()

    def wrap(self, wire: Wire, target: Target) -> TlsWire:
        """Return TLS over `wire`, resuming the last session with this target if there is one."""
        return TlsWire(
            wire,
            self._context,
            server_hostname=_server_name(target.host),
            session=self._sessions.get((target.host, target.address, target.port)),
        )

    def remember(self, target: Target, session: ssl.SSLSession | None) -> None:
        if session is None or not session.has_ticket:
            return
        key = (target.host, target.address, target.port)
        self._sessions[key] = session
        self._sessions.move_to_end(key)
        if len(self._sessions) > TLS_SESSIONS_MAX:
            self._sessions.popitem(last=False)


def _server_name(host: str) -> str | None:
    """Return `host` as SNI wants it; None for what is no name (RFC 6066 section 3)."""
    name = host.rstrip(".")
    is_name = name.isascii() and all(0 < len(label) < 64 for label in name.split("."))
    is_address = ":" in name or name.replace(".", "").isdigit()
    return name if is_name and not is_address else None
