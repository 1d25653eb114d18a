"""Lists of addresses as people have them: one a line, or a CSV with the addresses in a column.

Bytes in, addresses out, each with its line. Owns finding the column (by its heading, else where an
address stands, else the first) and the separator, and what becomes of a line that cannot be read:
it is named, and the next one is read as if nothing had been. It does not judge the addresses.

The standard library's reader is not used: it cannot say where a line is broken, and one quotation
mark too many makes it swallow all that follows.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from protocols.addresses import Address, parse_address

# A row of an export has a few hundred octets; notes of some pages have room in this.
LINE_OCTETS_MAX: Final = 65_536
# A quoted field may go on over several lines, as an address of a street does. Where the closing
# mark does not come within this many, it was forgotten.
RECORD_LINES_MAX: Final = 20
_SEPARATORS: Final = (",", ";", "\t")
# From the most to the least certain: "address" may be that of a house.
_HEADINGS: Final = (
    frozenset(("email", "emailaddress", "emailadresse", "mail", "mailaddress", "mailadresse")),
    frozenset(("recipient", "recipientemail", "contactemail", "empfänger", "empfaenger")),
    frozenset(("address", "adresse", "to", "an")),
)


class ListFaultCode(StrEnum):
    """What keeps an address from being found in its line."""

    NOT_UTF8 = "not_utf8"
    LINE_TOO_LONG = "line_too_long"
    BROKEN_LINE = "broken_line"
    COLUMN_MISSING = "column_missing"


class ListRefused(Exception):
    """The whole list cannot be read; the text says why."""


class Listed(NamedTuple):
    """An address as it stands in the list, legal or not. Lines count from 1."""

    line: int
    address: str


class BrokenLine(NamedTuple):
    """A line in which no address could be found.

    `position` counts characters from 0 within `shown`: the line, or the address that is not UTF-8.
    """

    line: int
    shown: str
    code: ListFaultCode
    position: int
    text: str


def bounded_lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Give the lines of a file with a bound on the memory each can take.

    `readline(n)` returns a line of at most n octets, or the first n of it, b"" at the end. Of a
    line that is too long the first part is given, which `read_list` names, and the rest skipped.
    """
    while line := readline(LINE_OCTETS_MAX + 1):
        yield line
        while len(line) > LINE_OCTETS_MAX and not line.endswith(b"\n"):
            line = readline(LINE_OCTETS_MAX + 1)


def read_list(lines: Iterable[bytes], *, is_csv: bool) -> Iterator[Listed | BrokenLine]:
    """Give each address of a list, and each line where none could be found; empty lines are none.

    `lines` have their ends. Without `is_csv` a list is taken for a CSV only if its first line has
    several cells of which one is an address or the heading of such. Raises ListRefused for a list
    that is no text.
    """
    source = _Lines(lines)
    first = source.take()
    if first is None:
        return
    layout = _layout(first.text, is_csv=is_csv)
    if not layout.has_heading:
        source.give_back([first])
    while (line := source.take()) is not None:
        if len(line.octets) > LINE_OCTETS_MAX:
            yield _broken(
                line,
                ListFaultCode.LINE_TOO_LONG,
                LINE_OCTETS_MAX,
                f"the line is longer than {LINE_OCTETS_MAX} octets",
            )
        elif layout.separator is None:
            yield _listed(line.number, line.text)
        else:
            yield _from_cells(line, source, layout.separator, layout)


class _Line(NamedTuple):
    number: int
    octets: bytes

    @property
    def text(self) -> str:
        # Octets that are no UTF-8 are kept as surrogates: they matter in an address only.
        return self.octets.rstrip(b"\r\n").decode(errors="surrogateescape")


class _Layout(NamedTuple):
    separator: str | None  # None: one address a line
    column: int
    columns: int
    has_heading: bool


