"""Lists cut into parts: nothing lost, each part readable alone, every line found again."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.address_lists import RECORD_LINES_MAX, BrokenLine, Listed, read_list
from protocols.list_parts import (
    CSV_TYPE,
    JSON_LINES_TYPE,
    ListPart,
    content_type_of,
    list_parts,
)


def cut(text: bytes, lines_max: int = 2, octets_max: int = 10_000) -> list[ListPart]:
    parts = list_parts(BytesIO(text), CSV_TYPE, lines_max=lines_max, octets_max=octets_max)
    return list(parts)


def test_each_part_has_the_heading_and_knows_its_lines() -> None:
    parts = cut(b"email;name\na@x.test;A\nb@x.test;B\nc@x.test;C\n")
    assert [part.body for part in parts] == [
        b"email;name\na@x.test;A\nb@x.test;B\n",
        b"email;name\nc@x.test;C\n",
    ]
    assert [part.line_in_list(2) for part in parts] == [2, 4]
    assert [part.line_in_list(1) for part in parts] == [1, 1]
    assert sum(part.octets for part in parts) == len(b"email;name\na@x.test;A\n") + 2 * 11


def test_empty_lines_before_the_heading_count() -> None:
    parts = cut(b"\xef\xbb\xbf\r\n\r\nemail\na@x.test\nb@x.test\nc@x.test")
    assert parts[1].body == b"\xef\xbb\xbf\r\n\r\nemail\nc@x.test"
    assert parts[1].line_in_list(4) == 6


def test_json_lines_have_no_heading() -> None:
    lines = BytesIO(b'{"a":"\\""}\n' * 3)
    parts = list(list_parts(lines, JSON_LINES_TYPE, lines_max=1, octets_max=99))
    assert [part.line_in_list(1) for part in parts] == [1, 2, 3]


def test_a_record_over_several_lines_stays_whole() -> None:
    [first, second] = cut(b'email,street\na@x.test,"One\nTwo\nThree"\nb@x.test,Four\n', lines_max=1)
    assert first.body == b'email,street\na@x.test,"One\nTwo\nThree"\n'
    assert second.line_in_list(2) == 5


def test_a_forgotten_mark_holds_up_no_more_lines_than_a_record_has() -> None:
    lines = 3 * RECORD_LINES_MAX
    parts = cut(b'email,n\na@x.test,"oops\n' + b"b@x.test,1\n" * lines, lines_max=1)
    assert len(parts) > RECORD_LINES_MAX
    assert len(parts[0].body.splitlines()) == RECORD_LINES_MAX + 2


def test_parts_end_at_their_octets_too() -> None:
    assert len(cut(b"email\n" + b"a@x.test\n" * 10, lines_max=100, octets_max=30)) == 3


@pytest.mark.parametrize("text", [b"", b"email,name", b"email,name\n"])
def test_a_list_of_nobody(text: bytes) -> None:
    assert [part.octets for part in cut(text)] == ([len(b"email,name\n")] if text else [])


@pytest.mark.parametrize(
    ("octets", "suffix", "kind"),
    [
        (b"email", ".csv", CSV_TYPE),
        (b"{", ".JSONL", JSON_LINES_TYPE),
        (b"\xef\xbb\xbf\n {", "", JSON_LINES_TYPE),
        (b"a@x.test", "", CSV_TYPE),
        (b"", "", CSV_TYPE),
    ],
)
def test_kinds_are_told_by_suffix_or_beginning(octets: bytes, suffix: str, kind: str) -> None:
    assert content_type_of(octets, suffix) == kind


cells = st.sampled_from(["a@x.test", "b@y.test", '"q\nr"', '"c@z.test"', "", "x"])
rows = st.lists(st.tuples(cells, cells), max_size=30)


@given(rows, st.integers(1, 5))
def test_what_is_read_in_parts_is_what_is_read_at_once(
    table: list[tuple[str, str]], lines_max: int
) -> None:
    text = b"email,name\n" + "".join(f"{first},{second}\n" for first, second in table).encode()
    whole = list(read_list(BytesIO(text), is_csv=True))
    found: list[Listed | BrokenLine] = []
    for part in cut(text, lines_max):
        read = read_list(BytesIO(part.body), is_csv=True)
        found.extend(each._replace(line=part.line_in_list(each.line)) for each in read)
    assert found == whole
