"""Header fields: read back by the standard library, they say what was put in, on short lines."""

import email
import email.policy
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.addresses import Address, parse_address
from protocols.header_fields import (
    FieldError,
    Mailbox,
    encoded_words,
    format_date,
    mailbox_field,
    name_fault,
    parameter,
    text_fault,
    text_field,
    value_fault,
    value_field,
)

# What V9-like attacks use: everything that some parser somewhere takes for the end of a line.
SEPARATORS = [
    "\r\n",
    "\n",
    "\r",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "\0",
    "\x1b",
    "\x7f",
    "\ud800",
    "\udfff",
]

HEADER_TEXT = st.text(
    st.characters(
        exclude_categories=["Cc", "Cs", "Zl", "Zp"],
        # What the standard library's reader changes on its own is no measure for our writer.
        exclude_characters="\ufeff",
    ),
    max_size=400,
)


def read(field: bytes) -> EmailMessage:
    assert field.endswith(b"\r\n")
    message = email.message_from_bytes(field + b"\r\n", policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert len(message.keys()) == 1
    return message


def lines(field: bytes) -> list[bytes]:
    """Return the field's lines, having checked that CRLF is the only line end in it."""
    whole = field.removesuffix(b"\r\n")
    split = whole.split(b"\r\n")
    assert all(b"\r" not in line and b"\n" not in line for line in split)
    assert all(line.startswith(b" ") and line.strip() for line in split[1:])
    return split


def box(text: str, name: str = "") -> Mailbox:
    address = parse_address(text)
    assert isinstance(address, Address)
    return Mailbox(address, name)


@given(HEADER_TEXT)
def test_any_text_is_read_back_exactly(text: str) -> None:
    field = text_field("Subject", text)
    assert field.isascii()
    assert str(read(field)["Subject"]) == text
    assert all(len(line) <= 998 for line in lines(field))


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=2000))
def test_ascii_text_is_read_back_exactly(text: str) -> None:
    field = text_field("Subject", text)
    assert str(read(field)["Subject"]) == text
    assert all(len(line) <= 998 for line in lines(field))


def test_plain_text_stays_plain() -> None:
    assert text_field("Subject", "Your invoice (2026/11): 12.00 EUR") == (
        b"Subject: Your invoice (2026/11): 12.00 EUR\r\n"
    )


def test_long_text_is_folded_at_78_and_keeps_its_spaces() -> None:
    text = "word  " * 40 + "end"
    field = text_field("Subject", text)
    assert max(map(len, lines(field))) <= 78
    assert str(read(field)["Subject"]) == text


@pytest.mark.parametrize("text", ["=?utf-8?q?x?=", "a =?b", " lead", "trail ", "a\tb", "x" * 1500])
def test_text_that_would_be_misread_is_encoded(text: str) -> None:
    field = text_field("Subject", text)
    assert b"=?utf-8?" in field
    assert str(read(field)["Subject"]) == text


@pytest.mark.parametrize(
    "text", ["ü" * 200, "Grüße aus Köln an alle, die dies lesen. " * 8, "日本" * 80]
)
def test_encoded_words_keep_to_75_and_their_lines_to_76(text: str) -> None:
    field = text_field("Subject", text)
    assert max(map(len, lines(field))) <= 76
    assert max(map(len, encoded_words(text))) <= 75
    assert str(read(field)["Subject"]) == text


def test_the_shorter_of_the_two_encodings_is_taken() -> None:
    assert encoded_words("Die Bestätigung Ihrer Bestellung")[0].startswith("=?utf-8?q?")
    assert encoded_words("日本語")[0].startswith("=?utf-8?b?")


@given(
    st.lists(st.tuples(HEADER_TEXT, st.sampled_from(["a@x.test", "b.c@müller.test"])), min_size=1)
)
def test_mailboxes_are_read_back_with_their_names(given_boxes: list[tuple[str, str]]) -> None:
    field = mailbox_field("To", [box(text, name) for name, text in given_boxes])
    assert field.isascii()
    assert all(len(line) <= 998 for line in lines(field))
    found = read(field)["To"].addresses
    assert [a.addr_spec for a in found] == [box(text).address.wire for _, text in given_boxes]
    # The reader keeps the white space between encoded words, which RFC 2047 6.2 says to ignore.
    assert ["".join(a.display_name.split()) for a in found] == [
        "".join(name.split()) for name, _ in given_boxes
    ]


