"""What is wrong in a configuration file, in the file's own words and not in the decoder's."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

UNKNOWN_KEY: Final = re.compile(r"Object contains unknown field `(.*?)`")
_TOML_WORDS: Final = {
    "`object`": "a table",
    "`array`": "a list",
    "`float`": "a number",
    "`int`": "a whole number",
    "`str`": "text",
    "`bool`": "true or false",
    " | null`": "`",
    " length": " entries",
}


def explain(fault: str, kind: type[msgspec.Struct], choices: Mapping[str, Sequence[str]]) -> str:
    """Turn msgspec's words, like "Expected `int` - at `$.route[0].port`", into the file's."""
    text, steps = fault.partition(" - at `$")[0], steps_of(fault)
    if unknown := UNKNOWN_KEY.match(text):
        near = difflib.get_close_matches(unknown[1], _keys_at(kind, steps), n=1)
        suggestion = f', meant "{near[0]}"?' if near else ""
        return f"{_place([*steps, unknown[1]])}unknown key{suggestion}"
    if text.startswith("Invalid enum value") and steps:
        return f"{_place(steps)}expected one of {', '.join(choices[steps[-1]])}, got {text[19:]}"
    if missing := re.match(r"Object missing required field `(.*)`", text):
        return f"{_place(steps)}the key {missing[1]} is missing"
    for word, ours in _TOML_WORDS.items():
        text = text.replace(word, ours)
    return _place(steps) + text[:1].lower() + text[1:]


def steps_of(fault: str) -> list[str]:
    """Return the path in msgspec's words, like ["route[0]", "port"]; an unknown key comes last."""
    return re.findall(r"\w+(?:\[\d+\])*", fault.partition(" - at `$")[2].rstrip("`"))


def _place(steps: list[str]) -> str:
    """Write a path as it looks in the file: "[delivery] retry_s[2]: ", "[[route]] 1 domain: "."""
    if not steps:
        return ""
    table, *key = steps
    if listed := re.fullmatch(r"(\w+)\[(\d+)\]", table):
        # People count the tables of a list from one, as they scroll.
        return " ".join([f"[[{listed[1]}]]", str(int(listed[2]) + 1), *key]) + ": "
    return f"[{table}] {'.'.join(key)}: " if key else f"{table}: "


def _keys_at(kind: type[msgspec.Struct], steps: list[str]) -> list[str]:
    """Return the legal keys of the table that `steps` lead to."""
    here: Any = kind
    for step in steps:
        name = step.partition("[")[0]
        field = next(f for f in msgspec.structs.fields(here) if f.encode_name == name)
        here = field.type if isinstance(field.type, type) else get_args(field.type)[0]
    return [field.encode_name for field in msgspec.structs.fields(here)]
