"""Where in a TOML file a table or a key stands. `tomllib` keeps no lines, so the text is scanned.

Good for what people write: headers on lines of their own. For anything else (a list of inline
tables) the place is the first line that names the list, which is where it begins.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = re.compile(r"\s*\[")
_LONG_QUOTES: Final = re.compile(r'"""|' + "'''")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file, counted from 1."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class TomlPlaces:
    """The places of one file's tables and keys."""

    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        self._lines = list(_plain_lines(text))

    def table(self, name: str, number: int) -> Place:
        """Return where the `number`-th (from 0) `[[name]]` begins."""
        return Place(self._file, self._table_line(name, number))

    def key(self, name: str, number: int, key: str) -> Place:
        """Return where `key` of that table stands; the table's own place if it is not there."""
        begins = self._table_line(name, number)
        named = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        for line, text in self._lines:
            if line > begins:
                if _HEADER.match(text):
                    break
                if named.match(text):
                    return Place(self._file, line)
        return Place(self._file, begins)

    def of(self, steps: Sequence[str]) -> Place:
        """Return the place of a path of keys like ("rule[0]", "rate")."""
        if not steps:
            return Place(self._file, 1)
        name, _, number = steps[0].partition("[")
        # Of a list of values the place is where it begins.
        key = steps[1].partition("[")[0] if len(steps) > 1 else ""
        return self.key(name, int(number[:-1] or 0), key)

    def _table_line(self, name: str, number: int) -> int:
        header = re.compile(rf"\s*\[{{1,2}}\s*[\"']?{re.escape(name)}[\"']?\s*\]{{1,2}}")
        lines = [line for line, text in self._lines if header.match(text)]
        if number < len(lines):
            return lines[number]
        listed = re.compile(rf"\s*\[*{re.escape(name)}\b")
        return next((line for line, text in self._lines if listed.match(text)), 1)


def _plain_lines(text: str) -> Iterator[tuple[int, str]]:
    """Give the lines with their numbers, without those that begin inside a text of many lines."""
    open_with = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not open_with:
            yield number, line
        for quotes in _LONG_QUOTES.findall(line.partition("#")[0] if not open_with else line):
            if not open_with:
                open_with = quotes
            elif open_with == quotes:
                open_with = ""
