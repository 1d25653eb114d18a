"""STARTTLS end to end over memory wires: policies, resumption, injection, stripping."""

import math
import ssl

import pytest
import trio
import trustme
from trio.testing import MockClock

from engine.delivery.connection import Connection
from engine.delivery.target import Target, TlsContexts
from engine.delivery.wire import TlsWire, Wire
from protocols.outcomes import Deferred, Delivered
from protocols.records import Reason
from protocols.smtp_server import Answer, ServerSettings, StartTls
from protocols.smtp_states import Stage
from protocols.transactions import TlsPolicy
from tests.delivery.peers import Receiver, Work, connect_to, mail, opened, plays, refused, target

BOTH = [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED]
BEFORE_TLS = (b"220 mx\r\n", None, b"250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n", None)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mx.example").configure_cert(context)
    return context


@pytest.fixture
def receiver(server_context: ssl.SSLContext) -> Receiver:
    return Receiver(ServerSettings(starttls=True), context=server_context)


@pytest.mark.parametrize("policy", BOTH)
async def test_mail_goes_through_tls(
    nursery: trio.Nursery, receiver: Receiver, policy: TlsPolicy
) -> None:
    connection = await opened(connect_to(nursery, receiver), policy)
    assert connection.tls.startswith("TLSv1.3 ")
    work = Work(mail(1), mail(2, content=b"x" * 300_000 + b"\r\n"))
    await connection.deliver(work.next, work.report)
    assert all(isinstance(outcome, Delivered) for outcome in work.outcomes.values())
    assert [len(message.content) for message in receiver.messages] == [30, 300_002]
    await connection.quit()


async def test_none_stays_in_the_clear(nursery: trio.Nursery, receiver: Receiver) -> None:
    connection = await opened(connect_to(nursery, receiver), TlsPolicy.NONE)
    assert connection.tls == ""
    await connection.quit()


async def test_the_second_connection_resumes(nursery: trio.Nursery, receiver: Receiver) -> None:
    contexts = TlsContexts()
    resumed = []
    for _ in range(3):
        connection = await Connection.open(
            target(TlsPolicy.REQUIRED),
            tls_contexts=contexts,
            connect=connect_to(nursery, receiver),
        )
        assert isinstance(connection, Connection)
        resumed.append(connection.statistics().tls_resumed)
        await connection.quit()
    assert resumed == [False, True, True]


async def test_a_trusting_context_may_be_stricter(
    nursery: trio.Nursery, receiver: Receiver, authority: trustme.CA
) -> None:
    strict = ssl.create_default_context()
    connect = connect_to(nursery, receiver)
    place = target(TlsPolicy.REQUIRED)
    failure = await Connection.open(place, tls_contexts=TlsContexts(strict), connect=connect)
    assert isinstance(failure, Deferred)
    assert (failure.stage, failure.reason) == (Stage.TLS, Reason.TLS)
    assert "certificate verify failed" in failure.reply
    authority.configure_trust(strict)
    connection = await Connection.open(place, tls_contexts=TlsContexts(strict), connect=connect)
    assert isinstance(connection, Connection)
    await connection.quit()
    elsewhere = Target("other.example", "192.0.2.1", 25, "out.example", tls=TlsPolicy.REQUIRED)
    failure = await Connection.open(elsewhere, tls_contexts=TlsContexts(strict), connect=connect)
    assert isinstance(failure, Deferred)
    assert "certificate" in failure.reply


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "mx.example.", "x" * 70, ""])
async def test_hosts_that_are_no_server_name(
    nursery: trio.Nursery, receiver: Receiver, host: str
) -> None:
    place = Target(host, "192.0.2.1", 25, "out.example", tls=TlsPolicy.REQUIRED)
    connection = await Connection.open(
        place, tls_contexts=TlsContexts(), connect=connect_to(nursery, receiver)
    )
    assert isinstance(connection, Connection)
    await connection.quit()


@pytest.mark.parametrize("policy", BOTH)
@pytest.mark.parametrize(
    "injected", [b"250-SIZE 1\r\n250 AUTH PLAIN\r\n", b"250", b"\x16\x03\x01\x00"]
)
async def test_octets_in_one_segment_with_220_drop_the_connection(
    nursery: trio.Nursery, policy: TlsPolicy, injected: bytes
) -> None:
    script = plays(*BEFORE_TLS, b"220 go\r\n" + injected, math.inf)
    failure = await refused(connect_to(nursery, script), policy)
    assert (failure.stage, failure.reason) == (Stage.STARTTLS, Reason.TLS)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("policy", BOTH)
async def test_plain_replies_instead_of_a_handshake(
    nursery: trio.Nursery, policy: TlsPolicy
) -> None:
    script = plays(*BEFORE_TLS, b"220 go\r\n", None, b"250-mx\r\n250 SIZE 1\r\n", math.inf)
    failure = await refused(connect_to(nursery, script), policy)
    # With the opportunistic policy this is where a caller may try in the clear.
    assert (failure.stage, failure.reason) == (Stage.TLS, Reason.TLS)
    nursery.cancel_scope.cancel()


