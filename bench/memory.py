"""How much memory does a long queue take, and how soon after a kill does mail flow again?

The queue is drained for a while, the engine is killed without warning, started
again, and timed to its next delivery. Memory is what is private to the process
(anonymous in smaps_rollup): the pages of the spool's file are the page cache's.
"""

import time
from pathlib import Path

from bench import rig
from bench.report import Report

SIZES = {
    "queued": (1_000_000,),
    "destinations": (100_000,),
    "kilobytes": (2,),
    "seconds": (10,),
}

# More addresses than this would only slow the sink's start; each destination still has its own MX.
HOSTS_MAX = 1000
RECIPIENTS_PER_CONTENT = 100
SAMPLE_S = 0.1
# What a killed process left in the sockets has been read by then.
ECHO_S = 0.2


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _measure(directory, report, **case)


def _measure(
    directory: Path, report: Report, queued: int, destinations: int, kilobytes: int, seconds: int
) -> None:
    case = f"{queued} queued, {destinations} destinations, {kilobytes} kB"
    place = directory / f"memory-{queued}-{destinations}-{kilobytes}-{seconds}"
    with rig.world(place, report, hosts=min(destinations, HOSTS_MAX)) as world:
        sink, engine = world.sink, world.engine
        rig.prefill(
            engine,
            messages=queued,
            destinations=destinations,
            octets=kilobytes * 1000,
            recipients=RECIPIENTS_PER_CONTENT,
        )
        engine.start()
        baseline = rig.wait_for_first(engine, sink)
        peak_bytes = 0
        end_at = time.monotonic() + seconds
        # At most half, so that there is something left to deliver after the kill.
        while time.monotonic() < end_at and sink.report()["recipients"] < queued // 2:
            engine.check_alive()
            peak_bytes = max(peak_bytes, engine.private_bytes())
            time.sleep(SAMPLE_S)
        drained = rig.wait_for_last(engine, sink, baseline, 0)
        engine.kill()
        time.sleep(ECHO_S)
        before = sink.report()["recipients"]
        started = time.monotonic()
        engine.start()
        rig.wait_for(engine, sink, lambda seen: seen["recipients"] > before, rig.SOON_S)
        first_delivery_s = time.monotonic() - started
        first_delivery_cpu_s = engine.cpu_s()
    report.add(case, "private memory, highest", peak_bytes / 1e6, "MB")
    report.add(case, "from start after kill -9 to the first delivery", first_delivery_s, "s")
    report.add(case, "CPU of the engine until then", first_delivery_cpu_s, "s")
    drained.add_to(report, case)
