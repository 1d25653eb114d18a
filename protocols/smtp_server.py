"""The other end of an SMTP session: octets in, requests out, one answer for each (RFC 5321).

For submission, for the rehearsal's receivers and for test dialogues. Owns command
syntax and order, the end of content, and what is refused whatever the application
thinks: bare CR, LF or NUL in content, oversize, too many recipients, commands
behind STARTTLS, content before 354. Who may send what to whom is the
application's answer. Replies leave in the order of the commands, and together
when commands came together (RFC 2920).

    server = SmtpServer("mx.example")
    server.receive(data)
    while (request := server.next_request()) is not None:
        match request:
            case Rcpt(address): server.answer(Answer(550, "5.1.1 no such user"))
            case _: server.accept()
    await wire.send(server.data_to_send())
"""

import re
from typing import Final, TypeAlias

import msgspec

from protocols.content import END_OF_CONTENT, from_wire, has_bare_line_ending
from protocols.errors import LocalProtocolError
from protocols.smtp_states import SERVER_TRANSITIONS, ServerState, Verb

# RFC 5321 4.5.3.1.4 asks for 512 octets a command, RFC 4954 for 12,288 with AUTH.
COMMAND_OCTETS_MAX: Final = 12_288


class Connected(msgspec.Struct, frozen=True):
    """The session begins. Accepting sends the 220 banner; a 4yz or 5yz answer ends it."""


class Hello(msgspec.Struct, frozen=True):
    """EHLO or HELO. Accepting lists the extensions."""

    name: str
    extended: bool


class Mail(msgspec.Struct, frozen=True):
    """MAIL FROM. `reverse_path` is "" for the null sender; `size` as declared, 0 if not."""

    reverse_path: str
    size: int = 0
    is_8bit: bool = False
    is_utf8: bool = False


class Rcpt(msgspec.Struct, frozen=True):
    """RCPT TO."""

    address: str


class Data(msgspec.Struct, frozen=True):
    """DATA, before its 354."""


class Message(msgspec.Struct, frozen=True):
    """A whole mail, dots unstuffed, for the accepted recipients. Accepting takes it over."""

    mail: Mail
    recipients: list[str]
    content: bytes


class StartTls(msgspec.Struct, frozen=True):
    """STARTTLS. After accepting and sending, do the handshake and call `tls_started()`."""


Request: TypeAlias = Connected | Hello | Mail | Rcpt | Data | Message | StartTls


class Answer(msgspec.Struct, frozen=True):
    """A reply of the application; `text` begins with the enhanced code if there is one.

    Several lines are separated by LF. `closes`: the connection ends after it, as
    it does after 421 in any case.
    """

    code: int
    text: str
    closes: bool = False


class ServerSettings(msgspec.Struct, frozen=True):
    """What a server offers. `size_max` is in octets."""

    size_max: int = 50_000_000
    recipients_max: int = 1000
    pipelining: bool = True
    eight_bit_mime: bool = True
    smtputf8: bool = True
    starttls: bool = False
    # False makes a server of the kind that only knows RFC 821: EHLO gets 502.
    extended: bool = True


_ORDINARY_ANSWERS: Final = {
    Mail: "2.1.0 sender ok",
    Rcpt: "2.1.5 recipient ok",
    Message: "2.0.0 ok",
}
_PATH: Final = r"<(?P<path>(?:\"(?:[^\"\\]|\\.)*\"|[^\"<>\s])*)>"
_MAIL: Final = re.compile(rf"FROM: ?{_PATH}(?P<parameters>(?: [!-~]+)*) *", re.IGNORECASE)
_RCPT: Final = re.compile(rf"TO: ?{_PATH}(?P<parameters>(?: [!-~]+)*) *", re.IGNORECASE)
_SIZE_DIGITS_MAX: Final = 20


