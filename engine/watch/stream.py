"""`GET /v1/stream`: the websocket door, and the tickets that browsers open it with.

Who may come in is decided before the upgrade: credentials or a ticket, a known
Origin, a subprotocol that we speak, a free place. What the websocket library
raises ends one connection; the HTTP port contains it.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from engine.http_server import (
    Access,
    Crowded,
    HttpError,
    Identity,
    ReplayStream,
    Request,
    Response,
    Route,
    WebSocketUpgrade,
    is_own_origin,
)
from engine.spool.interface import Spool
from engine.watch.admittance import Admittance
from engine.watch.boards import Boards
from engine.watch.hub import EventHub
from engine.watch.subscriber import Subscriber
from engine.watch.tickets import Tickets
from protocols.languages import Language, preferred_language
from protocols.stream_frames import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from protocols.timestamps import time_text

HANDSHAKE_S: Final = 5.0
# A filter that names a thousand messages by id is some 20 kB.
MESSAGE_BYTES_MAX: Final = 65_536
# Until a message is complete; who sends nothing but pings gets this far in two weeks.
RECEIVED_BYTES_MAX: Final = 262_144
MESSAGES_WAITING: Final = 4
# A close frame without a text, code 1001: the server goes down (RFC 6455 5.5.1, 7.4.1).
GOING_AWAY: Final = b"\x88\x02\x03\xe9"
GOING_AWAY_S: Final = 1.0
SUBSCRIBERS_MAX: Final = 2_000  # 20 kB each; half of the connections that the port takes.
# One account leaves room for others, however many pages it has open.
ACCOUNT_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class StreamServices:
    """What the stream is made of."""

    spool: Spool
    hub: EventHub
    boards: Boards
    tickets: Tickets
    public_url: str
    subscribers_max: int = SUBSCRIBERS_MAX
    # Open streams by account; an operator's are not counted.
    of_account: Counter[int] = field(default_factory=Counter)


def routes(services: StreamServices) -> list[Route]:
    """The stream and its tickets."""

    async def admit(request: Request) -> Identity:
        identity = _admitted(services, request)
        if identity is not request.identity:
            await _refuse_dismissed(services.spool, identity)
        return identity

    async def run(request: Request, stream: ReplayStream) -> None:
        await _run_websocket(services, request, stream)

    async def stream_without_upgrade(request: Request) -> Response:
        raise HttpError(
            426,
            "upgrade_required",
            "This is a websocket; /v1/events tells the same without one.",
            headers=(("upgrade", "websocket"), ("connection", "upgrade")),
        )

    async def new_ticket(request: Request) -> Response:
        ticket, expires_unix_ms = services.tickets.issue(request.identity)
        return Response.json({"ticket": ticket, "expires_at": time_text(expires_unix_ms)})

    return [
        Route(
            "GET",
            "/v1/stream",
            stream_without_upgrade,
            Access.OPTIONAL,
            websocket=WebSocketUpgrade(admit, run),
        ),
        Route("POST", "/v1/stream/tickets", new_ticket),
    ]


async def _refuse_dismissed(spool: Spool, identity: Identity) -> None:
    """Raise HttpError 401 for a ticket whose account or key ended after it was given out."""
    dismissal = await Admittance(spool, identity).dismissal()
    if dismissal is not None:
        raise HttpError(401, dismissal.code, dismissal.text)


def _admitted(services: StreamServices, request: Request) -> Identity:
    """Return who comes in. Raises HttpError 401, 403, 400 or 503."""
    origin = request.header(b"origin")
    if origin is not None and not is_own_origin(origin, request, services.public_url):
        raise HttpError(403, "foreign_origin", "Pages of other origins may not open the stream.")
    identity = request.identity
    if not identity.known:
        ticket = next((value for name, value in request.query if name == "ticket"), "")
        redeemed = services.tickets.redeem(ticket)
        if redeemed is None:
            raise HttpError(
                401,
                "unauthorized",
                "Give credentials or a fresh ticket from /v1/stream/tickets.",
                headers=(("www-authenticate", 'Basic realm="Eilpost", charset="UTF-8"'),),
            )
        identity = redeemed
    proposed = _proposed_subprotocols(request)
    if proposed and _chosen_subprotocol(proposed) is None:
        known = f"{SUBPROTOCOL_JSON} or {SUBPROTOCOL_MSGPACK}"
        raise HttpError(400, "unknown_subprotocol", f"The subprotocol is {known}.")
    if services.hub.subscribers >= services.subscribers_max:
        raise Crowded("All places for subscribers are taken.", retry_after_s=10)
    account, most = identity.account, services.subscribers_max // ACCOUNT_SHARE
    if account is not None and services.of_account[account.account_id] >= most:
        text = f"An account has at most {most} streams open at once."
        raise HttpError(429, "too_many_streams", text, headers=(("retry-after", "10"),))
    return identity


def _language_of(request: Request) -> Language:
    """Return the language of texts on boards: `?lang=de`, else English."""
    named = next((value for name, value in request.query if name == "lang"), None)
    return preferred_language(named)


def _proposed_subprotocols(request: Request) -> list[str]:
    values = [value for name, value in request.headers if name == b"sec-websocket-protocol"]
    return [each.strip() for each in b",".join(values).decode("latin-1").split(",") if each.strip()]


def _chosen_subprotocol(proposed: list[str]) -> str | None:
    """The client's first that we speak; the order is its preference (RFC 6455 4.1)."""
    ours = (SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK)
    return next((each for each in proposed if each in ours), None)


async def _run_websocket(services: StreamServices, request: Request, stream: ReplayStream) -> None:
    chosen = _chosen_subprotocol(_proposed_subprotocols(request))
    stream.received_max = RECEIVED_BYTES_MAX
    account_id = request.identity.account.account_id if request.identity.account else 0
    services.hub.subscribers += 1
    services.of_account[account_id] += 1
    is_open = False
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(HANDSHAKE_S):
                    asked = await wrap_server_stream(
                        nursery,
                        stream,
                        message_queue_size=MESSAGES_WAITING,
                        max_message_size=MESSAGE_BYTES_MAX,
                    )
                    websocket = await asked.accept(subprotocol=chosen)
                is_open = True
                subscriber = Subscriber(
                    websocket,
                    stream,
                    services.hub.frames_for(binary=chosen == SUBPROTOCOL_MSGPACK),
                    request.identity,
                    spool=services.spool,
                    hub=services.hub,
                    boards=services.boards,
                    language=_language_of(request),
                )
                await subscriber.run()
            except ConnectionClosed:
                pass  # Gone before it was quite here; accept() says so, too.
            nursery.cancel_scope.cancel()
    finally:
        services.hub.subscribers -= 1
        services.of_account[account_id] -= 1
        # Nobody but an engine that stops cancels a connection from outside.
        if is_open and trio.current_effective_deadline() == float("-inf"):
            await _say_going_away(stream)


async def _say_going_away(stream: ReplayStream) -> None:
    """Tell a client to come back later, if no frame is cut in two and it takes a few octets."""
    with (
        suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        trio.move_on_after(GOING_AWAY_S, shield=True),
    ):
        if stream.is_whole:
            await stream.send_all(GOING_AWAY)
