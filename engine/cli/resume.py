"""`eilpost resume`: lift holds, so that what they held moves at once."""

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, pages
from engine.cli.filters import FILTERS, filter_options
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_json, printable


@click.command
@click.argument("hold_ids", metavar="[HOLD]...", nargs=-1, type=int)
@filter_options
@click.option("--reason", default="", metavar="TEXT", help="Goes to the engine's log.")
@click.option("--dry-run", is_flag=True, help="Only show which holds would be lifted.")
@json_option
@config_option
def command(
    hold_ids: tuple[int, ...], reason: str, dry_run: bool, as_json: bool, **wanted: object
) -> None:
    """Lift holds: those of these numbers, or those that name all given filters.

    Without either it lifts every hold.
    """
    chosen = {name: wanted[name] for name in FILTERS if wanted[name] is not None}
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        lifted = [
            hold
            for hold in pages(asked, "/v1/holds", "holds")
            if (not hold_ids or hold["hold_id"] in hold_ids)
            and all(hold[name] == value for name, value in chosen.items())
        ]
        missing = set(hold_ids) - {hold["hold_id"] for hold in lifted}
        if missing:
            numbers = ", ".join(map(str, sorted(missing)))
            raise click.ClickException(f"there is no such hold: {numbers}")
        for hold in lifted:
            if not dry_run:
                asked.delete(f"/v1/holds/{hold['hold_id']}", reason=reason or None)
    if as_json:
        for hold in lifted:
            print_json(hold)
        return
    for hold in lifted:
        names = ", ".join(f"{name} {hold[name]}" for name in FILTERS if hold[name] is not None)
        said = f" ({printable(hold['reason'])})" if hold["reason"] else ""
        word = "Would lift" if dry_run else "Lifted"
        click.echo(f"{word} hold {hold['hold_id']}: {printable(names)}{said}")
    if not lifted:
        click.echo("No hold fits.")
