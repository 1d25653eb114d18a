"""`eilpost serve`: the engine, until SIGTERM or Ctrl-C."""

import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

from engine.cli.options import config_option, failures, load

if TYPE_CHECKING:
    import trio

    from engine.config import Config


@click.command
@config_option
def command() -> None:
    """Run the engine in the foreground; SIGTERM ends it in order, with exit status 0."""
    config = load()
    import trio

    from engine.http_server import HttpSetupError
    from engine.spool.interface import SpoolError

    with failures(HttpSetupError, SpoolError, OSError):
        trio.run(_serve_until_signal, config)


async def _serve_until_signal(config: "Config") -> None:
    import trio

    from engine.compose import serve

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_signal, signals, nursery.cancel_scope)
            await serve(config)
            nursery.cancel_scope.cancel()


async def _cancel_at_signal(signals: AsyncIterator[int], scope: "trio.CancelScope") -> None:
    async for _ in signals:
        # Once is a request. Whoever signals again after this has SIGKILL, and loses nothing by it.
        scope.cancel()