class _Lines:
    """The lines that are not empty, of which some can be given back."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._numbered = enumerate(lines, 1)
        self._again: deque[_Line] = deque()

    def take(self) -> _Line | None:
        if self._again:
            return self._again.popleft()
        for number, octets in self._numbered:
            if number == 1:
                if octets.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise ListRefused("the list is in UTF-16; save it as UTF-8")
                octets = octets.removeprefix(b"\xef\xbb\xbf")
            if octets.strip():
                return _Line(number, octets)
        return None

    def give_back(self, lines: Iterable[_Line]) -> None:
        self._again.extendleft(reversed(list(lines)))


def _layout(first: str, *, is_csv: bool) -> _Layout:
    """Decide by the first line how the list is written."""
    found: _Layout | None = None
    for separator in _SEPARATORS:
        cells = _split(first, separator)
        if not isinstance(cells, list) or len(cells) < 2:
            continue
        column = _heading(cells)
        if column is not None:
            return _Layout(separator, column, len(cells), has_heading=True)
        column = next((n for n, c in enumerate(cells) if _is_address(c)), None)
        if column is not None and found is None:
            found = _Layout(separator, column, len(cells), has_heading=False)
    if found is not None:
        return found
    has_heading = _heading([first.strip('" ')]) is not None
    if not is_csv or has_heading:
        return _Layout("," if is_csv else None, 0, 1, has_heading)
    separator = max(_SEPARATORS, key=first.count)
    cells = _split(first, separator)
    columns = cells if isinstance(cells, list) else [first]
    column = next((n for n, cell in enumerate(columns) if "@" in cell), 0)
    return _Layout(separator, column, len(columns), has_heading=False)


def _heading(cells: list[str]) -> int | None:
    """Return the column whose heading says that it holds addresses."""
    words = ["".join(filter(str.isalnum, cell)).casefold() for cell in cells]
    for headings in _HEADINGS:
        for column, word in enumerate(words):
            if word in headings:
                return column
    return None


def _is_address(cell: str) -> bool:
    return isinstance(parse_address(cell), Address)


def _from_cells(
    line: _Line, source: _Lines, separator: str, layout: _Layout
) -> Listed | BrokenLine:
    text = line.text
    cells = _split(text, separator)
    if cells is None:
        cells = _continued(text, source, separator, layout.columns)
    if cells is None:
        return _broken(
            line,
            ListFaultCode.BROKEN_LINE,
            text.rindex('"'),
            "the quotation mark is not closed",
        )
    if isinstance(cells, int):
        return _broken(
            line,
            ListFaultCode.BROKEN_LINE,
            cells,
            "a separator has to follow the closing quotation mark",
        )
    if len(cells) <= layout.column:
        return _broken(
            line,
            ListFaultCode.COLUMN_MISSING,
            len(text),
            "the line ends before the column with the addresses",
        )
    return _listed(line.number, cells[layout.column])


def _continued(text: str, source: _Lines, separator: str, columns: int) -> list[str] | None:
    """Read a record whose quoted field goes on in the next lines; None if it does not fit."""
    taken: list[_Line] = []
    characters = len(text)
    while len(taken) < RECORD_LINES_MAX and characters < LINE_OCTETS_MAX:
        line = source.take()
        if line is None:
            break
        taken.append(line)
        text += "\n" + line.text
        characters = len(text)
        if b'"' not in line.octets:
            continue
        cells = _split(text, separator)
        if cells is None:
            continue
        # With another number of cells, the mark that closes was meant to open another field.
        if isinstance(cells, list) and len(cells) == columns:
            return cells
        break
    source.give_back(taken)
    return None


_QUOTED: Final = re.compile(r'"((?:[^"]++|"")*+)"')


def _split(record: str, separator: str) -> list[str] | int | None:
    """Return the cells of a record (RFC 4180).

    None if a quotation mark is not closed, and the position where a separator was expected if
    something else follows a closed one.
    """
    if '"' not in record:
        return record.split(separator)
    cells: list[str] = []
    at = 0
    while True:
        if record.startswith('"', at):
            match = _QUOTED.match(record, at)
            if match is None:
                return None
            cells.append(match[1].replace('""', '"'))
            at = match.end()
            if at < len(record) and record[at] != separator:
                return at
        else:
            end = record.find(separator, at)
            end = len(record) if end < 0 else end
            cells.append(record[at:end])
            at = end
        if at == len(record):
            return cells
        at += 1


def _listed(number: int, address: str) -> Listed | BrokenLine:
    if address.isascii():
        return Listed(number, address)
    octets = address.encode(errors="surrogateescape")
    try:
        octets.decode()
    except UnicodeDecodeError as error:
        return BrokenLine(
            number,
            octets.decode(errors="replace"),
            ListFaultCode.NOT_UTF8,
            len(octets[: error.start].decode()),
            "the line is not in UTF-8",
        )
    return Listed(number, address)


def _broken(line: _Line, code: ListFaultCode, position: int, text: str) -> BrokenLine:
    shown = line.octets.rstrip(b"\r\n").decode(errors="replace")
    return BrokenLine(line.number, shown, code, position, text)
