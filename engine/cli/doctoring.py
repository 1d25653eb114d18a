"""The doctor's round: which checks there are, in which order, and what the engine says of itself.

The configuration comes first, because nothing else can be looked at without it.
"""

from collections.abc import Iterable, Mapping
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
# The walk over the spool takes about 40 us a mail on a small machine: past a million, a minute.
WALK_S_MAX: Final = 600.0


def examine(domains: Iterable[str], probe: str | None) -> list[Finding]:
    """Look at everything and return what was found, in the order of the look."""
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
        *_check_spool(config, is_running=is_running),
        *trio.run(look_at_dns, config, domains, probe),
    ]


def _is_running(config: Config) -> bool:
    try:
        with running_engine(config.control_socket) as control:
            return control.answers()
    except EngineRefused:
        return True  # Somebody listens, whom we may not ask: the spool's check says so.


def _check_spool(config: Config, *, is_running: bool) -> list[Finding]:
    name = "spool"
    if not is_running and not (config.data_dir / "spool").exists():
        # Opening would make one, and a doctor leaves nothing behind.
        return [ok(name, "none yet: no mail was ever taken here")]
    try:
        with engine(config, WALK_S_MAX) as asked:
            condition = asked.get("/v1/doctor/spool")
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
    return ok(name, f"all tables agree; mails not finished: {condition['envelopes_open']:,}")


def _check_quarantine(config: Config, condition: Mapping[str, Any]) -> Finding:
    name = "quarantine"
    if not condition["quarantined"]:
        return ok(name, "empty")
    return warning(
        name,
        f"{condition['quarantined']:,} damaged records were set aside",
        f"Check the disk and the memory; the log names the records. For help ask {config.contact}.",
    )
