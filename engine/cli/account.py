"""`eilpost account`: who may send, and how much."""

import re
from typing import Any
from urllib.parse import quote

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, pages
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import in_words, print_columns, print_json, printable

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Read a time like 90s, 15m, 12h or 7d."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time like 90s, 15m, 12h or 7d.", ctx, param)
    return int(found[1]) * UNITS_S[found[2]]


@click.group
@config_option
def command() -> None:
    """Create, list and change accounts. Works with the engine running or stopped."""


@command.command
@click.argument("name")
@click.option("--plan", help="A [[plan]] of the configuration, or free; without: no daily limit.")
@click.option(
    "--time-zone",
    default="UTC",
    show_default=True,
    help="Where the plan's days begin at midnight, like Europe/Berlin.",
)
@json_option
@config_option
def create(name: str, plan: str | None, time_zone: str, as_json: bool) -> None:
    """Create the account NAME.

    Prints its keys; the secret key is shown this once."""
    body = {"account": name, "plan": plan, "time_zone": time_zone}
    _print_keys(_post("/v1/accounts", body), as_json)


@command.command("list")
@json_option
@config_option
def list_accounts(as_json: bool) -> None:
    """List the accounts.

    With their plans, time zones and API keys."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        accounts = list(pages(asked, "/v1/accounts", "accounts"))
    if as_json:
        for account in accounts:
            print_json(account)
    elif accounts:
        print_columns(
            ("account", "plan", "time zone", "state", "created", "API keys"),
            (
                (
                    *(account["account"], account["plan"], account["time_zone"]),
                    _state_text(account),
                    account["created_at"],
                    ", ".join(map(_key_text, account["keys"])),
                )
                for account in accounts
            ),
        )
    else:
        click.echo("There is no account yet: eilpost account create NAME makes one.")


@command.command
@click.argument("name")
@click.argument("plan")
@json_option
@config_option
def plan(name: str, plan: str, as_json: bool) -> None:
    """Give the account NAME another PLAN.

    PLAN is one of the configuration, free, or none for no limit.

    Paused mail goes as early as the new plan allows, at once where it has room today."""
    changed = _post(_route(name, "plan"), {"plan": None if plan == "none" else plan})
    text = f"{printable(name)} has {_plan_text(changed['plan'])}."
    if changed["rebooked"]:
        text += f" {changed['rebooked']:,} paused mails go earlier than they would have."
    _print(changed, text, as_json)


@command.command
@click.argument("name")
@json_option
@config_option
def quota(name: str, as_json: bool) -> None:
    """Say how much of its plan NAME has used.

    And when what is paused goes: each mail has had its day since it was taken."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        found = asked.get("/v1/quota", account=name)
    if as_json:
        print_json(found)
        return
    click.echo(f"{printable(name)} has {_plan_text(found['plan'])}.")
    click.echo(f"  today:       {_used(found['booked_today'], found['messages_per_day'])}")
    click.echo(f"  this month:  {_used(found['booked_this_month'], found['messages_per_month'])}")
    click.echo(f"  day ends:    {found['day_ends_at']} ({printable(found['time_zone'])})")
    if found["paused"]:
        click.echo(
            f"  paused:      {found['paused']:,}, the next go at {found['next_release_at']}, "
            f"the last at {found['last_release_at']}"
        )


@command.command
@click.argument("name")
@json_option
@config_option
def disable(name: str, as_json: bool) -> None:
    """Refuse the keys of the account NAME.

    From now on; the mail that it has handed in goes on."""
    _print(_post(_route(name, "disable"), {}), f"{printable(name)} is disabled.", as_json)


@command.command
@click.argument("name")
@json_option
@config_option
def enable(name: str, as_json: bool) -> None:
    """Let the account NAME in again.

    With the keys that it had."""
    _print(_post(_route(name, "enable"), {}), f"{printable(name)} is enabled.", as_json)


@command.command
@click.argument("name")
@click.option(
    "--keep-old-for",
    callback=seconds_of,
    default="0s",
    metavar="TIME",
    help="Let the keys so far go on for a while, like 12h or 7d; without: they end at once.",
)
@json_option
@config_option
def rotate(name: str, keep_old_for: int, as_json: bool) -> None:
    """Make new keys for the account NAME.

    Prints them; the secret key is shown this once."""
    made = _post(_route(name, "keys"), {"keep_old_for_s": keep_old_for})
    _print_keys(made, as_json)
    if not as_json:
        end_at = made["old_keys_end_at"]
        click.echo(f"The keys so far go on until {end_at}." if end_at else "The keys so far ended.")


@command.command
@click.argument("name")
@click.option("--lift", metavar="ADDRESS", help="Let mail of the account go to ADDRESS again.")
@json_option
@config_option
def suppressions(name: str, lift: str | None, as_json: bool) -> None:
    """List addresses that NAME cannot write to.

    A hard bounce suppresses an address for ninety days; mail to it is accepted and ends blocked."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        if lift is not None:
            asked.delete(f"/v1/suppressions/{quote(lift, safe='')}", account=name)
            if not as_json:
                click.echo(f"Mail of {printable(name)} goes to {printable(lift)} again.")
            return
        rows = list(pages(asked, "/v1/suppressions", "suppressions", account=name, limit=1000))
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        columns = ("address", "since", "until", "reason", "reply")
        told = ({**row, "reason": _reason_text(row["reason"])} for row in rows)
        print_columns(columns, ([row[column] for column in columns] for row in told))
    else:
        click.echo(f"No address is suppressed for {printable(name)}.")


def _reason_text(reason: str) -> str:
    """Return an operator's own words as they are, and the engine's one reason as people say it."""
    return in_words(reason) if reason == "hard_bounced" else reason


def _route(name: str, what: str) -> str:
    return f"/v1/accounts/{quote(name, safe='')}/{what}"


def _post(route: str, body: object) -> dict[str, Any]:
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        answer: dict[str, Any] = asked.post(route, body)
        return answer


def _state_text(account: dict[str, Any]) -> str:
    if account["internal"]:
        return "the engine's own"
    return "disabled" if account["disabled"] else "enabled"


def _key_text(key: dict[str, Any]) -> str:
    return key["api_key"] if key["ends_at"] is None else f"{key['api_key']} until {key['ends_at']}"


def _used(booked: int, limit: int | None) -> str:
    return f"{booked:,}" if limit is None else f"{booked:,} of {limit:,}"


def _plan_text(plan: str | None) -> str:
    return "no plan, so no limit" if plan is None else f"the plan {printable(plan)}"


def _print(answer: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        click.echo(text)


def _print_keys(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    for word, key in (("account", "account"), ("API key", "api_key"), ("secret key", "secret_key")):
        click.echo(f"{word + ':':12}{printable(made[key])}")
    click.echo("The secret key is kept as a hash only: this is the one time it is shown.")
