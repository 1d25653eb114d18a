"""Variables on disk: what goes in comes out, limits are told, damage is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.variables import (
    VARIABLES_MAX,
    VARIABLES_OCTETS_MAX,
    DamagedVariables,
    VariablesError,
    pack_variables,
    unpack_variables,
)


@given(
    st.dictionaries(
        st.from_regex(r"[a-zäß]\w{0,20}", fullmatch=True).filter(
            lambda name: name not in ("var", "url", "data", "mj", "segmentation")
        ),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
        max_size=20,
    )
)
def test_what_goes_in_comes_out(variables: dict[str, str]) -> None:
    assert unpack_variables(pack_variables(variables)) == variables


def test_a_stored_sample_stays_readable() -> None:
    assert unpack_variables(bytes.fromhex("0181a46e616d65a54ac3b67267")) == {"name": "Jörg"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({f"n{number}": "" for number in range(VARIABLES_MAX + 1)}, "201 variables"),
        ({"a": "x" * VARIABLES_OCTETS_MAX}, "octets"),
        ({"first name": "x"}, "no name"),
        ({"": "x"}, "no name"),
        ({"var": "x"}, "no name"),
        ({"a": "x", "b": "\ud800"}, '"b" has half a surrogate'),
    ],
)
def test_limits_are_told(variables: dict[str, str], words: str) -> None:
    with pytest.raises(VariablesError, match=words):
        pack_variables(variables)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x02\x80",
        b"\x01",
        b"\x01\x81\xa1a",
        b"\x01\x81\xa1a\x01",
        b"\x01\x90",
        b"\x01\x81\xa1a\xa1\xff",
    ],
)
def test_damage_is_told(octets: bytes) -> None:
    with pytest.raises(DamagedVariables):
        unpack_variables(octets)