class LeftoverWire:
    """Always has something more to read when nobody waits for it."""

    def __init__(self, wire: Wire) -> None:
        self.octets_unsent = 0
        self.send = wire.send
        self.receive = wire.receive
        self.close = wire.close

    def receive_nowait(self) -> bytes | None:
        return b"\x17\x03\x03 rest of a flight"


async def test_what_follows_a_failed_handshake_does_not_hide_it(nursery: trio.Nursery) -> None:
    script = plays(*BEFORE_TLS, b"220 go\r\n", None, b"this is no TLS\r\n", math.inf)
    connect = connect_to(nursery, script)

    async def connect_leftover(address: str, port: int, source: str | None) -> Wire:
        return LeftoverWire(await connect(address, port, source))

    failure = await refused(connect_leftover, TlsPolicy.OPPORTUNISTIC)
    assert (failure.stage, failure.reason) == (Stage.TLS, Reason.TLS)
    assert "wrong version number" in failure.reply
    nursery.cancel_scope.cancel()


async def test_octets_injected_before_the_handshake_are_not_read_inside(
    nursery: trio.Nursery, server_context: ssl.SSLContext
) -> None:
    async def script(wire: Wire) -> None:
        await plays(*BEFORE_TLS, b"220 go\r\n", None)(wire)
        await wire.send(b"250-evil\r\n250 SIZE 1\r\n")
        await TlsWire(wire, server_context, server_side=True).handshake()

    failure = await refused(connect_to(nursery, script), TlsPolicy.OPPORTUNISTIC)
    assert failure.reason is Reason.TLS
    nursery.cancel_scope.cancel()


async def test_a_handshake_that_never_ends(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    script = plays(*BEFORE_TLS, b"220 go\r\n", math.inf)
    failure = await refused(connect_to(nursery, script), TlsPolicy.REQUIRED)
    assert failure.stage is Stage.TLS
    assert failure.reply == "451 4.4.2 (no TLS handshake within 60 s)"
    nursery.cancel_scope.cancel()


async def test_the_server_leaves_during_the_handshake(nursery: trio.Nursery) -> None:
    script = plays(*BEFORE_TLS, b"220 go\r\n", None)
    failure = await refused(connect_to(nursery, script), TlsPolicy.REQUIRED)
    assert failure.stage is Stage.TLS


@pytest.mark.parametrize("code", [454, 501])
async def test_a_refused_starttls(
    nursery: trio.Nursery, server_context: ssl.SSLContext, code: int
) -> None:
    def answers(request: object) -> Answer | None:
        return Answer(code, "no TLS today") if isinstance(request, StartTls) else None

    receiver = Receiver(ServerSettings(starttls=True), answers, server_context)
    connect = connect_to(nursery, receiver)
    failure = await refused(connect, TlsPolicy.REQUIRED)
    assert (failure.stage, failure.reason) == (Stage.STARTTLS, Reason.TLS)
    connection = await opened(connect, TlsPolicy.OPPORTUNISTIC)
    assert connection.tls == ""
    work = Work(mail(1))
    await connection.deliver(work.next, work.report)
    assert isinstance(work.outcomes[1], Delivered)
    await connection.quit()


async def test_a_stripped_starttls(nursery: trio.Nursery) -> None:
    connect = connect_to(nursery, Receiver(ServerSettings(starttls=False)))
    failure = await refused(connect, TlsPolicy.REQUIRED)
    assert failure.reason is Reason.TLS
    connection = await opened(connect, TlsPolicy.OPPORTUNISTIC)
    assert connection.tls == ""
    await connection.quit()


async def test_plain_octets_inside_a_tls_session_deliver_nothing(
    nursery: trio.Nursery, server_context: ssl.SSLContext
) -> None:
    async def script(wire: Wire) -> None:
        await plays(*BEFORE_TLS, b"220 go\r\n")(wire)
        tls = TlsWire(wire, server_context, server_side=True)
        await tls.handshake()
        await plays(None, b"250-mx\r\n250 PIPELINING\r\n", None)(tls)
        await plays(b"250 Ok\r\n250 Ok\r\n354 go\r\n", None)(tls)
        await wire.send(b"250 2.0.0 taken\r\n")
        await trio.sleep_forever()

    connection = await opened(connect_to(nursery, script), TlsPolicy.REQUIRED)
    work = Work(mail(1))
    await connection.deliver(work.next, work.report)
    outcome = work.outcomes[1]
    assert isinstance(outcome, Deferred)
    assert outcome.reason is Reason.OUTCOME_UNKNOWN
    assert not connection.is_open
    nursery.cancel_scope.cancel()
