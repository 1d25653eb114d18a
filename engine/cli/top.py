"""`eilpost top`: how much mail there is, how fast it moves, and where it waits, live.

In a terminal a picture that is drawn again; elsewhere one line a look; with `--json` one object a
look. Over a restart of the engine it waits and goes on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from engine.cli.control import EngineRefused, EngineStopped, running_engine
from engine.cli.filters import Duration
from engine.cli.looking import Look, Looker, Rates, waiting_of
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import in_words, print_columns, print_json, printable
from engine.clock import SystemClock
from protocols.timestamps import parse_time, time_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ROWS: Final = 20
# Heading, counts and the table's own lines stand around the destinations.
LINES_AROUND: Final = 9
# In a narrower terminal some columns are left out, or all of them would be cut to nothing.
WIDE: Final = 120
ONLY_WIDE: Final = frozenset({"connections", "rate/s", "last reply"})
EVERY_S_MIN: Final = 0.1
QUIT_KEYS: Final = frozenset(b"qQ")


@click.command
@click.option("--once", is_flag=True, help="Look for the time of --every, print once, and end.")
@click.option("--every", type=Duration(), default="1s", show_default=True, help="Time between.")
@click.option(
    "--rows",
    type=click.IntRange(1, 1000),
    default=ROWS,
    show_default=True,
    help="Destinations shown, those with the most waiting mail.",
)
@json_option
@config_option
def command(once: bool, every: float, rows: int, as_json: bool) -> None:
    """Show counts, rates and the fullest destinations, live. q or Ctrl-C ends it."""
    from rich.console import Console

    console = Console()
    socket = load().control_socket
    looker = Looker(rows, console.get_time)
    every_s = max(EVERY_S_MIN, every)
    with failures(EngineStopped, EngineRefused):
        if once:
            with running_engine(socket) as asked, waiting(keys=False) as wait:
                # Rates need two looks.
                looker.look(asked)
                wait(every_s)
                if as_json:
                    _print_json(looker.look(asked))
                else:
                    _print_table(looker.look(asked))
            return
        is_live = console.is_terminal and not console.is_dumb_terminal and not as_json
        with (
            waiting(keys=is_live) as wait,
            _screen(console) if is_live else _lines(as_json) as show,
        ):
            try:
                for look, trouble in _looks(looker, every_s, wait, socket):
                    show(look, trouble)
            except KeyboardInterrupt:
                return


Show = Callable[[Look, str], None]


def _looks(
    looker: Looker, every_s: float, wait: Callable[[float], bool], socket: Any
) -> Iterator[tuple[Look, str]]:
    """Look again and again; with a trouble the look is the last one before it.

    Raises EngineStopped if there is no engine from the start.
    """
    look: Look | None = None
    while True:
        try:
            with running_engine(socket) as asked:
                looker.start_over()
                while True:
                    look = looker.look(asked)
                    yield look, ""
                    if wait(every_s):
                        return
        except EngineStopped as stopped:
            if look is None:
                raise
            yield look, f"{stopped}; waiting for it to come back"
        if wait(every_s):
            return


@contextmanager
def waiting(*, keys: bool) -> Iterator[Callable[[float], bool]]:
    """Give a function that waits for some seconds and says whether a key asked to end."""
    import os
    import select
    import sys
    import termios
    import tty
    from threading import Event

    def wait(seconds: float) -> bool:
        Event().wait(seconds)
        return False

    def wait_for_key(seconds: float) -> bool:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        if not ready:
            return False
        keys = os.read(descriptor, 64)
        # Nothing to read though there is news: the terminal has gone.
        return not keys or not QUIT_KEYS.isdisjoint(keys)

    if not (keys and sys.stdin.isatty()):
        yield wait
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    # Single keys without Enter; Ctrl-C still interrupts.
    tty.setcbreak(descriptor)
    try:
        yield wait_for_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _screen(console: "Console") -> Iterator[Show]:
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(look: Look, trouble: str) -> None:
            rows = max(1, console.height - LINES_AROUND)
            live.update(_picture(look, trouble, rows=rows, columns=console.width), refresh=True)

        yield show


@contextmanager
def _lines(as_json: bool) -> Iterator[Show]:
    told = False

    def show(look: Look, trouble: str) -> None:
        nonlocal told
        if trouble:
            if not told:
                click.echo(trouble, err=True)
        elif as_json:
            _print_json(look)
        else:
            click.echo(_line(look))
        told = bool(trouble)

    yield show


def _print_json(look: Look) -> None:
    print_json({"at": time_text(SystemClock().now_unix_ms()), **msgspec.to_builtins(look)})


def _line(look: Look) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in look.counts.items() if count)
    at = time_text(SystemClock().now_unix_ms())
    line = f"{at}  {_rates_text(look.rates)}  {counts or 'no mail'}"
    if look.fullest:
        row = look.fullest[0]
        line += f"  fullest: {printable(row['destination'])} {waiting_of(row):,} {row['state']}"
    return line


def _print_table(look: Look) -> None:
    counts = {name: f"{count:,}" for name, count in look.counts.items()}
    print_columns([*map(in_words, counts)], [[*counts.values()]])
    click.echo(_rates_text(look.rates))
    if not look.fullest:
        click.echo("No mail is waiting.")
        return
    click.echo(f"\nMail waits for {look.waiting_at:,} destinations.")
    print_columns(HEADS, map(_cells, look.fullest))


HEADS: Final = (
    *("destination", "waiting", "state", "next attempt", "connections", "rate/s"),
    *("last reply", "cause"),
)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    held = row["held_by"]
    return (
        printable(row["destination"]),
        f"{waiting_of(row):,}",
        row["state"],
        _from_now(row["next_attempt_at"]),
        str(row["connections"]),
        f"{row['rate_per_s']:.1f}",
        printable(row["last_reply"]),
        printable(held["text"] if held else None),
    )


def _from_now(at: str | None) -> str:
    """Return how long it is until then."""
    if at is None:
        return "-"
    seconds = (parse_time(at) - SystemClock().now_unix_ms()) // 1000
    if seconds <= 0:
        return "now"
    hours, rest = divmod(seconds, 3600)
    return f"in {hours} h {rest // 60} min" if hours else f"in {rest // 60}:{rest % 60:02} min"


def _rates_text(rates: Rates | None) -> str:
    if rates is None:
        return "rates come with the next look"
    return (
        f"accepted {rates.accepted:,.1f}/s, delivered {rates.delivered:,.1f}/s, "
        f"deferred {rates.deferred:,.1f}/s"
    )


def _picture(look: Look, trouble: str, *, rows: int, columns: int) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    counts = Text()
    for name, count in look.counts.items():
        counts.append(f"{in_words(name)} ").append(f"{count:,}   ", style="bold")
    # As Text, not markup: what receivers write must not colour the screen.
    head = Text(trouble, style="bold red") if trouble else Text(_rates_text(look.rates))
    places = Table(box=None, expand=True, padding=(0, 1, 0, 0))
    wanted = [name for name in HEADS if columns >= WIDE or name not in ONLY_WIDE]
    for name in wanted:
        is_number = name in ("waiting", "connections", "rate/s")
        is_long = name in ("destination", "last reply", "cause")
        places.add_column(
            name,
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=(1 if name == "destination" else 2) if is_long else None,
        )
    for row in look.fullest[:rows]:
        style = {"unreachable": "red", "throttled": "yellow", "held": "yellow"}.get(row["state"])
        cells = dict(zip(HEADS, _cells(row), strict=True))
        places.add_row(*(Text(cells[name]) for name in wanted), style=style)
    waits = f"Mail waits for {look.waiting_at:,} destinations." if look.fullest else ""
    title = Text("eilpost top   q ends it", style="dim")
    return Group(title, head, Text(), counts, Text(), Text(waits or "No mail is waiting."), places)
