"""What a server says it can do: the EHLO response as a value (RFC 5321 4.1.1.1).

Only extensions that change what we send are kept. Keywords are compared without
case, unknown ones and bad parameters are passed over: a server that announces
nonsense still takes plain SMTP.
"""

from collections.abc import Sequence
from typing import Final

import msgspec


class Capabilities(msgspec.Struct, frozen=True):
    """The extensions of one session. `size_max` is in octets; None when there is no limit."""

    extended: bool = False  # False after HELO: then nothing else is True either.
    pipelining: bool = False  # RFC 2920
    size: bool = False  # RFC 1870: SIZE= may stand on MAIL
    size_max: int | None = None
    eight_bit_mime: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    starttls: bool = False  # RFC 3207
    chunking: bool = False  # RFC 3030
    dsn: bool = False  # RFC 3461


NO_CAPABILITIES: Final = Capabilities()

# A SIZE of more digits than this is no size; int() of it would only cost time.
_SIZE_DIGITS_MAX: Final = 20


def parse_capabilities(lines: Sequence[str]) -> Capabilities:
    """Return the capabilities in the lines of an EHLO response; the first line is a greeting."""
    keywords: dict[str, str] = {}
    for line in lines[1:]:
        keyword, _, parameters = line.partition(" ")
        keywords.setdefault(keyword.upper(), parameters.strip())
    size = keywords.get("SIZE", "")
    is_number = size.isascii() and size.isdigit() and len(size) <= _SIZE_DIGITS_MAX
    return Capabilities(
        extended=True,
        pipelining="PIPELINING" in keywords,
        size="SIZE" in keywords,
        # RFC 1870 section 4: no parameter, or 0, is no fixed limit.
        size_max=(int(size) or None) if is_number else None,
        eight_bit_mime="8BITMIME" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        starttls="STARTTLS" in keywords,
        chunking="CHUNKING" in keywords,
        dsn="DSN" in keywords,
    )
