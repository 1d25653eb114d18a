"""A simulated receiver: what it took, and its end of a session, with manners good and bad.

A receiver is the oracle of whoever runs one: `acceptances` has each mail that it
said yes to. A session drives `protocols.smtp_server` over a wire, asks `behaviour` for each answer
and plays the tricks that a receiver or a recipient's name asks for. What is
taken over goes to the list before the 250 is written: a mail whose reply is lost on
the way was still accepted, and that is what duplicates come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import trio

from engine.delivery.wire import Wire, WireBroken
from engine.rehearsal.behaviour import (
    Action,
    Behaviour,
    Memory,
    Mischief,
    Stage,
    judge_rate,
    judge_recipient,
    mischief_named_by,
    plays_trick,
)
from protocols.smtp_server import (
    Answer,
    Connected,
    Data,
    Hello,
    Mail,
    Message,
    Rcpt,
    Request,
    SmtpServer,
)
from protocols.smtp_states import ServerState

_STAGES: Final[Mapping[type[Request], Stage]] = {
    Connected: Stage.CONNECT,
    Hello: Stage.EHLO,
    Mail: Stage.MAIL,
    Rcpt: Stage.RCPT,
    Data: Stage.DATA,
    Message: Stage.DOT,
}
# Each far beyond what a client may take for a reply.
HUGE_LINE: Final = b"250-" + b"x" * 1_000_000 + b"\r\n250 ok\r\n"
ENDLESS_PIECE: Final = b"250-and another thing\r\n" * 500
RUBBISH: Final = b"\x00\xff\xfe nothing of the kind\r\n"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """One mail to one recipient that a receiver said yes to.

    `digest` stands for the content; `at_s` is the receiver's time. `content` is
    empty unless the receiver keeps it.
    """

    recipient: str
    reverse_path: str
    digest: bytes
    octets: int
    at_s: float
    content: bytes = b""

    @property
    def key(self) -> tuple[str, bytes]:
        """What two deliveries of the same mail have in common."""
        return self.recipient, self.digest


@dataclass(frozen=True, slots=True)
class ReceiverStatistics:
    """Connections taken and open now, mails taken, commands refused."""

    connections: int
    connections_open: int
    accepted: int
    refused: int


@dataclass(slots=True)
class Receiver:
    """One mail host. Its clock is trio's and starts with the first thing that it is asked.

    `seed` decides who is unknown and whose mailbox is full. With `keep_content`
    the octets of each mail are kept too.
    """

    name: str
    behaviour: Behaviour = field(default_factory=Behaviour)
    seed: int = 1
    keep_content: bool = False
    acceptances: list[Acceptance] = field(default_factory=list)
    memory: Memory = field(init=False)
    connections: int = 0
    connections_open: int = 0
    refused: int = 0
    _started_s: float | None = None

    def __post_init__(self) -> None:
        self.memory = Memory(self.seed)

    def now_s(self) -> float:
        """Return the seconds since the receiver was first asked for anything."""
        if self._started_s is None:
            self._started_s = trio.current_time()
        return trio.current_time() - self._started_s

    def is_down(self) -> bool:
        return self.behaviour.is_down(self.now_s())

    def statistics(self) -> ReceiverStatistics:
        return ReceiverStatistics(
            self.connections, self.connections_open, len(self.acceptances), self.refused
        )

    async def serve_wire(self, wire: Wire, client: str = "127.0.0.1") -> None:
        """Serve one connection from `client` (its address) until either end closes it."""
        self.connections += 1
        self.connections_open += 1
        try:
            await Session(self, wire, client).run()
        except WireBroken:
            # The peer went away: for a receiver the ordinary end of a session.
            pass
        finally:
            wire.close()
            self.connections_open -= 1


class _HungUp(Exception):
    """The receiver ends the session without another word."""


class Session:
    """Serves one wire for `receiver`. Raises WireBroken when the peer breaks off."""

    def __init__(self, receiver: Receiver, wire: Wire, client: str) -> None:
        self._receiver = receiver
        self._wire = wire
        self._client = client
        self._server = SmtpServer(receiver.name, receiver.behaviour.settings)
        self._reverse_path = ""
        self._recipients: list[str] = []

    async def run(self) -> None:
        server = self._server
        try:
            while not server.is_closed:
                while (request := server.next_request()) is not None:
                    await self._handle(request)
                if server.is_closed:
                    await self._play_if_asked(Stage.QUIT)
                await self._flush()
                if server.state is ServerState.CONTENT:
                    await self._play_if_asked(Stage.CONTENT)
                data = b"" if server.is_closed else await self._wire.receive()
                if not data:
                    return
                server.receive(data)
        except _HungUp:
            return

    async def _handle(self, request: Request) -> None:
        if isinstance(request, Mail):
            self._reverse_path = request.reverse_path
            self._recipients.clear()
        asked = request.address if isinstance(request, Rcpt) else None
        trick = self._trick_at(_STAGES[type(request)], asked)
        if trick is not None and trick.action is Action.REPLY:
            self._refuse(trick.code, f"{trick.code // 100}.0.0 as the address asks")
            return
        verdict = None if trick is not None else self._judge(request)
        if verdict is not None:
            self._refuse(*verdict)
            return
        if isinstance(request, Rcpt):
            self._recipients.append(request.address)
        elif isinstance(request, Message):
            self._take_over(request)
        if trick is not None:
            await self._play(trick)
        else:
            self._server.accept()

    def _judge(self, request: Request) -> tuple[int, str] | None:
        """Return the code and text of a refusal, None to accept."""
        receiver = self._receiver
        behaviour = receiver.behaviour
        verdict = None
        if isinstance(request, Connected):
            ceiling = behaviour.connections_max
            if ceiling is not None and receiver.connections_open > ceiling:
                return 421, "4.7.0 Too many connections from your address"
        elif isinstance(request, Mail):
            verdict = judge_rate(behaviour, receiver.memory, receiver.now_s())
        elif isinstance(request, Rcpt):
            verdict = judge_recipient(
                behaviour,
                receiver.memory,
                self._client,
                self._reverse_path,
                request.address,
                receiver.now_s(),
            )
        return None if verdict is None else (verdict.code, verdict.text)

    def _refuse(self, code: int, text: str) -> None:
        self._receiver.refused += 1
        self._server.answer(Answer(code, text))

    def _take_over(self, message: Message) -> None:
        receiver = self._receiver
        digest = blake2b(message.content, digest_size=16).digest()
        for recipient in message.recipients:
            receiver.acceptances.append(
                Acceptance(
                    recipient,
                    message.mail.reverse_path,
                    digest,
                    len(message.content),
                    receiver.now_s(),
                    message.content if receiver.keep_content else b"",
                )
            )

    # Tricks.

    def _trick_at(self, stage: Stage, recipient: str | None) -> Mischief | None:
        """Return the trick to play now: the receiver's own, or one that a recipient names."""
        memory = self._receiver.memory
        own = self._receiver.behaviour.mischief
        if own is not None and own.stage is stage and plays_trick(memory, own, "*"):
            return own
        candidates = self._recipients if recipient is None else [recipient]
        for name in candidates:
            trick = mischief_named_by(name)
            if trick is not None and trick.stage is stage and plays_trick(memory, trick, name):
                return trick
        return None

    async def _play_if_asked(self, stage: Stage) -> None:
        trick = self._trick_at(stage, None)
        if trick is not None:
            await self._play(trick)

    async def _play(self, trick: Mischief) -> None:
        """Do the trick in place of the next reply; raises _HungUp where the session ends."""
        if trick.stage not in (Stage.QUIT, Stage.CONTENT):
            before = self._server.data_to_send()
            self._server.accept()
            reply = self._server.data_to_send()
            await self._send(before)
        else:
            reply = self._server.data_to_send()
        if trick.action is Action.CLOSE:
            raise _HungUp
        if trick.action is Action.STALL:
            while await self._wire.receive():
                pass
            raise _HungUp
        if trick.action is Action.ENDLESS:
            while True:
                await self._wire.send(ENDLESS_PIECE)
        if trick.action is Action.DRIP:
            for octet in reply:
                await self._send(bytes((octet,)))
            return
        replies = {Action.HUGE: HUGE_LINE, Action.RUBBISH: RUBBISH, Action.TWICE: reply * 2}
        await self._send(replies[trick.action])

    async def _flush(self) -> None:
        await self._send(self._server.data_to_send())

    async def _send(self, data: bytes) -> None:
        if not data:
            return
        if self._receiver.behaviour.reply_delay_s:
            await trio.sleep(self._receiver.behaviour.reply_delay_s)
        await self._wire.send(data)
