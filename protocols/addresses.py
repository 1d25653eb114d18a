"""Mail addresses: is this one legal, how does it look on the wire, and if not, where is it wrong?

Owns the mailbox grammar of RFC 5321 4.1.2 with the UTF-8 local parts of RFC 6531, the form of
domains (lower-case A-labels, RFC 5891) and the place of a fault. One parser serves every door, and
whatever is sent later is put together from the parsed parts, never cut out of the given text.

Refused on purpose although some standard allows them: address literals and source routes (nothing
in bulk mail needs them and both steer mail past the MX record), quoted local parts that hold an @
or angle brackets (other programs split there and send the mail elsewhere), and domains without a
dot. Special-use domains such as `.test` and `.example` are ordinary domains here.

It looks nothing up: whether a domain exists is for the resolver to say. Well-known misspellings of
providers are not repaired either; the suggestions here are mechanical.
"""

import re
import unicodedata
from enum import StrEnum
from typing import Final

import idna
import msgspec

# RFC 5321 4.5.3.1: local part 64 octets, path 256 with its angle brackets; a domain name is at most
# 253 characters because RFC 1035 counts its length octets and the root among the 255.
LOCAL_OCTETS_MAX: Final = 64
DOMAIN_OCTETS_MAX: Final = 253
ADDRESS_OCTETS_MAX: Final = 254
LABEL_OCTETS_MAX: Final = 63

# Nothing longer is worth a diagnosis character by character: UTF-8 needs up to four octets for one.
DIAGNOSIS_CHARACTERS_MAX: Final = 4 * ADDRESS_OCTETS_MAX


class FaultCode(StrEnum):
    """What is wrong with an address; stable names, shown to senders."""

    EMPTY = "empty"
    NO_AT = "no_at"
    NO_LOCAL = "no_local"
    NO_DOMAIN = "no_domain"
    SECOND_AT = "second_at"
    SPACE = "space"
    CONTROL_CHARACTER = "control_character"
    BAD_CHARACTER = "bad_character"
    BRACKET = "bracket"
    QUOTE = "quote"
    DOT_MISPLACED = "dot_misplaced"
    DOUBLE_DOT = "double_dot"
    TRAILING_DOT = "trailing_dot"
    HYPHEN_MISPLACED = "hyphen_misplaced"
    SOURCE_ROUTE = "source_route"
    ADDRESS_LITERAL = "address_literal"
    NO_DOT_IN_DOMAIN = "no_dot_in_domain"
    NUMERIC_DOMAIN = "numeric_domain"
    BAD_LABEL = "bad_label"
    LOCAL_TOO_LONG = "local_too_long"
    LABEL_TOO_LONG = "label_too_long"
    TOO_LONG = "too_long"


class Address(msgspec.Struct, frozen=True):
    """A legal mailbox.

    `local` is in its wire form (quoted where it must be, NFC where it is not ASCII), `domain` in
    lower-case A-labels, `as_given` the text it was read from. `needs_utf8` says that the local part
    is not ASCII, so that only servers with SMTPUTF8 can take it.
    """

    local: str
    domain: str
    as_given: str
    needs_utf8: bool = False

    @property
    def wire(self) -> str:
        """Return the address as it stands between < and > in an SMTP command."""
        return f"{self.local}@{self.domain}"


class AddressFault(msgspec.Struct, frozen=True):
    """Why a text is no mailbox.

    `position` counts characters from 0 and may be the length of the text where something is missing
    at its end. `suggestion` is an address that passes, or None.
    """

    code: FaultCode
    position: int
    text: str
    suggestion: str | None = None


