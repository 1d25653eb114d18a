"""How many messages a second are taken over HTTP and made durable?

Batches of 50 on several kept connections. The destinations refuse connections, so
after one look at each the engine does nothing but take mail in.
"""

from pathlib import Path

from bench import rig
from bench.children import Loader, NameServer
from bench.report import Report
from engine.rehearsal.engine_process import free_port

SIZES = {"kilobytes": (2, 10), "messages": (20_000,), "connections": (4,), "batch": (50,)}

DESTINATIONS = 100
# Loopback addresses on which nobody listens.
NOBODY = "127.9.0.1"


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _take_in(directory, report, **case)


def _take_in(
    directory: Path, report: Report, kilobytes: int, messages: int, connections: int, batch: int
) -> None:
    case = f"{kilobytes} kB, batches of {batch} on {connections} connections, {messages} messages"
    place = directory / f"intake-{kilobytes}-{messages}-{connections}-{batch}"
    with NameServer({"nobody": (NOBODY, DESTINATIONS)}) as name_server:
        engine, credentials = rig.new_engine(place, rig.settings(name_server, free_port()))
        report.limits = rig.limits_of(engine)
        engine.start()
        try:
            engine.wait_until_ready()
            with Loader(
                engine.port,
                credentials.authorization,
                messages=messages,
                destinations=DESTINATIONS,
                octets=kilobytes * 1000,
                group="nobody",
                connections=connections,
                batch=batch,
            ) as loader:
                cpu_before_s = engine.cpu_s()
                done = loader.go()
                cpu_s = engine.cpu_s() - cpu_before_s
        finally:
            engine.stop()
    rig.check_loader(done, messages)
    report.add(case, "rate", messages / done["seconds"], "messages/s")
    report.add(case, "CPU of the engine", cpu_s / messages * 1e6, "us/message")
