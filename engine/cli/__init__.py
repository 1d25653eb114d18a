"""The command line: one command a module, imported when it is called.

Nothing here decides anything about mail. A command reads the configuration, asks the engine (or,
when it is stopped, the spool), prints, and ends with 0 (done), 1 (refused or failed, with the
reason on stderr) or 2 (wrong usage).
"""

from importlib import import_module
from typing import Final

import click

from engine.cli.options import config_option

# Name to what `--help` says of it. Importing the modules for their first lines would bring trio,
# dnspython and TLS along: half a second for a list of words.
COMMANDS: Final = {
    "serve": "Run the engine.",
    "demo": "Show the engine at work with simulated receivers.",
    "account": "Create and list accounts.",
    "send": "Send a campaign to a list of recipients.",
    "campaign": "Look at campaigns; pause, resume, cancel or close them.",
    "check": "Check a list of addresses before sending to it.",
    "shaping": "Show, check and overrule how fast mail goes to whom.",
    "top": "Watch counts, rates and the fullest destinations, live.",
    "queue": "List destinations with waiting mail, and why it waits.",
    "statistics": "Count mails by where they stand, and say how long delivery took.",
    "explain": "Say what holds a mail back, and when it will move.",
    "forecast": "Say when a campaign will be through.",
    "holds": "List what is held back, by whom, since when and why.",
    "suspend": "Hold mail back: of an account, a campaign, a destination and more.",
    "resume": "Lift holds, so that what they held moves at once.",
    "retry": "Make waiting mail due now.",
    "cancel": "Cancel waiting mail.",
    "status": "Print what the status page says, or write on it.",
    "events": "Print status changes, also as they happen.",
    "link": "Print a link that signs an operator in on the dashboard.",
    "doctor": "Check that everything stands as sending needs it, and say what to do.",
}


class CommandModules(click.Group):
    """A group whose commands are modules of this package, each with a `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"engine.cli.{cmd_name}").command
        assert isinstance(command, click.Command), cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=CommandModules, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="eilpost")
@config_option
def main() -> None:
    """Eilpost sends mail and can say, for every single one, where it is and why."""
