"""`eilpost link`: another link that signs an operator in, without starting the engine anew."""

import click

from engine.cli.control import EngineRefused, EngineStopped, running_engine
from engine.cli.options import config_option, failures, load
from engine.cli.printing import print_json


@click.command
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
@config_option
def command(as_json: bool) -> None:
    """Print a link to the dashboard that signs in one operator.

    It serves once, within an hour, and gives a working day. `eilpost serve` prints one, too.
    """
    with (
        failures(EngineStopped, EngineRefused),
        running_engine(load().control_socket) as control,
    ):
        link = control.post("/v1/operator/links", {})
    if as_json:
        print_json(link)
    else:
        click.echo(link["url"])
