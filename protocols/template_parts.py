"""One text part of a template, made ready once so that filling it in is mostly joining.

The transfer encoding is chosen from the literals when the part is made: as it is, quoted-printable
or base64. A part of plain ASCII lines goes as it is unless a value needs more; then, and always
where a literal does, each literal has been encoded beforehand and only the values are encoded.
Quoted-printable pieces that were encoded apart may be joined, since no piece ends in white space;
lines are kept at 76 by soft breaks around a value (RFC 2045 6.7).
"""

from collections.abc import Callable
from functools import cached_property
from html import escape as escape_html
from typing import Final

from protocols.header_fields import LINE_OCTETS_MAX
from protocols.mime import (
    encode_base64,
    encode_quoted_printable,
    has_controls,
    has_long_line,
    prefers_quoted_printable,
    text_part_head,
)
from protocols.template_language import Text

# RFC 2045 6.7 (5): 76 with the "=" of a soft break.
_QP_COLUMNS: Final = 75
_SOFT_BREAK: Final = b"=\r\n"


class TextPart:
    """A part of type text/`subtype`. Values are escaped if that is HTML."""

    def __init__(self, subtype: str, text: Text) -> None:
        self._subtype = subtype
        self.text = text
        self._escape = escape_html if subtype == "html" else _as_it_is
        literals = [literal.encode() for literal in text.literals]
        whole = b"".join(literals)
        self.characters = sum(map(len, text.literals))
        self._longest_line = max(map(len, whole.split(b"\n")))
        # HTML from a machine is often one long line; then values are not even looked at.
        self._is_plain = (
            whole.isascii() and not has_controls(whole) and self._longest_line <= LINE_OCTETS_MAX
        )
        self._is_base64 = not prefers_quoted_printable(whole)

    @property
    def name(self) -> str:
        return "html" if self._subtype == "html" else "text"

    def characters_inserted(self, find: Callable[[str], str | None]) -> int:
        """Return how long the values are together, as they will stand in the text."""
        return self.text.characters_escaped(find, self._escape)

    def fill(self, find: Callable[[str], str | None]) -> bytes:
        """Return content fields, an empty line and the encoded text, with CRLF line ends.

        Raises MissingVariable.
        """
        values = self.text.values(find, self._escape)
        for number, value in enumerate(values):
            if "\r" in value:
                values[number] = value.replace("\r\n", "\n").replace("\r", "\n")
        if self._is_plain:
            octets = self._filled_plain(values)
            if octets is not None:
                return text_part_head(self._subtype, b"7bit") + octets
        elif self._is_base64:
            octets = self.text.with_values(values).encode().replace(b"\n", b"\r\n")
            return text_part_head(self._subtype, b"base64") + encode_base64(octets)
        head = text_part_head(self._subtype, b"quoted-printable")
        return head + self._filled_quoted_printable(values)

    def _filled_plain(self, values: list[str]) -> bytes | None:
        """Return the text unencoded, or None if these values need an encoding."""
        given = "".join(values)
        if not given.isascii() or has_controls(given.encode()):
            return None
        octets = self._crlf.with_values(
            [value.replace("\n", "\r\n") for value in values] if "\n" in given else values
        ).encode()
        if self._longest_line + len(given) > LINE_OCTETS_MAX and has_long_line(octets):
            return None
        return octets

    @cached_property
    def _crlf(self) -> Text:
        literals = tuple(literal.replace("\n", "\r\n") for literal in self.text.literals)
        return Text(literals, self.text.placeholders)

    @cached_property
    def _encoded(self) -> list["_Piece"]:
        return [_Piece(_quoted_printable(literal)) for literal in self.text.literals]

    def _filled_quoted_printable(self, values: list[str]) -> bytes:
        pieces = self._encoded
        first = pieces[0]
        parts = [first.octets]
        column = first.last_line
        for number, value in enumerate(values, 1):
            for piece in (_value_piece(value), pieces[number]):
                if column and column + piece.first_line > _QP_COLUMNS:
                    parts.append(_SOFT_BREAK)
                    column = 0
                parts.append(piece.octets)
                column = piece.last_line + (0 if piece.has_break else column)
        return b"".join(parts)


class _Piece:
    """Quoted-printable octets, and how long their first and last lines are."""

    __slots__ = ("first_line", "has_break", "last_line", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        first = octets.find(b"\r\n")
        self.has_break = first >= 0
        self.first_line = first if self.has_break else len(octets)
        self.last_line = len(octets) - octets.rfind(b"\r\n") - 2 if self.has_break else len(octets)


def _value_piece(value: str) -> _Piece:
    # What most values are: a few words that need nothing.
    if (
        len(value) < _QP_COLUMNS
        and value.isascii()
        and value.isprintable()
        and "=" not in value
        and value[-1:] != " "
    ):
        return _Piece(value.encode())
    return _Piece(_quoted_printable(value))


def _quoted_printable(text: str) -> bytes:
    """Return a piece whose last line has room for a soft break."""
    octets = encode_quoted_printable(text.encode())
    last_line = len(octets) - octets.rfind(b"\n") - 1
    if last_line > _QP_COLUMNS:
        cut = 3 if octets[-3:-2] == b"=" else 1
        octets = octets[:-cut] + b"=\n" + octets[-cut:]
    return octets.replace(b"\n", b"\r\n")


def _as_it_is(value: str) -> str:
    return value
