"""`eilpost serve`: the engine, until SIGTERM or Ctrl-C."""

import signal
import sys

import click

from engine.cli.options import config_option, load


@click.command
@config_option
def command() -> None:
    """Run the engine in the foreground; SIGTERM ends it in order, with exit status 0."""
    # Until the loop listens for them: imports take half a second, and there is nothing to finish
    # yet, nor other rules than those that are about to be read.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    config = load()
    from engine.cli.serving import run

    run(config)
