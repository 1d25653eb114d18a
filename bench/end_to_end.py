"""How many messages a second go from the sender's request to the receiver's 250?

Handed in over HTTP in batches of 50 as fast as they are taken, delivered to one
sink meanwhile; the clock runs from the first request to the last 250. With
`--against postfix` the same mails go through a tuned Postfix in the same run.
"""

from pathlib import Path

from bench import rig
from bench.children import Loader, NameServer, Sink
from bench.report import Report

SIZES = {"destinations": (100,), "kilobytes": (10,), "messages": (20_000,), "connections": (4,)}


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for destinations in sizes["destinations"]:
        for kilobytes in sizes["kilobytes"]:
            for messages in sizes["messages"]:
                for connections in sizes["connections"]:
                    place = directory / f"{destinations}-{kilobytes}-{messages}-{connections}"
                    _carry(place, report, destinations, kilobytes, messages, connections)


def _carry(
    place: Path,
    report: Report,
    destinations: int,
    kilobytes: int,
    messages: int,
    connections: int,
) -> None:
    case = f"{destinations} destinations, {kilobytes} kB, {messages} messages"
    with (
        Sink(hosts=destinations) as sink,
        NameServer({"good": (sink.address, sink.hosts)}) as name_server,
    ):
        engine, credentials = rig.new_engine(place, rig.settings(name_server, sink.port))
        report.limits = rig.limits_of(engine)
        engine.start()
        try:
            engine.wait_until_ready()
            with Loader(
                engine.port,
                credentials.authorization,
                messages=messages,
                destinations=destinations,
                octets=kilobytes * 1000,
                connections=connections,
            ) as loader:
                cpu_before_s = engine.cpu_s()
                done = loader.go()
                rig.check_loader(done, messages)
                last = rig.wait_for(
                    engine, sink, lambda seen: seen["recipients"] >= messages, rig.PROGRESS_POLL_S
                )
                rig.wait_until_settled(engine, credentials)
                cpu_s = engine.cpu_s() - cpu_before_s
        finally:
            engine.stop()
    seconds = (last["last_ns"] - done["started_ns"]) / 1e9
    report.add(case, "rate", messages / seconds, "messages/s")
    report.add(case, "taken at", messages / done["seconds"], "messages/s")
    report.add(case, "CPU of the engine", cpu_s / messages * 1e6, "us/message")
