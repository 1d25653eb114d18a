"""`eilpost statistics`: how many mails stand where, and how long their delivery took."""

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, pages
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import in_words, print_columns, print_json
from protocols.csv_tables import csv_octets

GROUPS = ("total", "account", "campaign", "day", "destination", "hour")
GROUPS_OF_TIMES = ("total", "account", "day", "destination")
PAGE = 1000


@click.command
@click.option(
    "--group",
    type=click.Choice(GROUPS),
    default="total",
    show_default=True,
    help="What a row is about; times are there by total, account, day and destination.",
)
@click.option("--from", "start", metavar="TIME", help="Accepted at or after this time, in UTC.")
@click.option("--to", "end", metavar="TIME", help="Accepted before this time.")
@click.option("--account", metavar="NAME", help="Of this account only.")
@click.option("--times", is_flag=True, help="Seconds from acceptance to delivery instead.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV, for a spreadsheet.")
@json_option
@config_option
def command(
    group: str,
    start: str | None,
    end: str | None,
    account: str | None,
    times: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Count mails by where they stand now.

    TIME is like 2026-11-24 or 2026-11-24T09:30:00Z. Hours and days are those of acceptance in UTC,
    and a range is widened to whole hours, by destination and campaign to whole days. With --times,
    half of the deliveries took no longer than p50 s, and so on: upper bounds, up to a quarter above
    the exact time; max s is exact."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two forms of the same: take one.")
    if times and group not in GROUPS_OF_TIMES:
        raise click.UsageError(f"There are no times by {group}: {', '.join(GROUPS_OF_TIMES)}.")
    route = "/v1/statistics/delivery-times" if times else "/v1/statistics"
    query = {"group": group, "from": start, "to": end, "account": account, "limit": PAGE}
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        rows = list(pages(asked, route, "rows", **query))
    if as_json:
        for row in rows:
            print_json(row)
    elif not rows:
        click.echo("Nothing was delivered." if times else "There is no mail.", err=as_csv)
    elif as_csv:
        click.echo(csv_octets(list(rows[0]), [list(row.values()) for row in rows]), nl=False)
    else:
        first = "of" if group == "total" else group
        heads = [first if name == "key" else in_words(name) for name in rows[0]]
        print_columns(heads, (list(row.values()) for row in rows))
