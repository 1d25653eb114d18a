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
from protocols.addresses import Address
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
                _shown(entry.shown),
                str(entry.code),
                entry.position,
                fault_text(entry.text, language),
                suggestion=None,
            )
        elif isinstance(parsed := typos.parse(entry.address), Address):
            meant = typos.suggestion(parsed)
            yield None if meant is None else SuggestionRow(entry.line, entry.address, meant)
        else:
            yield AddressFaultRow(
                entry.line,
                _shown(entry.address),
                str(parsed.code),
                parsed.position,
                fault_text(parsed.text, language),
                parsed.suggestion,
            )


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
