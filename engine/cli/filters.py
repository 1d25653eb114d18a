"""The filter that `suspend`, `resume`, `retry` and `cancel` share, and how counts are printed."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, Final, TypeVar

import click

from engine.cli.control import Asked, EngineRefused, EngineStopped, engine, say_if_stopped
from engine.cli.options import a_domain, config_option, failures, json_option, load
from engine.cli.printing import in_words, print_json, printable

F = TypeVar("F", bound=Callable[..., object])

UNIT_S: Final = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}
DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?(s|min|m|h|d)?", re.ASCII)
FILTERS: Final = ("account", "campaign", "destination", "site", "reply", "older_s", "address")
OPTIONS: Final = ", ".join(f"--{name.removesuffix('_s')}" for name in FILTERS)


class Duration(click.ParamType[float]):
    """A time like 90, 30s, 15min, 2h or 3d; the value is in seconds."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no time like 30s, 15min, 2h or 3d.", param, ctx)
        return float(found[1]) * UNIT_S[found[2] or "s"]


def _domain(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and "@" in value:
        raise click.BadParameter(f"{value} is an address: give its domain, or --address.")
    return None if value is None else a_domain(ctx, param, value)


def _lower(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    return None if value is None else value.lower()


def filter_options(command: F) -> F:
    """Give a command the options that say which mail; its function takes them as keywords."""
    for option in reversed(
        (
            click.option("--account", metavar="NAME", help="Mail of this account."),
            click.option("--campaign", metavar="NAME", help="Mail of this campaign."),
            click.option(
                "--destination", metavar="DOMAIN", callback=_domain, help="Mail to this domain."
            ),
            click.option(
                "--site",
                metavar="NAME",
                callback=_lower,
                help="Mail to all domains of a receiving site.",
            ),
            click.option("--reply", metavar="TEXT", help="Mail whose last reply contains TEXT."),
            click.option(
                "--older", "older_s", type=Duration(), help="Mail accepted at least so long ago."
            ),
            click.option("--address", metavar="ADDRESS", help="Mail to this address, as given."),
        )
    ):
        command = option(command)
    return command


def bulk_options(command: F) -> F:
    """Give a command what all that change waiting mail at once have; see `change_mail`."""
    for option in (
        config_option,
        json_option,
        click.option("--dry-run", is_flag=True, help="Only count what fits."),
        click.option(
            "--reason",
            default="",
            metavar="TEXT",
            help="Goes to the engine's log, and is told of each mail that is cancelled.",
        ),
        filter_options,
    ):
        command = option(command)
    return command


def change_mail(
    route: str, options: Mapping[str, object], *, moves: bool = False
) -> dict[str, Any] | None:
    """Have the engine change what fits the `bulk_options`; return what that came to.

    With `--json` it is printed, and None is returned. If that is to get mail to move, a stopped
    engine is told of.
    """
    chosen, as_json = given(options), options["as_json"]
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        if moves:
            say_if_stopped(asked)
        done = go_through(
            asked,
            route,
            chosen,
            progress=not as_json,
            dry_run=options["dry_run"],
            reason=options["reason"],
        )
    if as_json:
        print_json(done)
        return None
    return done


def given(wanted: Mapping[str, object]) -> dict[str, object]:
    """Return the filters that were given. Without any it is wrong usage."""
    chosen = {name: wanted[name] for name in FILTERS if wanted.get(name) is not None}
    if not chosen:
        raise click.UsageError(f"Say which mail with at least one of {OPTIONS}.")
    return chosen


def go_through(
    asked: Asked, route: str, wanted: Mapping[str, object], *, progress: bool, **more: object
) -> dict[str, Any]:
    """Ask step by step until all mail was looked at; return the sums of the answers."""
    matched: Counter[str] = Counter()
    sums: dict[str, Any] = {"matched": matched, "changed": 0, "in_flight": 0}
    after: str | None = None
    while True:
        step = asked.post(route, {**wanted, **more, "after": after})
        matched.update(step["matched"])
        for count in ("changed", "in_flight"):
            sums[count] += step[count]
        if "destinations" in step:
            sums["destinations"] = _united(sums.get("destinations", []), step["destinations"])
            sums["held"] = summed_holds([sums.get("held", []), step["held"]])
        after = step["after"]
        if after is None:
            return {**sums, "matched": dict(matched), "dry_run": step["dry_run"]}
        if progress:
            click.echo(f"{matched.total():,} mails so far, going on.", err=True)


def _united(before: list[str], more: list[str]) -> list[str]:
    return sorted({*before, *more})


def summed_holds(lists: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return holds with how many mails they keep back, added up; the most first."""
    by_id: dict[int, dict[str, Any]] = {}
    for hold in chain.from_iterable(lists):
        known = by_id.get(hold["hold_id"], {"mails": 0})
        by_id[hold["hold_id"]] = {**hold, "mails": hold["mails"] + known["mails"]}
    return sorted(by_id.values(), key=lambda hold: (-hold["mails"], hold["hold_id"]))


def hold_text(hold: Mapping[str, Any]) -> str:
    """Return a hold as people read it: its number, what it holds, by whom, until when, and why."""
    end = f"until {hold['until']}" if hold["until"] else "until it is resumed"
    why = f", reason: {printable(hold['reason'])}" if hold["reason"] else ""
    return f"hold {hold['hold_id']} ({filter_text(hold)}; by {printable(hold['who'])} {end}{why})"


def filter_text(hold: Mapping[str, Any]) -> str:
    """Return which mail a hold is about: "account shop, older 2 d"."""
    return ", ".join(
        f"{name.removesuffix('_s')} {_value_text(name, hold[name])}"
        for name in FILTERS
        if hold[name] is not None
    )


def _value_text(name: str, value: Any) -> str:
    if name != "older_s":
        return printable(value)
    for unit in ("d", "h", "min"):
        if value and value % UNIT_S[unit] == 0:
            return f"{value / UNIT_S[unit]:g} {unit}"
    return f"{value:g} s"


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts by status as people read them."""
    told = [f"{count:,} {printable(in_words(status))}" for status, count in counts.items() if count]
    return ", ".join(told) or "none"
