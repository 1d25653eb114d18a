"""Templates: other programs read from what is filled in what the list and the author meant."""

import hashlib
import html as html_module
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocols.addresses import Address, parse_address
from protocols.header_fields import Mailbox
from protocols.mime import Message, MessageBuilder, received_over_http
from protocols.template_parts import TextPart
from protocols.templates import (
    FILLED_CHARACTERS_MAX,
    TEMPLATE_OCTETS_MAX,
    DamagedTemplate,
    FillError,
    Template,
    TemplateError,
    TemplateSource,
    compile_template,
    read_template,
)
from tests.protocols.wire_mail import fit_for_the_wire, read

DATE = "Tue, 24 Nov 2026 12:00:00 +0000"
IDENTIFIER = "0123456789abcdef0123456789abcdef"
HOST = "out.example"


def address(text: str) -> Address:
    parsed = parse_address(text)
    assert isinstance(parsed, Address)
    return parsed


ANN = address("ann@in.example")
SHOP = Mailbox(address("news@shop.example"), "Shop")


def template(
    subject: str = "Hello",
    text: str = "",
    html: str = "",
    headers: tuple[tuple[str, str], ...] = (),
    from_: Mailbox = SHOP,
    reply_to: Mailbox | None = None,
) -> Template:
    source = TemplateSource(
        from_=from_, subject=subject, text=text, html=html, headers=headers, reply_to=reply_to
    )
    return read_template(compile_template(source, host=HOST))


def fill(of: Template, recipient: Address = ANN, /, **variables: str) -> bytes:
    """Return the octets, having checked what holds for every message on the wire."""
    filled = of.fill(variables, recipient=recipient, identifier=IDENTIFIER, date=DATE)
    return fit_for_the_wire(filled.octets)


def body(parsed: EmailMessage, subtype: str) -> str:
    for part in parsed.walk():
        if part.get_content_type() == f"text/{subtype}":
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            return payload.decode().replace("\r\n", "\n")
    raise AssertionError(f"no text/{subtype}")


def faults(**source: object) -> list[tuple[str, int, int]]:
    with pytest.raises(TemplateError) as raised:
        template(**source)  # type: ignore[arg-type]  # whichever parts a test gives
    return [(each.part, each.line, each.column) for each in raised.value.faults]


def test_the_form_is_that_of_mail_over_http() -> None:
    octets = fill(
        template("Hi {{name}}", "Dear {{name}},\nbye", "<p>{{name}}</p>", (("X-Kind", "news"),)),
        name="Ann",
    )
    built = MessageBuilder(IDENTIFIER).build(
        Message(
            received=received_over_http(HOST, IDENTIFIER, DATE),
            from_=SHOP,
            to=(Mailbox(ANN, "Ann"),),
            subject="Hi Ann",
            date=DATE,
            message_id=f"<{IDENTIFIER}@shop.example>",
            extra_fields=(("X-Kind", "news"),),
            text="Dear Ann,\nbye",
            html="<p>Ann</p>",
        )
    )
    assert octets == built.octets


def test_a_mail_that_is_filled_again_is_the_same() -> None:
    one = template("{{name}}", "ü {{name}}", "<p>{{name}}")
    again = template("{{name}}", "ü {{name}}", "<p>{{name}}")
    assert fill(one, name="Jörg") == fill(again, name="Jörg")


def test_a_value_cannot_end_its_part() -> None:
    boundary = f"\n--=_a_{IDENTIFIER}"
    found = read(fill(template("x", "{{a}}", "<p>"), a=f"1{boundary}--{boundary}.1\n2"))
    assert body(found, "plain") == f"1{boundary}--{boundary}.1\n2"
    assert body(found, "html") == "<p>"


def test_umlauts_and_escaping() -> None:
    parsed = read(
        fill(
            template(
                "Grüße an {{name}}", "Grüße,\n{{name}} & {{firma}}", "<p>ß {{name}} & {{firma}}</p>"
            ),
            name="Jörg Müller",
            firma='<Söhne> & "Co"',
        )
    )
    assert parsed["Subject"] == "Grüße an Jörg Müller"
    assert parsed["To"].addresses[0].display_name == "Jörg Müller"
    assert body(parsed, "plain") == 'Grüße,\nJörg Müller & <Söhne> & "Co"'
    assert body(parsed, "html") == ("<p>ß Jörg Müller & &lt;Söhne&gt; &amp; &quot;Co&quot;</p>")


