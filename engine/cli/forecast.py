"""`eilpost forecast`: when a campaign will be through, and what that rests on."""

from urllib.parse import quote

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, say_if_stopped
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json, printable

COLUMNS = (
    "destination",
    "waiting",
    "rate_per_s",
    "rests_on",
    "earliest_at",
    "finish_at",
    "latest_at",
)


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
        heads = [column.removesuffix("_at").replace("_", " ") for column in COLUMNS]
        rows = ([each[column] for column in COLUMNS] for each in found["destinations"])
        print_columns(heads, rows)
