"""Messages: the standard library reads from our octets what went in, and the wire form is clean."""

import re
from email.message import EmailMessage, MIMEPart

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.addresses import Address, parse_address
from protocols.header_fields import FieldError, Mailbox
from protocols.mime import (
    Attachment,
    Message,
    MessageBuilder,
    MimeError,
    encode_base64,
    is_content_id,
    is_content_type,
)
from tests.protocols.wire_mail import fit_for_the_wire, read

TOKEN = "0123456789abcdef"


def box(text: str, name: str = "") -> Mailbox:
    address = parse_address(text)
    assert isinstance(address, Address)
    return Mailbox(address, name)


def message(
    text: str | None = None,
    html: str | None = None,
    attachments: tuple[Attachment, ...] = (),
    inline: tuple[Attachment, ...] = (),
    extra_fields: tuple[tuple[str, str], ...] = (),
) -> Message:
    return Message(
        from_=box("sender@out.example", "Sender"),
        to=(box("ann@in.example"),),
        subject="Hello",
        date="Tue, 24 Nov 2026 12:00:00 +0000",
        message_id="<1@out.example>",
        text=text,
        html=html,
        attachments=attachments,
        inline=inline,
        extra_fields=extra_fields,
    )


def build(of: Message) -> bytes:
    """Return the octets, having checked what holds for every message on the wire."""
    return fit_for_the_wire(MessageBuilder(TOKEN).build(of).octets)


def shape(part: EmailMessage) -> object:
    """Return the nesting as ("mixed", [...]) and leaves as content types."""
    if part.is_multipart() and part.get_content_maintype() == "multipart":
        parts = [shape(child) for child in part.iter_parts() if isinstance(child, EmailMessage)]
        return (part.get_content_subtype(), parts)
    return part.get_content_type()


def text_of(part: MIMEPart | None) -> str:
    assert part is not None
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def with_crlf(text: str) -> str:
    return re.sub(r"\r\n|\r|\n", "\r\n", text)


LOGO = Attachment("image/png", "logo.png", b"\x89PNG\r\n", "logo.png")
NOTE = Attachment("text/plain; charset=utf-8", "Notiz für Sie.txt", "Grüße\n".encode())


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (message(text="t"), "text/plain"),
        (message(html="h"), "text/html"),
        (message("t", "h"), ("alternative", ["text/plain", "text/html"])),
        (message(html="h", inline=(LOGO,)), ("related", ["text/html", "image/png"])),
        (message("t", attachments=(NOTE,)), ("mixed", ["text/plain", "text/plain"])),
        (message("t", inline=(LOGO,)), ("mixed", ["text/plain", "image/png"])),
        (message(attachments=(NOTE,)), ("mixed", ["text/plain", "text/plain"])),
        (
            message("t", "h", (NOTE, NOTE), (LOGO,)),
            (
                "mixed",
                [
                    ("alternative", ["text/plain", ("related", ["text/html", "image/png"])]),
                    "text/plain",
                    "text/plain",
                ],
            ),
        ),
    ],
)
def test_parts_nest_only_as_far_as_needed(of: Message, expected: object) -> None:
    assert shape(read(build(of))) == expected


BODY = st.text(st.characters(exclude_categories=["Cs"]), max_size=3000)


@given(BODY)
def test_any_text_is_read_back_with_crlf_line_ends(text: str) -> None:
    found = text_of(read(build(message(text))))
    assert found.removesuffix("\r\n") == with_crlf(text).removesuffix("\r\n")


