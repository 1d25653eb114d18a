"""`eilpost shaping`: the rules, what was learned on top of them, and a way to overrule it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.control import EngineRefused, EngineStopped, running_engine
from engine.cli.options import a_domain, config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.shaping.book import PlacedRule

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
    """Show, check and overrule how fast mail goes to whom."""


@command.command
@click.argument("domain", callback=a_domain)
@click.option(
    "--site",
    help="Its MX hosts, with commas; default: as the running engine knows them, or the DNS.",
)
@click.option("--account", help="Also what holds for the mail of this account.")
@click.option("--campaign", help="Also what holds for this campaign; needs --account.")
@json_option
@config_option
def show(
    domain: str, site: str | None, account: str | None, campaign: str | None, as_json: bool
) -> None:
    """Print each value that holds for mail to DOMAIN, and the file and line that it came from.

    Without --account the rules about single accounts and campaigns are all listed. Rules about
    sites are matched with the MX hosts of DOMAIN, which are looked up if nobody knows them yet.
    """
    if campaign is not None and account is None:
        raise click.UsageError("--campaign needs --account: it is one account's.")
    config = load()
    from engine.cli.shaping_site import find_site
    from engine.config import ConfigError
    from engine.shaping.book import Way
    from engine.shaping.loading import load_book

    with failures(ConfigError, EngineRefused):
        book = load_book(config)
        found_site = find_site(config, domain, site)
    way = Way(domain, found_site.hosts, config.delivery.ehlo_name.lower())
    effective = book.effective(way)
    rows = []
    for name in SHOWN:
        found = getattr(effective, name)
        value: Any = str(found.value) if name.endswith("rate") and found.value else found.value
        rows.append({"setting": name, "value": value, "from": _source(found.place)})
    rows += _flow_rows(book.flow_rules(way), account, campaign)
    for placed in effective.reactions:
        then = f"{placed.reaction.reply} -> {placed.reaction.then}"
        rows.append({"setting": "reaction", "value": then, "from": str(placed.place)})
    if as_json:
        for row in rows:
            print_json({**row, "hosts": way.hosts, "based_on": found_site.based_on})
        return
    if found_site.hosts:
        told = f"{domain} at {', '.join(found_site.hosts)} ({found_site.based_on})"
    else:
        told = (
            f"{domain} at a site that is not known ({found_site.based_on}): rules about sites are "
            "left out; --site HOST shows them"
        )
    click.echo(printable(told))
    print_columns(
        ("setting", "value", "from"),
        (
            (SHOWN.get(row["setting"], row["setting"]), _shown(row["value"]), row["from"])
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
        click.echo(
            f"{len(book.rules)} rules and {len(book.reactions)} reactions: nothing is wrong."
        )


@command.command("reload")
@json_option
@config_option
def reload_rules(as_json: bool) -> None:
    """Let the running engine take over the rules as they stand in the files now.

    If anything in them is broken, it keeps the old ones. SIGHUP does the same.
    """
    with failures(EngineRefused, EngineStopped), running_engine(load().control_socket) as control:
        answer = control.post("/v1/shaping/reload", {})
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['rules']} rules and {answer['reactions']} reactions hold now.")


@command.command
@click.option("--site", help="Only the steps of this site, or of a domain's.")
@click.option("--limit", default=100, show_default=True, help="How many at most.")
@json_option
@config_option
def audit(site: str | None, limit: int, as_json: bool) -> None:
    """List what was learned from replies, step by step, the last one first."""
    with failures(EngineRefused, EngineStopped), running_engine(load().control_socket) as control:
        steps = control.get("/v1/shaping/audit", site=site, limit=limit)["audit"]
    if as_json:
        for step in steps:
            print_json(step)
    elif steps:
        columns = ("step", "at", "site", "who", "cause", "before", "after", "undone", "reply")
        told = [{**step, "undone": "yes" if step["undone"] else ""} for step in steps]
        print_columns(columns, ([step[column] for column in columns] for step in told))
    else:
        click.echo("Nothing was learned yet.")


@command.command
@click.argument("site")
@config_option
def undo(site: str) -> None:
    """Take back the engine's last step at SITE, a site or a domain at one."""
    _overrule("undo", {"site": site})


@command.command
@click.argument("site")
@click.option("--rate", help='Hold it at this rate, like "10/min"; default: as it is now.')
@click.option("--connections", type=int, help="Hold it at so many connections.")
@config_option
def pin(site: str, rate: str | None, connections: int | None) -> None:
    """Hold SITE, a site or a domain at one, as it is now or at other limits, until it is unpinned.

    Replies change nothing meanwhile. A rule's own limits hold beside it.
    """
    _overrule("pin", {"site": site, "rate": rate, "connections": connections})


@command.command
@click.argument("site")
@config_option
def unpin(site: str) -> None:
    """End the pin of SITE, a site or a domain at one, and let the engine learn about it again.

    What was learned before the pin holds again, and rises from there. If nothing was, only the
    rules hold.
    """
    step = _overrule("unpin", {"site": site})
    limits = step["limits_after"]
    if any(limits[name] is not None for name in ("rate_per_s", "connections", "suspended_until")):
        click.echo("What was learned before the pin holds again, and rises from there.")
    else:
        click.echo("Nothing was learned before the pin: only the rules hold now.")


def _overrule(word: str, body: dict[str, object]) -> dict[str, Any]:
    with failures(EngineRefused, EngineStopped), running_engine(load().control_socket) as control:
        step: dict[str, Any] = control.post(f"/v1/shaping/{word}", body)
    told = f"{step['site']}: {step['cause']}; was {step['before']}; now {step['after']}"
    click.echo(printable(told))
    return step


def _flow_rows(
    rules: "Sequence[PlacedRule]", account: str | None, campaign: str | None
) -> list[dict[str, Any]]:
    """Return what limits single accounts and campaigns on a way; without one, all rules that do."""
    from engine.shaping.book import flow_rates

    rows: list[dict[str, Any]] = []
    if account is not None:
        for found in flow_rates(rules, account, campaign):
            setting = f"rate of the {found.scope}"
            if found.place is not None:
                setting += f" at the {found.place}"
            rows.append({"setting": setting, "value": str(found.rate), "from": str(found.source)})
        return rows
    for placed in rules:
        rule = placed.rule
        if rule.rate is None:
            continue
        named = [f"{name} {getattr(rule, name)}" for name in ("account", "campaign")]
        setting = "rate of " + ", ".join(each for each in named if not each.endswith(" None"))
        rows.append({"setting": setting, "value": str(rule.rate), "from": str(placed.place)})
    return rows


def _source(place: object) -> str | None:
    return None if place is None else str(place)


def _shown(value: object) -> object:
    return "no limit" if value is None else value
