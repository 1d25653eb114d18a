"""`eilpost status`: what the status page says, and writing on it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from engine.cli.control import (
    Asked,
    EngineRefused,
    EngineStopped,
    engine,
    pages,
    say_if_stopped,
)
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json, printable

COMPONENTS = "http_intake, delivery, stream, dns, disk"


def words_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options for a text in both languages: `--title-de`, or `--de` for the text itself."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            for code, language in (("en", "English"), ("de", "German")):
                flag = f"--{name}-{code}" if name != "text" else f"--{code}"
                text = f"The {name} in {language}; without it, the other language's."
                command = click.option(
                    flag, f"{name}_{code}", default="", metavar="TEXT", help=text
                )(command)
        return command

    return add


component_option = click.option(
    "--component",
    "components",
    multiple=True,
    metavar="NAME[=LEVEL]",
    help=f"What is affected, and how much: one of {COMPONENTS}; may be repeated.",
)


@click.group(invoke_without_command=True)
@json_option
@config_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Print what the status page says, or write on it.

    What is written is public at once, and told to subscribers.
    """
    if context.invoked_subcommand is not None:
        return
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        say_if_stopped(asked)
        status = asked.get("/v1/status", lang="en")
    if as_json:
        print_json(status)
        return
    click.echo(f"{printable(status['name'])}: {status['description']}")
    print_columns(
        ("component", "state"), ([each["name"], each["status"]] for each in status["components"])
    )
    shown = [*status["incidents"], *status["maintenances"], *status["announcements"]]
    if shown:
        click.echo()
        _print_entries(shown)


@command.command("list")
@json_option
@config_option
def list_entries(as_json: bool) -> None:
    """List incidents, announcements and planned work of the last 90 days, newest first."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        entries = asked.get("/v1/status", lang="en")["history"]
    if as_json:
        for entry in entries:
            print_json(entry)
    elif entries:
        _print_entries(entries)
    else:
        click.echo("Nothing was written yet.")


@command.command("open")
@words_options("title", "text")
@click.option(
    "--impact",
    type=click.Choice(["none", "minor", "major", "critical"]),
    default="minor",
    show_default=True,
)
@click.option(
    "--stage",
    type=click.Choice(["investigating", "identified", "monitoring"]),
    default="investigating",
    show_default=True,
)
@component_option
@json_option
@config_option
def open_incident(
    impact: str, stage: str, components: tuple[str, ...], as_json: bool, **texts: str
) -> None:
    """Open an incident."""
    body = {
        **_texts(texts, "title", "text"),
        "impact": impact,
        "stage": stage,
        "components": _components(components),
    }
    _write(lambda asked: asked.post("/v1/status/incidents", body), as_json)


@command.command
@click.argument("entry")
@words_options("text")
@click.option(
    "--stage",
    type=click.Choice(["investigating", "identified", "monitoring", "in_progress"]),
    help="How far it has come; as before without it.",
)
@json_option
@config_option
def update(entry: str, stage: str | None, as_json: bool, **texts: str) -> None:
    """Say something more of ENTRY, an id from `eilpost status list`."""
    body = {**_texts(texts, "text"), "stage": stage}
    _write(lambda asked: asked.post(_updates_of(entry), body), as_json)


def _end(verb: str, stage: str, help_text: str) -> None:
    """Add the command `verb`, which says that an entry has come to its last stage."""

    @command.command(verb, help=help_text)
    @click.argument("entry")
    @words_options("text")
    @json_option
    @config_option
    def end(entry: str, as_json: bool, **texts: str) -> None:
        body = {**_texts(texts, "text"), "stage": stage}
        _write(lambda asked: asked.post(_updates_of(entry), body), as_json)


_end(
    "resolve",
    "resolved",
    "Say that the incident ENTRY is over; without a text, in the usual words.",
)
_end(
    "complete",
    "completed",
    "Say that the planned work ENTRY is done, earlier than planned or not to be done at all.",
)


@command.command
@words_options("title", "text")
@click.option("--until", metavar="TIME", help="Shown on top until then; default: for 14 days.")
@json_option
@config_option
def announce(until: str | None, as_json: bool, **texts: str) -> None:
    """Announce something."""
    body = {**_texts(texts, "title", "text"), "until": until}
    _write(lambda asked: asked.post("/v1/status/announcements", body), as_json)


@command.command
@words_options("title", "text")
@click.option("--from", "from_", required=True, metavar="TIME", help="Like 2026-12-01T22:00:00Z.")
@click.option("--until", required=True, metavar="TIME")
@component_option
@json_option
@config_option
def plan(from_: str, until: str, components: tuple[str, ...], as_json: bool, **texts: str) -> None:
    """Plan work; it begins and ends by itself."""
    body = {
        **_texts(texts, "title", "text"),
        "from": from_,
        "until": until,
        "components": _components(components),
    }
    _write(lambda asked: asked.post("/v1/status/maintenances", body), as_json)


@command.command
@click.argument("entry")
@config_option
def withdraw(entry: str) -> None:
    """Remove ENTRY, which was written by mistake, with everything that was said of it."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        asked.delete(f"/v1/status/incidents/{_id(entry)}")
    click.echo(f"{entry} is gone.")


@command.command
@json_option
@config_option
def subscribers(as_json: bool) -> None:
    """List who gets the status page by mail."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        rows = list(pages(asked, "/v1/status/subscribers", "subscribers", limit=1000))
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        columns = ("address", "frequency", "language", "since")
        print_columns(columns, ([row[column] for column in columns] for row in rows))
    else:
        click.echo("Nobody has subscribed yet.")


@command.command
@click.argument("address")
@config_option
def unsubscribe(address: str) -> None:
    """End the subscription of ADDRESS."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        asked.delete(f"/v1/status/subscribers/{quote(address, safe='')}")
    click.echo(f"{printable(address)} gets no more mail.")


def _write(write: Callable[[Asked], Any], as_json: bool) -> None:
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        entry = write(asked)
    if as_json:
        print_json(entry)
    else:
        click.echo(f"{entry['id']}: {printable(entry['title'])}, {entry['stage']}")


def _texts(given: dict[str, str], *names: str) -> dict[str, dict[str, str]]:
    return {name: {code: given[f"{name}_{code}"] for code in ("de", "en")} for name in names}


def _components(given: tuple[str, ...]) -> dict[str, str]:
    return {name: level for name, _, level in (each.partition("=") for each in given)}


def _updates_of(entry: str) -> str:
    return f"/v1/status/incidents/{_id(entry)}/updates"


def _id(entry: str) -> str:
    if not entry.isalnum() or not entry.isascii():
        raise click.ClickException(f"{entry!a} is no id: `eilpost status list` shows them.")
    return entry


def _print_entries(entries: list[dict[str, Any]]) -> None:
    print_columns(
        ("id", "kind", "stage", "impact", "since", "until", "title"),
        (
            [
                each["id"],
                each["kind"],
                each["stage"],
                each["impact"],
                each["from"] or each["created_at"],
                each["until"] or each["resolved_at"],
                each["title"],
            ]
            for each in entries
        ),
    )
