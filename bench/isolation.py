"""Do good destinations keep their rate beside a tarpit and a throttled one?

Each round drains the same queue to 98 good destinations twice: alone, and with a
tarpit and a domain that answers 421 to most of its long queue. The two runs of a
round are neighbours in time; the figure is the median of their ratios.
"""

import statistics
from pathlib import Path

from bench import rig
from bench.children import NameServer, Receiver, Sink
from bench.report import Report

SIZES = {"throttled": (500_000,), "messages": (49_000,), "kilobytes": (2,), "rounds": (3,)}

GOOD = 98
TARPIT, THROTTLED = "127.2.0.1", "127.3.0.1"
TARPIT_MESSAGES = 200
TARPIT_REPLY_DELAY_S = 5
THROTTLED_PER_S = 10
# The throttled queue is there to be long, not to be large.
THROTTLED_OCTETS = 400


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _compare(directory, report, **case)


def _compare(
    directory: Path, report: Report, throttled: int, messages: int, kilobytes: int, rounds: int
) -> None:
    case = f"{GOOD} good, {messages} messages, {throttled} throttled waiting, {kilobytes} kB"
    alone: list[float] = []
    beside: list[float] = []
    for index in range(rounds):
        place = directory / f"isolation-{throttled}-{messages}-{kilobytes}-{index}"
        alone.append(_rate_of_good(place / "alone", report, 0, messages, kilobytes))
        beside.append(_rate_of_good(place / "beside", report, throttled, messages, kilobytes))
    report.add(case, "alone", statistics.median(alone), "messages/s")
    report.add(case, "beside the bad ones", statistics.median(beside), "messages/s")
    shares = [bad / good for good, bad in zip(alone, beside, strict=True)]
    report.add(case, "kept", statistics.median(shares) * 100, "%")


def _rate_of_good(
    place: Path, report: Report, throttled: int, messages: int, kilobytes: int
) -> float:
    octets = kilobytes * 1000
    with (
        Sink(hosts=GOOD) as sink,
        Receiver(TARPIT, sink.port, reply_delay_s=TARPIT_REPLY_DELAY_S) as tarpit,
        Receiver(THROTTLED, sink.port, rate_per_s=THROTTLED_PER_S) as throttler,
        NameServer(
            {"good": (sink.address, GOOD), "tarpit": (TARPIT, 1), "throttled": (THROTTLED, 1)}
        ) as name_server,
    ):
        engine, _ = rig.new_engine(place, rig.settings(name_server, sink.port))
        report.limits = rig.limits_of(engine)
        # The bad ones' mail is older, so it would be first if anything were in one line.
        if throttled:
            rig.prefill(
                engine,
                messages=throttled,
                destinations=1,
                octets=THROTTLED_OCTETS,
                group="throttled",
            )
            rig.prefill(
                engine, messages=TARPIT_MESSAGES, destinations=1, octets=octets, group="tarpit"
            )
        rig.prefill(engine, messages=messages, destinations=GOOD, octets=octets)
        engine.start()
        try:
            baseline = rig.wait_for_first(engine, sink)
            drained = rig.wait_for_last(engine, sink, baseline, messages)
            said, waited = throttler.ask("report"), tarpit.ask("report")
        finally:
            engine.kill()
    rig.remove(place)
    if throttled and not (said["refused"] and waited["connections"]):
        # Then the comparison was with nothing.
        report.notes.append(f"the bad ones were not in play: {said}, {waited}")
    return drained.recipients / max(drained.seconds, 1e-9)
