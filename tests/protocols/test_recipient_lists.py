"""Lists of recipients in pieces of any size: the same entries, and every broken line by name."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.address_lists import LINE_OCTETS_MAX, ListRefused
from protocols.recipient_lists import (
    COLUMNS_MAX,
    LineFault,
    ListedRecipient,
    PushedLines,
    RecipientList,
)


def read(octets: bytes, *, is_csv: bool, piece: int = 10_000) -> list[ListedRecipient | LineFault]:
    entries = RecipientList(is_csv=is_csv)
    found: list[ListedRecipient | LineFault] = []
    for start in range(0, len(octets), piece):
        entries.feed(octets[start : start + piece])
        while (entry := entries.take()) is not None:
            found.append(entry)
    entries.finish()
    while (entry := entries.take()) is not None:
        found.append(entry)
    return found


TABLE = (
    'Name;E-Mail;"Notes; and more"\r\n'
    "Ann; ann@x.test ;first\r\n"
    "\r\n"
    'Bob;bob@x.test;"several\r\nlines; of ""text"""\r\n'
    "Cyd\r\n"
    'Dan;dan@x.test;"not closed\r\n'
    "Änne;änne@x.test"
).encode()
ENTRIES = [
    ListedRecipient(
        2,
        "ann@x.test",
        {"Name": "Ann", "E-Mail": " ann@x.test ", "Notes; and more": "first"},
    ),
    ListedRecipient(
        4,
        "bob@x.test",
        {"Name": "Bob", "E-Mail": "bob@x.test", "Notes; and more": 'several\nlines; of "text"'},
    ),
    LineFault(
        *(6, "", "column_missing", "the line ends before the column with the addresses"), "Cyd", 3
    ),
    LineFault(
        *(7, "", "broken_line", "the quotation mark is not closed"),
        *('Dan;dan@x.test;"not closed', 15),
    ),
    ListedRecipient(8, "änne@x.test", {"Name": "Änne", "E-Mail": "änne@x.test"}),
]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1000])
def test_a_csv_is_the_same_in_pieces_of_any_size(piece: int) -> None:
    assert read(TABLE, is_csv=True, piece=piece) == ENTRIES


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_json_lines_are_the_same_in_pieces_of_any_size(piece: int) -> None:
    octets = (
        b'{"email":"a@x.test","name":"Ann","variables":{"n":-3,"f":0.5,"b":false,"z":null,"s":""}}\n'
        b'\n  \n{"email":"b@x.test"}\r\n[1]\n{"email":"c@x.test","variables":{"v":{}}}\n'
        b'{"email":"d@x.test"'
    )
    first, second, *faults = read(octets, is_csv=False, piece=piece)
    assert first == ListedRecipient(
        1, "a@x.test", {"n": "-3", "f": "0.5", "b": "false", "s": "", "name": "Ann"}
    )
    assert second == ListedRecipient(4, "b@x.test", {})
    assert [(each.line, each[1], each[2]) for each in faults] == [
        (5, "", "bad_type"),
        (6, "variables[...]", "bad_type"),
        (7, "", "bad_json"),
    ]


@given(st.binary(max_size=400), st.integers(1, 50), st.booleans())
def test_no_octets_are_too_odd_and_pieces_make_no_difference(
    octets: bytes, piece: int, is_csv: bool
) -> None:
    octets = (b"email,name\n" if is_csv else b"") + octets
    try:
        whole = read(octets, is_csv=is_csv)
    except ListRefused as refusal:  # It begins as UTF-16 does.
        with pytest.raises(ListRefused, match=re.escape(str(refusal))):
            read(octets, is_csv=is_csv, piece=piece)
    else:
        assert read(octets, is_csv=is_csv, piece=piece) == whole


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.text(max_size=9), max_size=3), max_size=5),
    st.integers(1, 30),
)
def test_what_was_written_is_what_is_read(rows: list[dict[str, str]], piece: int) -> None:
    octets = b"".join(
        json.dumps({"email": "a@x.test", "variables": row}).encode() + b"\n" for row in rows
    )
    found = read(octets, is_csv=False, piece=piece)
    for entry, row in zip(found, rows, strict=True):
        # A lone surrogate is a fault of its line only.
        assert isinstance(entry, LineFault) or entry.variables == row


def test_a_line_is_read_as_soon_as_it_cannot_go_on() -> None:
    entries = RecipientList(is_csv=True)
    for number, octets in enumerate((b"email,name\n", b"a@x.test,Ann\n", b"b@x.test,Bob\n")):
        entries.feed(octets)
        entry = entries.take()
        assert (entry is None) == (number == 0)
    entries.feed(b'c@x.test,"Cyd\n')
    assert entries.take() is None
    entries.feed(b'and Co"\nd@x.test,')
    assert entries.take() is None, "the mark that closes may have been meant to open"
    entries.finish()
    assert [each[0] for each in (entries.take(), entries.take()) if each is not None] == [4, 6]
    assert entries.take() is None


def test_octets_that_are_no_utf8_are_named_with_their_column() -> None:
    octets = b"email,name,x\na@x.test,\xff,\xe4\n\xe4@x.test,n,x\nb@x.test,n,x\n"
    latin, address, good = read(octets, is_csv=True)
    assert (latin.line, latin[1], latin[2]) == (2, "name", "not_utf8")
    assert (address.line, address[1], address[2]) == (3, "", "not_utf8")
    assert isinstance(good, ListedRecipient)


@pytest.mark.parametrize("is_csv", [True, False])
@pytest.mark.parametrize("piece", [1_000, 1_000_000])
def test_a_line_without_end_costs_itself_and_no_memory(is_csv: bool, piece: int) -> None:
    good = b"a@x.test,n\n" if is_csv else b'{"email":"a@x.test"}\n'
    octets = good + b"x" * 300_000 + b"\n" + good
    octets = (b"email,name\n" if is_csv else b"") + octets
    first, long, last = read(octets, is_csv=is_csv, piece=piece)
    assert isinstance(first, ListedRecipient)
    assert isinstance(last, ListedRecipient)
    assert isinstance(long, LineFault)
    assert long.code == "line_too_long"
    assert last.line == long.line + 1


def test_what_is_kept_of_a_line_is_bounded() -> None:
    pushed = PushedLines()
    for _ in range(100):
        pushed.feed(b"x" * 10_000)
    pushed.feed(b"\n")
    line = pushed.next_line()
    assert line is not None
    assert LINE_OCTETS_MAX < len(line) <= LINE_OCTETS_MAX + 2


@pytest.mark.parametrize(
    "octets",
    [
        b"ann@x.test,Ann\nbob@x.test,Bob\n",
        b"name,plan\nAnn,gold\n",
        b"email,name,name\n",
        b"\xff\xfeemail\n",
        b"email," + b",".join(b"c%d" % number for number in range(COLUMNS_MAX)) + b"\n",
        b"email," + b"x" * LINE_OCTETS_MAX + b"\n",
    ],
)
def test_a_csv_has_to_name_its_columns(octets: bytes) -> None:
    with pytest.raises(ListRefused):
        read(octets, is_csv=True)


def test_columns_without_a_name_are_none() -> None:
    entries = RecipientList(is_csv=True)
    entries.feed("\ufeffemail,,plan\na@x.test,1,2\n".encode())
    entries.finish()
    assert entries.take() == ListedRecipient(2, "a@x.test", {"email": "a@x.test", "plan": "2"})
    assert entries.columns == ["email", "plan"]