_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
# The whole ASCII grammar in one match, for all but a few in a million addresses. A label may not
# contain "--" here: such ones may be A-labels, whose content has to be checked.
_PLAIN: Final = re.compile(
    rf"([{_ATEXT}]+(?:\.[{_ATEXT}]+)*)"
    r"@((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)",
    re.ASCII | re.IGNORECASE,
)
_ATOM_CHARACTER: Final = re.compile(rf"[{_ATEXT}]", re.ASCII)
_HOST_CHARACTER: Final = re.compile(r"[A-Za-z0-9-]", re.ASCII)
_DOT_ATOM: Final = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*", re.ASCII)
# UTS 46 reads these as the dot between labels.
_DOTS: Final = ".\u3002\uff0e\uff61"
_ASCII_SPECIALS: Final = frozenset('@<>()[],:;\\". ')


def parse_address(text: str) -> Address | AddressFault:
    """Return the mailbox in `text`, or what is wrong with it and where; never raises.

    The text is the bare address: no display name, no angle brackets, no white space around it.
    """
    if len(text) <= ADDRESS_OCTETS_MAX:
        match = _PLAIN.fullmatch(text)
        if match is not None:
            local, domain = match.groups()
            if len(local) <= LOCAL_OCTETS_MAX and "--" not in domain:
                return Address(local, domain.lower(), text)
    result = _parse_carefully(text)
    if isinstance(result, Address):
        return result
    return AddressFault(result.code, result.position, result.text, _suggest(text))


def normalise_domain(text: str) -> str | AddressFault:
    """Return a mail domain as lower-case A-labels, or its fault (positions within `text`)."""
    if len(text) > DIAGNOSIS_CHARACTERS_MAX:
        return _too_long()
    return _parse_domain(text, 0)


def _parse_carefully(text: str) -> Address | AddressFault:
    if not text:
        return AddressFault(FaultCode.EMPTY, 0, "the address is empty")
    if len(text) > DIAGNOSIS_CHARACTERS_MAX:
        return _too_long()
    if text[0] == "@" and ":" in text:
        return AddressFault(FaultCode.SOURCE_ROUTE, 0, "source routes are not accepted")
    scanned = _scan_quoted(text) if text[0] == '"' else _scan_atoms(text)
    if isinstance(scanned, AddressFault):
        return scanned
    local, at = scanned
    if len(local.encode()) > LOCAL_OCTETS_MAX:
        return AddressFault(
            FaultCode.LOCAL_TOO_LONG,
            0,
            f"the part before the @ is longer than {LOCAL_OCTETS_MAX} octets",
        )
    domain = _parse_domain(text, at + 1)
    if isinstance(domain, AddressFault):
        return domain
    if len(local.encode()) + 1 + len(domain) > ADDRESS_OCTETS_MAX:
        return _too_long()
    return Address(local, domain, text, not local.isascii())


def _too_long() -> AddressFault:
    return AddressFault(
        FaultCode.TOO_LONG,
        ADDRESS_OCTETS_MAX,
        f"an address has at most {ADDRESS_OCTETS_MAX} octets",
    )


def _scan_atoms(text: str) -> tuple[str, int] | AddressFault:
    """Read an unquoted local part; return it and the position of its @."""
    for position, character in enumerate(text):
        if character == "@":
            if position == 0:
                return AddressFault(FaultCode.NO_LOCAL, 0, "nothing stands before the @")
            if text[position - 1] == ".":
                return _dot_fault(position - 1, "the part before the @ ends with a dot")
            return unicodedata.normalize("NFC", text[:position]), position
        if character == ".":
            if position == 0:
                return _dot_fault(0, "the address begins with a dot")
            if text[position - 1] == ".":
                return AddressFault(FaultCode.DOUBLE_DOT, position, "two dots in a row")
        elif not _ATOM_CHARACTER.match(character) and not _is_plain_international(character):
            return _character_fault(character, position)
    return AddressFault(FaultCode.NO_AT, len(text), "there is no @")


