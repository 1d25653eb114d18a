"""Running the engine in this process: what is prepared, how it ends, what it says at the start.

Apart from the command, because these imports cost half a second that no other command should pay.
"""

import gc
import logging
import resource
import signal
import sys
from collections.abc import AsyncIterator
from typing import Final

import click
import trio

from engine.cli.options import failures
from engine.cli.printing import printable
from engine.compose import Engine, serve
from engine.config import Config, ConfigError
from engine.http_server import HttpSetupError
from engine.shaping.lint import idle_routes
from engine.shaping.loading import placed_routes
from engine.spool.interface import SpoolError

# The committer's thread competes with the loop for the interpreter. At the default of 5 ms a busy
# loop let it make one fiftieth of its puts; at half a millisecond neither side loses much.
SWITCH_S: Final = 0.0005
# A full collection looks at every task and record: 95 ms with 20,000 tasks. Ours makes few cycles,
# so it is run seldom, and what was imported is not looked at again.
GC_THRESHOLDS: Final = (50_000, 20, 50)

log: Final = logging.getLogger("eilpost.shaping")


def run(config: Config) -> None:
    """Run until a signal ends it; what stands in the way of a start ends the program with 1."""
    _prepare_process()
    for finding in idle_routes(placed_routes(config)):
        logging.getLogger("eilpost.config").warning("%s", finding)
    with failures(ConfigError, HttpSetupError, SpoolError, OSError):
        trio.run(_serve, config)


class OneLine(logging.Formatter):
    """A record is one line, but for a traceback: reasons and names in it come from strangers.

    Whoever could begin a line of their own would write what looks like ours.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _prepare_process() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("eilpost").setLevel(logging.INFO)
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # The soft limit is 1,024 on Debian, for programs that use select(2). Ours may have as many
    # connections as the hard one allows.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(config: Config) -> None:
    stop = trio.Event()
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hang_ups,
    ):
        async with trio.open_nursery() as nursery:

            def announce(engine: Engine) -> None:
                _announce(engine)
                nursery.start_soon(_reload_at_signal, hang_ups, engine)

            nursery.start_soon(_stop_at_signal, signals, stop, nursery.cancel_scope)
            await serve(config, stop, announce=announce)
            nursery.cancel_scope.cancel()


async def _stop_at_signal(
    signals: AsyncIterator[int], stop: trio.Event, scope: trio.CancelScope
) -> None:
    """The first signal asks for an end in order, a second one for an end now: no mail is lost."""
    await anext(signals)
    stop.set()
    await anext(signals)
    scope.cancel()


async def _reload_at_signal(signals: AsyncIterator[int], engine: Engine) -> None:
    """Each SIGHUP takes over the shaping rules as they stand in the files; broken ones are told."""
    async for _ in signals:
        try:
            book = await engine.delivery.reload_rules()
        except ConfigError as error:
            log.error("The shaping rules are refused, the old ones go on: %s", error)
        else:
            log.info("%d shaping rules, %d reactions", len(book.rules), len(book.reactions))


def _announce(engine: Engine) -> None:
    """Say where to look. The link's token is for whoever reads this, so it is not logged."""
    for host, port in engine.http.addresses:
        click.echo(f"HTTP on {host} port {port}, data in {engine.config.data_dir}")
    click.echo(f"Operator's link, good for one sign-in: {engine.operator_url()}")
    room = engine.spool.disk_room()
    if room is not None and room.free_bytes < room.low_water_bytes:
        logging.getLogger("eilpost.spool").warning(
            "no mail is taken while the disk of %s has less than %d MB free, now %d MB",
            engine.config.data_dir,
            room.low_water_bytes // 1_000_000,
            room.free_bytes // 1_000_000,
        )
