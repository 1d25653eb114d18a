"""`eilpost resume`: lift holds, so that what they held moves at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, pages, say_if_stopped
from engine.cli.filters import FILTERS, OPTIONS, filter_options, hold_text
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_json


@click.command
@click.argument("hold_ids", metavar="[HOLD]...", nargs=-1, type=click.IntRange(min=1))
@filter_options
@click.option("--all", "all_of_them", is_flag=True, help="Lift every hold.")
@click.option("--reason", default="", metavar="TEXT", help="Goes to the engine's log.")
@click.option("--dry-run", is_flag=True, help="Only show which holds would be lifted.")
@json_option
@config_option
def command(
    hold_ids: tuple[int, ...],
    all_of_them: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
    **wanted: object,
) -> None:
    """Lift holds: those of these numbers, those that name all given filters, or --all.

    `eilpost holds` lists them.
    """
    chosen = {name: wanted[name] for name in FILTERS if wanted[name] is not None}
    if all_of_them and (chosen or hold_ids):
        raise click.UsageError("--all lifts every hold; it goes with no number and no filter.")
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        holds = list(pages(asked, "/v1/holds", "holds"))
        if not (all_of_them or chosen or hold_ids):
            raise click.UsageError(_which(holds))
        say_if_stopped(asked)
        lifted = _fitting(holds, hold_ids, chosen)
        for hold in lifted:
            if not dry_run:
                asked.delete(f"/v1/holds/{hold['hold_id']}", reason=reason or None)
    if as_json:
        for hold in lifted:
            print_json(hold)
        return
    for hold in lifted:
        click.echo(f"{'Would lift' if dry_run else 'Lifted'} {hold_text(hold)}.")
    if not lifted:
        click.echo("No hold fits.")


def _which(holds: Iterable[Mapping[str, Any]]) -> str:
    """Say how to name a hold, and which there are."""
    lines = [f"  {hold_text(hold)}" for hold in holds]
    there = "\n".join(["These hold mail now:", *lines]) if lines else "No mail is held now."
    return f"Say which holds: their numbers, at least one of {OPTIONS}, or --all. {there}"


def _fitting(
    holds: Iterable[dict[str, Any]], hold_ids: Sequence[int], chosen: Mapping[str, object]
) -> list[dict[str, Any]]:
    """Return the holds that are meant. Raises EngineRefused for a number that none has."""
    found = [
        hold
        for hold in holds
        if (not hold_ids or hold["hold_id"] in hold_ids)
        and all(hold[name] == value for name, value in chosen.items())
    ]
    missing = set(hold_ids) - {hold["hold_id"] for hold in found}
    if missing:
        numbers = ", ".join(map(str, sorted(missing)))
        fitting = " that fits" if chosen else ""
        raise EngineRefused(f"There is no such hold{fitting}: {numbers}.")
    return found
