"""`eilpost check FILE`: which addresses of a list would be refused, and which look mistyped.

Asks no engine. It judges as intake does, so the list can be put right before anything is sent.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import click

from engine.cli.list_findings import LineFinding, finding_text
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_json
from engine.config import ConfigError, load_typos
from engine.intake.address_check import (
    AddressFaultRow,
    RecipientFault,
    SuggestionRow,
    check_list,
)
from protocols.address_lists import Listed, ListRefused, bounded_lines, read_list
from protocols.address_suggestions import DomainTypos
from protocols.list_parts import JSON_LINES_TYPE, content_type_of
from protocols.recipient_lists import LineFault, ListedRecipient, RecipientList

CSV_SUFFIXES = (".csv", ".tsv")


@click.command
@click.argument("file", metavar="FILE")
@json_option
@config_option
@click.pass_context
def command(context: click.Context, file: str, as_json: bool) -> None:
    """Check the addresses in FILE (- is stdin): one a line, a CSV in UTF-8 with a column of
    addresses, or JSON lines as `eilpost send` takes them. Ends with 1 if any would be refused;
    suggestions for typing errors do not count."""
    with failures(ConfigError):
        typos = load_typos(load().intake.typo_files)
    counts: Counter[type] = Counter()
    with _lines(file) as lines:
        for found in _findings(lines, Path(file).suffix, typos):
            counts[type(found)] += 1
            if found is None:
                continue
            if as_json:
                print_json(found)
            else:
                click.echo(finding_text(file, _finding(found)))
    faults, suggestions = counts[AddressFaultRow] + counts[RecipientFault], counts[SuggestionRow]
    # Not on stdout: that holds the findings, for whoever pipes them on.
    click.echo(
        f"{counts.total():,} checked, {counts.total() - faults:,} good "
        f"({suggestions:,} with a suggestion), {faults:,} to be refused",
        err=True,
    )
    context.exit(1 if faults else 0)


Found = AddressFaultRow | RecipientFault | SuggestionRow


def _findings(lines: Iterator[bytes], suffix: str, typos: DomainTypos) -> Iterator[Found | None]:
    """Give a finding for each address of the list, None for a good one."""
    first = next(lines, b"")
    lines = chain([first], lines) if first else lines
    if content_type_of(first, suffix) != JSON_LINES_TYPE:
        is_csv = suffix.lower() in CSV_SUFFIXES
        yield from check_list(read_list(lines, is_csv=is_csv), typos, "en")
        return
    for entry in _from_json(lines):
        if isinstance(entry, LineFault):
            line, where, code, text, shown, position = entry
            yield RecipientFault(line, where, code, text, shown, position)
        else:
            yield from check_list([Listed(entry.line, entry.address)], typos, "en")


def _from_json(lines: Iterator[bytes]) -> Iterator[ListedRecipient | LineFault]:
    entries = RecipientList(is_csv=False)
    for line in lines:
        # What is too long has lost its end.
        entries.feed(line if line.endswith(b"\n") else line + b"\n")
        while (entry := entries.take()) is not None:
            yield entry


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


def _finding(found: Found) -> LineFinding:
    line, address, suggestion = found.line, found.address, found.suggestion
    if isinstance(found, SuggestionRow):
        return LineFinding(line, "", address, None, suggestion)
    if isinstance(found, AddressFaultRow):
        return LineFinding(line, found.text, address, found.position, suggestion)
    return LineFinding(line, found.message, address, found.position, suggestion, found.where)
