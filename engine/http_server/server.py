"""The accept loop: listeners, the cap on connections, and an end that finishes what it began.

Each connection is a task in the nursery of `serve`. When all places are taken,
the connection that has waited longest for a request's head gives way; if all are
busy the new ones wait in the kernel, where they cost us nothing.
"""

import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from engine.http_server.connection import ClientStream, HttpConnection
from engine.http_server.exchange import Services, is_loopback
from engine.http_server.operators import OperatorSessions
from engine.http_server.routing import Router
from engine.http_server.unix_socket import unix_socket_address
from engine.http_server.values import Authenticate, HttpSettings, HttpStatistics, Route

logger = logging.getLogger("eilpost.http")

# accept(2) fails with these when descriptors or memory run out; it is ready again
# at once, so without a pause the loop would spin (as trio.serve_listeners knows too).
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
EXHAUSTED_PAUSE_S = 0.1
CROWDED_PAUSE_S = 0.1
BACKLOG = 1024  # A burst of subscribers that reconnect after a restart comes at once.


class HttpSetupError(Exception):
    """The port cannot be opened as configured; the text says which setting and why."""


class HttpServer:
    """Serves `routes` on the configured addresses and on the control socket.

    `authenticate(api_key, secret)` gives the account or None. `now_unix_ms` is
    the clock's. Raises HttpSetupError for settings that cannot work.
    """

    def __init__(
        self,
        settings: HttpSettings,
        routes: Sequence[Route],
        *,
        authenticate: Authenticate,
        operators: OperatorSessions,
        now_unix_ms: Callable[[], int],
    ) -> None:
        self.routes: Sequence[Route] = tuple(routes)
        self._services = Services(settings, Router(routes), authenticate, operators, now_unix_ms)
        self._ssl_context = _ssl_context(settings)
        self._connections: set[HttpConnection] = set()
        self._places_taken = 0
        self._place_freed = trio.Event()
        self._stop = trio.Event()
        self.addresses: list[tuple[str, int]] = []

    async def serve(
        self, *, task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until `stop`; started with the bound (host, port) pairs."""
        settings = self._services.settings
        listeners = await self._open_listeners()
        try:
            control = _control_listener(settings.control_socket)
        except BaseException:
            for listener in listeners:
                listener.socket.close()
            raise
        self.addresses = [listener.socket.getsockname()[:2] for listener in listeners]
        try:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, connections, False)
                    if control is not None:
                        accepting.start_soon(self._accept, control, connections, True)
                    task_status.started(self.addresses)
                    await self._stop.wait()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    listener.socket.close()
                for connection in list(self._connections):
                    connection.end_if_waiting()
                # From now on: what is in progress may finish, within the limit.
                connections.cancel_scope.deadline = trio.current_time() + settings.stop_s
        finally:
            for listener in [*listeners, *([control] if control else [])]:
                listener.socket.close()
            if settings.control_socket is not None:
                settings.control_socket.unlink(missing_ok=True)

    def stop(self) -> None:
        """Begin to end: accept nothing new, close idle connections, finish the others."""
        self._services.stopping = True
        self._stop.set()

    def statistics(self) -> HttpStatistics:
        services = self._services
        return HttpStatistics(
            connections=self._places_taken,
            requests=services.requests,
            responses_by_class=dict(services.responses_by_class),
            failures=services.failures,
            timeouts=services.timeouts,
            evicted=services.evicted,
            bodies_bytes=services.bodies_bytes,
        )

    async def _open_listeners(self) -> list[trio.SocketListener]:
        settings = self._services.settings
        listeners: list[trio.SocketListener] = []
        address = ""
        try:
            for address in settings.listen:
                host, port = parsed_address(address)
                protected = settings.behind_proxy or self._ssl_context is not None
                if not protected and not is_loopback(host):
                    raise HttpSetupError(
                        f"http.listen = {address!r} would take secrets over the network in the "
                        "clear: give tls_certificate and tls_key, or say behind_proxy = true."
                    )
                listeners += await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
        except OSError as error:
            for listener in listeners:
                listener.socket.close()
            reason = error.strerror or error
            raise HttpSetupError(f"http.listen = {address!r}: {reason}.") from error
        except HttpSetupError:
            for listener in listeners:
                listener.socket.close()
            raise
        return listeners

    async def _accept(
        self, listener: trio.SocketListener, connections: trio.Nursery, control: bool
    ) -> None:
        while True:
            while self._places_taken >= self._services.settings.connections_max:
                # Nobody gives way before somebody else has come.
                await trio.lowlevel.wait_readable(listener.socket)
                if self._places_taken >= self._services.settings.connections_max:
                    self._evict_one()
                    # Whoever is busy may begin to wait in a moment, and then gives way.
                    with trio.move_on_after(CROWDED_PAUSE_S):
                        await self._place_freed.wait()
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                logger.warning("cannot accept a connection: %s", error.strerror)
                self._evict_one()
                await trio.sleep(EXHAUSTED_PAUSE_S)
                continue
            self._places_taken += 1
            connections.start_soon(self._run_connection, stream, control)

    async def _run_connection(self, socket_stream: trio.SocketStream, control: bool) -> None:
        peer = ""
        if not control:
            with suppress(OSError):
                peer = socket_stream.socket.getpeername()[0]
        stream: ClientStream = socket_stream
        if self._ssl_context is not None and not control:
            stream = trio.SSLStream(
                socket_stream, self._ssl_context, server_side=True, https_compatible=True
            )
        connection = HttpConnection(self._services, stream, peer, control=control)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._places_taken -= 1
            self._place_freed.set()
            self._place_freed = trio.Event()

    def _evict_one(self) -> None:
        oldest = next(iter(self._services.evictable), None)
        if oldest is not None:
            self._services.evicted += 1
            oldest.evict()
            self._services.evictable.pop(oldest, None)


def parsed_address(address: str) -> tuple[str, int]:
    """Read "host:port" or "[v6]:port". Raises HttpSetupError."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise HttpSetupError(f"http.listen = {address!r} is not host:port.")
    return host, int(port)


def _ssl_context(settings: HttpSettings) -> ssl.SSLContext | None:
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None:
        if key is not None:
            raise HttpSetupError("http.tls_key is given without http.tls_certificate.")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        names = f"{certificate}" + (f" with {key}" if key else "")
        raise HttpSetupError(f"http.tls_certificate {names}: {error}.") from error
    return context


def _control_listener(path: Path | None) -> trio.SocketListener | None:
    """Bind the control socket, readable by its owner only. The data directory's lock is ours,
    so a file that lies there is what a killed engine left behind.
    """
    if path is None:
        return None
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        with unix_socket_address(path) as address:
            # Between bind and chmod anybody could connect, so the mode comes from the mask.
            mask = os.umask(0o177)
            try:
                control.bind(address)
            finally:
                os.umask(mask)
        control.listen(BACKLOG)
    except OSError as error:
        control.close()
        raise HttpSetupError(f"{path}: {error.strerror or error}.") from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(control))
