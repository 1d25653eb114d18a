"""Lists of addresses: the column found, each address with its line, broken lines named."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.address_lists import (
    LINE_OCTETS_MAX,
    RECORD_LINES_MAX,
    BrokenLine,
    Listed,
    ListFaultCode,
    ListRefused,
    bounded_lines,
    read_list,
)


def read(text: str | bytes, *, is_csv: bool = True) -> list[Listed | BrokenLine]:
    octets = text.encode() if isinstance(text, str) else text
    return list(read_list(bounded_lines(BytesIO(octets).readline), is_csv=is_csv))


def addresses(text: str | bytes, *, is_csv: bool = True) -> dict[int, str]:
    """The addresses by line; no line may be broken."""
    found: dict[int, str] = {}
    for entry in read(text, is_csv=is_csv):
        assert isinstance(entry, Listed), entry
        found[entry.line] = entry.address
    return found


@pytest.mark.parametrize("is_csv", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_address_a_line(is_csv: bool, end: str) -> None:
    text = end.join(["ann@x.test", "", "  ", "bob@@x.test", "eve@x.test"])
    expected = {1: "ann@x.test", 4: "bob@@x.test", 5: "eve@x.test"}
    assert addresses(text, is_csv=is_csv) == expected
    assert addresses(text + end, is_csv=is_csv) == expected
    assert addresses("\ufeff" + text, is_csv=is_csv) == expected


def test_what_stands_in_a_line_is_the_address_with_all_its_faults() -> None:
    text = ' ann@x.test\nbob@x,test\n"a b"@x.test\neve@x.test \nAnn <ann@x.test>, Bob'
    # Spaces around it are no part of it, in a list for a campaign neither.
    assert list(addresses(text, is_csv=False).values()) == [*map(str.strip, text.split("\n"))]


@pytest.mark.parametrize("is_csv", [False, True])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "heading",
    ["email", "E-Mail", "e-mail address", "EMAIL_ADDRESS", "E-Mail-Adresse", "Mail", "Empfänger"],
)
def test_the_column_is_found_by_its_heading(heading: str, separator: str, is_csv: bool) -> None:
    rows = [["Name", "Adresse", heading], ["Ann", "Weg 1", "ann@x.test"], ["Bob", "", "bob@"]]
    text = "\n".join(separator.join(row) for row in rows)
    assert addresses(text, is_csv=is_csv) == {2: "ann@x.test", 3: "bob@"}


@pytest.mark.parametrize("is_csv", [False, True])
def test_a_heading_alone_is_no_address(is_csv: bool) -> None:
    assert addresses('"E-Mail"\nann@x.test\n', is_csv=is_csv) == {2: "ann@x.test"}
    assert addresses("email\n", is_csv=is_csv) == {}
    assert addresses("", is_csv=is_csv) == {}


@pytest.mark.parametrize("is_csv", [False, True])
def test_without_a_heading_the_column_is_where_an_address_stands(is_csv: bool) -> None:
    text = "Ann;Berlin;ann@x.test\nBob;Köln;bob@@x.test"
    assert addresses(text, is_csv=is_csv) == {1: "ann@x.test", 2: "bob@@x.test"}


def test_else_it_is_where_an_at_sign_stands_or_the_first_one() -> None:
    assert addresses("Ann;ann@@x.test\nBob;bob@x.test") == {1: "ann@@x.test", 2: "bob@x.test"}
    assert addresses("Ann;Berlin\nBob;bob@x.test") == {1: "Ann", 2: "Bob"}


def test_quoted_cells_may_hold_separators_marks_and_line_ends() -> None:
    text = 'name,email,note\n"Smith, Ann",ann@x.test,"says ""hi"""\nBob,"bob@x.test",\n'
    text += 'Eve,eve@x.test,"two\nlines, ""and\n\nmore"\n"Kim",kim@x.test,5" disk\nLeo,leo@x.test,'
    assert addresses(text) == {
        2: "ann@x.test",
        3: "bob@x.test",
        4: "eve@x.test",
        8: "kim@x.test",
        9: "leo@x.test",
    }


BROKEN = (ListFaultCode.BROKEN_LINE, "the quotation mark is not closed")


def test_a_mark_that_is_not_closed_costs_its_line_only() -> None:
    text = "name,email\n" + '"Ann,ann@x.test\n' + "Bob,bob@x.test\n" * 3
    first, *others = read(text)
    assert first == BrokenLine(2, '"Ann,ann@x.test', BROKEN[0], 0, BROKEN[1])
    assert others == [Listed(line, "bob@x.test") for line in (3, 4, 5)]


