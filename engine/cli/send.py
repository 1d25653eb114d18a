"""`eilpost send`: one template to a list of people, over any break and each address once.

The list goes to the engine in parts, and each part is on its disk when it answers. The same command
goes on after Ctrl-C, a crash of either side or a lost connection: the engine knows who is in the
campaign already. Nothing of the list is kept here.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, Final

import click

from engine.cli.control import EngineRefused, EngineStopped, HttpAsked, engine_at, running_engine
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_json, printable
from engine.cli.send_progress import GOOD, TAKEN, counts_text, sums_text, teller
from engine.cli.send_template import campaign_of
from engine.cli.sending import (
    PART_LINES_MAX,
    PART_OCTETS_MAX,
    Campaign,
    HandedIn,
    Patient,
    Teller,
    open_in,
)
from protocols.address_lists import bounded_lines
from protocols.list_parts import ListPart, content_type_of, list_parts

# What the sums have for the way, and not for what came of it.
UNTOLD: Final = ("octets", "may_double", "asked_again")
FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command
@click.argument("recipients", metavar="RECIPIENTS")
@click.option("--account", metavar="NAME", help="Whose mail it is.")
@click.option("--campaign", metavar="NAME", help="What it is called; a repeat has the same name.")
@click.option("--from", "sender", metavar="MAILBOX", help="Like 'Shop <shop@out.example>'.")
@click.option("--reply-to", metavar="MAILBOX", help="Where answers go, if not to the sender.")
@click.option("--subject", metavar="TEXT", help="May have placeholders, as the texts may.")
@click.option("--text", type=FILE, metavar="FILE", help="The plain text.")
@click.option("--html", type=FILE, metavar="FILE", help="The HTML text.")
@click.option("--header", multiple=True, metavar="'NAME: VALUE'", help="May be repeated.")
@click.option(
    "--lane",
    type=click.Choice(["bulk", "transactional"]),
    help="Transactional mail goes ahead of bulk, which is the default.",
)
@click.option(
    "--template", type=FILE, metavar="FILE", help="All of this in TOML; options go before it."
)
@click.option("--dry-run", is_flag=True, help="Check everything, show an example, send nothing.")
@click.option(
    "--wait/--no-wait", default=None, help="Wait for final statuses (default: in a terminal)."
)
@click.option("--url", metavar="URL", help="Ask an engine elsewhere, as the account of --api-key.")
@click.option(
    "--api-key",
    envvar="EILPOST_API_KEY",
    metavar="KEY",
    help="Or EILPOST_API_KEY. The secret key is in EILPOST_SECRET_KEY, or asked for.",
)
@json_option
@config_option
@click.pass_context
def command(
    context: click.Context,
    /,
    recipients: str,
    template: Path | None,
    dry_run: bool,
    wait: bool | None,
    url: str | None,
    api_key: str | None,
    as_json: bool,
    **given: object,
) -> None:
    """Send a campaign to RECIPIENTS, a CSV or JSON lines (- is stdin).

    The heading of a CSV names a column of addresses; the other columns fill placeholders like
    {{name}} or {{name:"default"}}. Lines that cannot be used are named, and the rest goes on.

    The file of --template has the keys account, campaign, from, reply_to, subject, text or
    text_file, html or html_file, lane, and a table [headers].

    The same command again goes on where it was broken off: each address of a campaign gets one
    mail. Ends with 0 if all were accepted (or were there already), with 1 if any was refused.
    """
    from rich.console import Console

    from engine.config import ConfigError

    console = Console(stderr=True)
    with failures(EngineStopped, EngineRefused, ConfigError, ListUnreadable):
        body = campaign_of(given, template)
        account = body.pop("account", None)
        waits = console.is_terminal and not as_json if wait is None else wait
        with _list(recipients) as listed:
            tells = teller(
                console, recipients, listed.octets, quiet=as_json, done=GOOD if dry_run else TAKEN
            )
            if dry_run:
                with tells as tell:
                    refused = _dry_run(body, listed, tell, as_json=as_json)
                context.exit(1 if refused else 0)
            with _engine(url, api_key, account) as asked, tells as tell:
                patient = Patient(asked, tell, Event().wait)
                campaign = Campaign(patient, body["campaign"], None if url else account)
                came_to = _send(campaign, body, listed, tell, waits=waits)
    _print(body["campaign"], came_to, as_json=as_json)
    context.exit(1 if came_to.sums.refused or came_to.error else 0)


class ListUnreadable(Exception):
    """The list of recipients cannot be read; the text has its name."""


@dataclass(slots=True)
class CameTo:
    """What came of it. `state` is how the campaign stood when it was last looked at, if it was;
    `is_whole` says that all of the list was handed in, `error` what has ended it before its end.
    """

    sums: HandedIn
    state: Mapping[str, Any] | None = None
    is_whole: bool = False
    error: str = ""


class _List:
    """An opened list: of what kind it is, how long (None if nobody knows), and its parts."""

    def __init__(self, file: str, stream: BinaryIO) -> None:
        self._file = file
        self._stream = stream
        self.octets = Path(file).stat().st_size if file != "-" and Path(file).is_file() else None
        self._lines = bounded_lines(self._readline)
        first = next(self._lines, b"")
        self._lines = chain([first] if first else [], self._lines)
        self.content_type = content_type_of(first, Path(file).suffix)

    def parts(self) -> Iterator[ListPart]:
        """Give the parts, each when it is asked for. Raises ListUnreadable."""
        return list_parts(
            self._lines,
            self.content_type,
            lines_max=PART_LINES_MAX,
            octets_max=PART_OCTETS_MAX,
        )

    def _readline(self, octets_max: int) -> bytes:
        try:
            return self._stream.readline(octets_max)
        except OSError as error:
            raise ListUnreadable(f"{self._file}: cannot be read: {error.strerror}") from error


@contextmanager
def _list(file: str) -> Iterator[_List]:
    try:
        stream = sys.stdin.buffer if file == "-" else open(file, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ListUnreadable(f"{file}: cannot be read: {error.strerror}") from error
    with stream:
        yield _List(file, stream)


@contextmanager
def _engine(url: str | None, api_key: str | None, account: str | None) -> Iterator[HttpAsked]:
    """Open the way to the engine that is meant."""
    if url is None:
        if account is None:
            raise click.UsageError("say --account, here or in the file of --template")
        with running_engine(load().control_socket) as control:
            yield control
        return
    if not api_key:
        raise click.UsageError("--url needs --api-key, or EILPOST_API_KEY in the environment")
    secret_key = os.environ.get("EILPOST_SECRET_KEY") or click.prompt(
        "Secret key", hide_input=True, err=True
    )
    try:
        asked = engine_at(url, api_key, secret_key)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        yield asked
    finally:
        asked.close()


def _dry_run(body: Mapping[str, Any], listed: _List, tell: Teller, *, as_json: bool) -> int:
    """Print what sending would come to; return how many lines would be refused."""
    from engine.cli.dry_run import try_out

    tried = try_out(load(), body, listed.parts(), listed.content_type, tell)
    sums = tried.sums
    if as_json:
        told = {"good": sums.accepted, "suggestions": sums.suggested, "doubled": sums.doubled}
        faults = {"refused": sums.refused, "faults": sums.faults}
        print_json({**told, **faults, "example": tried.example})
        return sums.refused
    if tried.example:
        click.echo("The first mail, filled in:\n")
        for line in _lines_of(tried.example):
            click.echo(f"    {printable(line)}" if line else "")
        click.echo()
    mistyped = f" ({sums.suggested:,} with a suggestion)" if sums.suggested else ""
    doubled = f", {sums.doubled:,} twice in this list" if sums.doubled else ""
    click.echo(f"{sums.accepted:,} good{mistyped}{doubled}, {sums.refused:,} to be refused.")
    return sums.refused


def _lines_of(mail: Mapping[str, str]) -> Iterator[str]:
    for name, text in mail.items():
        if name in ("plain", "html"):
            yield ""
            yield from text.splitlines()
        else:
            yield f"{name}: {text}"


def _send(
    campaign: Campaign, body: Mapping[str, Any], listed: _List, tell: Teller, *, waits: bool
) -> CameTo:
    """Hand the list in and wait, if that is asked for. Ctrl-C ends either."""
    came_to = CameTo(HandedIn())
    campaign.create(body)
    try:
        campaign.hand_in(listed.parts(), listed.content_type, came_to.sums, tell)
        came_to.is_whole = True
        if waits:
            for state in campaign.states_until_final(Event().wait):
                came_to.state = state
                tell.stands(state["counts"])
    except KeyboardInterrupt:
        came_to.error = "" if came_to.is_whole else "interrupted"
    except (EngineStopped, EngineRefused, ListUnreadable) as error:
        # What was handed in before is worth telling.
        came_to.error = str(error)
    return came_to


def _print(name: str, came_to: CameTo, *, as_json: bool) -> None:
    sums, state = came_to.sums, came_to.state
    counts = state["counts"] if state else None
    if as_json:
        summary = {
            "campaign": name,
            **{key: value for key, value in asdict(sums).items() if key not in UNTOLD},
            "complete": came_to.is_whole,
            "error": came_to.error or None,
            "counts": counts,
        }
        print_json(summary)
    elif sums.octets or came_to.is_whole:
        click.echo(f"{printable(name)}: {sums_text(sums)}.")
        if counts is not None:
            click.echo(f"{counts_text(counts)}.")
    if came_to.error:
        click.echo(f"Error: {came_to.error}", err=True)
    if as_json or not (sums.octets or came_to.is_whole):
        return
    if not came_to.is_whole:
        click.echo("The same command goes on where this ended; nobody gets two mails.", err=True)
    elif counts is None or open_in(counts):
        click.echo(f"To look again: eilpost campaign show {shlex.quote(name)}", err=True)
