"""How `eilpost send` shows where it is: bars in a terminal, now and then a line elsewhere.

All of it goes to stderr; stdout is for what came of it in the end.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from engine.cli.list_findings import LineFinding, finding_text
from engine.cli.printing import in_words, printable
from engine.cli.sending import HandedIn, Teller, final_in, open_in
from protocols.records import STATUSES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


# What the lines of a list are that have no fault, once they are dealt with.
TAKEN: Final = "accepted"
GOOD: Final = "good"


@contextmanager
def teller(
    console: "Console", file: str, octets: int | None, *, quiet: bool, done: str = TAKEN
) -> Iterator[Teller]:
    """Give what shows the progress of a list of so many octets (None: nobody knows).

    `quiet` leaves faults and troubles only. `done` is what is said of lines without a fault.
    """
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield Lines(file, octets, done, quiet=quiet)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        # What the engine says is no markup, as paths in brackets would be.
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, expand=True, refresh_per_second=4) as bars:
        yield Bars(bars, file, octets, done)


class Bars:
    """Two bars: how much of the list was taken, and how much of the campaign is final."""

    def __init__(self, bars: "Progress", file: str, octets: int | None, done: str) -> None:
        self._bars = bars
        self._done = done
        self._file = file
        self._handing_in = bars.add_task(done, total=octets, note="")
        self._final = bars.add_task("final", total=None, note="", visible=False)
        self._note = ""

    def finding(self, found: LineFinding) -> None:
        self._say(finding_text(self._file, found))

    def handed_in(self, sums: HandedIn) -> None:
        self._note = sums_text(sums, self._done)
        self._bars.update(self._handing_in, completed=sums.octets, note=self._note)

    def stands(self, counts: Mapping[str, int]) -> None:
        final = final_in(counts)
        self._bars.update(
            self._final,
            completed=final,
            total=final + open_in(counts),
            note=counts_text(counts),
            visible=True,
        )

    def trouble(self, text: str) -> None:
        # In the bar's own line: it lasts, and is over when the next part is answered.
        note = f"[{text}]" if text else self._note
        self._bars.update(self._handing_in, note=printable(note))

    def _say(self, text: str) -> None:
        from rich.text import Text

        self._bars.console.print(Text(text))


class Lines:
    """A line for each tenth of the way, and for what goes wrong.

    The last tenth is not told: what it came to is printed when all is done.
    """

    def __init__(self, file: str, octets: int | None, done: str, *, quiet: bool) -> None:
        self._file = file
        self._done = done
        self._octets = octets
        self._quiet = quiet
        self._tenths = 0
        self._final_tenths = -1
        self._troubled = False

    def finding(self, found: LineFinding) -> None:
        click.echo(finding_text(self._file, found), err=True)

    def handed_in(self, sums: HandedIn) -> None:
        if self._octets:
            tenths = 10 * sums.octets // self._octets
        else:
            # Of a pipe nobody knows the length: by its recipients.
            tenths = (sums.accepted + sums.repeated + sums.refused) // 100_000
        if self._tenths < tenths and (tenths < 10 or not self._octets):
            self._tenths = tenths
            self._say(sums_text(sums, self._done))

    def stands(self, counts: Mapping[str, int]) -> None:
        final = final_in(counts)
        tenths = 10 * final // max(1, final + open_in(counts))
        if self._final_tenths < tenths < 10:
            self._final_tenths = tenths
            self._say(counts_text(counts))

    def trouble(self, text: str) -> None:
        if text and not self._troubled:
            click.echo(text, err=True)
        self._troubled = bool(text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            click.echo(text, err=True)


def sums_text(sums: HandedIn, done: str = TAKEN) -> str:
    """Return what became of the list, in words."""
    text = f"{sums.accepted:,} {done}"
    of_these = [
        f"{count:,} {what}"
        for count, what in ((sums.paused, "paused by the quota"), (sums.blocked, "suppressed"))
        if count
    ]
    if of_these:
        text += f" ({', '.join(of_these)})"
    already = "already there"
    if sums.asked_again:
        already += " or taken when an answer was lost"
    if sums.may_double:
        already += " or twice in this list"
    for count, what in (
        (sums.doubled, "twice in this list"),
        (sums.repeated, already),
        (sums.refused, "refused"),
        (sums.suggested, "with a suggestion"),
    ):
        if count:
            text += f", {count:,} {what}"
    return text


def counts_text(counts: Mapping[str, int]) -> str:
    """Return how many mails are final, and which status the mails have."""
    final = final_in(counts)
    told = [
        f"{counts[status]:,} {in_words(status)}"
        # Final ones first, and `delivered` always: that is what people look for.
        for status in (*STATUSES[3:], *STATUSES[:3])
        if counts[status] or status == "delivered"
    ]
    return f"{final:,} of {final + open_in(counts):,} final: {', '.join(told)}"
