"""Rows to the octets of a CSV file that a spreadsheet may open without harm.

RFC 4180: commas, CRLF, quotes around what needs them, a heading. A cell that a spreadsheet would
run as a formula gets an apostrophe in front, because domains and campaign names come from
strangers. Reading lists is `address_lists`.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

CSV_TYPE: Final = "text/csv; charset=utf-8; header=present"
# What begins a formula in the spreadsheets in use; tab and CR are skipped by some before they look.
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_octets(heading: Sequence[str] | None, rows: Iterable[Sequence[str | int]]) -> bytes:
    """Return a CSV in UTF-8, its heading first if it has one. Numbers are written as they are."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    if heading is not None:
        writer.writerow(heading)
    writer.writerows([_guarded(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _guarded(cell: str | int) -> str | int:
    if isinstance(cell, str) and cell.startswith(FORMULA_STARTS):
        return f"'{cell}"
    return cell
