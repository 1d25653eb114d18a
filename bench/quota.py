"""What does a quota cost, and what does lifting it from 100,000 paused mails cost?

The same mails are laid into two spools, with no limit and with one that pauses nearly all of them;
the difference is what booking costs. Then the account with the paused ones gets a plan without a
limit while the engine runs, its receivers out of reach: every mail is released.
"""

import json
import time
from pathlib import Path

from bench import rig
from bench.children import NameServer
from bench.report import Report
from engine.rehearsal.engine_process import (
    EngineFailed,
    EngineProcess,
    HttpClient,
    free_port,
    status_counts,
)

SIZES = {"messages": (100_000,), "per_day": (2_000,), "destinations": (100,)}

OCTETS = 400
RECIPIENTS_PER_CONTENT = 50


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _measure(directory, report, **case)


def _measure(
    directory: Path, report: Report, messages: int, per_day: int, destinations: int
) -> None:
    case = f"{messages} messages, {per_day} a day"
    dead = f'[[route]]\ndomain = "*"\nnext_hop = "127.0.0.1:{free_port()}"\n'
    with NameServer({"good": ("127.0.0.1", 1)}) as name_server:
        for limit in (0, per_day):
            place = directory / f"quota-{messages}-{limit}"
            engine, credentials = rig.new_engine(place, rig.settings(name_server, 25, dead))
            report.limits = rig.limits_of(engine)
            seconds = rig.prefill(
                engine,
                messages=messages,
                destinations=destinations,
                octets=OCTETS,
                recipients=RECIPIENTS_PER_CONTENT,
                per_day=limit,
            )
            name = "accept with a quota" if limit else "accept without one"
            report.add(case, name, seconds / messages * 1e6, "us/message")
            if limit:
                engine.start()
                try:
                    engine.wait_until_ready()
                    client = HttpClient(engine.port, credentials)
                    _lift(engine, client, report, case)
                    client.close()
                finally:
                    engine.kill()
            rig.remove(place)


def _lift(engine: EngineProcess, client: HttpClient, report: Report, case: str) -> None:
    paused = status_counts(client)["total"]["paused"]
    cpu_s, began = engine.cpu_s(), time.monotonic()
    changed = json.loads(engine.run("account", "plan", rig.ACCOUNT, "none", "--json"))
    seconds = time.monotonic() - began
    left = status_counts(client)["total"]["paused"]
    if changed["rebooked"] != paused or left:
        raise EngineFailed(f"{paused} were paused, {changed['rebooked']} moved, {left} still are")
    report.add(case, "paused", paused, "messages")
    report.add(case, "account plan, until it answers", seconds, "s")
    report.add(case, "CPU of the engine", (engine.cpu_s() - cpu_s) / paused * 1e6, "us/message")
