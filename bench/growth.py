"""Does a message cost more when more of them are waiting?

The same number of messages is drained from queues of growing length, at the same
destinations, and the CPU of each is compared. Contents are shared by a hundred
envelopes at as many destinations, so that a million fit; they travel alone.
"""

from pathlib import Path

from bench import rig
from bench.report import Report

SIZES = {"queued": (10_000, 100_000, 1_000_000), "messages": (8000,), "kilobytes": (2,)}

DESTINATIONS = 100
RECIPIENTS_PER_CONTENT = 100


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for kilobytes in sizes["kilobytes"]:
        for messages in sizes["messages"]:
            costs_us = [
                _drain_some(directory, report, queued, min(messages, queued), kilobytes)
                for queued in sizes["queued"]
            ]
            if len(costs_us) > 1 and costs_us[0]:
                case = f"{sizes['queued'][0]} to {sizes['queued'][-1]} queued, {kilobytes} kB"
                report.add(case, "cost grows by", costs_us[-1] / costs_us[0], "times")


def _drain_some(
    directory: Path, report: Report, queued: int, messages: int, kilobytes: int
) -> float:
    """Return the engine's CPU microseconds for a message; 0 if that cannot be told."""
    case = f"{queued} queued, {messages} drained, {kilobytes} kB"
    place = directory / f"growth-{queued}-{messages}-{kilobytes}"
    with rig.world(place, report, hosts=DESTINATIONS) as world:
        rig.prefill(
            world.engine,
            messages=queued,
            destinations=DESTINATIONS,
            octets=kilobytes * 1000,
            recipients=RECIPIENTS_PER_CONTENT,
        )
        world.engine.start()
        baseline = rig.wait_for_first(world.engine, world.sink)
        drained = rig.wait_for_last(world.engine, world.sink, baseline, messages)
    drained.add_to(report, case)
    return drained.cpu_s / drained.measured * 1e6 if drained.measured else 0.0
