"""One engine with what it needs around it: DNS, configuration, account, a queue to drain."""

import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.children import NameServer, Sink, Subscribers
from bench.report import Report
from engine.rehearsal.engine_process import (
    Credentials,
    EngineFailed,
    EngineProcess,
    HttpClient,
    free_port,
    status_counts,
)

ACCOUNT = "bench"
# Mail that only waits: it is there to be many, not to be large.
WAITING_OCTETS = 400
WAITING_RECIPIENTS = 100
# How often the sink is asked while its first message is waited for: the cost of
# starting the engine must not be counted for the messages.
SOON_S = 0.02
PROGRESS_POLL_S = 0.1
# Nothing moves for so long: the run has failed, and waiting on would hide it.
STANDSTILL_S = 60.0


def cases(sizes: Mapping[str, Sequence[int]]) -> Iterator[dict[str, int]]:
    """Return every combination of the sizes, each by its names; the last name varies first."""
    for values in itertools.product(*sizes.values()):
        yield dict(zip(sizes, values, strict=True))


@dataclass(frozen=True, slots=True)
class World:
    """An engine that was not started yet, and the sink where all its destinations are."""

    sink: Sink
    engine: EngineProcess
    credentials: Credentials


@contextmanager
def world(place: Path, report: Report, *, hosts: int, stamps: bool = False) -> Iterator[World]:
    """Make an engine in `place` for mail to up to `hosts` addresses of one sink.

    An engine that still runs at the end is killed, and `place` is removed: a spool of a million
    takes a gigabyte.
    """
    with (
        Sink(hosts=hosts, stamps=stamps) as sink,
        NameServer({"good": (sink.address, sink.hosts)}) as name_server,
    ):
        engine, credentials = new_engine(place, settings(name_server, sink.port))
        report.limits = limits_of(engine)
        try:
            yield World(sink, engine, credentials)
        finally:
            engine.kill()
    remove(place)


@contextmanager
def waiting(
    place: Path, report: Report, *, queued: int, destinations: int
) -> Iterator[tuple[EngineProcess, Credentials]]:
    """Start an engine in which `queued` small mails wait for a receiver that is out of reach."""
    dead = f'[[route]]\ndomain = "*"\nnext_hop = "127.0.0.1:{free_port()}"\n'
    with NameServer({"good": ("127.0.0.1", 1)}) as name_server:
        engine, credentials = new_engine(place, settings(name_server, 25, dead))
        report.limits = limits_of(engine)
        prefill(
            engine,
            messages=queued,
            destinations=destinations,
            octets=WAITING_OCTETS,
            recipients=WAITING_RECIPIENTS,
        )
        engine.start()
        try:
            engine.wait_until_ready()
            yield engine, credentials
        finally:
            engine.kill()
    remove(place)


def settings(name_server: NameServer, port: int, more: str = "") -> str:
    """Return the engine's configuration: defaults but for the world it sends to."""
    return (
        f'[resolver]\nservers = ["127.0.0.1:{name_server.port}"]\n'
        f'[delivery]\nport = {port}\nehlo_name = "out.example"\n'
        f'private_targets = ["127.0.0.0/8"]\n{more}'
    )


def limits_of(engine: EngineProcess) -> str:
    """Return the settings in force on one line; what is not named has its default."""
    lines = engine.config_path.read_text(encoding="utf-8").split("\n")
    return "defaults, and " + " ".join(line for line in lines if line)


def bare_engine(directory: Path, toml: str) -> EngineProcess:
    """Make a directory with a configuration; start nothing."""
    directory.mkdir(parents=True)
    return EngineProcess(directory, toml)


def new_engine(directory: Path, toml: str) -> tuple[EngineProcess, Credentials]:
    """Make a directory with a configuration, a spool and an account; start nothing."""
    engine = bare_engine(directory, toml)
    return engine, engine.create_account(ACCOUNT)


