"""Commands as octets: nothing ends its line or its brackets early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import commands
from protocols.addresses import Address
from protocols.capabilities import Capabilities
from protocols.errors import LocalProtocolError

ALL = Capabilities(extended=True, size=True, eight_bit_mime=True, smtputf8=True)


def test_forms() -> None:
    assert commands.ehlo("out.example") == b"EHLO out.example\r\n"
    assert commands.helo("[192.0.2.1]") == b"HELO [192.0.2.1]\r\n"
    assert commands.rcpt('"a b"@c.example') == b'RCPT TO:<"a b"@c.example>\r\n'
    assert commands.rcpt("a@[192.0.2.1]") == b"RCPT TO:<a@[192.0.2.1]>\r\n"
    assert commands.mail("", Capabilities(), size_octets=5) == b"MAIL FROM:<>\r\n"
    assert (
        commands.mail("a@b", ALL, size_octets=5, needs_8bit=True)
        == b"MAIL FROM:<a@b> SIZE=5 BODY=8BITMIME\r\n"
    )
    assert (
        commands.mail("ä@b", ALL, size_octets=5, needs_utf8=True)
        == "MAIL FROM:<ä@b> SIZE=5 SMTPUTF8\r\n".encode()
    )


@pytest.mark.parametrize(
    "address",
    [
        "a@b>\r\nDATA",
        "a@b\nRCPT TO:<x@y>",
        "a@b> SIZE=1",
        "a@b SIZE=1",
        "<a@b>",
        "a@b\0",
        "a\u2028@b",
        "a@b\x85",
        '"a\r\nb"@c',
        '"a"b"@c',
        "a@b@c",
        "a@[::1]>",
        "a\ud800@b",
        "@b",
        "a@",
        "",
    ],
)
def test_injection_is_refused(address: str) -> None:
    with pytest.raises(LocalProtocolError):
        commands.rcpt(address, utf8=True)
    if address:
        with pytest.raises(LocalProtocolError):
            commands.mail(address, ALL, size_octets=1, needs_utf8=True)


@pytest.mark.parametrize("name", ["", "a b", "a\r\nQUIT", "ü.example", "[1.2.3.4", "<x>"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        commands.ehlo(name)
    with pytest.raises(LocalProtocolError):
        commands.helo(name)


def test_utf8_is_refused_where_it_was_not_announced() -> None:
    with pytest.raises(LocalProtocolError):
        commands.rcpt("ä@b.example")


@given(st.text(max_size=40))
def test_any_text_gives_one_line_or_is_refused(text: str) -> None:
    try:
        line = commands.rcpt(text, utf8=True)
    except LocalProtocolError:
        return
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert line.endswith(b">\r\n")
    assert b"\0" not in line


def test_what_the_address_parser_passes_fits() -> None:
    address = Address(local='"odd one"', domain="xn--bcher-kva.example", as_given="")
    assert commands.is_wire_address(address.wire)
