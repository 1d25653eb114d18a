"""CSV as RFC 4180 has it, and nothing in it that a spreadsheet would run."""

import csv
import io

import pytest

from protocols.csv_tables import csv_octets


def test_quotes_commas_and_line_ends_survive_another_reader() -> None:
    cells = ['a "quoted" one', "with, comma", "two\r\nlines", "plain", "ü"]
    octets = csv_octets(["key", "count"], [[cell, 3] for cell in cells])
    assert octets.startswith(b"key,count\r\n")
    assert octets.endswith("ü,3\r\n".encode())
    rows = list(csv.reader(io.StringIO(octets.decode(), newline="")))
    assert rows == [["key", "count"], *([cell, "3"] for cell in cells)]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-2", "@SUM(A1)", "\t=1", "\r=1"])
def test_what_begins_like_a_formula_is_text(cell: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_octets(["key"], [[cell]]).decode(), newline="")))
    assert rows == [["key"], [f"'{cell}"]]


def test_a_number_is_no_formula() -> None:
    assert csv_octets(["n"], [[-1], [7]]) == b"n\r\n-1\r\n7\r\n"
