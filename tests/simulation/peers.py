"""The receivers' side of a simulation: servers with moods, a network that tears, DNS with faults.

Receivers are the oracle. A `Taken` is a mail that a receiver took over; it tells whether the 250
was written to a wire that still stood, because that, and nothing else, says whether a second copy
may follow. Moods are drawn from the seed at each stage of each session.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import trio

from engine.delivery.resolver import NEVER_S, MailHosts, Unresolved
from engine.delivery.wire import MemoryWire, Wire, WireBroken, memory_wire_pair
from engine.rehearsal.behaviour import Action, Mischief, Stage
from engine.rehearsal.receiver import Receiver, Session
from engine.rehearsal.resolver import TableResolver
from engine.rehearsal.zones import Zones
from protocols.records import Reason
from protocols.smtp_server import Mail, Message, Rcpt, Request
from tests.simulation.lives import Life

_SUBJECT = re.compile(rb"^Subject: (.*)\r$", re.MULTILINE)

# A receiver that took the mail and then does one of these never gave its 250.
_NO_ANSWER = frozenset({Action.CLOSE, Action.STALL, Action.HUGE, Action.ENDLESS, Action.RUBBISH})
# After one of these nobody can say which reply belongs to which command.
_GARBLED = frozenset({Action.HUGE, Action.ENDLESS, Action.RUBBISH, Action.TWICE})

# Refusals as servers give them, by where they are given.
REFUSALS: Mapping[Stage, tuple[tuple[int, str], ...]] = {
    Stage.CONNECT: ((421, "4.3.2 Service shutting down"), (554, "5.7.1 No service for you")),
    Stage.EHLO: ((421, "4.3.0 Try again later"), (550, "5.7.1 Bad name")),
    Stage.MAIL: (
        (421, "4.7.0 Too many messages, slow down"),
        (451, "4.3.0 Temporary trouble"),
        (452, "4.3.1 Insufficient system storage"),
        (550, "5.7.1 Sender refused"),
    ),
    Stage.RCPT: (
        (450, "4.2.1 Mailbox busy"),
        (451, "4.7.1 Greylisted, come back in five minutes"),
        (452, "4.2.2 Mailbox full"),
        (421, "4.7.0 Too many recipients this hour"),
        (550, "5.1.1 No such user"),
        (554, "5.7.1 Relay access denied"),
    ),
    Stage.DATA: ((451, "4.3.0 Not now"), (554, "5.5.1 No valid recipients")),
    Stage.DOT: (
        (421, "4.4.2 Going down"),
        (451, "4.6.0 Try again"),
        (452, "4.3.1 Disk full"),
        (550, "5.7.1 Looks like spam"),
        (554, "5.6.0 Content refused"),
    ),
}


@dataclass(slots=True)
class Mood:
    """How likely trouble is at each of `stages`: a refusal, or a trick instead of a reply."""

    refusals: float = 0.0
    tricks: float = 0.0
    stages: tuple[Stage, ...] = tuple(Stage)
    actions: tuple[Action, ...] = (Action.CLOSE,)
    only_4xx: bool = False
    # A connection is accepted only after so long; longer than our patience is a host that is gone.
    connect_s: float = 0.0


@dataclass(slots=True)
class Taken:
    """One recipient's mail that a receiver took over, in the session of one of our lives."""

    subject: str
    recipient: str
    digest: bytes
    began_s: float
    at_s: float
    life: Life
    # When the 250 was on the wire, and whether a client could still make sense of that wire.
    answered_s: float | None = None
    is_clear: bool = True

    @property
    def key(self) -> tuple[str, str]:
        return self.subject, self.recipient


@dataclass(slots=True)
class Asked:
    """One RCPT command that a receiver saw."""

    at_s: float
    recipient: str
    domain: str
    life: Life


@dataclass(slots=True)
class Notebook:
    """What all receivers saw, in the order it happened."""

    taken: list[Taken] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    connections_open: dict[str, int] = field(default_factory=dict)
    connections_peak: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class MoodyReceiver(Receiver):
    """A receiver with a mood that writes down what it takes."""

    rand: random.Random
    notebook: Notebook
    mood: Mood = field(default_factory=Mood)

    async def serve_life(self, wire: Wire, client: str, life: Life) -> None:
        self.connections += 1
        self.connections_open += 1
        try:
            await _MoodySession(self, wire, client, life).run()
        except WireBroken:
            # The peer went away, or the network did: the ordinary end of a session here.
            pass
        finally:
            wire.close()
            self.connections_open -= 1


