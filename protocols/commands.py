"""SMTP commands as octets, their parameters chosen from what the server can do.

The last guard against injection: whatever a caller hands over as an address or
a name, nothing leaves here that could end its line or its angle brackets
(RFC 5321 4.1.2; Unicode as RFC 6531 allows). Addresses that came in through
`protocols.addresses` always pass.
"""

import re
from functools import lru_cache
from typing import Final

from protocols.capabilities import Capabilities
from protocols.errors import LocalProtocolError

DATA: Final = b"DATA\r\n"
QUIT: Final = b"QUIT\r\n"
RSET: Final = b"RSET\r\n"
STARTTLS: Final = b"STARTTLS\r\n"

# Outside quotes: no space, no control, no bracket, no quote. Inside: escaped
# pairs. C1 controls, lone surrogates and the two Unicode line ends are kept out of both.
_WIRE_ADDRESS: Final = re.compile(
    r"(?:[^\x00-\x20\"(),:;<>@\[\\\]\x7f-\xa0\u2028\u2029\ud800-\udfff]+"
    r"|\"(?:[^\x00-\x1f\"\\\x7f-\xa0\u2028\u2029\ud800-\udfff]|\\[\x20-\x7e])*\")"
    r"@(?:[^\x00-\x20\"(),:;<>@\[\\\]\x7f-\xa0\u2028\u2029\ud800-\udfff]+|\[[0-9A-Za-z.:-]+\])"
)
_NAME: Final = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Za-z.:]+\]")


def ehlo(name: str) -> bytes:
    """Return EHLO with our name. Raises LocalProtocolError when it is no host name."""
    return b"EHLO " + _checked_name(name) + b"\r\n"


def helo(name: str) -> bytes:
    """Return HELO with our name. Raises LocalProtocolError when it is no host name."""
    return b"HELO " + _checked_name(name) + b"\r\n"


def mail(
    reverse_path: str,
    capabilities: Capabilities,
    *,
    size_octets: int,
    needs_8bit: bool = False,
    needs_utf8: bool = False,
) -> bytes:
    """Return MAIL FROM. `reverse_path` is "" for the null sender.

    SIZE is declared where the server takes it (RFC 1870), BODY=8BITMIME and
    SMTPUTF8 only for a mail that needs them: they bind every later relay.
    Raises LocalProtocolError for an address that cannot stand on a line.
    """
    command = _mail_from(reverse_path, needs_utf8)
    if capabilities.size:
        command += b" SIZE=%d" % size_octets
    if needs_8bit and capabilities.eight_bit_mime:
        command += b" BODY=8BITMIME"
    if needs_utf8 and capabilities.smtputf8:
        command += b" SMTPUTF8"
    return command + b"\r\n"


# A campaign has one reverse path for all its mails.
@lru_cache(maxsize=256)
def _mail_from(reverse_path: str, utf8: bool) -> bytes:
    path = _checked_address(reverse_path, utf8=utf8) if reverse_path else b""
    return b"MAIL FROM:<" + path + b">"


def rcpt(recipient: str, *, utf8: bool = False) -> bytes:
    """Return RCPT TO. Raises LocalProtocolError for an address that cannot stand on a line.

    `utf8`: SMTPUTF8 was said on MAIL, so that the address need not be ASCII.
    """
    return b"RCPT TO:<" + _checked_address(recipient, utf8=utf8) + b">\r\n"


def is_wire_address(address: str, *, utf8: bool = False) -> bool:
    """Whether `address` may stand between angle brackets in a command."""
    return _WIRE_ADDRESS.fullmatch(address) is not None and (utf8 or address.isascii())


def _checked_address(address: str, *, utf8: bool) -> bytes:
    if not is_wire_address(address, utf8=utf8):
        raise LocalProtocolError(f"not an address for the wire: {address!r}")
    return address.encode()


def _checked_name(name: str) -> bytes:
    if _NAME.fullmatch(name) is None:
        raise LocalProtocolError(f"not a host name for EHLO: {name!r}")
    return name.encode()