def _scan_quoted(text: str) -> tuple[str, int] | AddressFault:
    """Read a quoted local part (RFC 5321 Quoted-string) in its shortest equivalent form."""
    content: list[str] = []
    position = 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\":
            position += 1
            if position == len(text):
                break
        character = text[position]
        # Other programs split at these even inside quotes, and then mail for one domain goes to
        # another; no real mailbox is worth that.
        if not " " <= character <= "~" or character in "@<>":
            return _character_fault(character, position, quoted=True)
        content.append(character)
        position += 1
    if position >= len(text):
        return AddressFault(FaultCode.QUOTE, 0, "the quotation mark is not closed")
    if position + 1 >= len(text):
        return AddressFault(FaultCode.NO_AT, len(text), "there is no @")
    if text[position + 1] != "@":
        return AddressFault(
            FaultCode.QUOTE, position + 1, "only an @ may follow the closing quotation mark"
        )
    plain = "".join(content)
    if not plain:
        return AddressFault(FaultCode.NO_LOCAL, 0, "nothing stands before the @")
    if _DOT_ATOM.fullmatch(plain):
        return plain, position + 1
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"', position + 1


def _parse_domain(text: str, start: int) -> str | AddressFault:
    """Read the domain that fills `text` from `start` on, in lower-case A-labels."""
    if start == len(text):
        return AddressFault(FaultCode.NO_DOMAIN, start, "nothing stands after the @")
    if text[start] == "[":
        return AddressFault(
            FaultCode.ADDRESS_LITERAL, start, "address literals are not accepted: name a domain"
        )
    labels: list[str] = []
    label_start = start
    for position in range(start, len(text) + 1):
        if position < len(text) and text[position] not in _DOTS:
            character = text[position]
            if not _HOST_CHARACTER.match(character) and not _is_plain_international(character):
                return _character_fault(character, position, in_domain=True)
            continue
        label = _parse_label(text, label_start, position, start)
        if isinstance(label, AddressFault):
            return label
        labels.append(label)
        label_start = position + 1
    domain = ".".join(labels)
    if len(labels) == 1:
        return AddressFault(FaultCode.NO_DOT_IN_DOMAIN, len(text), "the domain has no dot")
    if labels[-1].isdigit():
        return AddressFault(
            FaultCode.NUMERIC_DOMAIN,
            len(text) - len(labels[-1]),
            "the last part of the domain is a number; IP addresses are not accepted",
        )
    if len(domain) > DOMAIN_OCTETS_MAX:
        return AddressFault(
            FaultCode.TOO_LONG, start, f"the domain is longer than {DOMAIN_OCTETS_MAX} octets"
        )
    return domain


def _parse_label(text: str, start: int, end: int, domain_start: int) -> str | AddressFault:
    label = text[start:end]
    if not label:
        if start == domain_start:
            return _dot_fault(start, "the domain begins with a dot")
        if start == len(text):
            return AddressFault(FaultCode.TRAILING_DOT, start - 1, "the address ends with a dot")
        return AddressFault(FaultCode.DOUBLE_DOT, start, "two dots in a row")
    if label[0] == "-" or label[-1] == "-":
        return AddressFault(
            FaultCode.HYPHEN_MISPLACED,
            start if label[0] == "-" else end - 1,
            "a part of the domain begins or ends with a hyphen",
        )
    if label.isascii() and label[:4].lower() != "xn--":
        ascii_label = label.lower()
    else:
        try:
            remapped = idna.uts46_remap(label, std3_rules=True, transitional=False)
            ascii_label = idna.alabel(remapped).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return AddressFault(
                FaultCode.BAD_LABEL, start, f"{label[:70]!r} is no valid part of a domain name"
            )
        # Some characters map to a dot and something else, which would smuggle in another label.
        if "." in ascii_label:
            return AddressFault(
                FaultCode.BAD_LABEL, start, f"{label[:70]!r} is no valid part of a domain name"
            )
    if len(ascii_label) > LABEL_OCTETS_MAX:
        return AddressFault(
            FaultCode.LABEL_TOO_LONG,
            start,
            f"a part of the domain is longer than {LABEL_OCTETS_MAX} octets",
        )
    return ascii_label


