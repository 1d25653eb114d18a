"""How long after a receiver's 250 does a subscriber have the event?

Mail is handed in at a steady rate and delivered at once; the sink notes when it
writes each 250, the subscribers when each event arrives. Both read the same
monotonic clock. Every subscriber sees every event.
"""

import json
from pathlib import Path

from bench import rig
from bench.children import Loader, Subscribers
from bench.report import Report

SIZES = {"per_second": (2000,), "subscribers": (100,), "seconds": (10,), "kilobytes": (2,)}

DESTINATIONS = 100
# Small batches spread the load over each second; 50 at once would be measured as a burst.
BATCH = 10


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _measure(directory, report, **case)


def _measure(
    directory: Path,
    report: Report,
    per_second: int,
    subscribers: int,
    seconds: int,
    kilobytes: int,
) -> None:
    count, messages = subscribers, per_second * seconds
    case = f"{per_second}/s, {count} subscribers, {kilobytes} kB, {messages} messages"
    place = directory / f"latency-{per_second}-{count}-{messages}-{kilobytes}"
    with rig.world(place, report, hosts=DESTINATIONS, stamps=True) as world:
        sink, engine, credentials = world.sink, world.engine, world.credentials
        engine.start()
        engine.wait_until_ready()
        with (
            Subscribers(engine.port, credentials.authorization, count) as looking,
            Loader(
                engine.port,
                credentials.authorization,
                messages=messages,
                destinations=DESTINATIONS,
                octets=kilobytes * 1000,
                batch=BATCH,
                per_second=per_second,
            ) as loader,
        ):
            cpu_before_s = engine.cpu_s()
            done = loader.go()
            rig.check_loader(done, messages)
            rig.wait_until_settled(engine, credentials)
            cpu_s = engine.cpu_s() - cpu_before_s
            rig.wait_for_events(looking, messages * count)
            stamps = place / "stamps.json"
            stamps.write_text(json.dumps(sink.ask("stamps")["stamps"]), encoding="utf-8")
            found = looking.ask(f"latency {stamps}")
            holes = looking.report()["holes"]
        engine.stop()
    report.add(case, "p50", found["p50"], "ms")
    report.add(case, "p99", found["p99"], "ms")
    report.add(case, "handed in", messages / done["seconds"], "messages/s")
    report.add(case, "CPU of the engine", cpu_s / messages * 1e6, "us/message")
    if holes or found["samples"] != messages * count:
        report.notes.append(f"{case}: {holes} holes, {found['samples']} samples")
