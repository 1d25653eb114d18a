"""A talk between our end of SMTP and a scripted server, checked line by line."""

from collections import deque
from collections.abc import Callable, Sequence

from protocols.outcomes import Bounced, Deferred, Delivered, Outcome
from protocols.records import Reason
from protocols.smtp_client import SmtpClient
from protocols.smtp_states import Stage
from protocols.transactions import (
    Closed,
    EnvelopeOutcome,
    Result,
    SessionReady,
    StartTls,
    TlsPolicy,
    Transaction,
)

ANN = "ann@example.com"
BOB = "bob@example.com"
EVE = "eve@example.com"
CONTENT = b"Subject: hello\r\n\r\n.dot first\r\n"
ON_THE_WIRE = ("Subject: hello", "", "..dot first", ".")
EVERYTHING = ("PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8")


PLAIN = ("SIZE 1000000", "8BITMIME")
OK = Delivered("250 2.0.0 taken", "2.0.0")


def envelope(*recipients: str, size: int = len(CONTENT)) -> tuple[str, ...]:
    return (
        f"MAIL FROM:<me@out.example> SIZE={size}",
        *(f"RCPT TO:<{recipient}>" for recipient in recipients),
        "DATA",
    )


def unknown_user(reply: str) -> Bounced:
    return Bounced("5.1.1", reply, Reason.UNKNOWN_USER, Stage.RCPT, is_hard=True)


def ehlo_reply(offers: Sequence[str]) -> list[str]:
    lines = ["mx.example", *offers]
    return [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]


class Dialogue:
    """`server(...)` is what it says, `client(...)` what we must have said since."""

    def __init__(
        self,
        *,
        one_by_one: bool = False,
        tls: TlsPolicy = TlsPolicy.NONE,
        depth: int = 2,
        offers: Sequence[str] | None = EVERYTHING,
    ) -> None:
        self.smtp = SmtpClient("out.example", tls=tls, pipeline_depth=depth)
        self.one_by_one = one_by_one
        self.waiting: deque[Transaction] = deque()
        self.outcomes: dict[int, Outcome] = {}
        self.ready: list[SessionReady] = []
        self.start_tls = 0
        self.closed: Deferred | None = None
        self.said = b""
        if offers is not None:
            self.server("220 mx.example ESMTP")
            self.client("EHLO out.example")
            self.server(*ehlo_reply(offers))
            assert len(self.ready) == 1

    def queue(
        self,
        *recipients: str,
        first: int = 1,
        content: bytes = CONTENT,
        sender: str = "me@out.example",
        needs_8bit: bool = False,
        needs_utf8: bool = False,
    ) -> None:
        """Have a mail ready for when the client wants one; ids count from `first`."""
        pairs = [(first + i, address) for i, address in enumerate(recipients)]
        self.waiting.append(Transaction(sender, pairs, content, needs_8bit, needs_utf8))
        self._move()

    def server(self, *lines: str) -> None:
        self.server_octets("".join(f"{line}\r\n" for line in lines).encode())

    def server_octets(self, octets: bytes) -> None:
        pieces = [octets]
        if self.one_by_one:
            pieces = [octets[i : i + 1] for i in range(len(octets))]
        for piece in pieces:
            self._take(self.smtp.receive(piece))
            self._move()

    def client(self, *lines: str) -> None:
        assert self.said == "".join(f"{line}\r\n" for line in lines).encode()
        self.said = b""

    def breaks(self, what: str = "reset", *, unsent: int = 0, last_words: bytes = b"") -> None:
        self._take(self.smtp.connection_lost(what, octets_unsent=unsent, last_words=last_words))

    def _move(self) -> None:
        while self.waiting and self.smtp.wants_transaction:
            self._take(self.smtp.send(self.waiting.popleft()))
        self.said += b"".join(self.smtp.data_to_send())

    def _take(self, results: Sequence[Result]) -> None:
        for result in results:
            match result:
                case EnvelopeOutcome():
                    assert result.envelope_id not in self.outcomes, "one outcome an envelope"
                    self.outcomes[result.envelope_id] = result.outcome
                case SessionReady():
                    self.ready.append(result)
                case StartTls():
                    self.start_tls += 1
                case Closed():
                    assert self.closed is None, "closed once"
                    self.closed = result.cause


Begin = Callable[..., Dialogue]
