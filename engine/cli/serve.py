"""`eilpost serve`: the engine, until SIGTERM or Ctrl-C."""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from engine.cli.options import config_option, failures, load

if TYPE_CHECKING:
    import trio


@click.command
@config_option
def command() -> None:
    """Run the engine in the foreground; SIGTERM ends it in order, with exit status 0."""
    config = load()
    # Until the loop listens for it: imports take half a second, and there is nothing to finish yet.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    import trio

    from engine.cli.process import prepare_process
    from engine.compose import serve
    from engine.http_server import HttpSetupError
    from engine.spool.interface import SpoolError

    prepare_process()
    with failures(HttpSetupError, SpoolError, OSError):
        trio.run(_until_signal, partial(serve, config))


async def _until_signal(serve: Callable[[], Awaitable[None]]) -> None:
    import trio

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_signal, signals, nursery.cancel_scope)
            await serve()
            nursery.cancel_scope.cancel()


async def _cancel_at_signal(signals: AsyncIterator[int], scope: "trio.CancelScope") -> None:
    async for _ in signals:
        # Once is a request. Whoever cannot wait has SIGKILL, and loses no mail by it.
        scope.cancel()
