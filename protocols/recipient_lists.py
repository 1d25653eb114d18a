"""Lists of recipients with what is to be filled in for each, as they come in over a connection.

Octets in, in pieces of any size; recipients out, each with its line. A list is a CSV whose first
line names the columns, or has one JSON object a line. Owns what a line may look like, and what
becomes of one that cannot be read: it is named, and the next one is read as if nothing had been.
Whether an address is legal, and a template satisfied, others say.

Memory is bounded by a few lines: what has been taken out is kept nowhere.
"""

from collections import deque
from typing import Annotated, Final, NamedTuple

import msgspec

from protocols.address_lists import (
    LINE_OCTETS_MAX,
    RECORD_LINES_MAX,
    BrokenLine,
    Layout,
    Line,
    Lines,
    ListRefused,
    cells_of,
    layout_of,
    listed,
    too_long,
)
from protocols.template_language import NAME_CHARACTERS_MAX

# The column or member that is both a variable and the name shown beside the address.
NAME: Final = "name"
# Twice of what a template takes: not all columns of an export are for it.
COLUMNS_MAX: Final = 400


class ListedRecipient(NamedTuple):
    """An address as it stands in the list, legal or not, and the texts that belong to it."""

    line: int
    address: str
    variables: dict[str, str]


class LineFault(NamedTuple):
    """A line that cannot be read: `where` in it (a member or column, or ""), what and why.

    `position` counts characters from 0 within `shown`; None where no place in it is known.
    """

    line: int
    where: str
    code: str
    text: str
    shown: str = ""
    position: int | None = None


class PushedLines:
    """Pieces of a text to its lines; a line above the limit is cut, and its rest thrown away."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._is_skipping = False
        self.is_finished = False

    def __len__(self) -> int:
        return len(self._lines)

    def feed(self, octets: bytes) -> None:
        """Take in the next octets."""
        *lines, rest = (self._rest + octets).split(b"\n")
        if lines and self._is_skipping:
            lines[0] = lines[0][: LINE_OCTETS_MAX + 1]
        self._is_skipping = len(rest) > LINE_OCTETS_MAX
        self._rest = rest[: LINE_OCTETS_MAX + 1]
        self._lines.extend(line + b"\n" for line in lines)

    def has(self, octets: bytes) -> bool:
        """Say whether a line that is here contains these octets."""
        return any(octets in line for line in self._lines)

    def finish(self) -> None:
        """Say that no more octets come."""
        if self._rest:
            self._lines.append(self._rest)
        self._rest = b""
        self.is_finished = True

    def next_line(self) -> bytes | None:
        """Return the next whole line, None if there is none yet."""
        return self._lines.popleft() if self._lines else None


class RecipientList:
    """One list, between `feed` and `take`; `lines_before` were read of it by others."""

    def __init__(self, *, is_csv: bool, lines_before: int = 0) -> None:
        self._is_csv = is_csv
        self._pushed = PushedLines()
        self._lines = Lines(self._pushed.next_line, lines_before)
        self._layout: Layout | None = None
        self._names: list[tuple[int, str]] = []
        self.feed = self._pushed.feed
        self.finish = self._pushed.finish

    @property
    def is_finished(self) -> bool:
        """Whether no more octets come."""
        return self._pushed.is_finished

    @property
    def columns(self) -> list[str] | None:
        """The names of a CSV's columns, once its first line was read; None for JSON."""
        return None if self._layout is None else [name for _, name in self._names]

    def take(self) -> ListedRecipient | LineFault | None:
        """Return the next entry; None if more octets are needed first, or after the last.

        Raises ListRefused for what is no such list.
        """
        if self._is_csv and not self.is_finished and self._may_go_on():
            return None
        line = self._lines.take()
        if line is None:
            return None
        if not self._is_csv:
            return self._from_json(line)
        if self._layout is None:
            self._read_heading(line)
            return self.take()
        return self._from_cells(line, self._layout)

    def _may_go_on(self) -> bool:
        """Say whether a quoted cell may be here whose end is still to come."""
        again = self._lines.given_back
        if len(again) + len(self._pushed) > RECORD_LINES_MAX:
            return False
        return self._pushed.has(b'"') or any(b'"' in line.octets for line in again)

    def _read_heading(self, line: Line) -> None:
        if (found := too_long(line)) is not None:
            raise ListRefused(f"line {line.number}: {found.text}")
        layout = layout_of(line.text, is_csv=True)
        if layout.heading is None:
            raise ListRefused(
                "the first line has to name the columns, and one of them has to be email, "
                "or another name for addresses"
            )
        names = [name.strip() for name in layout.heading]
        if len(names) > COLUMNS_MAX:
            raise ListRefused(f"there are {len(names)} columns, and at most {COLUMNS_MAX} are read")
        doubles = [name for place, name in enumerate(names) if name and name in names[:place]]
        if doubles:
            shown = doubles[0][:NAME_CHARACTERS_MAX]
            raise ListRefused(f'two columns have the name "{shown}"')
        self._layout = layout
        # The column with the addresses is a variable as any other, under its name.
        self._names = [(place, name) for place, name in enumerate(names) if name]

    def _from_cells(self, line: Line, layout: Layout) -> ListedRecipient | LineFault:
        cells = [line.text] if layout.separator is None else cells_of(line, self._lines, layout)
        if isinstance(cells, BrokenLine):
            return _fault_of(cells)
        found = listed(line.number, cells[layout.column])
        if isinstance(found, BrokenLine):
            return _fault_of(found)
        count = len(cells)
        variables = {name: cells[place] for place, name in self._names if place < count}
        if not line.octets.isascii():
            for name, value in variables.items():
                if not value.isascii() and (lost := _not_utf8(line.number, name, value)):
                    return lost
        return ListedRecipient(line.number, found.address, variables)

    def _from_json(self, line: Line) -> ListedRecipient | LineFault:
        if (found := too_long(line)) is not None:
            return _fault_of(found)
        try:
            read = _decoder.decode(line.octets)
        except msgspec.ValidationError as error:
            text, _, where = str(error).partition(" - at `$.")
            return LineFault(line.number, where.rstrip("`"), "bad_type", text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return LineFault(line.number, "", "bad_json", f"The line is no JSON: {error}")
        variables = {}
        for name, value in read.variables.items():
            if type(value) is str:
                variables[name] = value
            elif value is not None:
                variables[name] = str(value) if type(value) is int else _text_of(value)
        if read.name:
            variables[NAME] = read.name
        return ListedRecipient(line.number, read.email, variables)


class _JsonRecipient(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    name: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    variables: dict[str, str | int | float | bool | None] = {}


_decoder: Final = msgspec.json.Decoder(_JsonRecipient)


def _text_of(value: object) -> str:
    """Return a value as it is written in JSON."""
    return msgspec.json.encode(value).decode()


def _fault_of(line: BrokenLine) -> LineFault:
    return LineFault(line.line, "", str(line.code), line.text, line.shown, line.position)


def _not_utf8(number: int, name: str, value: str) -> LineFault | None:
    if isinstance(listed(number, value), BrokenLine):
        return LineFault(number, name, "not_utf8", "the value is not in UTF-8")
    return None
