"""`eilpost doctor`: does everything stand as sending mail needs it, and what to do if not."""

import sys

import click

from engine.cli.control import EngineRefused, EngineStopped
from engine.cli.findings import has_fault, print_findings
from engine.cli.options import config_option, domains_given, failures, json_option


@click.command
@click.option(
    "--domain",
    "domains",
    multiple=True,
    callback=domains_given,
    metavar="DOMAIN",
    help="Look for the SPF and DMARC records of this sender domain, too; may be repeated.",
)
@click.option(
    "--probe", metavar="HOST", help="Connect to this mail host, to see whether the way out is open."
)
@click.option(
    "--bundle",
    "message_id",
    type=click.IntRange(1),
    metavar="ID",
    help="Put all that explains this message into one file for whoever gives you support.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Look at every mail in the spool instead of sums and some thousands of them.",
)
@click.option("--output", metavar="FILE", help="The file that --bundle makes, a .tar.gz.")
@json_option
@config_option
def command(
    domains: list[str],
    probe: str | None,
    message_id: int | None,
    full: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """Check configuration, disk, port, clock, limits, DNS and spool; say what to do.

    Repairs nothing, and connects to nobody but the engine and the configured resolver, unless
    --probe names a host. Each check is ok, a warning or a fault; ends with 1 if there is a fault.
    With the engine stopped it opens the spool itself. Of the spool it compares sums, the agenda and
    some thousands of mails, and says how many; with --full all of it, some 20 seconds a million.
    """
    if (message_id is None) != (output is None):
        raise click.UsageError("--bundle ID and --output FILE go together.")
    # Imported late: it brings trio and the resolver along, and --help needs neither.
    from engine.cli.doctor_bundle import write_bundle
    from engine.cli.doctoring import examine

    findings = examine(domains, probe, full=full)
    if message_id is not None and output is not None:
        with failures(EngineStopped, EngineRefused, OSError):
            write_bundle(message_id, output, findings)
        click.echo(f"{output}: look through it before you pass it on, it has addresses in it.")
        return
    print_findings(findings, as_json=as_json)
    if has_fault(findings):
        sys.exit(1)
