"""`eilpost cancel`: cancel waiting mail, by the filter that holds have."""

import click

from engine.cli.filters import bulk_options, change_mail, counts_text


@click.command
@bulk_options
def command(**options: object) -> None:
    """Cancel the waiting and paused mail that fits all given filters.

    What is with a server already is left alone, and told as in flight.
    """
    done = change_mail("/v1/cancel", options)
    if done is None:
        return
    if not done["matched"]:
        click.echo("No waiting mail fits.")
        return
    word = "Would be cancelled" if done["dry_run"] else "Cancelled"
    click.echo(f"Fitting: {counts_text(done['matched'])}.")
    click.echo(f"{word}: {done['changed']:,}; in flight and left alone: {done['in_flight']:,}.")
