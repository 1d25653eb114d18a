"""Lists of addresses looked through before anything is sent: which are wrong, where, and what next.

One function for the HTTP port and the command line. It judges as intake does when the mail comes
in, so that what is good here is accepted there. It waits for nothing and holds no list: entries go
in one by one and findings come out as they are made.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from protocols.address_lists import BrokenLine, Listed
from protocols.address_suggestions import DomainTypos
from protocols.address_texts import fault_text
from protocols.addresses import Address, AddressFault
from protocols.languages import Language

# The answer to a list is for finding places in it; what was longer than an address can be is cut.
SHOWN_CHARACTERS_MAX: Final = 254


class AddressFaultRow(msgspec.Struct, frozen=True):
    """An address that would be refused.

    `line` counts from 1 (in JSON it is the place in the array), `position` characters from 0.
    """

    line: int
    address: str
    code: str
    position: int
    text: str
    suggestion: str | None


class RecipientFault(msgspec.Struct, frozen=True):
    """A line of a list for a campaign that was not taken in.

    `line`, `address`, `code`, `position` and `suggestion` are as in an AddressFaultRow, `message`
    is its text; for what concerns no place in the address, `position` is null.
    """

    line: int
    where: str
    code: str
    message: str
    address: str = ""
    position: int | None = None
    suggestion: str | None = None


class SuggestionRow(msgspec.Struct, frozen=True):
    """An address that would be accepted although another one was probably meant."""

    line: int
    address: str
    suggestion: str


def check_list(
    entries: Iterable[Listed | BrokenLine], typos: DomainTypos, language: Language
) -> Iterator[AddressFaultRow | SuggestionRow | None]:
    """Give one finding for each entry: a fault, a suggestion, or None for a good address."""
    for entry in entries:
        if isinstance(entry, BrokenLine):
            yield AddressFaultRow(
                entry.line,
                shown(entry.shown),
                str(entry.code),
                entry.position,
                fault_text(entry.text, language),
                suggestion=None,
            )
        elif isinstance(parsed := typos.parse(entry.address), Address):
            yield suggestion_for(entry.line, entry.address, parsed, typos)
        else:
            yield fault_row(entry.line, entry.address, parsed, language)


def fault_row(line: int, given: str, fault: AddressFault, language: Language) -> AddressFaultRow:
    """Return what is to be said of an address that is none."""
    text = fault_text(fault.text, language)
    return AddressFaultRow(
        line, shown(given), str(fault.code), fault.position, text, fault.suggestion
    )


def suggestion_for(
    line: int, given: str, address: Address, typos: DomainTypos
) -> SuggestionRow | None:
    """Return what was probably meant by an address that is one, if it was another."""
    meant = typos.suggestion(address)
    return None if meant is None else SuggestionRow(line, given, meant)


def shown(text: str) -> str:
    """Return as much of a text from a list as is shown of it."""
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
