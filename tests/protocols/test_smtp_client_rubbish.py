"""Our end against anything: replies out of a hat, cut anywhere, and then silence."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.outcomes import Delivered
from protocols.smtp_client import Closed, EnvelopeOutcome, Result, SmtpClient, Transaction
from protocols.transactions import TlsPolicy

LINES = st.sampled_from(
    [
        b"220 mx\r\n",
        b"250-mx\r\n250 PIPELINING\r\n",
        b"250 2.0.0 ok\r\n",
        b"250 ok\r\n250 ok\r\n354 go\r\n",
        b"354 go\r\n",
        b"550 5.1.1 no\r\n",
        b"450 later\r\n",
        b"452 4.5.3 too many\r\n",
        b"421 bye\r\n",
        b"250-",
        b"\r\n",
        b"\n",
    ]
)


class Session:
    """A client that is always given mail, and the books about it."""

    def __init__(self, tls: TlsPolicy, depth: int) -> None:
        self.client = SmtpClient("out.example", tls=tls, pipeline_depth=depth)
        self.sent: list[int] = []
        self.outcomes: dict[int, object] = {}
        self.dots = 0
        self.closed = 0

    def read(self, octets: bytes) -> None:
        self.note(self.client.receive(octets))
        while self.client.wants_transaction:
            first = len(self.sent)
            pairs = [(first + i, f"u{first + i}@mx.example") for i in range(2)]
            self.sent += [first, first + 1]
            self.note(self.client.send(Transaction("", pairs, b".\r\n")))
        self.dots += b"".join(self.client.data_to_send()).count(b"..\r\n.\r\n")

    def note(self, results: list[Result]) -> None:
        for result in results:
            if isinstance(result, EnvelopeOutcome):
                assert result.envelope_id not in self.outcomes
                self.outcomes[result.envelope_id] = result.outcome
            self.closed += isinstance(result, Closed)


@given(
    pieces=st.lists(st.one_of(LINES, st.binary(max_size=12)), max_size=25),
    begins=st.booleans(),
    tls=st.sampled_from(list(TlsPolicy)),
    depth=st.integers(1, 2),
)
def test_every_envelope_has_one_outcome(
    pieces: list[bytes], begins: bool, tls: TlsPolicy, depth: int
) -> None:
    session = Session(tls, depth)
    if begins:
        pieces = [b"220 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n", *pieces]
    for piece in pieces:
        session.read(piece)
    session.note(session.client.connection_lost("silence"))
    assert set(session.outcomes) == set(session.sent)
    assert session.closed == 1
    delivered = sum(isinstance(outcome, Delivered) for outcome in session.outcomes.values())
    # A transaction has two envelopes: no delivery without a content that left.
    assert delivered <= 2 * session.dots
