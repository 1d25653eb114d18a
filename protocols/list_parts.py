"""A long list of recipients cut into parts that can each be read alone.

Bytes in, bytes out: lines are not changed, and what stands in them is not judged. The first line of
a CSV is its heading and repeated in each part, and a part ends where no quoted field is open, so
that a record over several lines stays whole. A list of any length passes through in the memory of
one part.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from protocols.address_lists import RECORD_LINES_MAX

CSV_TYPE: Final = "text/csv"
JSON_LINES_TYPE: Final = "application/x-ndjson"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ListPart:
    """Some lines of a list as a list of its own.

    `lines_before` of the list's lines, its heading included, come before the first one here; the
    `heading_lines` at the beginning are repeated. `octets` counts what was read for this part.
    """

    body: bytes
    lines_before: int
    heading_lines: int
    octets: int

    def line_in_list(self, line: int) -> int:
        """Return where a line of this part stands in the whole list; both count from 1."""
        if line <= self.heading_lines:
            return line
        return line - self.heading_lines + self.lines_before


def content_type_of(first_octets: bytes, suffix: str) -> str:
    """Say what kind of list this is, by its file's suffix, else by how it begins."""
    if suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return JSON_LINES_TYPE
    if suffix.lower() in (".csv", ".tsv", ".txt"):
        return CSV_TYPE
    start = first_octets.removeprefix(_BYTE_ORDER_MARK).lstrip()
    return JSON_LINES_TYPE if start.startswith(b"{") else CSV_TYPE


def list_parts(
    lines: Iterable[bytes], content_type: str, *, lines_max: int, octets_max: int
) -> Iterator[ListPart]:
    """Cut a list after at most about so many lines or octets. `lines` have their ends."""
    is_csv = content_type == CSV_TYPE
    source = iter(lines)
    heading = _heading(source) if is_csv else []
    repeated = b"".join(heading)
    before, octets = len(heading), len(repeated)
    part: list[bytes] = []
    size = 0
    quotes = _OpenField()
    for line in source:
        part.append(line)
        size += len(line)
        if is_csv:
            quotes.take(line)
        if (len(part) >= lines_max or size >= octets_max) and not quotes.is_open:
            yield ListPart(repeated + b"".join(part), before, len(heading), octets + size)
            before += len(part)
            part, size, octets = [], 0, 0
    if part or octets:
        yield ListPart(repeated + b"".join(part), before, len(heading), octets + size)


def _heading(source: Iterator[bytes]) -> list[bytes]:
    """Take the lines up to the first that is not empty, each with an end."""
    heading: list[bytes] = []
    for line in source:
        heading.append(line if line.endswith(b"\n") else line + b"\n")
        if line.removeprefix(_BYTE_ORDER_MARK).strip():
            break
    return heading


class _OpenField:
    """Whether a quoted field goes on in the next line.

    A mark that does not close within as many lines as a record may have was forgotten: the reader
    takes its line for broken and goes on with the next, and so does this.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._lines = 0

    def take(self, line: bytes) -> None:
        if line.count(b'"') % 2:
            self.is_open, self._lines = not self.is_open, 0
        elif self.is_open:
            self._lines += 1
            self.is_open = self._lines < RECORD_LINES_MAX
