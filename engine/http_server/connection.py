"""One HTTP connection: requests one after the other, each under the deadline of its phase.

There is one cancel scope for the whole connection and its deadline moves with
the phases; opening a scope for each read costs more than parsing the request.
Requests that were sent ahead wait in h11's buffer until their turn, so answers
never change places.
"""

import logging
import re
from collections.abc import Callable
from enum import Enum
from typing import Final

import h11
import trio

from engine.http_server.bodies import CHUNKS_AT_ONCE, GO_ON, READ_BYTES, StreamedBody
from engine.http_server.exchange import (
    Services,
    authenticated,
    checked_head,
    encoded,
    is_websocket_upgrade,
    refused_body,
    rendered,
    request_of,
)
from engine.http_server.streams import ReplayStream
from engine.http_server.values import (
    Crowded,
    HttpError,
    Request,
    Response,
    Route,
    error_response,
)
from engine.spool.interface import SpoolFailed, SpoolFull

logger = logging.getLogger("eilpost.http")

# After a refusal the client may still be sending. Closing at once would make its
# kernel throw away our answer (RFC 9112 9.6), so we listen on for a little.
LINGER_BYTES: Final = 4 * 1024 * 1024
LINGER_S: Final = 2.0
CLOSE_S: Final = 2.0  # For TLS' closing alert; nobody waits for the answer to it.


PYTHON_OCTETS: Final = re.compile(r""":? (?:bytearray\()?b['"]""")

ClientStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Phase(Enum):
    HANDSHAKE = "TLS is being agreed"
    IDLE = "between requests"
    HEAD = "reading a request's head"
    BODY = "reading its body"
    HANDLER = "working on the answer"
    WRITE = "writing the answer"
    UPGRADED = "somebody else's protocol"


