"""`eilpost cancel`: cancel waiting mail, by the filter that holds have."""

import click

from engine.cli.filters import bulk_options, change_mail


@click.command
@bulk_options
def command(**options: object) -> None:
    """Cancel the waiting and paused mail that fits all given filters.

    What is with a server already is left alone, and told as in flight.
    """
    change_mail("/v1/cancel", "cancelled", options)
