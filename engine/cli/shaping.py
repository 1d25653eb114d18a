"""`eilpost shaping`: which rules hold for a domain and where they stand, and whether they can."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.control import EngineRefused, EngineStopped, running_engine
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json

if TYPE_CHECKING:
    from engine.config import Config

# What `show` prints, and what it calls it.
SHOWN = {
    "rate": "rate",
    "site_rate": "rate of the site",
    "egress_rate": "rate from us",
    "connections_max": "connections_max",
    "site_connections_max": "connections_max of the site",
    "messages_per_connection_max": "messages_per_connection_max",
    "tls": "tls",
}


@click.group
@config_option
def command() -> None:
    """Show and check the rules for how fast mail goes to whom."""


@command.command
@click.argument("domain")
@click.option(
    "--site", help="Its MX hosts, with commas; default: as the running engine knows them."
)
@json_option
@config_option
def show(domain: str, site: str | None, as_json: bool) -> None:
    """Print each value that holds for mail to DOMAIN, and the file and line that it came from."""
    config = load()
    from engine.config import ConfigError
    from engine.shaping.book import Way
    from engine.shaping.loading import load_book

    hosts = _hosts(config, domain, site)
    with failures(ConfigError):
        book = load_book(config)
    effective = book.effective(Way(domain.lower(), hosts, config.delivery.ehlo_name.lower()))
    rows = []
    for name in SHOWN:
        found = getattr(effective, name)
        value: Any = str(found.value) if name.endswith("rate") and found.value else found.value
        rows.append({"setting": name, "value": value, "from": _source(found.place)})
    for placed in effective.reactions:
        then = f"{placed.reaction.reply} -> {placed.reaction.then}"
        rows.append({"setting": "reaction", "value": then, "from": str(placed.place)})
    if as_json:
        for row in rows:
            print_json(row)
        return
    click.echo(f"{domain} at {', '.join(hosts) or 'a site that is not known'}")
    print_columns(
        ("setting", "value", "from"),
        (
            (SHOWN.get(row["setting"], "reaction"), _shown(row["value"]), row["from"])
            for row in rows
        ),
    )


@command.command
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@json_option
@config_option
def lint(files: tuple[Path, ...], as_json: bool) -> None:
    """Check FILES, or all rules of the configuration with those that are shipped.

    Each reaction has to prove with its sample that it fires. Ends with 1 if anything is wrong.
    """
    from engine.config import ConfigError
    from engine.shaping.book import RuleBook
    from engine.shaping.lint import findings
    from engine.shaping.loading import load_book, read_placed

    with failures(ConfigError):
        if files:
            read = [read_placed(file) for file in files]
            book = RuleBook(
                [rule for rules, _ in read for rule in rules],
                [reaction for _, reactions in read for reaction in reactions],
            )
        else:
            book = load_book(load())
    found = findings(book)
    for finding in found:
        if as_json:
            place = finding.place
            print_json({"file": str(place.file), "line": place.line, "text": finding.text})
        else:
            click.echo(str(finding))
    if found:
        raise click.ClickException(f"{len(found)} faults")
    if not as_json:
        click.echo(f"{len(book.rules)} rules and {len(book.reactions)} reactions: nothing is wrong")


def _hosts(config: "Config", domain: str, site: str | None) -> tuple[str, ...]:
    """Return the site's hosts: as given, as a route says, or as the running engine knows them."""
    if site is not None:
        return tuple(host.strip().lower() for host in site.split(",") if host.strip())
    hop = config.next_hop(domain.lower())
    if hop is not None:
        return (hop.host,)
    try:
        with failures(EngineRefused), running_engine(config.control_socket) as control:
            answer = control.get("/v1/destinations", destination=domain.lower())
    except EngineStopped:
        return ()
    known = [row["site"] for row in answer["destinations"] if row["destination"] == domain.lower()]
    return tuple(known[0].split(",")) if known and known[0] else ()


def _source(place: object) -> str | None:
    return None if place is None else str(place)


def _shown(value: object) -> object:
    return "no limit" if value is None else value