class HttpConnection:
    """One client's connection, until it ends."""

    def __init__(
        self, services: Services, stream: ClientStream, peer: str, *, control: bool
    ) -> None:
        self._services = services
        self._stream = stream
        self._peer = peer
        self._control = control
        self._h11 = h11.Connection(
            h11.SERVER, max_incomplete_event_size=services.settings.head_bytes_max
        )
        self._scope = trio.CancelScope()
        self._phase = Phase.IDLE
        self._bodies_bytes = 0
        self._sender = 0
        self._head_only = False

    async def run(self) -> None:
        """Serve until either side is done. Raises nothing but Cancelled."""
        try:
            with self._scope:
                await self._serve()
            if self._scope.cancelled_caught and self._phase in (Phase.HEAD, Phase.BODY):
                self._services.timeouts += 1
                with trio.move_on_after(CLOSE_S):
                    await self._refuse(HttpError(408, "timeout", "The request came too slowly."))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client went away: nobody is left to tell.
        finally:
            self._services.evictable.pop(self, None)
            with trio.move_on_after(CLOSE_S):
                await self._stream.aclose()

    def end_if_waiting(self) -> None:
        """Close the connection unless it is in the middle of something."""
        is_waiting = self in self._services.evictable and self._phase is not Phase.BODY
        if is_waiting or self._phase is Phase.UPGRADED:
            self._scope.cancel()

    def evict(self) -> None:
        """Give way to a newcomer; only for one that is among the evictable."""
        self._scope.cancel()

    async def _serve(self) -> None:
        if isinstance(self._stream, trio.SSLStream):
            self._enter(Phase.HANDSHAKE, self._services.settings.handshake_s)
            self._services.evictable[self] = None
            await self._stream.do_handshake()
        while True:
            try:
                received = await self._read_head()
                if received is None:
                    return
                if not await self._answer(*received):
                    return
            except HttpError as error:
                await self._refuse(error)
                return
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                code = "head_too_large" if status == 431 else "bad_request"
                # The library's texts end with the octets at fault, in Python's notation.
                text = PYTHON_OCTETS.split(str(error), maxsplit=1)[0]
                await self._refuse(HttpError(status, code, f"Not valid HTTP: {text:.200}."))
                return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise
            except Exception:  # our mistake; it must cost this client its request, not all others
                logger.exception("a request of %s failed before its handler", self._peer)
                await self._refuse(internal_error())
                return
            self._h11.start_next_cycle()

    async def _read_head(self) -> tuple[h11.Request, bytes] | None:
        """Return the next request and all octets read since it began; None at the end."""
        settings = self._services.settings
        seen = bytearray(self._h11.trailing_data[0])
        if seen:
            self._enter(Phase.HEAD, settings.head_s)
        else:
            self._enter(Phase.IDLE, settings.idle_s)
        self._services.evictable[self] = None
        try:
            while True:
                event = self._h11.next_event()
                if type(event) is h11.Request:
                    return event, bytes(seen)
                if event is not h11.NEED_DATA:
                    return None
                if self._services.stopping and not seen:
                    return None
                data = await self._stream.receive_some(READ_BYTES)
                if not seen and data:
                    self._enter(Phase.HEAD, settings.head_s)
                seen += data
                self._h11.receive_data(bytes(data))
        finally:
            self._services.evictable.pop(self, None)

    async def _answer(self, head: h11.Request, seen: bytes) -> bool:
        """Answer one request; return whether the connection goes on."""
        services = self._services
        services.requests += 1
        self._head_only = head.method == b"HEAD"
        checked_head(head, seen, services.settings.head_bytes_max)
        route: Route | None = None
        try:
            route, request = request_of(services, head, self._peer, control=self._control)
            await self._identify(route, request)
            if route.websocket is not None and is_websocket_upgrade(head, seen):
                request.identity = await route.websocket.admit(request)
                await self._hand_over(route, request, seen)
                return False
            refused_body(head, route)
            if route.streamed:
                body = StreamedBody(self._h11, self._stream, services)
                return await self._answer_streamed(route, request, body)
            if not request.identity.known:
                services.evictable[self] = None  # Strangers' bodies give way to newcomers.
            account = request.identity.account
            self._sender = account.account_id if account is not None else 0
            try:
                request.body = await self._read_body(route.body_bytes_max)
            finally:
                services.evictable.pop(self, None)
        except HttpError as error:
            target = head.target.decode("latin-1")
            render = route.render_error if route else services.router.renderer(target)
            if not self._body_is_over():
                # The rest of the body is not worth reading, and without it there is no next head.
                await self._refuse(error, render)
                return False
            return await self._write(rendered(render, error))
        try:
            self._enter(Phase.HANDLER, None)
            response = await _handled(route, request)
        finally:
            self._forget_body()
        return await self._write(response)

    async def _answer_streamed(self, route: Route, request: Request, body: StreamedBody) -> bool:
        """Have the handler read the body; what it leaves of it ends the connection."""
        self._enter(Phase.HANDLER, None)
        request.parts = body
        response = await _handled(route, request)
        if body.is_broken or not self._body_is_over():
            self._enter(Phase.WRITE, self._services.settings.write_s)
            await self._write_last(response)
            return False
        return await self._write(response)

    def _body_is_over(self) -> bool:
        """Throw away what has arrived of an unwanted body; return whether that was all of it."""
        while type(self._h11.next_event()) is h11.Data:
            pass
        return self._h11.their_state is not h11.SEND_BODY

    async def _identify(self, route: Route, request: Request) -> None:
        self._enter(Phase.HANDLER, None)
        request.identity = await authenticated(self._services, route, request, self._control)

    async def _read_body(self, bytes_max: int) -> bytes:
        """Read the body whole. Raises HttpError 413 or 503 as soon as it is too much."""
        event = self._h11.next_event()
        if type(event) is h11.EndOfMessage:
            return b""  # No body at all: most requests.
        settings, services = self._services.settings, self._services
        self._enter(Phase.BODY, settings.body_s)
        began = trio.current_time()
        parts: list[bytes] = []
        length = 0
        try:
            while type(event) is not h11.EndOfMessage:
                if event is h11.NEED_DATA:
                    if self._h11.they_are_waiting_for_100_continue:
                        await self._stream.send_all(self._h11.send(GO_ON) or b"")
                    self._h11.receive_data(bytes(await self._stream.receive_some(READ_BYTES)))
                elif type(event) is h11.Data:
                    parts.append(bytes(event.data))
                    length += len(event.data)
                    services.count_body(self._sender, len(event.data))
                    self._bodies_bytes += len(event.data)
                    if length > bytes_max:
                        raise too_large(bytes_max)
                    if not services.has_room_for_bodies(self._sender):
                        text = "Too many large requests at once; try again."
                        raise Crowded(text, retry_after_s=1)
                    allowed_s = settings.body_s + length / settings.rate_bytes_per_s_min
                    self._scope.deadline = began + allowed_s
                    if len(parts) % CHUNKS_AT_ONCE == 0:
                        await trio.lowlevel.checkpoint()
                else:
                    raise trio.BrokenResourceError("the client left in the middle of a body")
                event = self._h11.next_event()
        except BaseException:
            self._forget_body()
            raise
        return b"".join(parts)

    def _forget_body(self) -> None:
        """Count the body of this request no more."""
        self._services.count_body(self._sender, -self._bodies_bytes)
        self._bodies_bytes = 0

    async def _write(self, response: Response) -> bool:
        """Send a response; return whether the connection can take another request."""
        services = self._services
        close = services.stopping or self._h11.their_state is h11.MUST_CLOSE
        data = encoded(self._h11, response, services, head_only=self._head_only, close=close)
        settings = services.settings
        self._enter(Phase.WRITE, settings.write_s + len(data) / settings.rate_bytes_per_s_min)
        await self._stream.send_all(data)
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def _refuse(
        self, error: HttpError, render: Callable[[HttpError], Response] = error_response
    ) -> None:
        """Answer with an error if that is still possible, and end the conversation."""
        self._enter(Phase.WRITE, self._services.settings.write_s)
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._write_last(rendered(render, error))

    async def _write_last(self, response: Response) -> None:
        """Answer a request that is not read to its end, and close so that the answer arrives."""
        data = encoded(self._h11, response, self._services, head_only=self._head_only, close=True)
        await self._stream.send_all(data)
        with trio.move_on_after(LINGER_S):
            if isinstance(self._stream, trio.SocketStream):
                await self._stream.send_eof()  # TLS has no half-closed connections.
            length = 0
            while length < LINGER_BYTES:
                more = await self._stream.receive_some(READ_BYTES)
                if not more:
                    return
                length += len(more)

    async def _hand_over(self, route: Route, request: Request, seen: bytes) -> None:
        """Give the stream to a websocket, contained: whatever it raises ends here."""
        assert route.websocket is not None
        self._enter(Phase.UPGRADED, None)
        replay = ReplayStream(self._stream, seen)
        try:
            await route.websocket.run(request, replay)
        except Exception:  # one client's faulty frames must not end the engine
            logger.debug("a websocket of %s ended by an error", self._peer, exc_info=True)
        finally:
            # A frame may be half sent; a polite close could wait for ever.
            await trio.aclose_forcefully(self._stream)

    def _enter(self, phase: Phase, limit_s: float | None) -> None:
        self._phase = phase
        self._scope.deadline = float("inf") if limit_s is None else trio.current_time() + limit_s


def too_large(bytes_max: int) -> HttpError:
    return HttpError(413, "too_large", f"The body is longer than {bytes_max} octets.")


def internal_error() -> HttpError:
    return HttpError(500, "internal", "Something failed inside the engine; its log says what.")


async def _handled(route: Route, request: Request) -> Response:
    """Run the handler; what it raises becomes an answer that says nothing of our insides."""
    try:
        return await route.handler(request)
    except HttpError as error:
        return rendered(route.render_error, error)
    except SpoolFull as error:
        refusal = HttpError(503, "spool_full", str(error), headers=(("retry-after", "30"),))
        return route.render_error(refusal)
    except SpoolFailed:
        text = "The engine is stopping after a failed commit; ask again when it is back."
        refusal = HttpError(503, "spool_failed", text, headers=(("retry-after", "5"),))
        return route.render_error(refusal)
    except Exception:  # the client gets an answer, the log the traceback, others go on
        logger.exception("%s %s failed", request.method, request.path)
        return route.render_error(internal_error())
