"""Wires: sockets, memory and TLS, and what breaks them."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from engine.delivery.wire import (
    RECEIVE_OCTETS,
    UNREAD_OCTETS_MAX,
    MemoryWire,
    SocketWire,
    TlsWire,
    Wire,
    WireBroken,
    connect_tcp,
    memory_wire_pair,
)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def socket_pair() -> tuple[SocketWire, SocketWire]:
    one, other = socket.socketpair()
    return SocketWire(one), SocketWire(other)


Pair = Callable[[], tuple[Wire, Wire]]


@pytest.fixture(params=["memory", "socket"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return memory_wire_pair if request.param == "memory" else socket_pair


async def read_exactly(wire: Wire, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = await wire.receive()
        assert piece, "ended early"
        data += piece
    return data


async def test_octets_there_and_back(pair: Pair) -> None:
    one, other = pair()
    await one.send(b"hello")
    await one.send(memoryview(b" you"))
    assert await read_exactly(other, 9) == b"hello you"
    assert one.receive_nowait() is None
    await other.send(b"back")
    assert await one.receive() == b"back"
    one.close()
    other.close()


async def test_the_end_comes_after_what_was_sent(pair: Pair) -> None:
    one, other = pair()
    await one.send(b"last words")
    one.close()
    one.close()
    assert await other.receive() == b"last words"
    assert await other.receive() == b""
    assert await other.receive() == b""
    assert other.receive_nowait() == b""
    other.close()


async def test_sending_to_nobody_says_how_much_did_not_leave(pair: Pair) -> None:
    one, other = pair()
    other.close()
    with pytest.raises(WireBroken) as caught:
        await one.send(b"hello")
    assert caught.value.octets_unsent == 5
    one.close()


async def test_a_closed_wire_is_broken_for_its_owner(pair: Pair) -> None:
    one, other = pair()
    one.close()
    with pytest.raises(WireBroken):
        await one.send(b"x")
    with pytest.raises(WireBroken):
        await one.receive()
    other.close()


async def test_closing_wakes_who_waits(pair: Pair) -> None:
    one, other = pair()

    async def wait() -> None:
        with pytest.raises(WireBroken):
            await one.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        one.close()
    other.close()


async def test_a_reset_breaks_both_ends_of_a_memory_wire() -> None:
    one, other = memory_wire_pair()
    await one.send(b"arrived")
    one.reset("cable cut")
    assert await other.receive() == b"arrived"
    for end in (one, other):
        with pytest.raises(WireBroken, match="cable cut"):
            await end.receive()
        with pytest.raises(WireBroken, match="cable cut"):
            await end.send(b"x")


async def test_connect_and_refuse(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    wire = await connect_tcp("127.0.0.1", port, None)
    accepted, _ = listener.accept()
    assert accepted.getpeername()[0] == "127.0.0.1"
    peer = SocketWire(accepted)
    await peer.send(b"220")
    assert await wire.receive() == b"220"
    wire.close()
    peer.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError, match="refused"):
        await connect_tcp("127.0.0.1", port, None)


async def test_the_source_address_is_used(listener: socket.socket) -> None:
    wire = await connect_tcp("127.0.0.1", listener.getsockname()[1], "127.0.0.9")
    accepted, address = listener.accept()
    assert address[0] == "127.0.0.9"
    accepted.close()
    wire.close()
    with pytest.raises(OSError, match="assign"):
        await connect_tcp("127.0.0.1", listener.getsockname()[1], "192.0.2.77")


async def test_ipv6() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no ::1")
    with server:
        wire = await connect_tcp("::1", server.getsockname()[1], None)
        accepted, _ = server.accept()
        accepted.close()
        assert await wire.receive() == b""
        wire.close()


@pytest.mark.slow
async def test_a_peer_that_speaks_before_it_reads_is_no_deadlock() -> None:
    one, other = socket_pair()
    octets = b"x" * 4_000_000

    async def talkative() -> None:
        # More than the kernel holds for us: it leaves only if we read while we write.
        await other.send(b"y" * 200_000)
        assert await read_exactly(other, len(octets)) == octets

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, octets)
        nursery.start_soon(talkative)
    assert await read_exactly(one, 200_000) == b"y" * 200_000
    one.close()
    other.close()


async def test_what_was_said_before_the_break_can_be_read() -> None:
    one, other = socket_pair()

    async def refuse() -> None:
        await other.receive()
        await other.send(b"552 too big\r\n")
        await trio.testing.wait_all_tasks_blocked()
        other.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        with pytest.raises(WireBroken) as caught:
            await one.send(b"x" * 4_000_000)
    assert 0 < caught.value.octets_unsent < 4_000_000
    assert one.receive_nowait() == b"552 too big\r\n"
    one.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.example").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def tls_pair(
    wires: tuple[Wire, Wire],
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    *,
    session: ssl.SSLSession | None = None,
) -> AsyncIterator[tuple[TlsWire, TlsWire]]:
    client = TlsWire(wires[0], client_context, server_hostname="mx.example", session=session)
    server = TlsWire(wires[1], server_context, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(server.handshake)
    yield client, server
    client.close()
    server.close()


async def test_tls_there_and_back(
    pair: Pair, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with tls_pair(pair(), client_context, server_context) as (client, server):
        octets = b"x" * 300_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, octets)
            assert await read_exactly(server, len(octets)) == octets
        await server.send(b"250 ok\r\n")
        assert await client.receive() == b"250 ok\r\n"
        assert client.receive_nowait() is None
        await server.send(b"more")
        await trio.testing.wait_all_tasks_blocked()
        assert client.receive_nowait() == b"more"
        assert client.description.startswith("TLSv1.3 TLS_")
        assert not client.session_reused


async def test_a_tls_session_is_resumed(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    session = None
    for resumed in (False, True):
        pair = memory_wire_pair()
        async with tls_pair(pair, client_context, server_context, session=session) as ends:
            client, server = ends
            await server.send(b"ticket and greeting")
            await client.receive()
            session = client.session
            assert client.session_reused is resumed


async def test_a_wrong_certificate_fails_on_both_ends(server_context: ssl.SSLContext) -> None:
    strict = ssl.create_default_context()
    one, other = memory_wire_pair()
    client = TlsWire(one, strict, server_hostname="mx.example")
    server = TlsWire(other, server_context, server_side=True)
    failed = []

    async def handshake(wire: TlsWire) -> None:
        try:
            await wire.handshake()
            await wire.receive()
        except (ssl.SSLError, WireBroken) as error:
            failed.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handshake, client)
        nursery.start_soon(handshake, server)
    assert len(failed) == 2
    assert any("certificate" in text.lower() for text in failed)


async def test_plain_octets_before_the_handshake_break_it(client_context: ssl.SSLContext) -> None:
    one, other = memory_wire_pair()
    await other.send(b"250-mx.example\r\n250 AUTH PLAIN\r\n")
    client = TlsWire(one, client_context, server_hostname="mx.example")
    with pytest.raises(ssl.SSLError):
        await client.handshake()


async def test_the_peer_leaves_during_the_handshake(client_context: ssl.SSLContext) -> None:
    one, other = memory_wire_pair()
    other.close()
    client = TlsWire(one, client_context, server_hostname="mx.example")
    with pytest.raises(WireBroken):
        await client.handshake()


async def test_a_cancelled_send_says_how_much_did_not_leave(
    client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async def unsent_of(wire: Wire) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send, b"x" * 4_000_000)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return wire.octets_unsent

    one, other = socket_pair()
    assert 0 < await unsent_of(one) < 4_000_000
    one.close()
    other.close()
    # What is in the records that have left is not known; the last one has not.
    async with tls_pair(socket_pair(), client_context, server_context) as (client, _):
        assert await unsent_of(client) == 1
    kept, peer = memory_wire_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await kept.send(b"hello")
    assert kept.octets_unsent == 5
    assert peer.receive_nowait() is None
    await kept.send(b"hello")
    assert peer.receive_nowait() == b"hello"


Breaker = Callable[[MemoryWire, TlsWire], Awaitable[None]]


async def cut(raw: MemoryWire, tls: TlsWire) -> None:
    raw.close()


async def plain_text(raw: MemoryWire, tls: TlsWire) -> None:
    await raw.send(b"250 2.0.0 taken\r\n")


async def notice_then_plain_text(raw: MemoryWire, tls: TlsWire) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        tls._tls.unwrap()
    await tls._flush()
    await raw.send(b"250 2.0.0 taken\r\n")


@pytest.mark.parametrize("breaker", [cut, plain_text, notice_then_plain_text])
async def test_after_tls_ends_nothing_is_read_in_the_clear(
    breaker: Breaker, client_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    one, other = memory_wire_pair()
    async with tls_pair((one, other), client_context, server_context) as (client, server):
        await server.send(b"220 hello\r\n")
        assert await client.receive() == b"220 hello\r\n"
        await breaker(other, server)
        for _ in range(2):
            try:
                assert await client.receive() == b""
            except WireBroken:
                break


async def tcp_pair() -> tuple[SocketWire, SocketWire]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = await connect_tcp("127.0.0.1", server.getsockname()[1], None)
        accepted, _ = server.accept()
    return one, SocketWire(accepted)


async def test_a_reset_by_the_peer_breaks_the_wire() -> None:
    one, other = await tcp_pair()
    # Closing with a linger time of zero sends RST instead of FIN.
    other._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    with pytest.raises(WireBroken, match="reset"):
        await one.receive()
    one.close()


async def test_a_peer_that_only_talks_fills_a_bounded_store() -> None:
    one, other = await tcp_pair()

    async def talk() -> None:
        with pytest.raises(WireBroken):
            await other.send(b"y" * 50_000_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(one.send, b"x" * 50_000_000)
                # Both are stuck now; the caller's time limit is what ends this.
                await trio.testing.wait_all_tasks_blocked(0.1)
                scope.cancel()
        assert one._unread_octets <= UNREAD_OCTETS_MAX + RECEIVE_OCTETS
        one.close()
        await trio.testing.wait_all_tasks_blocked(0.01)
        other.close()
