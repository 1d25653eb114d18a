"""`eilpost account`: who may send."""

import click

from engine.cli.control import EngineRefused, EngineStopped, engine, pages
from engine.cli.options import config_option, failures, json_option, load
from engine.cli.printing import print_columns, print_json, printable


@click.group
@config_option
def command() -> None:
    """Create and list accounts."""


@command.command
@click.argument("name")
@click.option("--plan", help="A [[plan]] of the configuration, or free; without: no daily limit.")
@json_option
@config_option
def create(name: str, plan: str | None, as_json: bool) -> None:
    """Create the account NAME and print its keys; the secret key is shown this once."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        made = asked.post("/v1/accounts", {"account": name, "plan": plan})
    if as_json:
        print_json(made)
        return
    for word, key in (("account", "account"), ("API key", "api_key"), ("secret key", "secret_key")):
        click.echo(f"{word + ':':12}{printable(made[key])}")
    click.echo("The secret key is kept as a hash only: this is the one time it is shown.")


@command.command("list")
@json_option
@config_option
def list_accounts(as_json: bool) -> None:
    """List the accounts with their plans and API keys."""
    with failures(EngineStopped, EngineRefused), engine(load()) as asked:
        accounts = list(pages(asked, "/v1/accounts", "accounts"))
    if as_json:
        for account in accounts:
            print_json(account)
    elif accounts:
        columns = list(accounts[0])
        heads = [column.removesuffix("_at").replace("_", " ") for column in columns]
        print_columns(heads, ([account[column] for column in columns] for account in accounts))
    else:
        click.echo("There is no account yet: eilpost account create NAME")