def test_only_a_value_that_needs_it_changes_the_encoding() -> None:
    plain = template(text="Dear {{name}}")
    assert b"Transfer-Encoding: 7bit" in fill(plain, name="Ann")
    assert b"Transfer-Encoding: quoted-printable" in fill(plain, name="Zoë")
    assert b"Transfer-Encoding: quoted-printable" in fill(
        template(text="Etwas für {{a}}, " * 20), a="a"
    )
    assert b"Transfer-Encoding: base64" in fill(template(text="Привет {{a}}"), a="a")


def test_headers_cannot_be_injected() -> None:
    parsed = read(
        fill(
            template(
                "For {{a}}",
                "x",
                headers=(
                    ("X-Of", "<{{a}}>"),
                    ("List-Unsubscribe", "<https://x.example/u?a={{address}}&b={{a}}>"),
                ),
                from_=Mailbox(SHOP.address, "{{a}}"),
                reply_to=Mailbox(SHOP.address, "{{a}} again"),
            ),
            address("ann+1@in.example"),
            a="one\r\nBcc: <eve@x.example>\0, two\u2028",
            name="Ann\r\nX-Evil: 1",
        )
    )
    folded = "one Bcc: <eve@x.example> , two"
    assert parsed["Subject"] == f"For {folded}"
    assert parsed["X-Of"] == f"<{folded}>"
    assert parsed["List-Unsubscribe"] == (
        "<https://x.example/u?a=ann%2B1%40in.example"
        "&b=one%0D%0ABcc%3A%20%3Ceve%40x.example%3E%00%2C%20two%E2%80%A8>"
    )
    assert parsed["From"].addresses[0].display_name == folded
    assert parsed["From"].addresses[0].addr_spec == "news@shop.example"
    assert parsed["Reply-To"].addresses[0].display_name == f"{folded} again"
    assert parsed["To"].addresses[0].display_name == "Ann X-Evil: 1"
    assert "Bcc" not in parsed
    assert "X-Evil" not in parsed


def test_the_address_is_always_there_and_is_the_recipients() -> None:
    of = template("{{address}}", "x")
    assert of.required == frozenset()
    assert read(fill(of, address="eve@x.example"))["Subject"] == "ann@in.example"


def test_an_address_beyond_ascii_needs_smtputf8() -> None:
    of, joerg = template(text="x"), address("jörg@in.example")
    assert of.fill({}, recipient=joerg, identifier="1", date=DATE).needs_utf8
    assert not of.fill({}, recipient=ANN, identifier="1", date=DATE).needs_utf8
    of = template(text="x", reply_to=Mailbox(joerg))
    assert of.fill({}, recipient=ANN, identifier="1", date=DATE).needs_utf8


def test_which_variables_a_template_wants() -> None:
    of = template("{{a}} {{address}}", '{{a:"x"}} {{b:"y"}}', "{{c}}", (("X-D", "{{d}}"),))
    assert of.required == {"a", "c", "d"}
    assert of.optional == {"b"}
    found = of.column_faults(["A", "c", "d"])
    assert [(each.part, each.line, each.column) for each in found] == [("subject", 1, 1)]
    assert 'is "A" meant?' in found[0].text
    assert not of.column_faults(["a", "c", "d"])


def test_a_recipient_without_a_value_is_refused_and_a_default_stands_in() -> None:
    of = template("{{a}}", '{{b:"friend"}}{{c:""}}')
    assert of.check({"a": "1"}, ANN) == ""
    assert '"a"' in of.check({}, ANN)
    assert '"a"' in of.check({"a": ""}, ANN)
    with pytest.raises(FillError, match=r'^subject: .*"a"'):
        fill(of)
    assert body(read(fill(of, a="1", b="")), "plain") == "friend\n"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"a": "x" * 256}, "subject: it would have 256 characters"),
        ({"a": "x", "name": "n" * 256}, '"name" has more than 255'),
        ({"a": "x", "b": "y" * 9_000}, r"headers\[X-B\]: it would have 9000"),
        ({"a": "x", "b": "y" * 8_000}, r"headers\[X-B\]: X-B: a word is too long"),
        ({"a": "x", "c": "z" * 60_000}, "characters of text"),
    ],
)
def test_what_does_not_fit_is_told_beforehand(variables: dict[str, str], words: str) -> None:
    of = template("{{a}}", '{{c:""}}' * 100, headers=(("X-B", '{{b:"-"}}'),))
    with pytest.raises(FillError, match=words) as raised:
        fill(of, **variables)
    assert of.check(variables, ANN) == str(raised.value)


