"""How commands print: JSON lines for programs, aligned columns for people.

Replies, addresses and subjects come from strangers: whatever is not printable is shown escaped, or
a receiver could write on the operator's terminal.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec


def print_json(value: object) -> None:
    """Print one object on one line."""
    click.echo(msgspec.json.encode(value).decode())


def print_columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a head; numbers to the right, and the last column as long as it is."""
    texts = [[printable(value) for value in row] for row in rows]
    columns = list(zip(head, *texts, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [len(column) > 1 and all(map(_is_number, column[1:])) for column in columns]
    for line in (head, *texts):
        cells = [
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _is_number(text: str) -> bool:
    return text.replace(",", "").isdigit()


def printable(value: Any) -> str:
    """Return one line of harmless text for a value from outside; None is a dash."""
    if value is None or value == "":
        return "-"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(value)
    )


def in_words(name: str) -> str:
    """Return what people call a key or a status: "soft-bounced", "next attempt at"."""
    return name.replace("_bounced", "-bounced").replace("_", " ")
