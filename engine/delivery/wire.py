"""Octets to a peer and back: the seam between a session and the network.

A `Wire` is a two-way stream with no protocol. The engine gets one from a
`Connect`; the simulation and the tests put their own in its place. `TlsWire`
puts TLS over any wire. Nothing here knows SMTP, chooses an address or sets a
time limit: the caller owns the timeout.

Sockets are the standard library's, non-blocking, and trio is only asked to wait
when there is nothing to do: half the cost of a request and its reply through
trio's own streams.
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

# One read. A pipelined batch of replies is some hundred octets; receivers in the
# rehearsal read whole contents with it.
RECEIVE_OCTETS: Final = 65536
# How much a peer may say while we write. Replies to one batch are far below;
# beyond this we stop reading, and a peer that will not read either runs into the
# caller's timeout.
UNREAD_OCTETS_MAX: Final = 262_144


class WireBroken(Exception):
    """The connection is gone. `octets_unsent` of the last `send` certainly did not leave."""

    def __init__(self, what: str, octets_unsent: int = 0) -> None:
        super().__init__(what)
        self.octets_unsent = octets_unsent


class Wire(Protocol):
    """One connection. One task at a time uses it."""

    @property
    def octets_unsent(self) -> int:
        """How much of a `send` that was cancelled certainly did not leave."""
        ...

    async def send(self, data: bytes | memoryview) -> None:
        """Write all of `data`, reading meanwhile what the peer says. Raises WireBroken."""
        ...

    async def receive(self) -> bytes:
        """Wait for octets; b"" when the peer has ended. Raises WireBroken."""
        ...

    def receive_nowait(self) -> bytes | None:
        """Return what is there, None when nothing is, b"" at the end. Raises WireBroken."""
        ...

    def close(self) -> None:
        """End the connection at once. May be called again."""
        ...


# (address, port, source address or None) to a wire. Raises OSError.
Connect = Callable[[str, int, str | None], Awaitable[Wire]]


async def connect_tcp(address: str, port: int, source: str | None) -> "SocketWire":
    """Connect to an IP address, from the address `source` if one is given. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source is not None:
            sock.bind((source, 0))
        try:
            sock.connect((address, port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error)) from None
        return SocketWire(sock)
    except BaseException:
        sock.close()
        raise


