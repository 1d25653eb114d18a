"""Texts of faults: every one there is has a German form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.address_lists import LINE_OCTETS_MAX, BrokenLine, read_list
from protocols.address_texts import fault_text
from protocols.addresses import AddressFault, FaultCode, parse_address

# One text for each sentence that the grammar has.
FAULTY = [
    "",
    "tom",
    "@x.test",
    "tom@",
    "Tom@@ beispiel.de",
    "to m@x.test",
    "t\rom@x.test",
    "t(om@x.test",
    "tom@x_y.test",
    "<tom@x.test>",
    '"tom@x.test',
    '"tom"x@x.test',
    '"tom"',
    '""@x.test',
    ".tom@x.test",
    "tom.@x.test",
    "tom@.x.test",
    "t..om@x.test",
    "tom@x..test",
    "tom@x.test.",
    "tom@-x.test",
    "@a,@b:tom@x.test",
    "tom@[192.0.2.1]",
    "tom@localhost",
    "tom@192.0.2.1",
    "tom@xn--a.test",
    f"{'a' * 65}@x.test",
    f"tom@{'a' * 64}.test",
    f"tom@{'a.' * 130}test",
    f"{'a' * 64}@{('b' * 60 + '.') * 3}test.test",
    "a" * 2000,
]


def faults() -> list[AddressFault]:
    parsed = [parse_address(text) for text in FAULTY]
    return [each for each in parsed if isinstance(each, AddressFault)]


def test_the_examples_have_every_code() -> None:
    assert len(faults()) == len(FAULTY)
    assert {fault.code for fault in faults()} == set(FaultCode)


@pytest.mark.parametrize("text", FAULTY)
def test_every_fault_has_a_german_text(text: str) -> None:
    fault = parse_address(text)
    assert isinstance(fault, AddressFault)
    assert fault_text(fault.text, "en") == fault.text
    assert fault_text(fault.text, "de") != fault.text


@given(
    st.text() | st.text('aü@."<>[]- \t\r,\u200b') | st.text("a1.-ü", min_size=1).map("a@{}".format)
)
def test_whatever_is_given_the_fault_has_a_german_text(text: str) -> None:
    fault = parse_address(text)
    if isinstance(fault, AddressFault):
        assert fault_text(fault.text, "de") != fault.text


def test_every_broken_line_has_a_german_text() -> None:
    lines = [b"n,email\n", b'a,"b"c\n', b"a\n", b'"a\n', b"a,\xff@x.test\n", b"a" * 70_000]
    found = list(read_list(lines, is_csv=True))
    assert len(found) == 5
    for entry in found:
        assert isinstance(entry, BrokenLine)
        assert fault_text(entry.text, "de") != entry.text
    assert str(LINE_OCTETS_MAX) in fault_text(found[-1][-1], "de")


def test_what_was_found_is_named_in_either_language() -> None:
    for text, found in (
        ("t(om@x.test", "'('"),
        ("t\rom@x.test", "U+000D"),
        ("a@xn--a.de", "xn--a"),
    ):
        fault = parse_address(text)
        assert isinstance(fault, AddressFault)
        assert found in fault.text
        assert found in fault_text(fault.text, "de")
    assert fault_text("there is a second @", "de") == "hier steht ein zweites @"
    assert (
        fault_text("a sentence nobody has translated", "de") == "a sentence nobody has translated"
    )
