"""Header fields: names and values checked, encoded and folded into lines that any server takes.

Owns RFC 5322 2.2 (fields and folding at 78, never above 998), RFC 2047 (encoded words) and RFC 2231
(parameters). Whoever builds a header comes through here, so one place decides which characters can
reach a header: no control character but the tab, none of the separators that some parser somewhere
takes for a line end, no half of a surrogate pair.

It knows no field's meaning and reads no header; which names a sender may set is for intake to say.
"""

import binascii
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from protocols.addresses import Address

# RFC 5322 2.1.1: a line SHOULD have at most 78 characters and MUST have at most 998.
LINE_CHARACTERS_SHOULD: Final = 78
LINE_OCTETS_MAX: Final = 998
# A name must leave room on its line; the longest registered ones have about 40 characters.
NAME_CHARACTERS_MAX: Final = 76
# RFC 2047 2: an encoded word has at most 75 characters and its line at most 76.
_ENCODED_WORD_MAX: Final = 75
_ENCODED_LINE_MAX: Final = 76
_ENCODED_WORD_FRAME: Final = len("=?utf-8?q??=")
# A word of a structured value cannot be folded; what exceeds this leaves no room for the name.
_WORD_CHARACTERS_MAX: Final = LINE_OCTETS_MAX - NAME_CHARACTERS_MAX - 2


class FieldError(ValueError):
    """A field was asked for that may not be written: the caller did not check. Names the field."""


class Mailbox(msgspec.Struct, frozen=True):
    """An address with the name shown beside it ("" for none)."""

    address: Address
    name: str = ""


class FieldFault(msgspec.Struct, frozen=True):
    """What is wrong with a name or value, and at which character, counted from 0."""

    position: int
    text: str


