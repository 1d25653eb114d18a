"""`eilpost serve`: the engine, until SIGTERM or Ctrl-C."""

import signal
import sys

import click

from engine.cli.options import config_option, load


@click.command
@config_option
def command() -> None:
    """Run the engine in the foreground; SIGTERM ends it in order, with exit status 0."""
    # The rules are read at the start anyhow: who asks for it now is early, and no enemy.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    config = load()
    # Until the loop listens for it: imports take half a second, and there is nothing to finish yet.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    from engine.cli.serving import run

    run(config)
