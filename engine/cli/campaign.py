"""`eilpost campaign`: how campaigns stand, and pausing, resuming, ending them."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from engine.cli.control import (
    Asked,
    EngineRefused,
    EngineStopped,
    engine,
    pages,
    say_if_stopped,
    target_of,
)
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json, printable
from engine.cli.send_progress import counts_text
from engine.cli.sending import final_in

COLUMNS: Final = ("campaign", "account", "state", "total", "final", "delivered", "created")

account_option = click.option("--account", metavar="NAME", help="Whose campaign it is.")


@click.group
@config_option
def command() -> None:
    """List campaigns, look at one, pause, resume, cancel or close it."""


@command.command("list")
@account_option
@json_option
@config_option
def list_campaigns(account: str | None, as_json: bool) -> None:
    """List campaigns, the newest first."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        rows = list(pages(asked, "/v1/campaigns", "campaigns", account=account, limit=1000))
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        print_columns(COLUMNS, map(_cells, rows))
    else:
        click.echo("There is no campaign yet: eilpost send makes one.")


@command.command
@click.argument("name")
@account_option
@json_option
@config_option
def show(name: str, account: str | None, as_json: bool) -> None:
    """Show how far the campaign NAME is."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        say_if_stopped(asked)
        found = asked.get(_route(name), account=account or _owner(asked, name))
    _print(found, as_json)


@command.command
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="For people; is shown with it.")
@account_option
@json_option
@config_option
def pause(name: str, reason: str, account: str | None, as_json: bool) -> None:
    """Hold back what waits of the campaign NAME, and what comes later."""
    _ask("pause", name, account, {"reason": reason}, as_json)


def _change(verb: str, help_text: str) -> None:
    """Add the command `verb`, which asks the route of that name."""

    @command.command(verb, help=help_text)
    @click.argument("name")
    @account_option
    @json_option
    @config_option
    def change(name: str, account: str | None, as_json: bool) -> None:
        _ask(verb, name, account, {}, as_json)


_change("resume", "Let the mail of the campaign NAME go on.")
_change("cancel", "End the campaign NAME: what waits is cancelled, and nobody can be added.")
_change("close", "Let nobody be added to the campaign NAME; its mail goes on.")


def _ask(verb: str, name: str, account: str | None, body: Mapping[str, str], as_json: bool) -> None:
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        say_if_stopped(asked)
        owner = account or _owner(asked, name)
        _print(asked.post(target_of(f"{_route(name)}/{verb}", {"account": owner}), body), as_json)


def _route(name: str) -> str:
    return f"/v1/campaigns/{quote(name, safe='')}"


def _owner(asked: Asked, name: str) -> str:
    """Return whose campaign is meant, where only one account has one of that name."""
    rows = pages(asked, "/v1/campaigns", "campaigns", campaign=name)
    owners: list[str] = [row["account"] for row in rows]
    if len(owners) > 1:
        raise click.UsageError(f"Several accounts have it: say --account, of {', '.join(owners)}.")
    if not owners:
        raise EngineRefused(f"There is no campaign {name!r}.")
    return owners[0]


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    counts = row["counts"]
    return (
        *(row["campaign"], row["account"], row["state"]),
        *(f"{number:,}" for number in (row["total"], final_in(counts), counts["delivered"])),
        row["created_at"],
    )


def _print(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    state = f"  {found['state']}" if found["state"] else ""
    click.echo(f"{printable(found['campaign'])}, of {printable(found['account'])}{state}")
    click.echo(f"  {counts_text(found['counts'])}")
    if found["created_at"] is not None:
        lines = ", ".join(
            f"{found[key]:,} {word}"
            for key, word in (
                ("accepted", "accepted"),
                ("repeated", "repeated"),
                ("refused", "refused"),
            )
        )
        click.echo(f"  lines handed in since {found['created_at']}: {lines}")
    if (hold := found["held_by"]) is not None:
        why = f": {printable(hold['reason'])}" if hold["reason"] else ""
        click.echo(f"  paused since {hold['since']} by {printable(hold['who'])}{why}")
