"""`eilpost retry`: make waiting mail due now, by the filter that holds have."""

import click

from engine.cli.filters import bulk_options, change_mail


@click.command
@bulk_options
def command(**options: object) -> None:
    """Try the waiting mail that fits all given filters now, not at its next time.

    Destinations that could not be reached are tried again as well. Rates and holds stay.
    """
    change_mail("/v1/retry", "made due now", options)
