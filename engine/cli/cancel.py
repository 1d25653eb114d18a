"""`eilpost cancel`: cancel waiting mail, by the filter that holds have."""

import click

from engine.cli.control import EngineRefused, EngineStopped, engine
from engine.cli.filters import counts_text, filter_options, given, go_through
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_json


@click.command
@filter_options
@click.option("--reason", default="", metavar="TEXT", help="Goes to the engine's log.")
@click.option("--dry-run", is_flag=True, help="Only count what fits.")
@json_option
@config_option
def command(reason: str, dry_run: bool, as_json: bool, **wanted: object) -> None:
    """Cancel the waiting and paused mail that fits all given filters.

    What is with a server already is left alone, and told as in flight.
    """
    chosen = given(wanted)
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        done = go_through(
            asked, "/v1/cancel", chosen, progress=not as_json, dry_run=dry_run, reason=reason
        )
    if as_json:
        print_json(done)
        return
    click.echo(f"Fitting: {counts_text(done['matched'])}.")
    word = "Would be cancelled" if dry_run else "Cancelled"
    click.echo(f"{word}: {done['changed']:,}; in flight and left alone: {done['in_flight']:,}.")