class SmtpServer:
    """One session. Pull requests with `next_request` and answer each before the next."""

    def __init__(self, hostname: str, settings: ServerSettings | None = None) -> None:
        self._hostname = hostname
        self._settings = settings or ServerSettings()
        self._state = ServerState.CONNECTED
        self._buffer = bytearray()
        self._searched = 0  # octets of the buffer known to hold no end of content
        self._dropped = 0  # octets of an oversized content that were thrown away
        self._out: list[bytes] = []
        self._asked: Request | None = None
        self._is_greeted = False
        self._skips_line = False
        self._mail: Mail | None = None
        self._recipients: list[str] = []
        self._verb = Verb.NOOP
        self.tls_active = False
        self.messages_accepted = 0

    @property
    def state(self) -> ServerState:
        return self._state

    @property
    def is_closed(self) -> bool:
        """Whether the connection is to be closed once `data_to_send()` is written."""
        return self._state is ServerState.CLOSED

    def receive(self, data: bytes) -> None:
        """Take what was read. Requests come out of `next_request`."""
        if not self.is_closed:
            self._buffer += data

    def data_to_send(self) -> bytes:
        """Return the replies to be written now."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def next_request(self) -> Request | None:
        """Return what the application has to answer next; None when more input is needed.

        The first request of a session is `Connected`. Raises LocalProtocolError
        when the last request has no answer yet.
        """
        if self._asked is not None:
            raise LocalProtocolError(f"{type(self._asked).__name__} is not answered")
        if not self._is_greeted:
            self._is_greeted = True
            self._asked = Connected()
            return self._asked
        while self._read_on():
            if self._is_asking():
                return self._asked
        return None

    def accept(self) -> None:
        """Answer the last request with the ordinary yes."""
        asked = self._asked
        if isinstance(asked, Connected):
            self.answer(Answer(220, f"{self._hostname} ESMTP"))
        elif isinstance(asked, Hello):
            self.answer(Answer(250, self._hello_text(asked)))
        elif isinstance(asked, Data):
            self.answer(Answer(354, "end with CRLF.CRLF"))
        elif isinstance(asked, StartTls):
            self.answer(Answer(220, "2.0.0 ready for TLS"))
        elif asked is None:
            raise LocalProtocolError("nothing was asked")
        else:
            self.answer(Answer(250, _ORDINARY_ANSWERS[type(asked)]))

    def answer(self, answer: Answer) -> None:
        """Answer the last request. What the session does next follows from the code."""
        asked = self._asked
        if asked is None:
            raise LocalProtocolError("nothing was asked")
        self._asked = None
        self._reply(answer.code, answer.text)
        is_yes = answer.code < 400
        if isinstance(asked, Message):
            self._state = ServerState.READY
            self._forget_transaction()
            self.messages_accepted += is_yes
        elif isinstance(asked, Connected):
            answer = answer if is_yes else Answer(answer.code, answer.text, closes=True)
        elif is_yes:
            self._apply(asked)
        if answer.closes or answer.code == 421:
            self._close()

    def tls_started(self) -> None:
        """The handshake is done: the session begins anew (RFC 3207 4.2)."""
        self._buffer.clear()
        self._state = ServerState.CONNECTED
        self._forget_transaction()
        self.tls_active = True

    def _is_asking(self) -> bool:
        return self._asked is not None

    def _read_on(self) -> bool:
        """Handle one command or content; return False when there is none."""
        if self._state is ServerState.CONTENT:
            return self._read_content()
        if self._state in (ServerState.HANDSHAKE, ServerState.CLOSED):
            return False
        return self._read_command()

    # Commands.

    def _read_command(self) -> bool:
        """Handle one line; return False when there is none."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > COMMAND_OCTETS_MAX:
                # Only the last octet can be half of the line end we look for.
                del self._buffer[:-1]
                self._skips_line = True
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._skips_line or end > COMMAND_OCTETS_MAX:
            self._skips_line = False
            self._reply(500, "5.5.6 line too long")
        elif b"\r" in line or b"\n" in line or b"\0" in line:
            self._reply(500, "5.5.2 bare CR, LF or NUL in a command")
        else:
            self._take_command(line)
        return True

    def _take_command(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        try:
            verb = Verb(word.decode("ascii").upper())
            arguments = rest.decode("utf-8")
        except UnicodeDecodeError:
            self._reply(501, "5.5.2 not UTF-8")
            return
        except ValueError:
            self._reply(500, "5.5.1 unknown command")
            return
        if verb not in SERVER_TRANSITIONS[self._state]:
            self._reply(503, self._out_of_order(verb))
            return
        self._verb = verb
        if verb is Verb.MAIL:
            self._take_mail(arguments)
        elif verb is Verb.RCPT:
            self._take_rcpt(arguments)
        elif verb is Verb.DATA:
            self._take_data()
        elif verb in (Verb.EHLO, Verb.HELO):
            self._take_hello(arguments, extended=verb is Verb.EHLO)
        elif verb is Verb.STARTTLS:
            self._take_starttls()
        elif verb is Verb.QUIT:
            self._reply(221, "2.0.0 bye")
            self._close()
        elif verb is Verb.RSET:
            self._state = SERVER_TRANSITIONS[self._state][verb]
            self._forget_transaction()
            self._reply(250, "2.0.0 ok")
        elif verb is Verb.VRFY:
            self._reply(252, "2.5.0 send some mail, I'll try my best")
        else:
            self._reply(250, "2.0.0 ok")

    def _out_of_order(self, verb: Verb) -> str:
        if verb is Verb.MAIL and self._state is not ServerState.CONNECTED:
            return "5.5.1 nested MAIL"
        wanted = {Verb.RCPT: "MAIL", Verb.DATA: "RCPT"}.get(verb, "EHLO")
        if self._state is ServerState.CONNECTED:
            wanted = "EHLO"
        return f"5.5.1 {wanted} first"

    def _take_mail(self, arguments: str) -> None:
        matched = _MAIL.fullmatch(arguments)
        if matched is None:
            self._reply(501, "5.1.7 expected MAIL FROM:<address>")
            return
        size, is_8bit, is_utf8 = 0, False, False
        for parameter in matched["parameters"].split():
            keyword, _, value = parameter.upper().partition("=")
            if keyword == "SIZE" and value.isdigit() and len(value) <= _SIZE_DIGITS_MAX:
                size = int(value)
            elif keyword == "BODY" and value in ("7BIT", "8BITMIME"):
                is_8bit = value == "8BITMIME"
            elif parameter.upper() == "SMTPUTF8" and self._settings.smtputf8:
                is_utf8 = True
            else:
                self._reply(555, "5.5.4 unknown parameter")
                return
        if size > self._settings.size_max:
            self._reply(552, f"5.3.4 more than {self._settings.size_max} octets")
        elif not (is_utf8 or matched["path"].isascii()):
            self._reply(553, "5.6.7 the address needs SMTPUTF8")
        else:
            self._asked = Mail(matched["path"], size, is_8bit, is_utf8)

    def _take_rcpt(self, arguments: str) -> None:
        matched = _RCPT.fullmatch(arguments)
        assert self._mail is not None  # the table has RCPT only behind MAIL
        if matched is None or not matched["path"]:
            self._reply(501, "5.1.3 expected RCPT TO:<address>")
        elif matched["parameters"]:
            self._reply(555, "5.5.4 unknown parameter")
        elif len(self._recipients) >= self._settings.recipients_max:
            self._reply(452, "4.5.3 too many recipients")
        elif not (self._mail.is_utf8 or matched["path"].isascii()):
            self._reply(553, "5.6.7 the address needs SMTPUTF8")
        else:
            self._asked = Rcpt(matched["path"])

    def _take_data(self) -> None:
        if self._buffer:
            # RFC 2920 3.1: DATA ends a group. What came before our 354 is not
            # content, and reading it as commands would let content give orders.
            self._reply(554, "5.5.0 content before 354")
            self._close()
        else:
            self._asked = Data()

    def _take_hello(self, name: str, *, extended: bool) -> None:
        if not name.strip():
            self._reply(501, "5.5.4 a name is needed")
        elif extended and not self._settings.extended:
            self._reply(502, "5.5.1 unknown command")
        else:
            self._asked = Hello(name.strip(), extended)

    def _take_starttls(self) -> None:
        if not self._settings.starttls or self.tls_active:
            self._reply(502, "5.5.1 no TLS here")
        elif self._buffer:
            # Commands sent in the clear and read behind the handshake would pass
            # for protected ones (CVE-2011-0411).
            self._reply(554, "5.5.0 commands behind STARTTLS")
            self._close()
        else:
            self._asked = StartTls()

    def _hello_text(self, hello: Hello) -> str:
        if not hello.extended:
            return self._hostname
        settings = self._settings
        offers = [
            (settings.pipelining, "PIPELINING"),
            (True, f"SIZE {settings.size_max}"),
            (settings.eight_bit_mime, "8BITMIME"),
            (settings.smtputf8, "SMTPUTF8"),
            (settings.starttls and not self.tls_active, "STARTTLS"),
            (True, "ENHANCEDSTATUSCODES"),
        ]
        return "\n".join([self._hostname, *(word for offered, word in offers if offered)])

    def _apply(self, asked: Request) -> None:
        """Do what a yes to `asked` means."""
        self._state = SERVER_TRANSITIONS[self._state][self._verb]
        if isinstance(asked, Mail):
            self._mail = asked
        elif isinstance(asked, Rcpt):
            self._recipients.append(asked.address)
        elif isinstance(asked, Hello):
            self._forget_transaction()
        elif isinstance(asked, Data):
            self._searched = 0
            self._dropped = 0

    # Content.

    def _read_content(self) -> bool:
        """Look for the end of the content; return False when it has not come."""
        buffer = self._buffer
        if not self._dropped and buffer.startswith(b".\r\n"):
            end, after = 0, 3
        else:
            at = buffer.find(END_OF_CONTENT, self._searched)
            end, after = at + 2, at + 5
            if at < 0:
                self._searched = max(0, len(buffer) - 4)
                if len(buffer) + self._dropped > self._settings.size_max + 4:
                    # It will be refused; only what may be half of its end is kept.
                    self._dropped += self._searched
                    del buffer[: self._searched]
                    self._searched = 0
                return False
        content = bytes(buffer[:end])
        del buffer[:after]
        self._take_content(content)
        return True

    def _take_content(self, lines: bytes) -> None:
        mail, recipients = self._mail, self._recipients
        assert mail is not None  # the table has CONTENT only behind MAIL
        content = from_wire(lines)
        if self._dropped or len(content) > self._settings.size_max:
            self._reply(552, f"5.3.4 more than {self._settings.size_max} octets")
        elif has_bare_line_ending(lines):
            # Somewhere on the way such a line end may be taken for a real one, and
            # the rest of the content for commands (RFC 5321 4.1.1.4).
            self._reply(550, "5.6.0 bare CR or LF in the content")
        elif b"\0" in lines:
            self._reply(550, "5.6.0 NUL in the content")
        else:
            self._asked = Message(mail, recipients, content)
            return
        self._state = ServerState.READY
        self._forget_transaction()

    # Replies and the end.

    def _reply(self, code: int, text: str) -> None:
        lines = text.split("\n")
        for line in lines[:-1]:
            self._out.append(f"{code}-{line}\r\n".encode())
        self._out.append(f"{code} {lines[-1]}\r\n".encode())

    def _forget_transaction(self) -> None:
        self._mail = None
        self._recipients = []

    def _close(self) -> None:
        self._state = ServerState.CLOSED
        self._buffer.clear()
