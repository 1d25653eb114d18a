"""Our client against our server, with any verdicts, pipelined or not, in any pieces.

The law: every envelope has one outcome, an envelope is delivered exactly when the
server accepted a message for it, and what it accepted is the content that was sent.
"""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from protocols.outcomes import Bounced, Deferred, Delivered, Outcome, Unattempted
from protocols.records import Reason
from protocols.smtp_client import EnvelopeOutcome, SmtpClient, Transaction
from protocols.smtp_server import (
    Answer,
    Data,
    Mail,
    Message,
    Rcpt,
    Request,
    ServerSettings,
    SmtpServer,
)

REFUSALS = st.sampled_from([0, 0, 0, 450, 550, 421, 452, 552])


@dataclass
class Plan:
    """What the server says to each request, in order; 0 is yes."""

    codes: list[int]
    asked: int = 0

    def answer(self, request: Request) -> Answer | None:
        if not isinstance(request, Mail | Rcpt | Data | Message):
            return None
        code = self.codes[self.asked] if self.asked < len(self.codes) else 0
        self.asked += 1
        return Answer(code, "4.5.3 too many recipients" if code == 452 else "no") if code else None


@dataclass
class Books:
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    taken: list[tuple[str, bytes]] = field(default_factory=list)

    def note(self, results: list[object]) -> None:
        for result in results:
            if isinstance(result, EnvelopeOutcome):
                assert result.envelope_id not in self.outcomes
                self.outcomes[result.envelope_id] = result.outcome


def pieces(octets: bytes, size: int) -> list[bytes]:
    return [octets[at : at + size] for at in range(0, len(octets), size)]


def talk(
    work: list[Transaction], plan: Plan, settings: ServerSettings, depth: int, size: int
) -> Books:
    """Run a session until nothing moves."""
    books = Books()
    client = SmtpClient("out.example", pipeline_depth=depth)
    server = SmtpServer("mx.example", settings)
    left = deque(work)
    while True:
        while (request := server.next_request()) is not None:
            answer = plan.answer(request)
            if answer is None:
                if isinstance(request, Message):
                    books.taken += [(one, request.content) for one in request.recipients]
                server.accept()
            else:
                server.answer(answer)
        for piece in pieces(server.data_to_send(), size):
            books.note([*client.receive(piece)])
        while left and client.wants_transaction:
            books.note([*client.send(left.popleft())])
        out = b"".join(client.data_to_send())
        if client.is_closed or (not out and client.is_idle):
            return books
        if server.is_closed:
            books.note([*client.connection_lost("closed")])
            return books
        for piece in pieces(out, size):
            server.receive(piece)


@given(
    recipients=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    codes=st.lists(REFUSALS, max_size=20),
    pipelining=st.booleans(),
    depth=st.integers(1, 2),
    size=st.sampled_from([1, 3, 17, 100000]),
)
def test_the_books_balance(
    recipients: list[int], codes: list[int], pipelining: bool, depth: int, size: int
) -> None:
    work = []
    for number, count in enumerate(recipients):
        pairs = [(number * 10 + i, f"u{number * 10 + i}@mx.example") for i in range(count)]
        content = b".%d\r\n" % number
        work.append(Transaction("me@out.example", pairs, content))
    settings = ServerSettings(pipelining=pipelining)
    books = talk(work, Plan(codes), settings, depth, size)

    delivered = {
        envelope_id
        for envelope_id, outcome in books.outcomes.items()
        if isinstance(outcome, Delivered)
    }
    taken = {int(address[1:].partition("@")[0]): content for address, content in books.taken}
    assert delivered == set(taken)
    assert len(books.taken) == len(taken), "nothing twice"
    assert all(content == b".%d\r\n" % (one // 10) for one, content in taken.items())
    sent = {one for transaction in work for one, _ in transaction.recipients}
    if 421 not in codes:
        assert set(books.outcomes) == sent
    for outcome in books.outcomes.values():
        assert isinstance(outcome, Delivered | Deferred | Bounced | Unattempted)
        if isinstance(outcome, Deferred):
            assert outcome.reason not in (Reason.PROTOCOL, Reason.OUTCOME_UNKNOWN)
