"""`eilpost events`: the event log, as far as it reaches back and as it grows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any, Final

import click

from engine.cli.control import Asked, EngineRefused, EngineStopped, engine, running_engine
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import in_words, print_json, printable

# Each poll waits this long for news: below the minute after which quiet connections get closed, and
# rare enough to cost nothing.
WAIT_S: Final = 20
# A restart takes a second or two; a missing engine is asked for again at this pace.
RETRY_S: Final = 1.0


@click.command
@click.option("--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("--after", default="start", metavar="CURSOR", help="A cursor, start, or now.")
@click.option("--account", multiple=True, help="Only this one's; each filter may be repeated.")
@click.option("--campaign", multiple=True)
@click.option("--destination", multiple=True)
@click.option("--status", multiple=True)
@click.option("--reason", multiple=True, help="outcome_unknown lists suspected duplicates.")
@click.option("--message-id", multiple=True, type=int)
@json_option
@config_option
def command(follow: bool, after: str, as_json: bool, **wanted: tuple[object, ...]) -> None:
    """Print the status changes of the log, oldest first."""
    config = load()
    query = {name: values for name, values in wanted.items() if values}
    with failures(EngineStopped, EngineRefused):
        if not follow:
            with engine(config) as asked:
                for batch in _batches(asked, after, query, wait_s=0):
                    _print(batch, as_json)
            return
        try:
            _follow(config.control_socket, after, query, as_json)
        except KeyboardInterrupt:
            return


def _batches(
    asked: Asked, after: str, query: Mapping[str, object], *, wait_s: int
) -> Iterator[dict[str, Any]]:
    """Give batches from `after` on; without waiting it ends at the head of the log."""
    while True:
        batch = asked.get("/v1/events", after=after, limit=1000, wait_s=wait_s, **query)
        yield batch
        if not wait_s and batch["cursor"] == after:
            return
        after = batch["cursor"]


def _follow(socket: Path, after: str, query: Mapping[str, object], as_json: bool) -> None:
    """Print for ever; across a restart of the engine it goes on from its cursor."""
    met = told = False
    while True:
        try:
            with running_engine(socket) as asked:
                for batch in _batches(asked, after, query, wait_s=WAIT_S):
                    met, told, after = True, False, batch["cursor"]
                    _print(batch, as_json)
        except EngineStopped as stopped:
            if not met:
                raise
            if not told:
                click.echo(f"{stopped}; waiting for it to come back", err=True)
                told = True
            Event().wait(RETRY_S)


def _print(batch: Mapping[str, Any], as_json: bool) -> None:
    if gap := batch.get("gap"):
        click.echo(
            f"the log no longer has what lies between {gap['from']} and {gap['to']}", err=True
        )
    for event in batch["events"]:
        if as_json:
            print_json(event)
            continue
        said = event["reply"] or event["reason"]
        line = f"{event['at']}  {in_words(event['status']):12}  {printable(event['address'])}"
        click.echo(f"{line}  {printable(said)}" if said else line)
