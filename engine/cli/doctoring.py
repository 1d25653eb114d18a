"""The doctor's round: which checks there are, in which order, and what the engine says of itself.

The configuration comes first, because nothing else can be looked at without it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
import trio

from engine.cli import doctor_machine as machine
from engine.cli.control import EngineRefused, EngineStopped, engine, running_engine
from engine.cli.doctor_dns import look_at_dns
from engine.cli.findings import Finding, fault, ok, warning
from engine.cli.options import load
from engine.clock import SystemClock
from engine.compose import spool_settings
from engine.config import Config
from protocols.timestamps import parse_time

FAULTS_SHOWN: Final = 5
# The walk over the spool takes about 20 us a mail on a small machine with nothing else to do, and
# several times as long where it has.
WALK_US: Final = 20.0
WALK_S_MAX: Final = 600.0
# Below that nobody waits long enough to be told.
MAILS_WALKED_SOON: Final = 50_000


def examine(domains: Iterable[str], probe: str | None, *, full: bool = False) -> list[Finding]:
    """Look at everything and return what was found, in the order of the look.

    With `full` at each mail in the spool, too.
    """
    try:
        config = load()
    except click.ClickException as error:
        advice = "Correct the file; nothing else was looked at."
        return [fault("configuration", error.message, advice)]
    is_running = _is_running(config)
    # Once the engine has ended, the number in its lock file may be anybody's.
    lock = config.data_dir / "spool" / "lock" if is_running else None
    return [
        machine.check_configuration(config),
        machine.check_routes(config),
        machine.check_data_dir(config.data_dir),
        machine.check_disk(config.data_dir, spool_settings(config).disk_free_bytes_min),
        machine.check_port(config, is_running=is_running),
        machine.check_clock(machine.clock_state()),
        machine.check_descriptors(machine.descriptors_max(lock)),
        *_check_spool(config, is_running=is_running, full=full),
        *trio.run(look_at_dns, config, domains, probe),
    ]


def _is_running(config: Config) -> bool:
    try:
        with running_engine(config.control_socket) as control:
            return control.answers()
    except EngineRefused:
        return True  # Somebody listens, whom we may not ask: the spool's check says so.


def _check_spool(config: Config, *, is_running: bool, full: bool) -> list[Finding]:
    name = "spool"
    if not is_running and not (config.data_dir / "spool").exists():
        # Opening would make one, and a doctor leaves nothing behind.
        return [ok(name, "none yet: no mail was ever taken here")]
    try:
        with engine(config, WALK_S_MAX) as asked:
            condition = asked.get("/v1/doctor/spool")
            if full:
                with _said(condition["mails"]):
                    condition = asked.get("/v1/doctor/spool?look=all")
    except (EngineStopped, EngineRefused) as error:
        advice = f"Start the engine and see what it says; for help ask {config.contact}."
        return [fault(name, str(error), advice)]
    ahead_ms = parse_time(condition["now"]) - SystemClock().now_unix_ms()
    findings = [_check_invariants(config, condition), _check_quarantine(config, condition)]
    return [*findings, machine.check_stamp(ahead_ms)]


def _check_invariants(config: Config, condition: Mapping[str, Any]) -> Finding:
    name = "spool"
    if condition["faults"]:
        found = "; ".join(condition["faults"][:FAULTS_SHOWN])
        advice = (
            "Stop the engine, keep a copy of the directory `spool`, change nothing in it, "
            f"and ask {config.contact}."
        )
        return fault(name, f"{condition['fault_count']:,} faults: {found}", advice)
    if not condition["intake_open"]:
        advice = "Make room on the disk: mail is delivered and none is taken."
        return fault(name, "closed for new mail", advice)
    found = f"all tables agree; mails not finished: {condition['envelopes_open']:,}"
    if condition["looked_at"] < condition["mails"]:
        found += (
            f"; by sums, and {condition['looked_at']:,} of {condition['mails']:,} mails looked at "
            "one by one: --full looks at all"
        )
    return ok(name, found)


@contextmanager
def _said(mails: int) -> Iterator[None]:
    """Say on a terminal what takes so long, and for how long already."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal or mails < MAILS_WALKED_SOON:
        yield
        return
    expected_s = mails * WALK_US / 1e6
    text = f"looking at {mails:,} mails, which takes {expected_s:,.0f} s or more"
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(text, total=None)
        yield


def _check_quarantine(config: Config, condition: Mapping[str, Any]) -> Finding:
    name = "quarantine"
    if not condition["quarantined"]:
        return ok(name, "empty")
    return warning(
        name,
        f"{condition['quarantined']:,} damaged records were set aside",
        f"Check the disk and the memory; the log names the records. For help ask {config.contact}.",
    )
