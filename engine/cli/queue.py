"""`eilpost queue`: where mail waits, how much of it, and why."""

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, pages
from engine.cli.filters import hold_text, summed_holds
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json

WAITING = ("queued", "deferred", "paused")


@click.command
@json_option
@config_option
def command(as_json: bool) -> None:
    """List the destinations with waiting mail, the fullest first."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        rows = [
            row
            for row in pages(asked, "/v1/destinations", "destinations", limit=1000)
            if any(row[status] for status in WAITING)
        ]
    rows.sort(key=lambda row: (-sum(row[status] for status in WAITING), row["destination"]))
    if as_json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        click.echo("No mail is waiting.")
        return
    held: tuple[str, ...] = ("held",) if any(row["held"] for row in rows) else ()
    columns = ("destination", *WAITING, *held, "state", "since", "next_attempt_at", "last_reply")
    heads = [column.removesuffix("_at").replace("_", " ") for column in columns]
    print_columns(heads, ([row[column] for column in columns] for row in rows))
    for hold in summed_holds(row["holds"] for row in rows):
        click.echo(f"Held: {hold['mails']:,} by {hold_text(hold)}.")
