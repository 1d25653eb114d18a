"""What goes into an SMTP session and what comes out of it, as values.

`smtp_client` turns the ones into the others; `engine.delivery.connection` and the
actors only see these. The one decision here needs no session: what EHLO already
told that the server cannot take.
"""

from collections.abc import Sequence
from enum import Enum
from typing import TypeAlias

import msgspec

from protocols import commands
from protocols.capabilities import Capabilities
from protocols.content import has_bare_line_ending
from protocols.outcomes import Bounced, Deferred, Outcome, refused_locally
from protocols.records import Reason


class TlsPolicy(Enum):
    """How much encryption a session must have; the words of the configuration."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"  # where the server offers it; in plain text else
    REQUIRED = "required"  # or the session fails


class Transaction(msgspec.Struct, frozen=True):
    """One content for one or more recipients under one reverse path.

    `recipients` are (envelope_id, address for RCPT TO without brackets), at
    least one. `reverse_path` is "" for the null sender. `content` is the whole
    mail with CRLF line ends, not dot-stuffed.
    """

    reverse_path: str
    recipients: Sequence[tuple[int, str]]
    content: bytes
    needs_8bit: bool = False
    needs_utf8: bool = False


class SessionReady(msgspec.Struct, frozen=True):
    """EHLO and, as the policy asks, TLS are done: transactions may be sent."""

    capabilities: Capabilities


class StartTls(msgspec.Struct, frozen=True):
    """Do the TLS handshake now, then call `tls_started()`."""


class EnvelopeOutcome(msgspec.Struct, frozen=True, gc=False):
    """What came of one envelope; exactly one of these for each that was sent."""

    envelope_id: int
    outcome: Outcome


class Closed(msgspec.Struct, frozen=True):
    """The session is over: close the connection. `cause` says why, in an outcome's words."""

    cause: Deferred


Result: TypeAlias = SessionReady | StartTls | EnvelopeOutcome | Closed


def refusal_known_beforehand(
    transaction: Transaction, capabilities: Capabilities
) -> Bounced | None:
    """Return why this server cannot take the mail, as far as EHLO told; None if it may."""
    size = len(transaction.content)
    if capabilities.size_max is not None and size > capabilities.size_max:
        what = f"not sent: {size} octets, the server takes {capabilities.size_max}"
        return refused_locally(552, "5.3.4", what, Reason.SIZE)
    if transaction.needs_utf8 and not capabilities.smtputf8:
        return _needs_smtputf8(transaction)
    if transaction.needs_8bit and not capabilities.eight_bit_mime:
        what = "not sent: the content needs 8BITMIME, which the server does not offer"
        return refused_locally(554, "5.6.3", what, Reason.PROTOCOL)
    if has_bare_line_ending(transaction.content):
        what = "not sent: the content has a bare CR or LF"
        return refused_locally(554, "5.6.0", what, Reason.PROTOCOL)
    return None


def _needs_smtputf8(transaction: Transaction) -> Bounced:
    """Return the refusal that RFC 6531 section 3.2 asks for, with the codes of its section 4.

    It says nothing about whether the recipient exists: the bounce is no hard one.
    """
    told = "beyond ASCII, and the server does not offer SMTPUTF8"
    addresses = (transaction.reverse_path, *(address for _, address in transaction.recipients))
    if all(address.isascii() for address in addresses):
        what = f"not sent: the header has an address {told}"
        return refused_locally(550, "5.6.9", what, Reason.PROTOCOL)
    return refused_locally(553, "5.6.7", f"not sent: an address is {told}", Reason.PROTOCOL)


def envelope_commands(transaction: Transaction, capabilities: Capabilities) -> list[bytes]:
    """Return MAIL and one RCPT a recipient. Raises LocalProtocolError for an unfit address."""
    utf8 = transaction.needs_utf8
    lines = [
        commands.mail(
            transaction.reverse_path,
            capabilities,
            size_octets=len(transaction.content),
            needs_8bit=transaction.needs_8bit,
            needs_utf8=utf8,
        )
    ]
    lines += [commands.rcpt(address, utf8=utf8) for _, address in transaction.recipients]
    return lines


def recipients_fit_for_wire(transaction: Transaction) -> list[tuple[int, str]]:
    """Return the recipients whose address can stand in a command; none if the sender's cannot."""
    utf8 = transaction.needs_utf8
    sender = transaction.reverse_path
    if sender and not commands.is_wire_address(sender, utf8=utf8):
        return []
    return [pair for pair in transaction.recipients if commands.is_wire_address(pair[1], utf8=utf8)]
