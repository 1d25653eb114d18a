"""`eilpost check FILE`: which addresses of a list would be refused, and which look mistyped.

Asks no engine. It judges as intake does, so the list can be put right before anything is sent.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from engine.cli.list_findings import LineFinding, finding_text
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_json
from engine.config import ConfigError, load_typos
from engine.intake.address_check import AddressFaultRow, SuggestionRow, check_list
from protocols.address_lists import ListRefused, bounded_lines, read_list

CSV_SUFFIXES = (".csv", ".tsv")


@click.command
@click.argument("file", metavar="FILE")
@json_option
@config_option
@click.pass_context
def command(context: click.Context, file: str, as_json: bool) -> None:
    """Check the addresses in FILE (- is stdin): one a line, or a CSV in UTF-8 with a column of
    addresses. Ends with 1 if any would be refused; suggestions for typing errors do not count."""
    with failures(ConfigError):
        typos = load_typos(load().intake.typo_files)
    counts: Counter[type] = Counter()
    is_csv = Path(file).suffix.lower() in CSV_SUFFIXES
    with _lines(file) as lines:
        for found in check_list(read_list(lines, is_csv=is_csv), typos, "en"):
            counts[type(found)] += 1
            if found is None:
                continue
            if as_json:
                print_json(found)
            else:
                click.echo(finding_text(file, _finding(found)))
    faults, suggestions = counts[AddressFaultRow], counts[SuggestionRow]
    # Not on stdout: that holds the findings, for whoever pipes them on.
    click.echo(
        f"{counts.total():,} checked, {counts.total() - faults:,} good "
        f"({suggestions:,} with a suggestion), {faults:,} to be refused",
        err=True,
    )
    context.exit(1 if faults else 0)


@contextmanager
def _lines(file: str) -> Iterator[Iterator[bytes]]:
    """Open the list; whatever keeps it from being read is said with its name."""

    def readline(octets_max: int) -> bytes:
        try:
            return octets.readline(octets_max)
        except OSError as error:
            raise ListRefused(f"cannot be read: {error.strerror}") from error

    try:
        with sys.stdin.buffer if file == "-" else _opened(file) as octets:
            yield bounded_lines(readline)
    except ListRefused as error:
        raise click.ClickException(f"{file}: {error}") from error


def _opened(file: str) -> BinaryIO:
    try:
        return open(file, "rb")
    except OSError as error:
        raise ListRefused(f"cannot be read: {error.strerror}") from error


def _finding(found: AddressFaultRow | SuggestionRow) -> LineFinding:
    text, position = "", None
    if isinstance(found, AddressFaultRow):
        text, position = found.text, found.position
    return LineFinding(found.line, text, found.address, position, found.suggestion)
