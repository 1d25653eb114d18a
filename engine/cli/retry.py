"""`eilpost retry`: make waiting mail due now, by the filter that holds have."""

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
    """Try the waiting mail that fits all given filters now, not at its next time.

    Destinations that could not be reached are tried again as well. Rates and holds stay.
    """
    chosen = given(wanted)
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        done = go_through(
            asked, "/v1/retry", chosen, progress=not as_json, dry_run=dry_run, reason=reason
        )
    if as_json:
        print_json(done)
        return
    click.echo(f"Fitting: {counts_text(done['matched'])}.")
    word = "Would be made due now" if dry_run else "Made due now"
    click.echo(f"{word}: {done['changed']:,}; in flight and left alone: {done['in_flight']:,}.")