# Beyond ASCII: NEL, the C1 controls and the two Unicode separators end lines for `splitlines()` and
# for some mail programs; lone surrogates have no octets.
_FORBIDDEN: Final = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAME: Final = re.compile(r"[!-9;-~]+", re.ASCII)
_WORD: Final = re.compile(r"[ \t]*[^ \t]+")
_LONG_WORD: Final = re.compile(rf"[^ \t]{{{_WORD_CHARACTERS_MAX + 1}}}")
_PHRASE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
# Characters that every parser of parameters, however simple, reads alike inside quotation marks.
_PLAIN_PARAMETER: Final = re.compile(r"[A-Za-z0-9 !#$&()+,.:=@^_`{}~-]{1,60}", re.ASCII)
# RFC 2231 attribute-char, so what needs no percent sign.
_ATTRIBUTE_CHARACTERS: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`|~"
)
_Q_PLAIN: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/"  # RFC 2047 5 (3)
)
_Q_OCTET: Final = tuple(
    chr(octet) if octet in _Q_PLAIN else "_" if octet == 0x20 else f"={octet:02X}"
    for octet in range(256)
)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


def name_fault(name: str) -> FieldFault | None:
    """Return what is wrong with a field name (RFC 5322 3.6.8), or None."""
    match = _NAME.match(name)
    good = match.end() if match else 0
    if good < len(name):
        return FieldFault(good, f"the character {name[good]!a} is not allowed in a name")
    if not name:
        return FieldFault(0, "a header needs a name")
    if len(name) > NAME_CHARACTERS_MAX:
        return FieldFault(
            NAME_CHARACTERS_MAX, f"a name has at most {NAME_CHARACTERS_MAX} characters"
        )
    return None


def text_fault(text: str) -> FieldFault | None:
    """Return the first character of `text` that may not stand in a header, or None."""
    match = _FORBIDDEN.search(text)
    if match is None:
        return None
    return FieldFault(
        match.start(),
        f"line breaks and control characters are not allowed (U+{ord(match[0]):04X})",
    )


def value_fault(value: str) -> FieldFault | None:
    """As `text_fault`, for a value that is written as it is: its words must fit a line as well."""
    fault = text_fault(value)
    if fault is None and value.isascii():
        match = _LONG_WORD.search(value)
        if match is not None:
            return FieldFault(
                match.start(), f"a word in a header has at most {_WORD_CHARACTERS_MAX} characters"
            )
    return fault


def text_field(name: str, text: str) -> bytes:
    """Return the whole field for human text such as a subject: what is decoded is `text` exactly.

    Raises FieldError for a name or text that has a fault.
    """
    _check(name, text)
    if _is_plain(text):
        return _fold(name, _WORD.findall(text))
    return _fold(name, _spaced(encoded_words(text, first_room=_first_room(name))))


def value_field(name: str, value: str) -> bytes:
    """Return the whole field for a sender's own value.

    ASCII stays as it is, since the value may have a grammar that we do not know (and may bring its
    own encoded words); only white space around it goes. The rest is encoded as text.
    Raises FieldError for a name or value that has a fault.
    """
    _check(name, value)
    stripped = value.strip(" \t")
    if not stripped.isascii():
        return text_field(name, stripped)
    if value_fault(stripped) is not None:
        raise FieldError(f"{name}: a word is too long")
    return _fold(name, _WORD.findall(stripped))


def mailbox_field(name: str, mailboxes: Sequence[Mailbox]) -> bytes:
    """Return the whole field for a list of mailboxes (RFC 5322 3.4), UTF-8 only in local parts."""
    words: list[str] = []
    for mailbox in mailboxes:
        if words:
            words[-1] += ","
        room = _first_room(name) if not words else _ENCODED_WORD_MAX
        if mailbox.name:
            _check(name, mailbox.name)
            words.extend(_phrase(mailbox.name, room))
            words.append(f"<{mailbox.address.wire}>")
        else:
            words.append(mailbox.address.wire)
    return _fold(name, _spaced(words))


def parameter(name: str, value: str) -> str:
    """Return "; name=value" parts with their folds, in RFC 2231 form where quotes do not do.

    Raises FieldError for a value with a fault.
    """
    _check(name, value)
    if _PLAIN_PARAMETER.fullmatch(value):
        return f';\r\n {name}="{value}"'
    pieces = [""]
    for octet in value.encode():
        piece = chr(octet) if octet in _ATTRIBUTE_CHARACTERS else f"%{octet:02X}"
        # 56 leaves room on the line for "filename", a number of two digits and the character set.
        if len(pieces[-1]) + len(piece) > 56:
            pieces.append("")
        pieces[-1] += piece
    if len(pieces) == 1:
        return f";\r\n {name}*=utf-8''{pieces[0]}"
    first = f";\r\n {name}*0*=utf-8''{pieces[0]}"
    return first + "".join(f";\r\n {name}*{n}*={p}" for n, p in enumerate(pieces[1:], 1))


def format_date(unix_s: float) -> str:
    """Return a date-time of RFC 5322 3.3 in UTC; not `strftime`, whose names follow the locale."""
    at = datetime.fromtimestamp(unix_s, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02d} {_MONTHS[at.month - 1]} {at.year:04d} "
        f"{at.hour:02d}:{at.minute:02d}:{at.second:02d} +0000"
    )


def encoded_words(text: str, *, first_room: int = _ENCODED_WORD_MAX) -> list[str]:
    """Return `text` as RFC 2047 encoded words, the first no longer than `first_room` characters.

    Q or B, whichever is shorter; a character is never split over two words.
    """
    whole = text.encode()
    whole_in_q = "".join(map(_Q_OCTET.__getitem__, whole))
    room = (first_room - _ENCODED_WORD_FRAME) // 4
    # Most texts fit in one word; looking at each character takes ten times as long.
    if len(whole_in_q) * 3 <= len(whole) * 4:
        if len(whole_in_q) <= room * 4:
            return [f"=?utf-8?q?{whole_in_q}?="]
    elif len(whole) <= room * 3:
        return [f"=?utf-8?b?{_base64(whole)}?="]
    octets = [character.encode() for character in text]
    in_q = ["".join(map(_Q_OCTET.__getitem__, character)) for character in octets]
    if sum(map(len, in_q)) * 3 <= sum(map(len, octets)) * 4:
        return [
            f"=?utf-8?q?{''.join(in_q[start:end])}?="
            for start, end in _packed(map(len, in_q), first_room, per_four=4)
        ]
    return [
        f"=?utf-8?b?{_base64(b''.join(octets[start:end]))}?="
        for start, end in _packed(map(len, octets), first_room, per_four=3)
    ]


def _packed(sizes: Iterable[int], first_room: int, *, per_four: int) -> list[tuple[int, int]]:
    """Return the (start, end) of the runs that fit a word; `per_four` octets fill 4 characters."""
    room = (first_room - _ENCODED_WORD_FRAME) // 4 * per_four
    runs: list[tuple[int, int]] = []
    start = used = 0
    end = -1
    for end, size in enumerate(sizes):
        if used + size > room and end > start:
            runs.append((start, end))
            start, used = end, 0
            room = (_ENCODED_WORD_MAX - _ENCODED_WORD_FRAME) // 4 * per_four
        used += size
    runs.append((start, end + 1))
    return runs


def _base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode("ascii")


def _first_room(name: str) -> int:
    # A name too long for a word beside it gets a line above 76 all the same, which is allowed.
    return max(_ENCODED_LINE_MAX - len(name) - 2, 32)


def _is_plain(text: str) -> bool:
    """Say whether human text can stand unencoded and be read back exactly."""
    return (
        text.isascii()
        and "=?" not in text
        and "\t" not in text
        and text == text.strip()
        and (len(text) <= _WORD_CHARACTERS_MAX or not _LONG_WORD.search(text))
    )


def _phrase(name: str, first_room: int) -> list[str]:
    """Return a display name as words that may be folded between."""
    if _is_plain(name) and len(name) <= _ENCODED_WORD_MAX:
        if _PHRASE.fullmatch(name):
            return name.split(" ")
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return [f'"{escaped}"']
    return encoded_words(name, first_room=first_room)


def _spaced(words: Iterable[str]) -> list[str]:
    return [f" {word}" for word in words]


def _fold(name: str, words: Sequence[str]) -> bytes:
    """Join words, each with the white space before it, into lines of at most 78 where it can be."""
    line = f"{name}: " + "".join(words).lstrip(" \t")
    if len(line) <= LINE_CHARACTERS_SHOULD:
        return line.encode() + b"\r\n"
    lines: list[str] = []
    line = f"{name}:"
    for number, word in enumerate(words):
        if number == 0:
            line += " " + word.lstrip(" \t")
        elif len(line) + len(word) > LINE_CHARACTERS_SHOULD:
            lines.append(line)
            line = word
        else:
            line += word
    lines.append(line)
    return "\r\n".join(lines).encode() + b"\r\n"


def _check(name: str, text: str) -> None:
    if not _NAME.fullmatch(name) or _FORBIDDEN.search(text):
        raise FieldError(f"{name!a}: name or value has a character that headers may not have")
