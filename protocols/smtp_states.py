"""The SMTP states and what leads from one to the next, as data, for both ends.

`smtp_client` and `smtp_server` walk these tables and assign a state nowhere else.
Our end pipelines, so it has two kinds of state: one for the session, and one for
each transaction in the pipe. RFC 5321 section 3 and 4.1.4, RFC 3207, RFC 2920.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final


class Stage(StrEnum):
    """What the deciding reply answered, in the order a session meets them."""

    LOCAL = "local"  # nothing was sent: we knew beforehand
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    TLS = "TLS handshake"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "final dot"
    RSET = "RSET"
    QUIT = "QUIT"


class Verdict(Enum):
    """What the first digit of a reply says about the command it answers."""

    ACCEPTED = "2yz"
    GO_AHEAD = "3yz"
    REFUSED = "4yz or 5yz"


_ORDINARY: Final = {2: Verdict.ACCEPTED, 4: Verdict.REFUSED, 5: Verdict.REFUSED}

# First digits that are legal for each command. What is missing (354 to MAIL, 250
# to DATA) means that the peer and we are not talking about the same command, and
# going on could take somebody else's 250 for a delivery.
LEGAL_REPLIES: Final[Mapping[Stage, Mapping[int, Verdict]]] = {
    Stage.BANNER: _ORDINARY,
    Stage.EHLO: _ORDINARY,
    Stage.STARTTLS: _ORDINARY,
    Stage.MAIL: _ORDINARY,
    Stage.RCPT: _ORDINARY,
    Stage.DATA: {3: Verdict.GO_AHEAD, 4: Verdict.REFUSED, 5: Verdict.REFUSED},
    Stage.DOT: _ORDINARY,
    Stage.RSET: {2: Verdict.ACCEPTED},
    Stage.QUIT: _ORDINARY,
}


class ClientState(Enum):
    """Our end of a session."""

    BANNER = "waiting for the banner"
    EHLO = "waiting for the EHLO reply"
    HELO = "waiting for the HELO reply"
    STARTTLS = "waiting for the STARTTLS reply"
    HANDSHAKE = "TLS handshake under way"
    READY = "transactions may be sent"
    QUITTING = "waiting for the QUIT reply"
    CLOSED = "closed"


class ClientEvent(Enum):
    GREETED = "banner accepted"
    ACCEPTED = "command accepted"
    OFFERS_TLS = "EHLO accepted, and TLS is offered and wanted"
    REFUSED = "command refused"
    SECURED = "TLS handshake done"
    QUIT = "we leave"
    CLOSE = "the session is over"


CLIENT_TRANSITIONS: Final[Mapping[ClientState, Mapping[ClientEvent, ClientState]]] = {
    ClientState.BANNER: {
        ClientEvent.GREETED: ClientState.EHLO,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.EHLO: {
        ClientEvent.ACCEPTED: ClientState.READY,
        ClientEvent.OFFERS_TLS: ClientState.STARTTLS,
        ClientEvent.REFUSED: ClientState.HELO,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.HELO: {
        ClientEvent.ACCEPTED: ClientState.READY,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.STARTTLS: {
        ClientEvent.ACCEPTED: ClientState.HANDSHAKE,
        ClientEvent.REFUSED: ClientState.READY,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.HANDSHAKE: {
        ClientEvent.SECURED: ClientState.EHLO,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.READY: {
        ClientEvent.QUIT: ClientState.QUITTING,
        ClientEvent.CLOSE: ClientState.CLOSED,
    },
    ClientState.QUITTING: {ClientEvent.CLOSE: ClientState.CLOSED},
    ClientState.CLOSED: {ClientEvent.CLOSE: ClientState.CLOSED},
}


# Of text, whose hash is kept: the table of these two is walked for every mail, and the hash of an
# ordinary Enum is worked out in Python.
class TransactionState(StrEnum):
    """One transaction in our pipe."""

    ENVELOPE = "MAIL, RCPT and DATA under way"
    CONTENT = "content and final dot under way"
    FAILED = "the sender was refused; replies are only counted"
    EMPTY = "lone dot under way: DATA was accepted for nobody"
    DONE = "every recipient has its outcome"


class TransactionEvent(StrEnum):
    SENDER_REFUSED = "MAIL refused"
    GO_AHEAD = "354 with recipients accepted"
    GO_AHEAD_FOR_NOBODY = "354 with no recipient accepted"
    REFUSED = "DATA refused, or never sent"
    ANSWERED = "the final dot is answered"


TRANSACTION_TRANSITIONS: Final[
    Mapping[TransactionState, Mapping[TransactionEvent, TransactionState]]
] = {
    TransactionState.ENVELOPE: {
        TransactionEvent.SENDER_REFUSED: TransactionState.FAILED,
        TransactionEvent.GO_AHEAD: TransactionState.CONTENT,
        TransactionEvent.GO_AHEAD_FOR_NOBODY: TransactionState.EMPTY,
        TransactionEvent.REFUSED: TransactionState.DONE,
    },
    TransactionState.FAILED: {
        TransactionEvent.GO_AHEAD_FOR_NOBODY: TransactionState.EMPTY,
        TransactionEvent.REFUSED: TransactionState.DONE,
    },
    TransactionState.CONTENT: {TransactionEvent.ANSWERED: TransactionState.DONE},
    TransactionState.EMPTY: {TransactionEvent.ANSWERED: TransactionState.DONE},
    TransactionState.DONE: {},
}


class ServerState(Enum):
    """The other end of a session."""

    CONNECTED = "no EHLO yet"
    READY = "between mails"
    MAIL = "reverse path given"
    RCPT = "at least one recipient accepted"
    CONTENT = "content is coming"
    HANDSHAKE = "TLS handshake under way"
    CLOSED = "closed"


class Verb(StrEnum):
    """The commands our server knows."""

    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    QUIT = "QUIT"


# Legal anywhere, without effect on a transaction (RFC 5321 4.1.4); EHLO and RSET
# end one.
_ANYWHERE: Final = {
    Verb.EHLO: ServerState.READY,
    Verb.HELO: ServerState.READY,
    Verb.QUIT: ServerState.CLOSED,
}

# Where an accepted command leads; a command that is not in a row gets 503.
SERVER_TRANSITIONS: Final[Mapping[ServerState, Mapping[Verb, ServerState]]] = {
    ServerState.CONNECTED: {
        **_ANYWHERE,
        Verb.RSET: ServerState.CONNECTED,
        Verb.NOOP: ServerState.CONNECTED,
        Verb.VRFY: ServerState.CONNECTED,
    },
    ServerState.READY: {
        **_ANYWHERE,
        Verb.STARTTLS: ServerState.HANDSHAKE,
        Verb.MAIL: ServerState.MAIL,
        Verb.RSET: ServerState.READY,
        Verb.NOOP: ServerState.READY,
        Verb.VRFY: ServerState.READY,
    },
    ServerState.MAIL: {
        **_ANYWHERE,
        Verb.RCPT: ServerState.RCPT,
        Verb.RSET: ServerState.READY,
        Verb.NOOP: ServerState.MAIL,
        Verb.VRFY: ServerState.MAIL,
    },
    ServerState.RCPT: {
        **_ANYWHERE,
        Verb.RCPT: ServerState.RCPT,
        Verb.DATA: ServerState.CONTENT,
        Verb.RSET: ServerState.READY,
        Verb.NOOP: ServerState.RCPT,
        Verb.VRFY: ServerState.RCPT,
    },
    ServerState.CONTENT: {},
    ServerState.HANDSHAKE: {},
    ServerState.CLOSED: {},
}
