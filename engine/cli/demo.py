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
from engine.cli.printing import in_words, print_columns, print_json

if TYPE_CHECKING:
    from engine.rehearsal.demo import BookRow, Demo, Progress

# The design's figure: enough that a queue forms and drains, and over in less than two minutes.
MESSAGES: Final = 20_000
FINAL: Final = ("delivered", "soft_bounced", "hard_bounced", "blocked", "cancelled")
OPEN: Final = ("queued", "paused", "deferred")


@click.command
@click.option("--messages", type=click.IntRange(min=1), default=MESSAGES, show_default=True)
@click.option("--keep", is_flag=True, help="Leave engine and receivers running, until Ctrl-C.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new or empty directory for the engine's data, kept afterwards. "
    "Without: a temporary one, removed at the end.",
)
@json_option
@config_option
def command(messages: int, keep: bool, data_dir: Path | None, as_json: bool) -> None:
    """Send to simulated receivers of every temper, and check the books at the end.

    Nothing leaves this machine. The demo has a configuration of its own; --config is taken like
    everywhere, and has nothing to say here.
    """
    import trio

    from engine.rehearsal.engine_process import EngineFailed

    with failures(EngineFailed, OSError), _directory(data_dir) as directory:
        books = None
        try:
            books = trio.run(_run, directory, messages, keep, as_json)
        except* KeyboardInterrupt:
            pass  # What is raised here would come out as a group.
    if books is None:
        raise click.ClickException("ended by hand, before the books were made")
    faults = [f"{row.domain}: {fault}" for row in books for fault in row.faults]
    if faults:
        raise click.ClickException("the books do not balance:\n  " + "\n  ".join(faults))


@contextmanager
def _directory(chosen: Path | None) -> Iterator[Path]:
    """Make the directory that was asked for, or a temporary one for as long as the block runs."""
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="eilpost-demo-") as made:
            yield Path(made)
        return
    chosen.mkdir(parents=True, exist_ok=True)
    if any(chosen.iterdir()):
        # An older demo's mails would be in the books, and no receiver would have counted them.
        raise click.ClickException(f"{chosen} is not empty; the demo needs a directory of its own")
    yield chosen


async def _run(directory: Path, messages: int, keep: bool, as_json: bool) -> "list[BookRow]":
    import trio

    from engine.rehearsal.demo import open_demo

    async with open_demo(directory) as demo:
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
        f"Live page, signed in:  {demo.engine.operator_url()}   (good for one sign-in)\n"
        f"or, as the sender:     {demo.engine.url}/\n"
        f"API key:               {keys.api_key}\n"
        f"Secret key:            {keys.secret_key}\n"
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
            delivered = progress.counts.get("delivered", 0)
            note = f"{delivered:,} delivered, {progress.waiting:,} waiting"
            bars.update(finished, completed=progress.finished, note=note)

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
    sums = Counter[str]()
    for row in books:
        sums.update(_numbers(row))
    # A status that no mail has would be a column of zeros.
    names = [name for name, total in sums.items() if total or name == "delivered"]
    rows = [(row.domain, _numbers(row), row.note) for row in books]
    rows.append(("sum", dict(sums), f"{len(books)} destinations"))
    print_columns(
        ["destination", *(in_words(name) for name in names), "its receiver"],
        (
            [domain, *(f"{numbers[name]:,}" for name in names), note]
            for domain, numbers, note in rows
        ),
    )
    if not any(row.faults for row in books):
        click.echo(
            "\nThe books balance: every mail handed in has one final status, and each receiver\n"
            "counted what the engine calls delivered, once."
        )
