"""`eilpost suspend`: hold mail back, until it is resumed or for a time."""

import click

from engine.cli.control import EngineRefused, EngineStopped, engine
from engine.cli.filters import Duration, counts_text, filter_options, given, go_through, hold_text
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_json


@click.command
@filter_options
@click.option("--for", "for_s", type=Duration(), help="So long, and not until it is resumed.")
@click.option("--reason", default="", metavar="TEXT", help="For whoever wonders later.")
@click.option("--dry-run", is_flag=True, help="Only count what would be held.")
@json_option
@config_option
def command(
    for_s: float | None, reason: str, dry_run: bool, as_json: bool, **wanted: object
) -> None:
    """Hold back the mail that fits all given filters, what comes later too.

    What is with a server already is not stopped. Held mail expires like any other.
    """
    chosen = given(wanted)
    hold = None
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        if not dry_run:
            hold = asked.post("/v1/holds", {**chosen, "for_s": for_s, "reason": reason})
        # Counting is what a cancellation that changes nothing does.
        counted = go_through(asked, "/v1/cancel", chosen, progress=not as_json, dry_run=True)
    matched = counted["matched"]
    if as_json:
        print_json({"hold": hold, "matched": matched, "dry_run": dry_run})
    elif hold is None:
        click.echo(f"Would hold back: {counts_text(matched)}.")
    else:
        click.echo(f"Held back: {counts_text(matched)}, by {hold_text(hold)}.")
        if not any(matched.values()):
            click.echo("Nothing fits it now. What comes later and fits is held.", err=True)