def test_a_long_name_is_joined_again_by_a_reader_that_follows_rfc_2047() -> None:
    name = "Rindfleischetikettierungsüberwachungsaufgaben Übertragungsgesetz, Referat Ärger"
    field = mailbox_field("From", [box("a@x.test", name)])
    assert max(map(len, lines(field))) <= 78
    value = field.decode().removeprefix("From: ")
    assert str(make_header(decode_header(value))).strip() == f"{name} <a@x.test>"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", b"To: a@x.test\r\n"),
        ("Ann Smith", b"To: Ann Smith <a@x.test>\r\n"),
        ("Smith, Ann", b'To: "Smith, Ann" <a@x.test>\r\n'),
        ('Ann "A" \\', b'To: "Ann \\"A\\" \\\\" <a@x.test>\r\n'),
        ("eve@evil.test", b'To: "eve@evil.test" <a@x.test>\r\n'),
        ("Änne", b"To: =?utf-8?b?w4RubmU=?= <a@x.test>\r\n"),
    ],
)
def test_names_are_atoms_quoted_or_encoded(name: str, shown: bytes) -> None:
    assert mailbox_field("To", [box("a@x.test", name)]) == shown


def test_an_international_mailbox_stands_in_utf8() -> None:
    assert mailbox_field("To", [box("ü@müller.test")]) == ("To: ü@xn--mller-kva.test\r\n".encode())


def test_fifty_mailboxes_are_folded() -> None:
    field = mailbox_field("Cc", [box(f"person{n}@example.test", f"Person {n}") for n in range(50)])
    assert max(map(len, lines(field))) <= 78
    assert len(read(field)["Cc"].addresses) == 50


def test_a_senders_value_keeps_its_grammar() -> None:
    value = "<https://out.example/u/" + "x" * 120 + ">, <mailto:leave@out.example?subject=leave>"
    field = value_field("List-Unsubscribe", f"  {value} ")
    assert read(field)["List-Unsubscribe"] == value
    assert b"=?" not in field
    assert value_field("X-Empty", "") == b"X-Empty: \r\n"
    assert read(value_field("X-Words", "Grüße =?x"))["X-Words"] == "Grüße =?x"


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
@pytest.mark.parametrize("text", ["a{}Bcc: eve@evil.test", "{}", "a{}"])
def test_no_separator_gets_into_a_field(separator: str, text: str) -> None:
    bad = text.format(separator)
    fault = text_fault(bad)
    assert fault is not None
    assert fault.position == text.index("{")
    assert value_fault(bad) == fault
    for write in (
        lambda: text_field("Subject", bad),
        lambda: value_field("X-Y", bad),
        lambda: mailbox_field("To", [box("a@x.test", bad)]),
        lambda: parameter("filename", bad),
        lambda: value_field(f"X{bad}", "v"),
    ):
        with pytest.raises(FieldError):
            write()


@pytest.mark.parametrize(
    ("name", "position"),
    [("X: y\r\nZ", 1), ("X y", 1), ("X\0", 1), ("Ü", 0), ("", 0), (":", 0), ("X" * 77, 76)],
)
def test_bad_names_are_found_at_their_place(name: str, position: int) -> None:
    fault = name_fault(name)
    assert fault is not None
    assert fault.position == position
    assert fault.text.isascii()


def test_a_word_too_long_for_any_line_is_a_fault_of_a_value() -> None:
    assert name_fault("X-Good-1") is None
    assert value_fault("x " * 2000) is None
    fault = value_fault("abc " + "x" * 2000)
    assert fault is not None
    assert fault.position == 4
    with pytest.raises(FieldError):
        value_field("X-Long", "x" * 2000)


@given(HEADER_TEXT.filter(bool))
def test_file_names_are_read_back_exactly(filename: str) -> None:
    head = f"attachment{parameter('filename', filename)}"
    field = f"Content-Disposition: {head}\r\n".encode("ascii")
    assert max(map(len, lines(field))) <= 78
    # The reader drops white space at both ends of a quoted value.
    assert (read(field).get_filename() or "").strip() == filename.strip()


@pytest.mark.parametrize(
    ("unix_s", "text"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
        (1_795_521_600.999, "Tue, 24 Nov 2026 12:00:00 +0000"),
        (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 +0000"),
    ],
)
def test_dates_have_the_form_of_rfc_5322(unix_s: float, text: str) -> None:
    assert format_date(unix_s) == text
