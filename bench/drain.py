"""How many messages a second does a full spool deliver, and what does each cost?

The queue is laid in beforehand; the engine starts, finds it and sends it to one
sink process. Events, retries and one subscriber of the stream are on, DKIM is
not there yet. A destination is a domain with an MX host and address of its own.
"""

from pathlib import Path

from bench import rig
from bench.children import Subscribers
from bench.report import Report

SIZES = {"destinations": (1, 100, 1000), "kilobytes": (2, 10, 100), "messages": (20_000,)}

# The queue of the largest mails is cut to this, or laying it in would take most of the time.
QUEUE_OCTETS_MAX = 500_000_000


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _drain(directory, report, **case)


def _drain(
    directory: Path, report: Report, destinations: int, kilobytes: int, messages: int
) -> None:
    octets = kilobytes * 1000
    messages = max(destinations, min(messages, QUEUE_OCTETS_MAX // octets))
    case = f"{destinations} destinations, {kilobytes} kB, {messages} messages"
    place = directory / f"drain-{destinations}-{octets}-{messages}"
    with rig.world(place, report, hosts=min(destinations, 1000)) as world:
        sink, engine, credentials = world.sink, world.engine, world.credentials
        rig.prefill(engine, messages=messages, destinations=destinations, octets=octets)
        engine.start()
        baseline = rig.wait_for_first(engine, sink)
        engine.wait_until_ready()
        with Subscribers(engine.port, credentials.authorization, 1, after="start") as subscriber:
            drained = rig.wait_for_last(engine, sink, baseline, messages, credentials)
            seen = subscriber.report()
        counts = rig.wait_until_settled(engine, credentials)
        engine.stop()
        drained.add_to(report, case)
        if counts["delivered"] != messages:
            report.notes.append(f"{case}: delivered {counts['delivered']}, {counts}")
        if seen["holes"]:
            report.notes.append(f"{case}: the subscriber saw {seen['holes']} holes")
