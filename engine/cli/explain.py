"""`eilpost explain`: the one thing that holds a mail back, and when it will move."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click

from engine.cli.control import Asked, EngineRefused, EngineStopped, engine, say_if_stopped
from engine.cli.filters import hold_text
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import in_words, print_json, printable


@click.command
@click.argument("what", required=False, metavar="[MESSAGE_ID|ADDRESS|DOMAIN]")
@click.option("--campaign", metavar="NAME", help="Explain a whole campaign instead.")
@json_option
@config_option
def command(what: str | None, campaign: str | None, as_json: bool) -> None:
    """Say what holds a mail back: since when, how many are ahead, and when it will move.

    For a message id, an address (its waiting mails), a domain ("all @example.com") or a campaign.
    """
    if (what is None) == (campaign is None):
        raise click.UsageError("Give one: a message id, an address, a domain, or --campaign NAME.")
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        say_if_stopped(asked)
        if campaign is not None:
            _show_campaign(asked.get(f"/v1/campaigns/{quote(campaign, safe='')}/explain"), as_json)
        elif what is not None:
            _show(asked, what, as_json)


def _show(asked: Asked, what: str, as_json: bool) -> None:
    if what.isascii() and what.isdecimal():
        _show_message(asked.get(f"/v1/messages/{what}/explain"), as_json)
        return
    domain = what.removeprefix("@")
    if "@" not in domain:
        _show_destination(asked.get(f"/v1/destinations/{quote(domain, safe='')}/explain"), as_json)
        return
    messages = asked.get("/v1/explain", address=what)["messages"]
    if not messages:
        raise EngineRefused(f"There is no mail to {what}.")
    for message in messages:
        _show_message(message, as_json)


def _show_message(message: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(message)
        return
    click.echo(f"{message['message_id']}  {in_words(message['status'])}")
    _show_cause(message)
    if message["held_by"] is None and message["reply"]:
        click.echo(f"  {'reply:':14}{printable(message['reply'])}")
    for word, key in (
        ("ahead", "ahead"),
        ("next attempt", "next_attempt_at"),
        ("expires", "expires_at"),
    ):
        if message[key] is not None:
            click.echo(f"  {word + ':':14}{message[key]}")
    click.echo(f"  {printable(message['advice'])}")


def _show_cause(explained: Mapping[str, Any]) -> None:
    held = explained["held_by"]
    if held is None:
        return
    click.echo(f"  {printable(held['text'])}")
    whose = f"{held['scope']} {held['key']}".strip()
    cause = f"{held['code']} ({whose})"
    for word, value in (
        ("held by", cause),
        ("since", held["since"]),
        ("limit", held["limit"]),
        ("reply", held["reply"]),
    ):
        if value:
            click.echo(f"  {word + ':':14}{printable(value)}")


def _show_destination(explained: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(explained)
        return
    counts = _counts(explained)
    click.echo(f"{printable(explained['destination'])}  {explained['state']}  {counts}")
    _show_cause(explained)
    for hold in explained["holds"]:
        click.echo(f"  {'held:':14}{hold['mails']:,} by {hold_text(hold)}")
    if explained["next_attempt_at"] is not None:
        click.echo(f"  {'next attempt:':14}{explained['next_attempt_at']}")
    click.echo(f"  {printable(explained['advice'])}")
    _show_causes(explained)


def _show_causes(explained: Mapping[str, Any]) -> None:
    """Say what the mails wait for one by one, where that is more than what holds them all."""
    causes, held = explained["causes"], explained["held_by"]
    if held is None or (len(causes) == 1 and causes[0]["code"] == held["code"]):
        return
    click.echo("  what they wait for:" if explained["is_exact"] else "  what they wait for, about:")
    for cause in causes:
        click.echo(f"  {cause['count']:>8,}  {printable(cause['text'])}")
        for word, value in (
            ("held by", f"{cause['code']} ({cause['scope']} {cause['key']})"),
            ("reply", cause["reply"]),
            ("next attempt", cause["next_attempt_at"]),
        ):
            if value:
                click.echo(f"            {word + ':':14}{printable(value)}")
        if cause["advice"] != explained["advice"]:
            click.echo(f"            {printable(cause['advice'])}")


def _show_campaign(explained: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(explained)
        return
    click.echo(f"{printable(explained['campaign'])}  {_counts(explained)}")
    if explained["next_attempt_at"] is not None:
        click.echo(f"  {'next attempt:':26}{explained['next_attempt_at']}")
    held = sorted(explained["waiting_by_code"].items(), key=lambda each: -each[1])
    for code, waiting in held:
        click.echo(f"  {code + ':':26}{waiting:,}")
    for destination in explained["destinations"]:
        _show_destination(destination, as_json)


def _counts(explained: Mapping[str, Any]) -> str:
    words = ("queued", "deferred", "paused")
    return ", ".join(f"{explained[word]:,} {word}" for word in words if explained[word]) or "done"
