"""Dialogues with the server end, its refusals, and smuggling vectors as raw octets."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError
from protocols.smtp_server import (
    COMMAND_OCTETS_MAX,
    Answer,
    Data,
    Hello,
    Mail,
    Message,
    Rcpt,
    Request,
    ServerSettings,
    SmtpServer,
    StartTls,
)

ENVELOPE = b"MAIL FROM:<me@out.example>\r\nRCPT TO:<ann@mx.example>\r\nDATA\r\n"
SECOND = b"MAIL FROM:<evil@out.example>\r\nRCPT TO:<victim@mx.example>\r\nDATA\r\nforged\r\n.\r\n"


class Session:
    """A server whose application says yes, except where `answers` knows better."""

    def __init__(
        self,
        settings: ServerSettings | None = None,
        answers: Callable[[Request], Answer | None] = lambda request: None,
    ) -> None:
        self.smtp = SmtpServer("mx.example", settings)
        self.answers = answers
        self.requests: list[Request] = []
        assert self.said(b"").startswith(b"220 mx.example")

    @property
    def messages(self) -> list[Message]:
        return [request for request in self.requests if isinstance(request, Message)]

    def said(self, octets: bytes) -> bytes:
        """Return what the server says to `octets`."""
        self.smtp.receive(octets)
        while (request := self.smtp.next_request()) is not None:
            self.requests.append(request)
            answer = self.answers(request)
            if answer is None:
                self.smtp.accept()
            else:
                self.smtp.answer(answer)
        return self.smtp.data_to_send()

    def codes(self, octets: bytes) -> list[int]:
        return [int(line[:3]) for line in self.said(octets).splitlines() if line[3:4] != b"-"]


def session(settings: ServerSettings | None = None) -> Session:
    talk = Session(settings)
    talk.said(b"EHLO out.example\r\n")
    return talk


def test_ehlo_lists_what_is_offered() -> None:
    talk = Session(ServerSettings(size_max=100, starttls=True))
    assert talk.said(b"ehlo out.example\r\n") == (
        b"250-mx.example\r\n250-PIPELINING\r\n250-SIZE 100\r\n250-8BITMIME\r\n"
        b"250-SMTPUTF8\r\n250-STARTTLS\r\n250 ENHANCEDSTATUSCODES\r\n"
    )
    assert talk.requests[-1] == Hello("out.example", True)
    assert talk.said(b"HELO x\r\n") == b"250 mx.example\r\n"
    assert Session(ServerSettings(extended=False)).codes(b"EHLO x\r\n") == [502]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_a_pipelined_session_in_pieces(size: int) -> None:
    talk = session()
    before = b"MAIL FROM:<> SIZE=20 BODY=8BITMIME\r\nRCPT TO:<ann@mx.example>\r\nDATA\r\n"
    after = b"Subject: x\r\n\r\n..\r\n...a\r\n.\r\nNOOP\r\nQUIT\r\n"
    codes: list[int] = []
    for octets in (before, after):
        for at in range(0, len(octets), size):
            codes += talk.codes(octets[at : at + size])
    assert codes == [250, 250, 354, 250, 250, 221]
    assert talk.messages == [
        Message(Mail("", 20, True), ["ann@mx.example"], b"Subject: x\r\n\r\n.\r\n..a\r\n")
    ]
    assert talk.smtp.is_closed
    assert talk.smtp.messages_accepted == 1


def test_the_next_envelope_behind_the_dot() -> None:
    talk = session()
    assert talk.codes(ENVELOPE) == [250, 250, 354]
    assert talk.codes(b"one\r\n.\r\n" + ENVELOPE) == [250, 250, 250, 354]
    assert talk.codes(b"two\r\n.\r\n") == [250]
    assert [message.content for message in talk.messages] == [b"one\r\n", b"two\r\n"]


def test_an_empty_content() -> None:
    talk = session()
    talk.said(ENVELOPE)
    assert talk.codes(b".\r\n") == [250]
    assert talk.messages[0].content == b""


@pytest.mark.parametrize(
    ("octets", "codes"),
    [
        (b"MAIL FROM:<a@b>\r\n", [503]),
        (b"EHLO x\r\nRCPT TO:<a@b>\r\n", [250, 503]),
        (b"EHLO x\r\nDATA\r\n", [250, 503]),
        (b"EHLO x\r\nMAIL FROM:<a@b>\r\nDATA\r\n", [250, 250, 503]),
        (b"EHLO x\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\n", [250, 250, 503]),
        (b"EHLO x\r\nMAIL FROM:<a@b>\r\nRSET\r\nMAIL FROM:<a@b>\r\n", [250, 250, 250, 250]),
        (b"EHLO x\r\nMAIL FROM:<a@b>\r\nEHLO x\r\nRCPT TO:<a@b>\r\n", [250, 250, 250, 503]),
        (b"NOOP\r\nVRFY x\r\nRSET\r\n", [250, 252, 250]),
        (b"EHLO\r\nHELO  \r\n", [501, 501]),
        (b"WHAT\r\n\r\n \r\nMAILFROM\r\n", [500, 500, 500, 500]),
        (b"\xff\xfe\r\n", [501]),
        (b"EHLO x\r\nSTARTTLS\r\n", [250, 502]),
        (b"NO\nOP\r\nNO\rOP\r\nNO\0OP\r\nNOOP\r\n", [500, 500, 500, 250]),
    ],
)
def test_order_and_syntax(octets: bytes, codes: list[int]) -> None:
    assert Session().codes(octets) == codes


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"MAIL FROM:<>", 250),
        (b"mail from: <a@b.example>", 250),
        (b'MAIL FROM:<"a b>"@c.example> SIZE=5', 250),
        (b"MAIL FROM:<a@b> SIZE=101", 552),
        (b"MAIL FROM:<a@b> SIZE=" + b"9" * 4000, 555),
        (b"MAIL FROM:<a@b> SIZE=x", 555),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME", 555),
        (b"MAIL FROM:<a@b> RET=FULL", 555),
        ("MAIL FROM:<ä@b>".encode(), 553),
        ("MAIL FROM:<ä@b> SMTPUTF8".encode(), 250),
        (b"MAIL FROM:<a@b> SMTPUTF8=1", 555),
        (b"MAIL FROM:a@b", 501),
        (b"MAIL FROM:<a@b", 501),
        (b"MAIL FROM:<a@b>SIZE=5", 501),
        (b"MAIL FROM:<a b@c>", 501),
        (b"MAIL TO:<a@b>", 501),
        (b"MAIL", 501),
    ],
)
def test_mail_arguments(line: bytes, code: int) -> None:
    assert session(ServerSettings(size_max=100)).codes(line + b"\r\n") == [code]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"RCPT TO:<a@b>", 250),
        (b"rcpt to: <a@b>", 250),
        (b"RCPT TO:<>", 501),
        (b"RCPT TO:<a@b> NOTIFY=NEVER", 555),
        ("RCPT TO:<ä@b>".encode(), 553),
        (b"RCPT TO:<a@b>\x01", 501),
        (b"RCPT TO:", 501),
    ],
)
def test_rcpt_arguments(line: bytes, code: int) -> None:
    talk = session()
    talk.said(b"MAIL FROM:<>\r\n")
    assert talk.codes(line + b"\r\n") == [code]


def test_a_refused_recipient_is_not_in_the_message() -> None:
    def answers(request: Request) -> Answer | None:
        if request == Rcpt("eve@mx.example"):
            return Answer(550, "5.1.1 no\nsuch user")
        return None

    talk = Session(answers=answers)
    talk.said(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann@mx.example>\r\n")
    assert talk.said(b"RCPT TO:<eve@mx.example>\r\n") == b"550-5.1.1 no\r\n550 such user\r\n"
    talk.said(b"DATA\r\n")
    talk.said(b"x\r\n.\r\n")
    assert talk.messages[0].recipients == ["ann@mx.example"]


def test_no_recipient_no_data() -> None:
    talk = Session(answers=lambda r: Answer(550, "5.1.1 no") if isinstance(r, Rcpt) else None)
    talk.said(b"EHLO x\r\n")
    assert talk.codes(ENVELOPE) == [250, 550, 503]


def test_a_refused_message_is_forgotten() -> None:
    talk = Session(answers=lambda r: Answer(554, "5.7.1 spam") if isinstance(r, Message) else None)
    talk.said(b"EHLO x\r\n" + ENVELOPE)
    assert talk.codes(b"x\r\n.\r\nDATA\r\n") == [554, 503]
    assert talk.smtp.messages_accepted == 0


def test_421_and_refusing_the_session_close() -> None:
    talk = Session(answers=lambda r: Answer(421, "4.7.0 slow") if isinstance(r, Mail) else None)
    assert talk.codes(b"EHLO x\r\nMAIL FROM:<>\r\nNOOP\r\n") == [250, 421]
    assert talk.smtp.is_closed
    server = SmtpServer("mx.example")
    assert server.next_request() is not None
    server.answer(Answer(554, "5.7.1 not you"))
    assert server.data_to_send() == b"554 5.7.1 not you\r\n"
    assert server.is_closed


def test_many_recipients() -> None:
    talk = session(ServerSettings(recipients_max=100))
    talk.said(b"MAIL FROM:<>\r\n")
    lines = b"".join(b"RCPT TO:<u%d@mx.example>\r\n" % number for number in range(101))
    assert talk.codes(lines) == [250] * 100 + [452]


@pytest.mark.parametrize(("size", "codes"), [(99, [250]), (100, [250]), (101, [552])])
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_size(size: int, codes: list[int], piece: int) -> None:
    talk = session(ServerSettings(size_max=100))
    talk.said(ENVELOPE)
    octets = b"x" * (size - 2) + b"\r\n.\r\nNOOP\r\n"
    found: list[int] = []
    for at in range(0, len(octets), piece):
        found += talk.codes(octets[at : at + piece])
    assert found == [*codes, 250]


def test_an_oversized_content_takes_no_memory() -> None:
    talk = session(ServerSettings(size_max=1000))
    talk.said(ENVELOPE)
    for _ in range(1000):
        assert talk.said(b"x" * 1000) == b""
        assert len(talk.smtp._buffer) < 3000
    assert talk.codes(b"\r\n.\r\nNOOP\r\n") == [552, 250]
    assert talk.messages == []


@pytest.mark.parametrize("length", [COMMAND_OCTETS_MAX + 1, 10 * COMMAND_OCTETS_MAX])
@pytest.mark.parametrize("piece", [1000, 10**6])
def test_an_endless_command_takes_no_memory(length: int, piece: int) -> None:
    talk = session()
    octets = b"N" * length + b"\r\nNOOP\r\n"
    codes: list[int] = []
    for at in range(0, len(octets), piece):
        codes += talk.codes(octets[at : at + piece])
        assert len(talk.smtp._buffer) <= COMMAND_OCTETS_MAX + 1000
    assert codes == [500, 250]


# What other servers have taken for the end of a content (CVE-2023-51764 and its kin).
FALSE_ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\n.\r",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
]


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("end", FALSE_ENDS)
def test_smuggling(end: bytes, one_by_one: bool) -> None:
    talk = session()
    talk.said(ENVELOPE)
    octets = b"innocent" + end + SECOND
    pieces = [octets]
    if one_by_one:
        pieces = [octets[i : i + 1] for i in range(len(octets))]
    codes = [code for piece in pieces for code in talk.codes(piece)]
    assert codes == [550]
    assert talk.messages == []
    assert talk.codes(b"NOOP\r\n") == [250]


def test_content_before_354_ends_the_session() -> None:
    talk = session()
    assert talk.codes(ENVELOPE + b"early\r\n.\r\n" + SECOND) == [250, 250, 554]
    assert talk.smtp.is_closed
    assert talk.messages == []


@pytest.mark.parametrize("behind", [b"NOOP\r\n", b"RSET\r\n", b"M", b"\x16\x03\x01"])
def test_commands_behind_starttls_end_the_session(behind: bytes) -> None:
    talk = session(ServerSettings(starttls=True))
    assert talk.codes(b"STARTTLS\r\n" + behind) == [554]
    assert talk.smtp.is_closed
    assert not any(isinstance(request, StartTls) for request in talk.requests)


def test_tls_begins_the_session_anew() -> None:
    talk = session(ServerSettings(starttls=True))
    talk.said(b"MAIL FROM:<>\r\nRSET\r\n")
    assert talk.codes(b"STARTTLS\r\n") == [220]
    # Plain text that arrives during the handshake is never read as commands.
    assert talk.said(b"EHLO x\r\nMAIL FROM:<>\r\n") == b""
    talk.smtp.tls_started()
    assert talk.codes(b"MAIL FROM:<>\r\n") == [503]
    assert b"STARTTLS" not in talk.said(b"EHLO x\r\n")
    assert talk.codes(b"STARTTLS\r\n") == [502]


def test_misuse_by_the_application() -> None:
    server = SmtpServer("mx.example")
    with pytest.raises(LocalProtocolError):
        server.accept()
    with pytest.raises(LocalProtocolError):
        server.answer(Answer(250, "ok"))
    server.next_request()
    with pytest.raises(LocalProtocolError):
        server.next_request()


COMMANDS = st.sampled_from(
    [
        b"EHLO x\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"DATA\r\n",
        b"text\r\n",
        b".\r\n",
        b"..\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"\n",
        b"\r",
        b"\0",
    ]
)


@given(
    lines=st.lists(st.one_of(COMMANDS, st.binary(max_size=8)), max_size=20),
    cuts=st.lists(st.integers(1, 200), max_size=6),
)
def test_no_octets_in_any_pieces_bring_in_a_bad_message(
    lines: list[bytes], cuts: list[int]
) -> None:
    octets = b"".join(lines)
    places = sorted({0, *(cut for cut in cuts if cut < len(octets)), len(octets)})
    talk = session()
    for begin, end in pairwise(places):
        talk.said(octets[begin:end])
    for message in talk.messages:
        assert b"\0" not in message.content
        assert message.content.replace(b"\r\n", b"").count(b"\n") == 0
        assert message.recipients
    requests = [type(request) for request in talk.requests]
    assert requests.count(Message) <= requests.count(Data)