def test_a_mark_closed_by_chance_in_another_record_costs_its_line_only() -> None:
    text = 'email,note\n"ann@x.test,note\nbob@x.test,"hi"\neve@x.test,\nkim@x.test,more"\n'
    assert [(entry.line, type(entry)) for entry in read(text)] == [
        (2, BrokenLine),
        (3, Listed),
        (4, Listed),
        (5, Listed),
    ]


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_cell_goes_on_over_a_bounded_number_of_lines(extra: int) -> None:
    lines = ["email,note", 'ann@x.test,"begins', *["more"] * (RECORD_LINES_MAX - 1 + extra)]
    found = read("\n".join([*lines, 'ends"', "bob@x.test,"]))
    if extra <= 0:
        assert found == [Listed(2, "ann@x.test"), Listed(len(lines) + 2, "bob@x.test")]
    else:
        assert isinstance(found[0], BrokenLine)
        assert (found[0].line, found[0].position) == (2, 11)
        assert found[-1] == Listed(len(lines) + 2, "bob@x.test")


def test_each_kind_of_broken_line_is_named_and_the_rest_goes_on() -> None:
    long = "x" * (LINE_OCTETS_MAX + 10)
    text = f'n,email\na,"b"c\nonly\n{long}\nann,{long}@x.test\nbob,bob@x.test\n'
    *broken, last = read(text)
    assert [each[:1] + each[2:4] for each in broken if isinstance(each, BrokenLine)] == [
        (2, ListFaultCode.BROKEN_LINE, 5),
        (3, ListFaultCode.COLUMN_MISSING, 4),
        (4, ListFaultCode.LINE_TOO_LONG, LINE_OCTETS_MAX),
        (5, ListFaultCode.LINE_TOO_LONG, LINE_OCTETS_MAX),
    ]
    assert last == Listed(6, "bob@x.test")


def test_octets_that_are_no_utf8_matter_in_an_address_only() -> None:
    text = "name;email\nMüller;mueller@x.test\nMüller;müller@x.test\n".encode("latin-1")
    assert read(text) == [
        Listed(2, "mueller@x.test"),
        BrokenLine(3, "m\ufffdller@x.test", ListFaultCode.NOT_UTF8, 1, "the line is not in UTF-8"),
    ]
    assert read("ü@müller.test", is_csv=False) == [Listed(1, "ü@müller.test")]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_refused_by_name(codec: str) -> None:
    text = "email\nann@x.test" if codec == "utf-16" else "\ufeffemail\nann@x.test"
    with pytest.raises(ListRefused, match="UTF-16; save it as UTF-8"):
        read(text.encode(codec))


def test_lines_are_read_in_bounded_pieces() -> None:
    asked: list[int] = []
    file = BytesIO(b"a" * (3 * LINE_OCTETS_MAX) + b"\nann@x.test\n" + b"b" * LINE_OCTETS_MAX)

    def readline(octets_max: int) -> bytes:
        asked.append(octets_max)
        return file.readline(octets_max)

    found = list(bounded_lines(readline))
    assert [len(line) for line in found] == [LINE_OCTETS_MAX + 1, 11, LINE_OCTETS_MAX]
    assert set(asked) == {LINE_OCTETS_MAX + 1}


RUBBISH = st.lists(st.sampled_from(["a@x.de", '"', ",", ";", "\t", "\n", "\r", "é", "email", " "]))


@given(RUBBISH, st.booleans())
def test_rubbish_gives_entries_in_the_order_of_their_lines(parts: list[str], is_csv: bool) -> None:
    text = "".join(parts)
    lines = [entry.line for entry in read(text, is_csv=is_csv)]
    assert lines == sorted(set(lines))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)


@given(st.binary(), st.booleans())
def test_any_octets_are_read_or_refused(octets: bytes, is_csv: bool) -> None:
    try:
        found = read(octets, is_csv=is_csv)
    except ListRefused:
        assert octets[:2] in (b"\xff\xfe", b"\xfe\xff")
    else:
        for entry in found:
            entry[1].encode()


CELLS = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1
)


@given(st.lists(CELLS, min_size=1), st.sampled_from([",", ";", "\t"]))
def test_what_is_written_as_csv_is_read_back(rows: list[list[str]], separator: str) -> None:
    def line(cells: list[str]) -> str:
        return separator.join('"' + cell.replace('"', '""') + '"' for cell in cells)

    table = "\n".join([line(["n", "email"]), *(line(["n", row[0]]) for row in rows)])
    assert list(addresses(table).values()) == [row[0].strip() for row in rows]
