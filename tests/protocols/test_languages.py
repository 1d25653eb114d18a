"""Accept-Language: which of ours is wanted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.languages import preferred_language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("de-DE,de;q=0.9,en;q=0.8", "de"),
        ("en-GB,en;q=0.9,de;q=0.8", "en"),
        ("en;q=0.5, de;q=0.7", "de"),
        ("fr, de;q=0.3", "de"),
        ("fr, *;q=0.5, de;q=0.3", "en"),
        ("de;q=0, en;q=0.1", "en"),
        ("de;q=0", "en"),
        ("de ; Q = 0.5", "de"),
        ("de;q=nan, en;q=0.1", "en"),
        ("en;q=1, de;q=5", "en"),
        ("deutsch", "en"),
        ("den", "en"),
        ("fr," * 20 + "de", "en"),
    ],
)
def test_the_language_wanted_most(header: str | None, language: str) -> None:
    assert preferred_language(header) == language


@given(st.text() | st.text("de,;q=0.19 -*"))
def test_any_header_leads_to_a_language(header: str) -> None:
    assert preferred_language(header) in ("en", "de")