class _MoodySession(Session):
    def __init__(self, receiver: MoodyReceiver, wire: Wire, client: str, life: Life) -> None:
        super().__init__(receiver, wire, client)
        self._moody = receiver
        self._life = life
        self._began_s = 0.0
        # Taken over, and the 250 is not written yet; `_last` are those of the latest message.
        self._waiting: list[Taken] = []
        self._last: list[Taken] = []
        self._is_garbled = False

    async def _handle(self, request: Request) -> None:
        if isinstance(request, Mail):
            self._began_s = trio.current_time()
        elif isinstance(request, Rcpt):
            domain = request.address.rpartition("@")[2]
            asked = Asked(trio.current_time(), request.address, domain, self._life)
            self._moody.notebook.asked.append(asked)
            self._life.reach("asked")
        await super()._handle(request)

    def _judge(self, request: Request) -> tuple[int, str] | None:
        refusal = super()._judge(request)
        mood, rand = self._moody.mood, self._moody.rand
        stage = _stage_of(request)
        if refusal is None and stage in mood.stages and rand.random() < mood.refusals:
            refusals = REFUSALS[stage]
            if mood.only_4xx:
                refusals = tuple(each for each in refusals if each[0] < 500)
            return rand.choice(refusals)
        return refusal

    def _trick_at(self, stage: Stage, recipient: str | None) -> Mischief | None:
        mood, rand = self._moody.mood, self._moody.rand
        if mood.tricks and stage in mood.stages and rand.random() < mood.tricks:
            return Mischief(rand.choice(mood.actions), stage)
        return super()._trick_at(stage, recipient)

    def _take_over(self, message: Message) -> None:
        found = _SUBJECT.search(message.content)
        assert found is not None, message.content
        digest = blake2b(message.content, digest_size=16).digest()
        self._last = [
            Taken(
                found[1].decode(),
                recipient,
                digest,
                self._began_s,
                trio.current_time(),
                self._life,
            )
            for recipient in message.recipients
        ]
        self._waiting += self._last
        self._moody.notebook.taken += self._last
        self._life.reach("taken")

    async def _play(self, trick: Mischief) -> None:
        if trick.stage is not Stage.DOT:
            self._is_garbled |= trick.action in _GARBLED
            await super()._play(trick)
            return
        last = self._last
        self._waiting = [each for each in self._waiting if each not in last]
        await super()._play(trick)
        if trick.action not in _NO_ANSWER:
            self._answered(last)
        self._is_garbled |= trick.action in _GARBLED

    async def _send(self, data: bytes) -> None:
        await super()._send(data)
        if data and self._waiting:
            waiting, self._waiting = self._waiting, []
            self._answered(waiting)

    def _answered(self, taken: list[Taken]) -> None:
        for each in taken:
            each.answered_s, each.is_clear = trio.current_time(), not self._is_garbled
        self._life.reach("answered")


def _stage_of(request: Request) -> Stage:
    names = {"Connected": Stage.CONNECT, "Hello": Stage.EHLO, "Message": Stage.DOT}
    name = type(request).__name__
    return names.get(name) or Stage[name.upper()]


class _CountedWire:
    """Our end of a connection, which counts as open until we close it."""

    def __init__(self, inner: MemoryWire, closed: Callable[[], None]) -> None:
        self._inner = inner
        self._closed: Callable[[], None] | None = closed

    @property
    def octets_unsent(self) -> int:
        return self._inner.octets_unsent

    async def send(self, data: bytes | memoryview) -> None:
        await self._inner.send(data)

    async def receive(self) -> bytes:
        return await self._inner.receive()

    def receive_nowait(self) -> bytes | None:
        return self._inner.receive_nowait()

    def close(self) -> None:
        self._inner.close()
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()


class Network:
    """Wires between the lives of the engine and the receivers, by address."""

    def __init__(
        self, receivers: Mapping[str, MoodyReceiver], notebook: Notebook, rand: random.Random
    ) -> None:
        self._receivers = receivers
        self._notebook = notebook
        self._rand = rand
        self._to_serve, self._opened = trio.open_memory_channel[
            tuple[MoodyReceiver, MemoryWire, Life]
        ](10_000)
        # In the order of their making, so that a cut is the same in each run of a seed.
        self._open: dict[MemoryWire, None] = {}

    async def serve(self) -> None:
        async with trio.open_nursery() as sessions:
            async for receiver, wire, life in self._opened:
                sessions.start_soon(self._serve_one, receiver, wire, life)

    async def _serve_one(self, receiver: MoodyReceiver, wire: MemoryWire, life: Life) -> None:
        await receiver.serve_life(wire, "127.0.0.1", life)
        self._open.pop(wire, None)

    async def connect(self, life: Life, address: str) -> Wire:
        receiver = self._receivers.get(address)
        await trio.sleep(receiver.mood.connect_s if receiver is not None else 0.001)
        await life.pass_on("connect")
        if receiver is None or receiver.is_down():
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = memory_wire_pair()
        self._open[theirs] = None
        self._to_serve.send_nowait((receiver, theirs, life))
        self._count(address, 1)
        return _CountedWire(ours, lambda: self._closed(life, address))

    def _closed(self, life: Life, address: str) -> None:
        # What the dead close was broken before, and counted as gone.
        if not life.is_over:
            self._count(address, -1)

    def _count(self, address: str, change: int) -> None:
        book = self._notebook
        count = book.connections_open.get(address, 0) + change
        book.connections_open[address] = count
        book.connections_peak[address] = max(count, book.connections_peak.get(address, 0))

    def cut_all(self) -> None:
        """The engine's machine lost its power: all connections break."""
        for wire in self._open:
            wire.reset()
        self._open.clear()
        self._notebook.connections_open.clear()

    async def tear(self, every_s: float) -> None:
        """Break one connection now and then."""
        while True:
            await trio.sleep(self._rand.expovariate(1.0 / every_s))
            if self._open:
                wire = self._rand.choice(list(self._open))
                del self._open[wire]
                wire.reset()


class FaultyResolver:
    """The table's answers, except that the name server sometimes fails or keeps silent."""

    def __init__(self, zones: Zones, rand: random.Random, faults: Mapping[str, float]) -> None:
        self._table = TableResolver(zones, own_names=["out.example"])
        self._rand = rand
        self._faults = faults

    async def mail_hosts(self, domain: str, *, since_s: float = NEVER_S) -> MailHosts | Unresolved:
        if self._rand.random() < self._faults.get(domain, 0.0):
            if self._rand.random() < 0.3:
                await trio.sleep(5.0)
            return Unresolved(False, Reason.DNS, f"451 4.4.3 DNS look-up of {domain} failed: fault")
        return await self._table.mail_hosts(domain)

    async def addresses(
        self, host: str, *, since_s: float = NEVER_S
    ) -> tuple[str, ...] | Unresolved:
        return await self._table.addresses(host)
