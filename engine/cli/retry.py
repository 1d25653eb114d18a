"""`eilpost retry`: make waiting mail due now, by the filter that holds have."""

import click

from engine.cli.filters import bulk_options, change_mail, counts_text, hold_text
from engine.cli.printing import printable

# Of so many destinations the names are printed; `--json` has all.
NAMES_SHOWN = 10


@click.command
@bulk_options
def command(**options: object) -> None:
    """Try the waiting mail that fits all given filters now, not at its next time.

    Destinations that could not be reached are tried now as well; one that still cannot is tried
    again when it would have been. Rates and holds stay.
    """
    done = change_mail("/v1/retry", options, moves=True)
    if done is None:
        return
    fitting = sum(done["matched"].values())
    if not fitting:
        click.echo("No waiting mail fits.")
        return
    was_due = fitting - done["changed"] - done["in_flight"]
    made, tried = ("Made due now", "Tried now")
    if done["dry_run"]:
        made, tried = ("Would be made due", "Would be tried now")
    click.echo(f"Fitting: {counts_text(done['matched'])}.")
    click.echo(
        f"{made}: {done['changed']:,}; due already: {was_due:,}; "
        f"in flight and left alone: {done['in_flight']:,}."
    )
    names = done["destinations"]
    if names:
        shown = ", ".join(map(printable, names[:NAMES_SHOWN]))
        more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
        click.echo(f"{tried}, though out of reach so far: {shown}{more}.")
    for hold in done["held"]:
        click.echo(f"Held back all the same: {hold['mails']:,} by {hold_text(hold)}.")