def test_a_value_of_the_longest_kind_fits() -> None:
    of = template("{{a}}", "{{b}}\n" * 60)
    assert of.check({"a": "x" * 255, "b": "ü" * 30_000}, ANN) == ""
    assert (
        len(body(read(fill(of, a="x" * 255, b="ü" * 30_000)), "plain"))
        == 60 * 30_001
        < (FILLED_CHARACTERS_MAX)
    )


def test_what_would_be_megabytes_is_not_made_to_know_that_it_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = template("Hello", html="{{a}}\n" * 100 + "{{b}}")
    variables = {"a": "<" * 4_000, "b": "<" * 5_000}
    whole = fill(of, **variables)
    monkeypatch.setattr(TextPart, "fill", None)
    assert of.check(variables, ANN) == ""
    assert len(whole) < 2 * FILLED_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("html", "value"), [("{{a}}\n" * 150, "'" * 4_000), ("{{url:a}}\n" * 90, "é" * 5_000)]
)
def test_values_count_as_they_will_stand_there(html: str, value: str) -> None:
    of = template("Hello", html=html)
    with pytest.raises(FillError, match="characters of text") as raised:
        fill(of, a=value)
    assert of.check({"a": value}, ANN) == str(raised.value)
    assert len(body(read(fill(of, a="x" * len(value))), "html")) < FILLED_CHARACTERS_MAX


def test_faults_of_a_template_have_their_place() -> None:
    assert faults() == [("", 0, 0)]
    assert faults(text="x" * (TEMPLATE_OCTETS_MAX + 1)) == [("", 0, 0)]
    assert faults(
        subject="{{a",
        text="1\n2 {{b:c}}",
        html="{{{x}}}",
        headers=(("X-A", "{{"), ("To", "x"), ("bad name", "x"), ("X-B", "one\ntwo")),
        from_=Mailbox(SHOP.address, "x{{"),
    ) == [
        ("text", 2, 3),
        ("html", 1, 1),
        ("from_name", 1, 2),
        ("subject", 1, 1),
        ("headers[X-A]", 1, 1),
        ("headers[To]", 1, 1),
        ("headers[bad name]", 1, 4),
        ("headers[X-B]", 1, 4),
    ]
    assert faults(text="x", subject="a\r\nb") == [("subject", 1, 2)]
    assert faults(text="x", headers=(("Reply-To", "a@b.example"),), reply_to=SHOP) == [
        ("headers[Reply-To]", 1, 1)
    ]
    assert faults(text="\n \ud800") == [("text", 2, 2)]


def test_faults_read_as_a_line() -> None:
    with pytest.raises(TemplateError, match=r"^text, line 1, column 3: .*never closed"):
        template(text="a {{b")


# Version 1 as it was written first; it stays readable for ever.
SAMPLE = bytes.fromhex(
    "0182a6736f7572636586a566726f6d5f82a76164647265737384a56c6f63616ca46e657773a6646f6d61696e"
    "ac73686f702e6578616d706c65a861735f676976656eb16e6577734073686f702e6578616d706c65aa6e6565"
    "64735f75746638c2a46e616d65a55368c3b670a77375626a656374ab4869207b7b6e616d657d7da87265706c"
    "795f746f82a76164647265737384a56c6f63616ca172a6646f6d61696eac73686f702e6578616d706c65a861"
    "735f676976656eae724073686f702e6578616d706c65aa6e656564735f75746638c2a46e616d65a0a4746578"
    "74bd44656172207b7b7661723a6e616d653a22667269656e64227d7d20c3bca468746d6caf3c703e7b7b6e61"
    "6d657d7d3c2f703ea7686561646572739192a3582d41a131a4686f7374ab6f75742e6578616d706c65"
)


def test_a_stored_sample_stays_readable() -> None:
    octets = fill(read_template(SAMPLE), name="Ann")
    # A mail that is tried again after an upgrade has the same octets, too.
    assert hashlib.sha256(octets).hexdigest() == (
        "a7eb703664ce72bc6593f01a36c1ae4a4b6a2bde97806427089f772ce05c37b6"
    )
    parsed = read(octets)
    assert (parsed["From"], parsed["Reply-To"]) == ("Shöp <news@shop.example>", "r@shop.example")
    assert (parsed["Subject"], parsed["X-A"]) == ("Hi Ann", "1")
    assert (body(parsed, "plain"), body(parsed, "html")) == ("Dear Ann ü", "<p>Ann</p>")