class SocketWire:
    """A wire over a connected stream socket, which it owns from now on."""

    __slots__ = ("_ended", "_is_closed", "_sock", "_unread", "_unread_octets", "octets_unsent")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            # Commands are small and we batch them ourselves: Nagle only adds waiting.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._unread: list[bytes] = []  # what came in while we wrote
        self._unread_octets = 0
        self._ended = False
        self._is_closed = False
        self.octets_unsent = 0

    async def send(self, data: bytes | memoryview) -> None:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise WireBroken(_what(error), len(data)) from error
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])

    async def receive(self) -> bytes:
        # After a write the reply cannot be there yet, so we wait before we try:
        # that saves a failing call and is the checkpoint of this round trip.
        while not self._unread:
            if self._ended:
                await trio.lowlevel.checkpoint()
                return b""
            await self._wait(trio.lowlevel.wait_readable)
            try:
                data = self._sock.recv(RECEIVE_OCTETS)
            except BlockingIOError:
                continue
            except OSError as error:
                raise WireBroken(_what(error)) from error
            self._ended = not data
            return data
        await trio.lowlevel.checkpoint()
        return self._take_unread()

    def receive_nowait(self) -> bytes | None:
        if not self._unread:
            self._read_meanwhile()
        if self._unread:
            return self._take_unread()
        return b"" if self._ended else None

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def _send_rest(self, rest: memoryview) -> None:
        while rest:
            # A peer that pipelines its replies may wait for us to read before it
            # reads on (RFC 2920 3.1): waiting for room only could last for ever.
            self.octets_unsent = len(rest)
            await self._wait_for_room()
            self._read_meanwhile(octets_unsent=len(rest))
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise WireBroken(_what(error), len(rest)) from error

    async def _wait_for_room(self) -> None:
        if self._ended or self._unread_octets >= UNREAD_OCTETS_MAX:
            await self._wait(trio.lowlevel.wait_writable)
            return
        async with trio.open_nursery() as nursery:

            async def wait(condition: Callable[[socket.socket], Awaitable[None]]) -> None:
                await self._wait(condition)
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, trio.lowlevel.wait_readable)
            nursery.start_soon(wait, trio.lowlevel.wait_writable)

    async def _wait(self, condition: Callable[[socket.socket], Awaitable[None]]) -> None:
        if self._is_closed:
            raise WireBroken("the connection was closed here")
        try:
            await condition(self._sock)
        except trio.ClosedResourceError as error:
            raise WireBroken("the connection was closed here") from error

    def _read_meanwhile(self, octets_unsent: int = 0) -> None:
        if self._ended or self._is_closed or self._unread_octets >= UNREAD_OCTETS_MAX:
            return
        try:
            data = self._sock.recv(RECEIVE_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            raise WireBroken(_what(error), octets_unsent) from error
        if data:
            self._unread.append(data)
            self._unread_octets += len(data)
        else:
            self._ended = True

    def _take_unread(self) -> bytes:
        data = b"".join(self._unread)
        self._unread.clear()
        self._unread_octets = 0
        return data


def _what(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


class MemoryWire:
    """One end of a connection without a network, for the simulation and for tests.

    Sending never waits: what may be on the way is bounded by the protocols on
    both ends, which wait for each other's replies.
    """

    def __init__(self) -> None:
        self._peer: MemoryWire = self
        self._arrived: list[bytes] = []
        self._ended = False
        self._broken = ""
        self._is_closed = False
        self._news = trio.Event()
        self.octets_unsent = 0

    async def send(self, data: bytes | memoryview) -> None:
        self.octets_unsent = len(data)
        await trio.lowlevel.checkpoint()
        if self._is_closed:
            raise WireBroken("the connection was closed here", len(data))
        if self._broken or self._peer._is_closed:
            raise WireBroken(self._broken or "broken pipe", len(data))
        if data:
            self._peer._arrived.append(bytes(data))
            self._peer._news.set()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            data = self.receive_nowait()
            if data is not None:
                return data
            self._news = trio.Event()
            await self._news.wait()

    def receive_nowait(self) -> bytes | None:
        if self._is_closed:
            raise WireBroken("the connection was closed here")
        if self._arrived:
            data = b"".join(self._arrived)
            self._arrived.clear()
            return data
        if self._broken:
            raise WireBroken(self._broken)
        return b"" if self._ended else None

    def close(self) -> None:
        self._is_closed = True
        self._peer._ended = True
        self._peer._news.set()
        self._news.set()

    def reset(self, what: str = "connection reset by peer") -> None:
        """Break the connection for both ends, as a lost network does; what had arrived stays."""
        for end in (self, self._peer):
            end._broken = what
            end._news.set()


def memory_wire_pair() -> tuple[MemoryWire, MemoryWire]:
    """Return the two ends of a connection."""
    one, other = MemoryWire(), MemoryWire()
    one._peer, other._peer = other, one
    return one, other


class TlsWire:
    """TLS over a wire, by `ssl.SSLObject`: a third cheaper than trio.SSLStream, and it resumes.

    Call `handshake()` first. Octets that the peer sent before it go to TLS and
    break the handshake; nothing is ever read as plain text again.
    """

    def __init__(
        self,
        wire: Wire,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._wire = wire
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ended = False
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session,
        )

    async def handshake(self) -> None:
        """Raises ssl.SSLError when TLS fails, WireBroken when the connection does."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._feed():
                    raise WireBroken("connection closed during the TLS handshake") from None
            except ssl.SSLError:
                # Tell the peer what was wrong, if it still listens.
                with contextlib.suppress(WireBroken):
                    await self._flush()
                raise
            else:
                await self._flush()
                return

    @property
    def octets_unsent(self) -> int:
        # Nobody can read the last record, with at least one octet of ours, before all of it is
        # there; how much of the plain text the others held is not known.
        return min(1, self._wire.octets_unsent)

    async def send(self, data: bytes | memoryview) -> None:
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise WireBroken(f"TLS: {error.reason or error}", len(data)) from error
        try:
            await self._flush()
        except WireBroken as error:
            raise WireBroken(str(error), min(1, error.octets_unsent)) from error

    async def receive(self) -> bytes:
        while True:
            data = self._read()
            if data is not None:
                if self._outgoing.pending:
                    await self._flush()
                return data
            await self._flush()
            if not await self._feed():
                self._ended = True
                return b""

    def receive_nowait(self) -> bytes | None:
        data = self._read()
        if data is not None:
            return data
        octets = self._wire.receive_nowait()
        if octets is None:
            return None
        if not octets:
            self._ended = True
            return b""
        self._incoming.write(octets)
        return self._read()

    def close(self) -> None:
        # No close_notify: SMTP says QUIT, and a reply to our notice would only
        # find a closed socket.
        self._ended = True
        self._wire.close()

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection may resume; None before the peer has sent its ticket."""
        return self._tls.session

    @property
    def description(self) -> str:
        """Return version and cipher, like "TLSv1.3 TLS_AES_256_GCM_SHA384"."""
        cipher = self._tls.cipher()
        return f"{self._tls.version() or ''} {cipher[0] if cipher else ''}".strip()

    @property
    def session_reused(self) -> bool:
        return bool(self._tls.session_reused)

    def _read(self) -> bytes | None:
        """Return decrypted octets, b"" at the end, None when more is needed."""
        if self._ended:
            return b""
        pieces = []
        try:
            while piece := self._tls.read(RECEIVE_OCTETS):
                pieces.append(piece)
                if not self._incoming.pending and not self._tls.pending():
                    break
            else:
                self._ended = True  # the peer's close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            if not pieces:
                raise WireBroken(f"TLS: {error.reason or error}") from error
        if pieces:
            return b"".join(pieces)
        return b"" if self._ended else None

    async def _feed(self) -> bool:
        octets = await self._wire.receive()
        if not octets:
            self._incoming.write_eof()
            return False
        self._incoming.write(octets)
        return True

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._wire.send(self._outgoing.read())
