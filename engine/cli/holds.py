"""`eilpost holds`: which mail is held back, by whom, since when and why."""

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, pages
from engine.cli.filters import filter_text
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json

COLUMNS = ("hold", "mail of", "since", "until", "by", "reason")


@click.command
@json_option
@config_option
def command(as_json: bool) -> None:
    """List the holds, the oldest first. One without an end holds until it is resumed.

    `eilpost suspend` and `eilpost campaign pause` make them, `eilpost resume` lifts them.
    """
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        holds = list(pages(asked, "/v1/holds", "holds"))
    if as_json:
        for hold in holds:
            print_json(hold)
        return
    if not holds:
        click.echo("No mail is held.")
        return
    print_columns(
        COLUMNS,
        (
            (
                *(hold["hold_id"], filter_text(hold), hold["since"], hold["until"]),
                *(hold["who"], hold["reason"]),
            )
            for hold in holds
        ),
    )