def test_a_value_is_not_filled_in_again() -> None:
    of = template("{{a}}", "{{a}} {{b}}", headers=(("X-A", "{{b}}"),))
    parsed = read(fill(of, a="{{b}}", b='{{a}} [[var:a]] {{"x"}}'))
    assert parsed["Subject"] == "{{b}}"
    assert body(parsed, "plain") == '{{b}} {{a}} [[var:a]] {{"x"}}\n'
    assert parsed["X-A"] == '{{a}} [[var:a]] {{"x"}}'


@given(st.binary(max_size=40))
@example(b"")
@example(b"\x01")
@example(b"\x01\x80")
@example(b"\x02" + compile_template(TemplateSource(from_=SHOP, subject="", text="x"), host="h")[1:])
@example(compile_template(TemplateSource(from_=SHOP, subject="", text="x"), host="h")[:-1])
@example(
    compile_template(TemplateSource(from_=SHOP, subject="", text="{{a}}"), host="h").replace(
        b"{{a}}", b"{{a}-"
    )
)
def test_damage_is_told(octets: bytes) -> None:
    with pytest.raises(DamagedTemplate):
        read_template(octets)


# Everything that could disturb an encoding: line ends, white space at ends, "=", dots, long words.
AWKWARD = st.text(
    st.one_of(
        st.sampled_from(" \t=.\r\n\0-_?ü€😀&<>\"'F"),
        st.characters(exclude_categories=["Cs"], max_codepoint=0x2FFF),
    ),
    max_size=200,
) | st.sampled_from(["x" * 998, "x" * 999, "=" * 80, "ü" * 80, "a " * 600, "x" * 75 + " "])
# Of those what means nothing to the language.
LITERALS = AWKWARD.filter(lambda text: "{" not in text and "[" not in text)
PIECES = st.lists(LITERALS | st.sampled_from(["{{a}}", "{{b}}"]), min_size=1, max_size=8)


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@given(PIECES, PIECES, AWKWARD, AWKWARD)
@example(["x" * 76, "{{a}}"], ["ü", "{{a}}", "=" * 30], "y" * 76, " ")
@example(["ü" + "x" * 70, "{{a}}", "{{b}}", "\n"], ["x"], "x ", "\t")
def test_any_text_arrives_as_it_was_meant(text: list[str], html: list[str], a: str, b: str) -> None:
    variables = {"a": a or "1", "b": b or "2"}
    of = template(text="".join(text) + ".", html="".join(html) + ".")
    octets = fill(of, **variables)
    parsed = read(octets)

    given_values = {"{{a}}": variables["a"], "{{b}}": variables["b"]}
    in_text = "".join(given_values.get(piece, piece) for piece in text)
    in_html = "".join(
        html_module.escape(given_values[piece]) if piece in given_values else piece
        for piece in html
    )
    assert body(parsed, "plain") == lines(in_text + ".")
    assert body(parsed, "html") == lines(in_html + ".")
    encoded = octets.split(b"\r\n\r\n", 1)[1]
    if b"quoted-printable" in encoded and b"7bit" not in encoded:
        assert max(map(len, encoded.split(b"\r\n"))) <= 76


HEADER_VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(HEADER_VALUES, HEADER_VALUES)
def test_any_value_in_a_header_stays_in_it(a: str, name: str) -> None:
    of = template("S {{a}} E", "x", headers=(("X-A", "S {{a}} E"),))
    parsed = read(fill(of, a=a or "1", name=name))
    names = ["Received", "From", "To", "Subject", "Date", "Message-ID", "X-A", "MIME-Version"]
    assert parsed.keys() == [*names, "Content-Type", "Content-Transfer-Encoding"]
    assert str(parsed["Subject"]).startswith("S ")
    assert str(parsed["Subject"]).endswith(" E")
    if a.isprintable() and a.strip():
        assert parsed["Subject"] == f"S {a.strip()} E"
        assert of.subject({"a": a}, ANN) == f"S {a.strip()} E"


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.text(max_size=400) | st.integers(0, 9_999).map("x".__mul__),
        max_size=3,
    )
)
def test_what_passes_the_check_can_be_filled(variables: dict[str, str]) -> None:
    of = template("{{a}}", '{{b:"x"}}', "{{url:c}}", (("X-A", "a{{c}}b"), ("List-Id-2", "{{b}}")))
    fault = of.check(variables, ANN)
    if fault:
        with pytest.raises(FillError):
            fill(of, **variables)
    else:
        fill(of, **variables)