def _is_plain_international(character: str) -> bool:
    """Say whether a character beyond ASCII may stand in an address.

    Letters, marks, digits, signs and punctuation may; what is invisible, separates or has no
    meaning may not, nor what compatibility mapping turns into one of the grammar's own signs (the
    full-width @, say).
    """
    if character.isascii() or unicodedata.category(character)[0] in "CZ":
        return False
    return _ASCII_SPECIALS.isdisjoint(unicodedata.normalize("NFKC", character))


def _is_control(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def _dot_fault(position: int, text: str) -> AddressFault:
    return AddressFault(FaultCode.DOT_MISPLACED, position, text)


def _character_fault(
    character: str, position: int, *, in_domain: bool = False, quoted: bool = False
) -> AddressFault:
    if character == "@" and in_domain:
        return AddressFault(FaultCode.SECOND_AT, position, "there is a second @")
    if _is_control(character):
        shown = f"U+{ord(character):04X}"
        return AddressFault(
            FaultCode.CONTROL_CHARACTER,
            position,
            f"the control or invisible character {shown} is not allowed",
        )
    if unicodedata.category(character) == "Zs":
        return AddressFault(FaultCode.SPACE, position, "a space is not allowed")
    if character in "<>" and not quoted:
        return AddressFault(FaultCode.BRACKET, position, "angle brackets belong around an address")
    return AddressFault(
        FaultCode.BAD_CHARACTER, position, f"the character {character!r} is not allowed here"
    )


# --- the mechanical repair ------------------------------------------------------------------------

_AT_WORD: Final = re.compile(r"\s*[(\[{]\s*at\s*[)\]}]\s*", re.IGNORECASE)
_DOT_WORD: Final = re.compile(r"\s*[(\[{]\s*dot\s*[)\]}]\s*", re.IGNORECASE)
_IN_BRACKETS: Final = re.compile(r"<([^<>]*)>?[\s;,]*")
_AROUND_SIGNS: Final = re.compile(r"\s*([@.,]+)\s*")
_AT_SIGNS: Final = re.compile("[@\uff20\ufe6b]+")
_DOTS_OR_COMMAS: Final = re.compile("[.,;\u3002\uff0e\uff61]+")
# Longer texts are no typing error of a hand, and a repair costs several passes.
_REPAIR_CHARACTERS_MAX: Final = 320


def _suggest(text: str) -> str | None:
    """Return the address that was most likely meant, lower-case, or None.

    Only what cannot be read in two ways is repaired: signs doubled or misplaced, white space at
    places where none can be, brackets, and commas for dots. A text with control characters inside
    is an attack or an accident, but no slip, and gets no suggestion.
    """
    if len(text) > _REPAIR_CHARACTERS_MAX:
        return None
    repaired = text.strip().strip("\u200b\ufeff").strip()
    if any(_is_control(character) for character in repaired):
        return None
    in_brackets = _IN_BRACKETS.search(repaired)
    if in_brackets is not None and "@" in in_brackets[1]:
        repaired = in_brackets[1]
    repaired = repaired.strip(" <>()[]'\";,.").removeprefix("mailto:")
    repaired = _DOT_WORD.sub(".", _AT_WORD.sub("@", repaired))
    repaired = _AT_SIGNS.sub("@", _AROUND_SIGNS.sub(r"\1", repaired))
    local, at, domain = repaired.partition("@")
    if not at or "@" in domain:
        return None
    local = re.sub(r"\.{2,}", ".", local).strip(".")
    domain = _DOTS_OR_COMMAS.sub(".", re.sub(r"\s+", "", domain)).strip(".")
    candidate = f"{local}@{domain}".lower()
    if candidate == text or isinstance(_parse_carefully(candidate), AddressFault):
        return None
    return candidate
