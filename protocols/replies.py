"""SMTP replies: octets of the peer to `Reply` values (RFC 5321 4.2, RFC 2034).

Owns the shape of a reply line, the joining of multi-line replies, the enhanced
status code and the limits that a peer must keep. What a reply means for a mail
is `outcomes`. Text is the peer's, so it is made harmless here, once: what is not
printable is written as an escape and the length is capped.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec

from protocols.errors import RemoteProtocolError

# RFC 5321 4.5.3.1.5 promises 512 octets a line. Policy refusals with links are
# longer in practice, so we allow eight times that before we say it is not SMTP.
REPLY_LINE_OCTETS_MAX: Final = 4096
# The longest honest reply is an EHLO response of some 40 lines. A reply without
# end would otherwise be collected until memory is gone.
REPLY_OCTETS_MAX: Final = 65536
# What is kept of the text: it goes into every event and every listing.
REPLY_TEXT_CHARACTERS_MAX: Final = 1000

# The second digit is left open: 571 and 573 are not in the RFC but on the wire.
_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
# "#5.1.0" and "5.1.1:" are seen as well; four groups of digits are an address.
_ENHANCED: Final = re.compile(r"#?([245]\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9.])[ :]*")


# What stands before the @ of an address in a reply, quoted or not. It is looked for only from where
# a word begins: from each letter of it, one long word would cost the square of its length.
_MAILBOX_NAME: Final = re.compile(r"""("[^"]*"|(?<![^\s<>,;:()"'])[^\s<>,;:()"']+)@""")


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One whole reply.

    `enhanced_status_code` is "5.1.1" or "", `lines` the text of each line
    without both codes.
    """

    code: int
    enhanced_status_code: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the text on one line, capped."""
        text = self.lines[0] if len(self.lines) == 1 else " ".join(filter(None, self.lines))
        if len(text) > REPLY_TEXT_CHARACTERS_MAX:
            return text[: REPLY_TEXT_CHARACTERS_MAX - 1] + "…"
        return text

    @property
    def on_one_line(self) -> str:
        """Return code, enhanced code and text, as the outside faces show a reply."""
        if self.enhanced_status_code:
            return f"{self.code} {self.enhanced_status_code} {self.text}".rstrip()
        return f"{self.code} {self.text}".rstrip()


class ReplyParser:
    """Cuts a stream of octets, given in pieces of any size, into replies."""

    __slots__ = ("_collected", "_collected_octets", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._collected: list[tuple[int, str]] = []
        self._collected_octets = 0

    @property
    def holds_octets(self) -> bool:
        """Whether a piece of an unfinished reply is waiting for more."""
        return bool(self._rest or self._collected)

    def receive(self, data: bytes) -> Iterator[Reply]:
        """Yield the replies that `data` completes, in order.

        The iterator raises RemoteProtocolError when it comes to octets that are
        no reply, after yielding those before them; the parser is of no use then.
        """
        lines = (self._rest + data).split(b"\r\n")
        self._rest = rest = lines.pop()
        for line in lines:
            if self._collected or line[3:4] == b"-":
                reply = self._next_of_many(line)
                if reply is not None:
                    yield reply
            else:
                code, text, _ = _parse_line(line)
                yield _reply_of_line(code, text)
        if len(rest) > REPLY_LINE_OCTETS_MAX:
            raise RemoteProtocolError(f"reply line of more than {REPLY_LINE_OCTETS_MAX} octets")
        if b"\n" in rest:
            raise RemoteProtocolError("bare LF in a reply")

    def _next_of_many(self, line: bytes) -> Reply | None:
        code, text, more = _parse_line(line)
        self._collected_octets += len(line)
        if self._collected_octets > REPLY_OCTETS_MAX:
            raise RemoteProtocolError(f"reply of more than {REPLY_OCTETS_MAX} octets")
        if self._collected and self._collected[0][0] != code:
            raise RemoteProtocolError(
                f"code changes inside a reply: {self._collected[0][0]}, then {code}"
            )
        self._collected.append((code, text))
        if more:
            return None
        lines = tuple(text for _, text in self._collected)
        self._collected = []
        self._collected_octets = 0
        return _with_enhanced_code(code, lines)


# Servers repeat themselves: three of the four replies to a mail are the same
# octets each time. The entries are bounded by the line limit, 1 MB at worst.
@lru_cache(maxsize=256)
def _parse_line(line: bytes) -> tuple[int, str, bool]:
    """Return code, harmless text, and whether further lines follow."""
    matched = _LINE.fullmatch(line) if len(line) <= REPLY_LINE_OCTETS_MAX else None
    if matched is None:
        raise RemoteProtocolError(f"not an SMTP reply: {harmless_text(line[:80])!r}")
    if b"\n" in line:
        # A relay that ends lines at LF could be made to read a forged reply here.
        raise RemoteProtocolError("bare LF in a reply")
    code, separator, text = matched.groups()
    return int(code), harmless_text(text or b"").rstrip(), separator == b"-"


@lru_cache(maxsize=256)
def _reply_of_line(code: int, text: str) -> Reply:
    return _with_enhanced_code(code, (text,))


def _with_enhanced_code(code: int, lines: tuple[str, ...]) -> Reply:
    matched = _ENHANCED.match(lines[0])
    if matched is None:
        return Reply(code, "", lines)
    enhanced = matched[1]
    return Reply(code, enhanced, tuple(_without_enhanced_code(line, enhanced) for line in lines))


def _without_enhanced_code(line: str, enhanced: str) -> str:
    # RFC 2034 has the code on every line of a reply; not every server repeats it.
    matched = _ENHANCED.match(line)
    return line[matched.end() :] if matched is not None and matched[1] == enhanced else line


def harmless_text(octets: bytes) -> str:
    """Return foreign octets as printable text, the rest of them as escapes.

    Controls, separators and direction marks would otherwise reach terminals,
    logs and pages. Linear in its input.
    """
    text = octets.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def _escape(code_point: int) -> str:
    if code_point < 0x100:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"


def without_mailboxes(text: str) -> str:
    """Return a reply without the names of mailboxes in it, for whom they are not meant."""
    return _MAILBOX_NAME.sub("…@", text) if "@" in text else text
