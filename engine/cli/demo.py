"""`eilpost demo`: the engine at work, with a bar while it runs and the books at the end."""

import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from engine.cli.options import config_option, failures, json_option
from engine.cli.printing import print_json

if TYPE_CHECKING:
    from engine.rehearsal.demo import BookRow, Demo, Progress

# The design's figure: enough that a queue forms and drains, and over in less than two minutes.
MESSAGES: Final = 20_000
FINAL: Final = ("delivered", "soft_bounced", "hard_bounced", "blocked", "cancelled")
OPEN: Final = ("queued", "paused", "deferred")


@click.command
@click.option("--messages", type=click.IntRange(min=1), default=MESSAGES, show_default=True)
@click.option("--keep", is_flag=True, help="Leave engine and receivers running, until Ctrl-C.")
@json_option
@config_option
def command(messages: int, keep: bool, as_json: bool) -> None:
    """Send to simulated receivers of every temper, and check the books at the end.

    Everything stays on this machine and below a temporary directory. The demo has a configuration
    of its own; --config is taken like everywhere, and has nothing to say here.
    """
    import trio

    from engine.rehearsal.engine_process import EngineFailed

    with failures(EngineFailed, OSError):
        books = trio.run(_run, messages, keep, as_json)
    faults = [f"{row.domain}: {fault}" for row in books for fault in row.faults]
    if faults:
        raise click.ClickException("the books do not balance:\n  " + "\n  ".join(faults))


async def _run(messages: int, keep: bool, as_json: bool) -> "list[BookRow]":
    import trio

    from engine.rehearsal.demo import open_demo

    with tempfile.TemporaryDirectory(prefix="eilpost-demo-") as directory:
        async with open_demo(Path(directory)) as demo:
            if not as_json:
                _introduce(demo, messages)
            with _progress(messages, hidden=as_json) as show:
                books = await demo.run(messages, show)
            if as_json:
                for row in books:
                    print_json(_plain(row))
            else:
                _print_books(books)
            if keep:
                click.echo(f"\nStill running: {demo.engine.url}/   Ctrl-C ends it.", err=as_json)
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    await anext(signals)
    return books


def _introduce(demo: "Demo", messages: int) -> None:
    from engine.rehearsal.demo import MAX_AGE_S, RETRY_S

    keys = demo.credentials
    retries = ", ".join(f"{wait:g}" for wait in RETRY_S)
    click.echo(
        f"{messages:,} mails go to simulated receivers on this machine: fast ones, throttling and\n"
        "greylisting ones, some that are down for a while, full mailboxes, unknown users.\n"
        f"So that it ends soon, a deferred mail is tried again after {retries} s and given up\n"
        f"after {MAX_AGE_S:g} s; the engine's own defaults are minutes, hours and three days.\n\n"
        f"Live page:   {demo.engine.url}/\n"
        f"API key:     {keys.api_key}\n"
        f"Secret key:  {keys.secret_key}\n"
    )


@contextmanager
def _progress(messages: int, *, hidden: bool) -> "Iterator[Callable[[Progress], None]]":
    """Draw a bar of finished mails; yields the function that is told where the demo stands."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, disable=hidden, expand=True, refresh_per_second=4) as bars:
        accepted = bars.add_task("accepted", total=messages, note="")
        finished = bars.add_task("finished", total=messages, note="")

        def show(progress: "Progress") -> None:
            bars.update(accepted, completed=progress.accepted)
            waiting = f"{progress.waiting:,} waiting"
            bars.update(finished, completed=progress.finished, note=waiting)

        yield show


def _plain(row: "BookRow") -> dict[str, str | int]:
    return {"destination": row.domain, "receiver": row.note, **_numbers(row)}


def _numbers(row: "BookRow") -> dict[str, int]:
    return {
        "handed_in": row.handed_in,
        **{status: row.counts.get(status, 0) for status in (*FINAL, *OPEN)},
        "received": row.received,
        "received_again": row.received_again,
    }


def _print_books(books: "Sequence[BookRow]") -> None:
    from rich.console import Console
    from rich.table import Table

    sums = Counter[str]()
    for row in books:
        sums.update(_numbers(row))
    # A status that no mail has would be a column of zeros.
    names = [name for name, total in sums.items() if total or name == "delivered"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("destination", "receiver"):
        table.add_column(name)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for row in books:
        numbers = _numbers(row)
        table.add_row(row.domain, row.note, *(f"{numbers[name]:,}" for name in names))
    table.add_section()
    table.add_row("sum", "", *(f"{sums[name]:,}" for name in names), style="bold")
    console = Console()
    console.print(table)
    if not any(row.faults for row in books):
        console.print(
            "\nThe books balance: every mail handed in has one final status, and each receiver "
            "counted what the engine calls delivered, once."
        )
