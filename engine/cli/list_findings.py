"""What is said of a line of a list: one form, whoever has found it.

`eilpost check` and `eilpost send` print the same words for the same line. Owns the form, and which
addresses of a list stand in it twice; what is wrong with a line intake says.
"""

from array import array
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from engine.cli.printing import printable
from protocols.address_lists import Listed
from protocols.addresses import Address, parse_address
from protocols.list_parts import CSV_TYPE, ListPart
from protocols.recipient_lists import ListedRecipient, RecipientList
from protocols.records import suppressed_address

# Twelve octets for each of twice as many places: three megabytes, whatever the list. Of a longer
# one the engine still says how many addresses it knew already, and only that.
ADDRESSES_MAX: Final = 131_072
SLOTS: Final = 2 * ADDRESSES_MAX  # a power of two


class LineFinding(NamedTuple):
    """Something to be said of a line. `position` counts characters of the address from 0.

    `address` is "" where none was found, and then `where` names the member of the line, if one is
    meant; `text` is "" where nothing is wrong but a `suggestion` is made.
    """

    line: int
    text: str = ""
    address: str = ""
    position: int | None = None
    suggestion: str | None = None
    where: str = ""


def finding_text(file: str, found: LineFinding) -> str:
    """Return `list.csv:7: tom@@x.test: at position 4: what is wrong; did you mean …?`."""
    said = f"{printable(file)}:{found.line}"
    if found.address or found.position is not None:
        said += f": {printable(found.address)}"
    elif found.where:
        said += f": {printable(found.where)}"
    if found.position is not None:
        said += f": at position {found.position}"
    if found.text:
        said += f": {printable(found.text)}"
    return said + (f"; did you mean {printable(found.suggestion)}?" if found.suggestion else "")


def addresses_of(body: bytes, content_type: str) -> Iterator[Listed]:
    """Give the addresses of a list, of those lines that can be read."""
    entries = RecipientList(is_csv=content_type == CSV_TYPE)
    entries.feed(body)
    entries.finish()
    while (entry := entries.take()) is not None:
        if isinstance(entry, ListedRecipient):
            yield Listed(entry.line, entry.address)


class FirstLines:
    """In which line each address of a list stands first; of the first ADDRESSES_MAX addresses.

    Keeps a number of 64 bits for each, not the address: that two of so many have the same one
    happens once in a billion lists.
    """

    def __init__(self) -> None:
        self._numbers = array("Q", bytes(8 * SLOTS))
        self._lines = array("I", bytes(4 * SLOTS))
        self._count = 0

    @property
    def is_full(self) -> bool:
        """Whether addresses that came last may not be known."""
        return self._count >= ADDRESSES_MAX

    def doubles_in(
        self, part: ListPart, content_type: str, refused: Collection[int]
    ) -> list[LineFinding]:
        """Take in a part of the list; return those of its lines whose address has come before.

        `refused` are the lines that were not taken, as lines of the part: they make nothing double.
        """
        doubles: list[LineFinding] = []
        for line, given in addresses_of(part.body, content_type):
            address = parse_address(given)
            if line in refused or not isinstance(address, Address):
                continue
            here = part.line_in_list(line)
            first = self._first(suppressed_address(address.wire, address.domain), here)
            if first is not None:
                text = f"twice in this list (first in line {first})"
                doubles.append(LineFinding(here, text, given))
        return doubles

    def _first(self, address: str, line: int) -> int | None:
        """Return the line that an address came in before; None, and note this one, if there is
        none."""
        number = hash(address) & (2**64 - 1) or 1  # 0 is an empty place.
        place = self._place_of(number)
        if self._numbers[place]:
            return self._lines[place]
        if not self.is_full:
            self._numbers[place], self._lines[place] = number, line
            self._count += 1
        return None

    def _place_of(self, number: int) -> int:
        """Return the place that has a number, or the empty one where it belongs."""
        numbers, place = self._numbers, number % SLOTS
        while numbers[place] not in (0, number):
            place = (place + 1) % SLOTS
        return place
