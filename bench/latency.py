"""How long after a receiver's 250 does a subscriber have the event?

Mail is handed in at a steady rate and delivered at once; the sink notes when it
writes each 250, the subscribers when each event arrives. Both read the same
monotonic clock. Every subscriber sees every event.
"""

import json
from pathlib import Path

from bench import rig
from bench.children import Loader, NameServer, Sink, Subscribers
from bench.report import Report

SIZES = {"per_second": (2000,), "subscribers": (100,), "seconds": (10,), "kilobytes": (2,)}

DESTINATIONS = 100
# Small batches spread the load over each second; 50 at once would be measured as a burst.
BATCH = 10


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for per_second in sizes["per_second"]:
        for subscribers in sizes["subscribers"]:
            for seconds in sizes["seconds"]:
                for kilobytes in sizes["kilobytes"]:
                    messages = per_second * seconds
                    _measure(directory, report, per_second, subscribers, messages, kilobytes)


def _measure(
    directory: Path,
    report: Report,
    per_second: int,
    count: int,
    messages: int,
    kilobytes: int,
) -> None:
    case = f"{per_second}/s, {count} subscribers, {kilobytes} kB, {messages} messages"
    place = directory / f"latency-{per_second}-{count}-{messages}-{kilobytes}"
    with (
        Sink(hosts=DESTINATIONS, stamps=True) as sink,
        NameServer({"good": (sink.address, sink.hosts)}) as name_server,
    ):
        engine, credentials = rig.new_engine(place, rig.settings(name_server, sink.port))
        report.limits = rig.limits_of(engine)
        engine.start()
        try:
            engine.wait_until_ready()
            with (
                Subscribers(engine.port, credentials.authorization, count) as subscribers,
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
                rig.wait_for_events(subscribers, messages * count)
                stamps = place / "stamps.json"
                stamps.write_text(json.dumps(sink.ask("stamps")["stamps"]), encoding="utf-8")
                found = subscribers.ask(f"latency {stamps}")
                holes = subscribers.report()["holes"]
        finally:
            engine.stop()
    report.add(case, "p50", found["p50"], "ms")
    report.add(case, "p99", found["p99"], "ms")
    report.add(case, "handed in", messages / done["seconds"], "messages/s")
    report.add(case, "CPU of the engine", cpu_s / messages * 1e6, "us/message")
    if holes or found["samples"] != messages * count:
        report.notes.append(f"{case}: {holes} holes, {found['samples']} samples")
