"""How fast are the recipients of one template accepted, and what does filling it in cost?

A list is handed in by `eilpost send`, as a user would. While that is timed the destinations refuse
connections, so the engine does little but take mail in. What filling in costs is told by two drains
of the same size: mails that were laid in whole, and mails of a template.
"""

import json
import threading
import time
from pathlib import Path

from bench import rig
from bench.children import NameServer
from bench.name_server import ZONE
from bench.prefill import content_of
from bench.report import Report
from engine.rehearsal.engine_process import EngineFailed, EngineProcess, free_port

SIZES = {
    "recipients": (100_000,),
    "destinations": (100,),
    "kilobytes": (10,),
    "drained": (20_000,),
}

# Loopback addresses on which nobody listens.
NOBODY = "127.9.0.1"
CAMPAIGN = "bench"
SAMPLE_S = 0.05


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _take_in(directory, report, **case)
        plain = _drain(directory, report, "plain mails", **case)
        filled = _drain(directory, report, "mails of a template", **case)
        report.add("mails of a template", "against plain mails", filled / plain, "times the CPU")


def _take_in(
    directory: Path,
    report: Report,
    recipients: int,
    destinations: int,
    kilobytes: int,
    drained: int,
) -> None:
    case = f"{recipients} recipients, {kilobytes} kB"
    place = directory / "accepted"
    with NameServer({"good": (NOBODY, destinations)}) as name_server:
        engine, _ = rig.new_engine(place, rig.settings(name_server, free_port()))
        report.limits = rig.limits_of(engine)
        engine.start()
        try:
            engine.wait_until_ready()
            memory = _Memory(engine)
            cpu_before_s, began_s = engine.cpu_s(), time.monotonic()
            with memory:
                _send(engine, place, recipients, destinations, kilobytes)
            seconds, cpu_s = time.monotonic() - began_s, engine.cpu_s() - cpu_before_s
        finally:
            engine.kill()
    rig.remove(place)
    report.add(case, "the whole command", seconds, "s")
    report.add(case, "rate", recipients / seconds, "recipients/s")
    report.add(case, "CPU of the engine", cpu_s / recipients * 1e6, "us/recipient")
    report.add(case, "memory of the engine before", memory.before_bytes / 1e6, "MB")
    report.add(case, "memory of the engine, highest", memory.peak_bytes / 1e6, "MB")


def _drain(
    directory: Path,
    report: Report,
    case: str,
    recipients: int,
    destinations: int,
    kilobytes: int,
    drained: int,
) -> float:
    """Return the engine's CPU, in microseconds a message."""
    place = directory / case.replace(" ", "-")
    with rig.world(place, report, hosts=min(destinations, 1000)) as world:
        sink, engine = world.sink, world.engine
        if case == "plain mails":
            octets = kilobytes * 1000
            rig.prefill(engine, messages=drained, destinations=destinations, octets=octets)
        else:
            # A hold keeps it all in until the engine that is measured starts.
            engine.run("suspend", "--campaign", CAMPAIGN)
            engine.start()
            engine.wait_until_ready()
            _send(engine, place, drained, destinations, kilobytes)
            engine.stop()
            engine.run("resume", "--campaign", CAMPAIGN)
        engine.start()
        baseline = rig.wait_for_first(engine, sink)
        engine.wait_until_ready()
        done = rig.wait_for_last(engine, sink, baseline, drained, world.credentials)
        engine.stop()
        done.add_to(report, case)
        if not done.measured:
            raise EngineFailed(f"{case}: over before the first look; take more than {drained}")
        return done.cpu_s / done.measured * 1e6


def _send(
    engine: EngineProcess, place: Path, recipients: int, destinations: int, kilobytes: int
) -> None:
    """Hand in a list of so many and see that all of them were taken."""
    body = content_of(kilobytes * 1000).partition(b"\r\n\r\n")[2].decode()
    (place / "text.txt").write_text(f"Dear {{{{name}}}},\n{body}\nYour number is {{{{number}}}}.\n")
    with (place / "list.csv").open("w") as file:
        file.write("email,name,number\n")
        for number in range(recipients):
            domain = f"d{number % destinations}.good.{ZONE}"
            file.write(f"r{number}@{domain},Reader {number},{number}\n")
    told = engine.run(
        *("send", "--account", rig.ACCOUNT, "--campaign", CAMPAIGN, "--json"),
        *("--from", "Bench <bench@out.example>", "--subject", "A figure for {{name}}"),
        *("--text", str(place / "text.txt"), str(place / "list.csv")),
    )
    summary = json.loads(told)
    if summary["accepted"] != recipients:
        raise EngineFailed(f"not all were taken: {told[:1000]}")


class _Memory:
    """The private memory of an engine, looked at again and again while the block runs."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.before_bytes = self.peak_bytes = engine.private_bytes()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, self._engine.private_bytes())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
