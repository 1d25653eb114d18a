"""`eilpost forecast`: when a campaign will be through, and what that rests on."""

from urllib.parse import quote

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, say_if_stopped
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json, printable

# What the answer has, and what the table calls it.
COLUMNS = {
    "destination": "destination",
    "waiting": "waiting",
    "rate_per_s": "rate per s",
    "limit_per_s": "limit per s",
    "rests_on": "rests on",
    "earliest_at": "earliest",
    "finish_at": "expected",
    "latest_at": "latest",
}


@click.command
@click.argument("campaign")
@json_option
@config_option
def command(campaign: str, as_json: bool) -> None:
    """Say when CAMPAIGN will be through: at the earliest, as expected, at the latest."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        say_if_stopped(asked)
        found = asked.get(f"/v1/campaigns/{quote(campaign, safe='')}/forecast")
    if as_json:
        print_json(found)
        return
    click.echo(
        f"{printable(found['campaign'])}  {found['finished']:,} of {found['total']:,} finished, "
        f"{found['delivered']:,} delivered, {found['waiting']:,} waiting"
    )
    click.echo(f"  {printable(found['text'])}")
    for word, key in (
        ("earliest", "earliest_at"),
        ("expected", "finish_at"),
        ("latest", "latest_at"),
    ):
        if found[key] is not None:
            click.echo(f"  {word + ':':10}{found[key]}")
    if found["destinations"]:
        rows = ([each[column] for column in COLUMNS] for each in found["destinations"])
        print_columns([*COLUMNS.values()], rows)