@pytest.mark.slow
@given(BODY, BODY, st.lists(st.binary(max_size=300), max_size=3), st.binary(max_size=300))
def test_every_part_of_a_whole_message_is_read_back(
    text: str, html: str, files: list[bytes], image: bytes
) -> None:
    attachments = tuple(
        Attachment("application/x-data", f"file {n}", content) for n, content in enumerate(files)
    )
    inline = (Attachment("image/gif", "i.gif", image, "i@x"),)
    parsed = read(build(message(text, html, attachments, inline)))
    assert text_of(parsed.get_body(("plain",))) == with_crlf(text)
    assert text_of(parsed.get_body(("html",))) == with_crlf(html)
    found = list(parsed.iter_attachments())
    assert [part.get_payload(decode=True) for part in found] == files
    assert [part.get_filename() for part in found] == [f"file {n}" for n in range(len(files))]
    (related,) = (p for p in parsed.walk() if p.get_content_type() == "image/gif")
    assert related.get_payload(decode=True) == image
    assert related["Content-ID"] == "<i@x>"
    assert related.get_content_disposition() == "inline"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\ntext\twith a tab \n.\n..\nFrom here\n", "7bit"),
        ("x" * 998 + "\n" + "y" * 998, "7bit"),
        ("x" * 999, "quoted-printable"),
        ("ok\n" * 400 + "x" * 999 + "\nok", "quoted-printable"),
        ("a\0b", "quoted-printable"),
        ("form\ffeed", "quoted-printable"),
        ("Grüße aus Köln, viel einfacher Text dazwischen", "quoted-printable"),
        ("日本語のテキスト", "base64"),
    ],
)
def test_text_is_encoded_only_where_it_must_be(text: str, encoding: str) -> None:
    parsed = read(build(message(text)))
    assert parsed["Content-Transfer-Encoding"] == encoding
    assert text_of(parsed).removesuffix("\r\n") == with_crlf(text).removesuffix("\r\n")


@given(st.text(st.sampled_from("aaaaü= \t\n.\0"), max_size=500))
def test_encoded_lines_keep_to_76_and_no_white_space_ends_one(text: str) -> None:
    head, _, body = build(message(text + "ü" + "a" * 40)).partition(b"\r\n\r\n")
    assert b"quoted-printable" in head or b"base64" in head
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))
    assert not any(line.endswith((b" ", b"\t")) for line in body.split(b"\r\n"))


def test_white_space_encoded_at_the_end_of_a_full_line_gets_a_line_of_its_own() -> None:
    text = "ü" + "a" * 69 + " \nmore"
    body = build(message(text)).partition(b"\r\n\r\n")[2]
    assert max(map(len, body.split(b"\r\n"))) <= 76
    assert text_of(read(build(message(text)))) == with_crlf(text) + "\r\n"


def test_a_single_text_gets_the_missing_line_end_and_no_second_one() -> None:
    assert build(message("end")).endswith(b"\r\n\r\nend\r\n")
    assert build(message("end\n")).endswith(b"\r\n\r\nend\r\n")


def test_a_text_that_holds_the_boundary_gets_another_boundary() -> None:
    text = f"--=_a_{TOKEN}\n\n--=_a_{TOKEN}.1--\n"
    parsed = read(build(message(text, f"<p>=_m_{TOKEN}</p>", (NOTE,), (LOGO,))))
    assert text_of(parsed.get_body(("plain",))) == with_crlf(text)
    assert len(list(parsed.iter_attachments())) == 1


