"""Addresses: what passes, and for what does not, which fault at which place."""

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import given
from hypothesis import strategies as st

from protocols.addresses import (
    ADDRESS_OCTETS_MAX,
    Address,
    AddressFault,
    FaultCode,
    normalise_domain,
    parse_address,
)


def address(text: str) -> Address:
    parsed = parse_address(text)
    assert isinstance(parsed, Address), parsed
    return parsed


def fault(text: str) -> AddressFault:
    parsed = parse_address(text)
    assert isinstance(parsed, AddressFault), parsed
    return parsed


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("tom@beispiel.de", "tom@beispiel.de"),
        ("Tom.Smith+news@Mail.Example.COM", "Tom.Smith+news@mail.example.com"),
        ("!#$%&'*+/=?^_`{|}~-@x.test", "!#$%&'*+/=?^_`{|}~-@x.test"),
        ("user%elsewhere@here.example", "user%elsewhere@here.example"),
        ("a@müller.test", "a@xn--mller-kva.test"),
        ("a@XN--MLLER-KVA.de", "a@xn--mller-kva.de"),
        ("a@müller。de", "a@xn--mller-kva.de"),
        ("a@faß.de", "a@xn--fa-hia.de"),
        ("a@ab--cd.de", "a@ab--cd.de"),
        ("a@3com.com", "a@3com.com"),
        ('"ann"@x.test', "ann@x.test"),
        ('"a b"@x.test', '"a b"@x.test'),
        (r'"a\"b\\c"@x.test', r'"a\"b\\c"@x.test'),
        (r'"\a\n\n"@x.test', "ann@x.test"),
        ("a" * 64 + "@x.test", "a" * 64 + "@x.test"),
        ("a@" + "x" * 63 + ".de", "a@" + "x" * 63 + ".de"),
    ],
)
def test_legal_addresses_and_their_wire_form(text: str, wire: str) -> None:
    parsed = address(text)
    assert (parsed.wire, parsed.as_given, parsed.needs_utf8) == (wire, text, False)


def test_an_international_local_part_needs_smtputf8_and_is_composed() -> None:
    decomposed = "mu\u0308ller@x.test"
    parsed = address(decomposed)
    assert parsed.needs_utf8
    assert parsed.wire == "müller@x.test"
    assert parsed.as_given == decomposed


def test_letters_whose_low_octets_look_like_a_line_end_are_only_letters() -> None:
    # U+560D and U+560A end in the octets 0D and 0A; software that truncates them breaks the line.
    parsed = address("嘍嘊@x.test")
    assert parsed.needs_utf8
    assert b"\r" not in parsed.wire.encode()
    assert b"\n" not in parsed.wire.encode()


@pytest.mark.parametrize(
    ("text", "code", "position", "suggestion"),
    [
        ("", FaultCode.EMPTY, 0, None),
        ("Tom@@ beispiel.de", FaultCode.SECOND_AT, 4, "tom@beispiel.de"),
        ("Tom @beispiel.de", FaultCode.SPACE, 3, "tom@beispiel.de"),
        (" tom@beispiel.de", FaultCode.SPACE, 0, "tom@beispiel.de"),
        ("tom@bei spiel.de", FaultCode.SPACE, 7, "tom@beispiel.de"),
        ("tom@beispiel.de.", FaultCode.TRAILING_DOT, 15, "tom@beispiel.de"),
        ("tom@beispiel,de", FaultCode.BAD_CHARACTER, 12, "tom@beispiel.de"),
        ("tom@beispiel..de", FaultCode.DOUBLE_DOT, 13, "tom@beispiel.de"),
        ("tom..x@beispiel.de", FaultCode.DOUBLE_DOT, 4, "tom.x@beispiel.de"),
        ("tom.@beispiel.de", FaultCode.DOT_MISPLACED, 3, "tom@beispiel.de"),
        (".tom@beispiel.de", FaultCode.DOT_MISPLACED, 0, "tom@beispiel.de"),
        ("tom@.beispiel.de", FaultCode.DOT_MISPLACED, 4, "tom@beispiel.de"),
        ("<tom@beispiel.de", FaultCode.BRACKET, 0, "tom@beispiel.de"),
        ("tom@beispiel.de>", FaultCode.BRACKET, 15, "tom@beispiel.de"),
        ("Tom <tom@beispiel.de", FaultCode.SPACE, 3, "tom@beispiel.de"),
        ("tom(at)beispiel(dot)de", FaultCode.BAD_CHARACTER, 3, "tom@beispiel.de"),
        ("tom＠beispiel.de", FaultCode.BAD_CHARACTER, 3, "tom@beispiel.de"),
        ("mailto:tom@beispiel.de", FaultCode.BAD_CHARACTER, 6, "tom@beispiel.de"),
        ("Tom Schmidt@beispiel.de", FaultCode.SPACE, 3, None),
        ("tom.beispiel.de", FaultCode.NO_AT, 15, None),
        ("@beispiel.de", FaultCode.NO_LOCAL, 0, None),
        ('""@beispiel.de', FaultCode.NO_LOCAL, 0, None),
        ("tom@", FaultCode.NO_DOMAIN, 4, None),
        ("tom@beispiel", FaultCode.NO_DOT_IN_DOMAIN, 12, None),
        ("a@b@c", FaultCode.SECOND_AT, 3, None),
        ("tom@10.1.2.3", FaultCode.NUMERIC_DOMAIN, 11, None),
        ("a@[127.0.0.1]", FaultCode.ADDRESS_LITERAL, 2, None),
        ("@r1,@r2:a@b", FaultCode.SOURCE_ROUTE, 0, None),
        ("a@-b.de", FaultCode.HYPHEN_MISPLACED, 2, None),
        ("a@b-.de", FaultCode.HYPHEN_MISPLACED, 3, None),
        ("a@b_c.de", FaultCode.BAD_CHARACTER, 3, None),
        ("a@xn--0.de", FaultCode.BAD_LABEL, 2, None),
        ("a@☃.net", FaultCode.BAD_LABEL, 2, None),
        ('"tom@beispiel.de', FaultCode.BAD_CHARACTER, 4, "tom@beispiel.de"),
        ('"tom', FaultCode.QUOTE, 0, None),
        ('"tom\\', FaultCode.QUOTE, 0, None),
        ('"tom"', FaultCode.NO_AT, 5, None),
        ('"tom"x@beispiel.de', FaultCode.QUOTE, 5, None),
        ("a" * 65 + "@x.test", FaultCode.LOCAL_TOO_LONG, 0, None),
        ("ü" * 33 + "@x.test", FaultCode.LOCAL_TOO_LONG, 0, None),
        ("a@" + "x" * 64 + ".de", FaultCode.LABEL_TOO_LONG, 2, None),
        ("a@" + "ü" * 63 + ".de", FaultCode.BAD_LABEL, 2, None),
        ("a@" + "x." * 126 + "de", FaultCode.TOO_LONG, 2, None),
        ("abc@" + "x." * 125 + "de", FaultCode.TOO_LONG, 254, None),
        ("a" * 65536 + "@x.test", FaultCode.TOO_LONG, 254, None),
    ],
)
def test_faults_name_the_place_and_the_repair(
    text: str, code: FaultCode, position: int, suggestion: str | None
) -> None:
    found = fault(text)
    assert (found.code, found.position, found.suggestion) == (code, position, suggestion)
    assert found.text


