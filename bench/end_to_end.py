"""How many messages a second go from the sender's request to the receiver's 250?

Handed in over HTTP in batches of 50 as fast as they are taken, delivered to one
sink meanwhile; the clock runs from the first request to the last 250. With
`--against postfix` the same mails go through a tuned Postfix in the same run.
"""

import time
from pathlib import Path

from bench import postfix, rig
from bench.children import Loader, Sink
from bench.report import Report

SIZES = {"destinations": (100,), "kilobytes": (10,), "messages": (20_000,), "connections": (4,)}

PEER_MESSAGES_MAX = 5000


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _carry(directory, report, **case)


def _carry(
    directory: Path,
    report: Report,
    destinations: int,
    kilobytes: int,
    messages: int,
    connections: int,
) -> None:
    case = f"{destinations} destinations, {kilobytes} kB, {messages} messages"
    place = directory / f"{destinations}-{kilobytes}-{messages}-{connections}"
    with rig.world(place, report, hosts=destinations) as world:
        sink, engine, credentials = world.sink, world.engine, world.credentials
        engine.start()
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
        engine.stop()
    seconds = (last["last_ns"] - done["started_ns"]) / 1e9
    report.add(case, "rate", messages / seconds, "messages/s")
    report.add(case, "taken at", messages / done["seconds"], "messages/s")
    report.add(case, "CPU of the engine", cpu_s / messages * 1e6, "us/message")


def answer_against(peer: str, sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    """Carry mails of the same sizes with the peer, and compare with what was just measured."""
    ours = {figure.case: figure.value for figure in report.figures if figure.name == "rate"}
    for destinations in sizes["destinations"]:
        for kilobytes in sizes["kilobytes"]:
            # Fewer suffice: it is slower, and its rate is steady from the first thousand on.
            messages = min(min(sizes["messages"]), PEER_MESSAGES_MAX)
            case = f"{peer}, {destinations} destinations, {kilobytes} kB, {messages} messages"
            place = directory / f"{peer}-{destinations}-{kilobytes}"
            rate = _carry_with_postfix(place, report, case, destinations, kilobytes, messages)
            like = f"{destinations} destinations, {kilobytes} kB, "
            for our_case, our_rate in ours.items():
                if our_case.startswith(like):
                    report.add(our_case, f"against {peer}", our_rate / rate, "times its rate")


def _carry_with_postfix(
    place: Path, report: Report, case: str, destinations: int, kilobytes: int, messages: int
) -> float:
    with (
        Sink(hosts=min(destinations, 200)) as sink,
        postfix.running(place, sink, destinations) as running,
    ):
        cpu_before_s = running.cpu_s()
        started_ns = time.monotonic_ns()
        running.hand_in(messages=messages, destinations=destinations, octets=kilobytes * 1000)
        deadline = time.monotonic() + rig.STANDSTILL_S
        while (last := sink.report())["recipients"] < messages and time.monotonic() < deadline:
            time.sleep(rig.PROGRESS_POLL_S)
        cpu_s = running.cpu_s() - cpu_before_s
    rate = last["recipients"] / ((last["last_ns"] - started_ns) / 1e9)
    report.add(case, "rate", rate, "messages/s")
    report.add(case, "CPU of the engine", cpu_s / max(1, last["recipients"]) * 1e6, "us/message")
    if last["recipients"] < messages:
        report.notes.append(f"{case}: only {last['recipients']} arrived in time")
    return float(rate)
