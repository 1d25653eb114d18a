"""How many messages a second does a full spool deliver, and what does each cost?

The queue is laid in beforehand; the engine starts, finds it and sends it to one
sink process. Events, retries and one subscriber of the stream are on, DKIM is
not there yet. A destination is a domain with an MX host and address of its own.
"""

from pathlib import Path

from bench import rig
from bench.children import NameServer, Sink, Subscribers
from bench.report import Report

SIZES = {"destinations": (1, 100, 1000), "kilobytes": (2, 10, 100), "messages": (20_000,)}

# The queue of the largest mails is cut to this, or laying it in would take most of the time.
QUEUE_OCTETS_MAX = 500_000_000


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for destinations in sizes["destinations"]:
        for kilobytes in sizes["kilobytes"]:
            for messages in sizes["messages"]:
                octets = kilobytes * 1000
                count = max(destinations, min(messages, QUEUE_OCTETS_MAX // octets))
                _drain(directory, report, destinations, octets, count)


def _drain(directory: Path, report: Report, destinations: int, octets: int, messages: int) -> None:
    case = f"{destinations} destinations, {octets // 1000} kB, {messages} messages"
    with (
        Sink(hosts=min(destinations, 1000)) as sink,
        NameServer({"good": (sink.address, sink.hosts)}) as name_server,
    ):
        place = directory / f"drain-{destinations}-{octets}-{messages}"
        engine, credentials = rig.new_engine(place, rig.settings(name_server, sink.port))
        report.limits = rig.limits_of(engine)
        rig.prefill(engine, messages=messages, destinations=destinations, octets=octets)
        engine.start()
        try:
            baseline = rig.wait_for_first(engine, sink)
            engine.wait_until_ready()
            with Subscribers(
                engine.port, credentials.authorization, 1, after="start"
            ) as subscriber:
                drained = rig.wait_for_last(engine, sink, baseline, messages, credentials)
                seen = subscriber.report()
            counts = rig.wait_until_settled(engine, credentials)
        finally:
            engine.stop()
        drained.add_to(report, case)
        if counts["delivered"] != messages:
            report.notes.append(f"{case}: delivered {counts['delivered']}, {counts}")
        if seen["holes"]:
            report.notes.append(f"{case}: the subscriber saw {seen['holes']} holes")
