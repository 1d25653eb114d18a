"""The values that fill a template for one recipient, and their form on disk.

The stored form is a version byte and a MessagePack map of names to texts. The record around it has
a checksum; what does not decode all the same is reported, never guessed.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from protocols.template_language import NAME_CHARACTERS_MAX, is_variable_name

VARIABLES_MAX: Final = 200
# A recipient's values are in its record, which is read and written with every attempt.
VARIABLES_OCTETS_MAX: Final = 64 * 1024
_VERSION: Final = b"\x01"

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(dict[str, str])


class DamagedVariables(Exception):
    """The octets are no stored variables; the text says what is wrong."""


class VariablesError(ValueError):
    """These variables cannot be stored; the text says which one and why."""


def pack_variables(variables: Mapping[str, str]) -> bytes:
    """Return the stored form. Raises VariablesError for what is above a limit or no name."""
    if len(variables) > VARIABLES_MAX:
        raise VariablesError(f"{len(variables)} variables: at most {VARIABLES_MAX} are allowed")
    for name in variables:
        if not is_variable_name(name):
            raise VariablesError(f"{name[:NAME_CHARACTERS_MAX]!a} is no name for a variable")
    try:
        octets = _VERSION + _encoder.encode(variables)
    except UnicodeEncodeError as error:
        bad = next(name for name, value in variables.items() if not _is_text(value))
        raise VariablesError(f'the value of "{bad}" has half a surrogate pair') from error
    if len(octets) > VARIABLES_OCTETS_MAX:
        raise VariablesError(
            f"the variables have {len(octets)} octets: at most {VARIABLES_OCTETS_MAX} are allowed"
        )
    return octets


def unpack_variables(stored: bytes) -> dict[str, str]:
    """Return what was packed. Raises DamagedVariables."""
    if stored[:1] != _VERSION:
        raise DamagedVariables(f"the variables have an unknown version {stored[:1].hex()}")
    try:
        return _decoder.decode(memoryview(stored)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedVariables(f"the variables do not decode: {error}") from error


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