def prefill(
    engine: EngineProcess,
    *,
    messages: int,
    destinations: int,
    octets: int,
    group: str = "good",
    recipients: int = 1,
    first: int = 0,
    days: int = 0,
    delivered: int = 0,
    per_day: int = 0,
    credentials: Credentials | None = None,
) -> float:
    """Lay a queue into the stopped engine's spool; return the seconds it took.

    With `credentials` the account is made as well, which going back some `days` needs.
    """
    sizes = {
        "messages": messages,
        "destinations": destinations,
        "octets": octets,
        "recipients": recipients,
        "first": first,
        "days": days,
        "delivered": delivered,
        "per-day": per_day,
    }
    arguments = [f"--{name}={value}" for name, value in sizes.items()]
    if credentials is not None:
        keys = (credentials.api_key, credentials.secret_key)
        arguments += [f"--api-key={keys[0]}", f"--secret-key={keys[1]}"]
    command = [sys.executable, "-m", "bench.prefill", f"--config={engine.config_path}"]
    started = time.monotonic()
    done = subprocess.run(
        [*command, f"--account={ACCOUNT}", f"--group={group}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or int(done.stdout) != messages:
        raise EngineFailed(f"the spool could not be filled: {done.stdout} {done.stderr[-1000:]}")
    return time.monotonic() - started


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was spent when the first message was seen; starting up is no message's cost."""

    recipients: int
    cpu_s: float
    sink_cpu_s: float


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain came to. The rate is over all, the costs over those since the baseline."""

    recipients: int
    seconds: float
    measured: int
    cpu_s: float
    sink_cpu_s: float

    def add_to(self, report: Report, case: str) -> None:
        report.add(case, "rate", self.recipients / max(self.seconds, 1e-9), "messages/s")
        if not self.measured:
            report.notes.append(f"{case}: over before the first look, so no cost can be told")
            return
        report.add(case, "CPU of the engine", self.cpu_s / self.measured * 1e6, "us/message")
        report.add(case, "CPU of the sink", self.sink_cpu_s / self.measured * 1e6, "us/message")


def wait_for(
    engine: EngineProcess, sink: Sink, enough: Callable[[dict[str, Any]], bool], poll_s: float
) -> dict[str, Any]:
    """Ask the sink until its report is `enough`. Raises EngineFailed at a standstill."""
    last_count = -1
    moved_at = time.monotonic()
    while not enough(report := sink.report()):
        engine.check_alive()
        if report["recipients"] != last_count:
            last_count, moved_at = report["recipients"], time.monotonic()
        if time.monotonic() - moved_at > STANDSTILL_S:
            raise EngineFailed(f"nothing has moved for {STANDSTILL_S:.0f} s at {last_count}")
        time.sleep(poll_s)
    return report


def wait_for_first(engine: EngineProcess, sink: Sink) -> Baseline:
    """Wait until `sink` has its first message from the engine, which has just been started."""
    seen = wait_for(engine, sink, lambda report: report["recipients"] > 0, SOON_S)
    return Baseline(seen["recipients"], engine.cpu_s(), seen["cpu_s"])


def wait_for_last(
    engine: EngineProcess,
    sink: Sink,
    baseline: Baseline,
    recipients: int,
    credentials: Credentials | None = None,
) -> Drained:
    """Wait until `sink` has so many recipients' mails in all.

    With credentials the queue is taken to end there, and the engine's cost includes
    settling the last one: its books are read until nothing is open.
    """
    last = wait_for(engine, sink, lambda seen: seen["recipients"] >= recipients, PROGRESS_POLL_S)
    if credentials is not None:
        wait_until_settled(engine, credentials)
    return Drained(
        last["recipients"],
        (last["last_ns"] - last["first_ns"]) / 1e9,
        last["recipients"] - baseline.recipients,
        engine.cpu_s() - baseline.cpu_s,
        last["cpu_s"] - baseline.sink_cpu_s,
    )


def wait_until_settled(engine: EngineProcess, credentials: Credentials) -> dict[str, int]:
    """Wait until no mail of the account is open; return the counts by status."""
    client = HttpClient(engine.port, credentials)
    deadline = time.monotonic() + STANDSTILL_S
    try:
        while True:
            counts = status_counts(client)["total"]
            if not counts["queued"] + counts["deferred"] + counts["paused"]:
                return counts
            if time.monotonic() > deadline:
                raise EngineFailed(f"still open after {STANDSTILL_S:.0f} s: {counts}")
            engine.check_alive()
            time.sleep(PROGRESS_POLL_S)
    finally:
        client.close()


def check_loader(done: dict[str, Any], messages: int) -> None:
    """Raise EngineFailed unless all that was handed in was taken."""
    if done["accepted"] != messages:
        raise EngineFailed(f"only {done['accepted']} of {messages} were taken: {done['faults']}")


def wait_for_events(subscribers: Subscribers, delivered: int) -> None:
    """Wait until the subscribers have so many `delivered` events in all."""
    deadline = time.monotonic() + STANDSTILL_S
    while subscribers.report()["by_status"].get("delivered", 0) < delivered:
        if time.monotonic() > deadline:
            raise EngineFailed(f"the subscribers lack events: {subscribers.report()}")
        time.sleep(PROGRESS_POLL_S)


def remove(place: Path) -> None:
    """Give the disk back before the next case."""
    shutil.rmtree(place)
