"""EHLO responses to capabilities."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.capabilities import Capabilities, parse_capabilities

GREETING = "mx.example greets out.example"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([GREETING], Capabilities(extended=True)),
        ([GREETING, "PIPELINING"], Capabilities(extended=True, pipelining=True)),
        ([GREETING, "size 1000"], Capabilities(extended=True, size=True, size_max=1000)),
        ([GREETING, "SIZE"], Capabilities(extended=True, size=True)),
        ([GREETING, "SIZE 0"], Capabilities(extended=True, size=True)),
        ([GREETING, "SIZE -5"], Capabilities(extended=True, size=True)),
        ([GREETING, "SIZE ²"], Capabilities(extended=True, size=True)),
        ([GREETING, "SIZE " + "9" * 5000], Capabilities(extended=True, size=True)),
        (
            [GREETING, "8bitmime", "SmtpUtf8", "STARTTLS", "CHUNKING", "DSN"],
            Capabilities(
                extended=True,
                eight_bit_mime=True,
                smtputf8=True,
                starttls=True,
                chunking=True,
                dsn=True,
            ),
        ),
        # The greeting is no keyword, nor is a part of one.
        (["PIPELINING", "X-PIPELINING", "PIPELININGX"], Capabilities(extended=True)),
        ([GREETING, "SIZE 5", "SIZE 9"], Capabilities(extended=True, size=True, size_max=5)),
        ([], Capabilities(extended=True)),
    ],
)
def test_capabilities(lines: Sequence[str], expected: Capabilities) -> None:
    assert parse_capabilities(lines) == expected


@given(st.lists(st.text(max_size=30)))
def test_any_text_is_taken(lines: list[str]) -> None:
    assert parse_capabilities(lines).extended