SEPARATORS = "\r\n\t\0\x0b\x0c\x1b\x1c\x1d\x1e\x1f\x7f\x85\u2028\u2029\u200b\u202e\ufeff"


@pytest.mark.parametrize("separator", [*SEPARATORS, "\r\n", "\n\r", "\ud800"], ids=ascii)
@pytest.mark.parametrize("place", [0, 1, 2, 4])
def test_no_separator_passes_at_any_place(separator: str, place: int) -> None:
    text = "ab@x.test"[:place] + separator + "ab@x.test"[place:]
    found = fault(text)
    assert (found.code, found.position) == (FaultCode.CONTROL_CHARACTER, place)
    assert found.text.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "a@b.test>\r\nDATA",
        "a@b.test\nRCPT TO:<x@y.test>",
        "a@b.test> SIZE=1",
        "<a@b.test>NOTIFY=NEVER",
        '"a\r\nb"@c.test',
        '"a@evil.test x"@ok.test',
        '"<a>"@ok.test',
        "a@b.test\u560d\u560aDATA x",
    ],
)
def test_injection_through_an_address_is_refused(text: str) -> None:
    fault(text)


def test_a_slip_is_repaired_but_an_injection_gets_no_suggestion() -> None:
    assert fault("tom@beispiel.de\n").suggestion == "tom@beispiel.de"
    assert fault("tom@x.test\r\nBcc:eve@x.test").suggestion is None
    assert fault("tom@x\u2028.test").suggestion is None


@pytest.mark.parametrize(
    ("text", "domain"),
    [("Example.COM", "example.com"), ("bücher.example", "xn--bcher-kva.example")],
)
def test_domains_become_lower_case_a_labels(text: str, domain: str) -> None:
    assert normalise_domain(text) == domain


def test_a_faulty_domain_tells_its_own_positions() -> None:
    found = normalise_domain("a..b")
    assert isinstance(found, AddressFault)
    assert found.position == 2
    assert isinstance(normalise_domain("x" * 5000), AddressFault)
    assert isinstance(normalise_domain(""), AddressFault)


@given(st.text(max_size=300))
def test_any_text_gets_an_answer_that_holds(text: str) -> None:
    parsed = parse_address(text)
    if isinstance(parsed, Address):
        assert parsed.domain == parsed.domain.lower()
        assert parsed.domain.isascii()
        assert len(parsed.wire.encode()) <= ADDRESS_OCTETS_MAX
        again = address(parsed.wire)
        assert (again.local, again.domain) == (parsed.local, parsed.domain)
    else:
        assert 0 <= parsed.position <= max(len(text), ADDRESS_OCTETS_MAX)
        if parsed.suggestion is not None:
            address(parsed.suggestion)


NEARLY_AN_ADDRESS = st.lists(
    st.sampled_from([*'aZ0@.-_+ ,<>"\\()ü\n', "xn--", "..", "beispiel.de", "\u3002", "ß"]),
    max_size=12,
).map("".join)


@given(NEARLY_AN_ADDRESS)
def test_whatever_passes_is_legal_to_an_independent_validator(text: str) -> None:
    parsed = parse_address(text)
    if isinstance(parsed, Address):
        assert verdict_of_email_validator(parsed.wire) in (
            parsed.domain,
            # It wants two letters and two hyphens to mean an A-label, and a top level domain with
            # letters only; both are stricter than the DNS and neither is about safety.
            "two letters followed by two dashes",
            "not within a valid top-level domain",
        )


def verdict_of_email_validator(wire: str) -> str:
    """Return the domain it finds, or the telling part of its refusal."""
    try:
        return str(
            validate_email(
                wire, check_deliverability=False, allow_quoted_local=True, test_environment=True
            ).ascii_domain
        )
    except EmailNotValidError as error:
        known = ("two letters followed by two dashes", "not within a valid top-level domain")
        return next((words for words in known if words in str(error)), str(error))


@given(NEARLY_AN_ADDRESS)
def test_whatever_an_independent_validator_takes_passes(text: str) -> None:
    try:
        other = validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return
    assert address(text).domain == other.ascii_domain
