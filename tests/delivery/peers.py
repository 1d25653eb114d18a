"""Scripted and well-behaved servers at the other end of a memory wire."""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from engine.delivery.connection import Connection
from engine.delivery.target import Target, TlsContexts
from engine.delivery.wire import Connect, TlsWire, Wire, WireBroken, memory_wire_pair
from protocols.outcomes import Deferred, Outcome
from protocols.smtp_client import EnvelopeOutcome, Transaction
from protocols.smtp_server import (
    Answer,
    Message,
    Request,
    ServerSettings,
    SmtpServer,
    StartTls,
)
from protocols.transactions import TlsPolicy

Script = Callable[[Wire], Awaitable[None]]
CONTENT = b"Subject: hello\r\n\r\n.dot first\r\n"


def target(tls: TlsPolicy = TlsPolicy.NONE) -> Target:
    return Target("mx.example", "192.0.2.1", 25, "out.example", tls=tls)


def connect_to(nursery: trio.Nursery, script: Script) -> Connect:
    """Return a `connect` whose every wire leads to a run of `script`."""

    async def run(wire: Wire) -> None:
        try:
            await script(wire)
        except WireBroken:
            pass
        finally:
            wire.close()

    async def connect(address: str, port: int, source: str | None) -> Wire:
        ours, theirs = memory_wire_pair()
        nursery.start_soon(run, theirs)
        return ours

    return connect


def plays(*steps: bytes | float | None) -> Script:
    """Return a script: octets to say, seconds to wait, or None to read once.

    It ends with the last step, which closes; end with `math.inf` to stay.
    """

    async def script(wire: Wire) -> None:
        for step in steps:
            if step is None:
                if not await wire.receive():
                    return
            elif isinstance(step, bytes):
                await wire.send(step)
            else:
                await trio.sleep(step)

    return script


@dataclass
class Receiver:
    """A server that takes mail, with `answers` for what it does not take."""

    settings: ServerSettings = field(default_factory=ServerSettings)
    answers: Callable[[Request], Answer | None] = lambda request: None
    context: ssl.SSLContext | None = None
    round_trip_s: float = 0.0
    messages: list[Message] = field(default_factory=list)
    reads: int = 0
    ehlos_in_tls: int = 0

    async def __call__(self, wire: Wire) -> None:
        smtp = SmtpServer("mx.example", self.settings)
        while True:
            starts_tls = False
            while (request := smtp.next_request()) is not None:
                answer = self.answers(request)
                if answer is not None:
                    smtp.answer(answer)
                    continue
                smtp.accept()
                if isinstance(request, Message):
                    self.messages.append(request)
                starts_tls = isinstance(request, StartTls)
            out = smtp.data_to_send()
            if out:
                if self.round_trip_s:
                    await trio.sleep(self.round_trip_s)
                await wire.send(out)
            if smtp.is_closed:
                return
            if starts_tls:
                assert self.context is not None
                wire = TlsWire(wire, self.context, server_side=True)
                try:
                    await wire.handshake()
                except ssl.SSLError:
                    return
                smtp.tls_started()
            data = await wire.receive()
            self.reads += 1
            if not data:
                return
            smtp.receive(data)


class Work:
    """Transactions for a connection and what came of them."""

    def __init__(self, *transactions: Transaction) -> None:
        self.waiting = list(transactions)
        self.outcomes: dict[int, Outcome] = {}
        self.batches: list[int] = []

    def next(self) -> Transaction | None:
        return self.waiting.pop(0) if self.waiting else None

    def report(self, outcomes: object) -> None:
        assert isinstance(outcomes, list)
        self.batches.append(len(outcomes))
        for one in outcomes:
            assert isinstance(one, EnvelopeOutcome)
            assert one.envelope_id not in self.outcomes, "one outcome an envelope"
            self.outcomes[one.envelope_id] = one.outcome


def mail(number: int, *recipients: str, content: bytes = CONTENT) -> Transaction:
    """Return a mail whose envelopes count from `number`."""
    names = recipients or (f"user{number}@mx.example",)
    pairs = [(number + i, name) for i, name in enumerate(names)]
    return Transaction("me@out.example", pairs, content)


CONTEXTS = TlsContexts()


async def opened(connect: Connect, tls: TlsPolicy = TlsPolicy.NONE) -> Connection:
    connection = await Connection.open(target(tls), tls_contexts=CONTEXTS, connect=connect)
    assert isinstance(connection, Connection), connection
    return connection


async def refused(connect: Connect, tls: TlsPolicy = TlsPolicy.NONE) -> Deferred:
    failure = await Connection.open(target(tls), tls_contexts=CONTEXTS, connect=connect)
    assert isinstance(failure, Deferred)
    return failure