def test_header_fields_come_in_order_and_received_first() -> None:
    of = Message(
        received="by out.example with HTTP id 1; Tue, 24 Nov 2026 12:00:00 +0000",
        from_=box("a@out.example", "Ä"),
        sender=box("b@out.example"),
        to=(box("c@in.example"), box("d@in.example", "D")),
        cc=(box("e@in.example"),),
        reply_to=(box("f@out.example"),),
        subject="S",
        date="Tue, 24 Nov 2026 12:00:00 +0000",
        message_id="<1@out.example>",
        extra_fields=(("X-One", "1"), ("X-Two", "zwei ü")),
        text="t",
    )
    parsed = read(build(of))
    assert parsed.keys() == [
        *("Received", "From", "Sender", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID"),
        *("X-One", "X-Two", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
    ]
    assert parsed["From"] == "Ä <a@out.example>"
    assert [a.addr_spec for a in parsed["To"].addresses] == ["c@in.example", "d@in.example"]
    assert parsed["Message-ID"] == "<1@out.example>"
    assert parsed["Date"].datetime.isoformat() == "2026-11-24T12:00:00+00:00"
    assert parsed["X-Two"] == "zwei ü"


def test_an_international_address_in_the_header_needs_smtputf8() -> None:
    of = Message(
        from_=box("a@out.example"),
        to=(box("ü@in.example"),),
        subject="S",
        date="Tue, 24 Nov 2026 12:00:00 +0000",
        message_id="<1@out.example>",
        text="t",
    )
    built = MessageBuilder(TOKEN).build(of)
    assert built.needs_utf8
    assert "To: ü@in.example\r\n".encode() in built.octets
    assert not MessageBuilder(TOKEN).build(message("Grüße")).needs_utf8


def test_a_clean_message_is_attached_as_it_is_and_another_as_a_file() -> None:
    clean = b"Subject: inner\r\n\r\nbody\r\n"
    parsed = read(build(message("t", attachments=(Attachment("message/rfc822", "m.eml", clean),))))
    (inner,) = parsed.iter_attachments()
    assert inner.get_content_type() == "message/rfc822"
    assert inner.get_content()["Subject"] == "inner"
    bare = clean.replace(b"\r\n", b"\n")
    parsed = read(build(message("t", attachments=(Attachment("message/rfc822", "m.eml", bare),))))
    (inner,) = parsed.iter_attachments()
    assert inner.get_content_type() == "application/octet-stream"
    assert inner.get_payload(decode=True) == bare


def test_an_attached_message_that_holds_the_boundary_stays_whole() -> None:
    content = f"Subject: x\r\n\r\n--=_m_{TOKEN}--\r\nrest\r\n".encode()
    attached = Attachment("message/rfc822", "m.eml", content)
    parsed = read(build(message("t", attachments=(attached,))))
    (inner,) = parsed.iter_attachments()
    assert "rest" in inner.get_content().get_content()


def test_builds_that_share_parts_equal_builds_that_do_not() -> None:
    shared = MessageBuilder(TOKEN)
    for text in ("one", "two ü", "one"):
        of = message(text, "<p>same</p>", (NOTE,), (LOGO,))
        assert shared.build(of).octets == build(of)


@pytest.mark.parametrize(
    "good",
    [
        "text/plain",
        "application/pdf",
        'text/plain; charset="utf-8"; x=y',
        "application/vnd.ms-excel;",
        "image/svg+xml ; charset=utf-8",
        "message/rfc822",
    ],
)
def test_content_types_that_an_attachment_may_have(good: str) -> None:
    assert is_content_type(good)
    build(message("t", attachments=(Attachment(good, "f", b"x"),)))


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain\r\nBcc: eve@evil.test",
        'text/plain; a="x\r\ny"',
        "text/plain; a=b c",
        "tëxt/plain",
        "multipart/mixed; boundary=x",
        "Multipart/Mixed",
        "text/" + "x" * 300,
        "text/plain" + "; a=b" * 100,
    ],
)
def test_content_types_that_are_none_are_refused(bad: str) -> None:
    assert not is_content_type(bad)
    with pytest.raises(MimeError):
        build(message("t", attachments=(Attachment(bad, "f", b"x"),)))


@pytest.mark.parametrize("bad", ["a b", "a>\r\nX: y", "<a>", "ü", "x" * 201])
def test_content_ids_that_are_none_are_refused(bad: str) -> None:
    assert not is_content_id(bad)
    with pytest.raises(MimeError):
        build(message(html="h", inline=(Attachment("image/png", "f", b"x", bad),)))


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\0"])
def test_injection_into_any_field_of_a_message_is_refused(line_end: str) -> None:
    bad = f"x{line_end}Bcc: eve@evil.test"
    with pytest.raises(FieldError):
        build(message("t", extra_fields=(("X-A", bad),)))
    with pytest.raises(FieldError):
        build(message("t", extra_fields=((bad, "v"),)))
    with pytest.raises(FieldError):
        build(message("t", attachments=(Attachment("text/plain", bad, b""),)))
    with pytest.raises(FieldError):
        build(message("t", inline=(Attachment("text/plain", bad, b""),)))


def test_half_a_surrogate_pair_in_a_text_is_refused() -> None:
    with pytest.raises(MimeError):
        build(message("a\ud800"))


@given(st.binary(max_size=500))
def test_base64_has_lines_of_76_and_no_more_than_needed(octets: bytes) -> None:
    lines = encode_base64(octets).split(b"\r\n")
    assert all(len(line) == 76 for line in lines[:-1])
    assert len(lines[-1]) <= 76
    assert (
        read(b"Content-Transfer-Encoding: base64\r\n\r\n" + b"\r\n".join(lines)).get_payload(
            decode=True
        )
        == octets
    )
