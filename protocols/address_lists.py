"""Lists of addresses as people have them: one a line, or a CSV with the addresses in a column.

Bytes in, addresses out, each with its line. Owns finding the column (by its heading, else where an
address stands, else the first) and the separator, and what becomes of a line that cannot be read:
it is named, and the next one is read as if nothing had been. It does not judge the addresses.

The standard library's reader is not used: it cannot say where a line is broken, and one quotation
mark too many makes it swallow all that follows.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    numbered = iter(lines)
    source = Lines(lambda: next(numbered, None))
    first = source.take()
    if first is None:
        return
    layout = layout_of(first.text, is_csv=is_csv)
    if layout.heading is None:
        source.give_back([first])
    while (line := source.take()) is not None:
        if layout.separator is None:
            yield too_long(line) or listed(line.number, line.text)
            continue
        cells = cells_of(line, source, layout)
        if isinstance(cells, BrokenLine):
            yield cells
        else:
            yield listed(line.number, cells[layout.column])


class Line(NamedTuple):
    """A line with its end, and its number, from 1."""

    number: int
    octets: bytes

    @property
    def text(self) -> str:
        """The line without its end."""
        # Octets that are no UTF-8 are kept as surrogates: they matter in an address only.
        return self.octets.rstrip(b"\r\n").decode(errors="surrogateescape")


class Layout(NamedTuple):
    """How a list is written; `column` has the addresses. The `heading` names the columns."""

    separator: str | None  # None: one address a line
    column: int
    columns: int
    heading: list[str] | None


class Lines:
    """The lines that are not empty, of which some can be given back.

    `next_line` gives them with their ends, None after the last; `before` were read by others.
    """

    def __init__(self, next_line: Callable[[], bytes | None], before: int = 0) -> None:
        self._next_line = next_line
        self._number = before
        self._again: deque[Line] = deque()

    @property
    def given_back(self) -> Sequence[Line]:
        """The lines that come again before any new one."""
        return self._again

    def take(self) -> Line | None:
        """Return the next line, None after the last. Raises ListRefused for what is no text."""
        if self._again:
            return self._again.popleft()
        while (octets := self._next_line()) is not None:
            self._number += 1
            if self._number == 1:
                if octets.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise ListRefused("the list is in UTF-16; save it as UTF-8")
                octets = octets.removeprefix(b"\xef\xbb\xbf")
            if octets.strip():
                return Line(self._number, octets)
        return None

    def give_back(self, lines: Iterable[Line]) -> None:
        self._again.extendleft(reversed(list(lines)))


def layout_of(first: str, *, is_csv: bool) -> Layout:
    """Decide by the first line how a list is written."""
    found: Layout | None = None
    for separator in _SEPARATORS:
        cells = _split(first, separator)
        if not isinstance(cells, list) or len(cells) < 2:
            continue
        column = _heading(cells)
        if column is not None:
            return Layout(separator, column, len(cells), cells)
        column = next((n for n, c in enumerate(cells) if _is_address(c)), None)
        if column is not None and found is None:
            found = Layout(separator, column, len(cells), None)
    if found is not None:
        return found
    only = [first.strip('" ')]
    heading = only if _heading(only) is not None else None
    if not is_csv or heading is not None:
        return Layout("," if is_csv else None, 0, 1, heading)
    separator = max(_SEPARATORS, key=first.count)
    cells = _split(first, separator)
    columns = cells if isinstance(cells, list) else [first]
    column = next((n for n, cell in enumerate(columns) if "@" in cell), 0)
    return Layout(separator, column, len(columns), None)


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


def cells_of(line: Line, source: Lines, layout: Layout) -> list[str] | BrokenLine:
    """Return the cells of a record that begins in `line`, up to its column of addresses at least.

    A quoted cell may go on in the next lines; those are taken from `source`.
    """
    if (found := too_long(line)) is not None:
        return found
    assert layout.separator is not None, "a list with one address a line has no cells"
    text = line.text
    cells = _split(text, layout.separator)
    if cells is None:
        cells = _continued(text, source, layout.separator, layout.columns)
    if cells is None:
        return broken_line(
            line,
            ListFaultCode.BROKEN_LINE,
            text.rindex('"'),
            "the quotation mark is not closed",
        )
    if isinstance(cells, int):
        return broken_line(
            line,
            ListFaultCode.BROKEN_LINE,
            cells,
            "a separator has to follow the closing quotation mark",
        )
    if len(cells) <= layout.column:
        return broken_line(
            line,
            ListFaultCode.COLUMN_MISSING,
            len(text),
            "the line ends before the column with the addresses",
        )
    return cells


def too_long(line: Line) -> BrokenLine | None:
    """Return what is to be said of a line that is too long."""
    if len(line.octets) <= LINE_OCTETS_MAX:
        return None
    return broken_line(
        line,
        ListFaultCode.LINE_TOO_LONG,
        LINE_OCTETS_MAX,
        f"the line is longer than {LINE_OCTETS_MAX} octets",
    )


def _continued(text: str, source: Lines, separator: str, columns: int) -> list[str] | None:
    """Read a record whose quoted field goes on in the next lines; None if it does not fit."""
    taken: list[Line] = []
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


def listed(number: int, address: str) -> Listed | BrokenLine:
    """Return an address of a line, without spaces around it, unless it is not in UTF-8."""
    address = address.strip()
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


def broken_line(line: Line, code: ListFaultCode, position: int, text: str) -> BrokenLine:
    """Return what is to be said of a line that cannot be read."""
    shown = line.octets.rstrip(b"\r\n").decode(errors="replace")
    return BrokenLine(line.number, shown, code, position, text)
