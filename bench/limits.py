"""Is a limit ever exceeded, and how much of it is used?

A rate is measured where it counts, at the receiver: "over" is the most mails that any window has
beyond rate x time + burst, over all windows. It is told three times. By when each mail's MAIL
arrived, as the kernel noted it: the engine sends that as soon as it has decided, so this is about
the engine, but for its clock's whole milliseconds (0.2 mails at 200/s). By when the end of the data
arrived: in it is how unevenly long the receiver took for its replies and the loops of two busy
processes to get to them. And by when the receiving process came to it: its lateness is in it, too.
"Used" is the share of the rate while there was work. In turn: one destination; an account over all
its destinations; many domains at one site that share its limit; and one destination across a
`kill -9` and a rate that is doubled while the engine runs.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import rig
from bench.children import NameServer, Sink
from bench.report import Report

SIZES = {"per_s": (200,), "seconds": (8,), "domains": (10_000,)}

OCTETS = 400
ACCOUNT_DESTINATIONS = 50


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        per_s, seconds, domains = case["per_s"], case["seconds"], case["domains"]
        mails = per_s * seconds
        place = directory / f"limits-{per_s}-{seconds}-{domains}"
        _measure(
            place / "one",
            report,
            f"one destination, {per_s}/s",
            f'destination = "*"\nrate = "{per_s}/s"',
            per_s=per_s,
            mails=mails,
            destinations=1,
            hosts=1,
        )
        _measure(
            place / "account",
            report,
            f"an account at {ACCOUNT_DESTINATIONS} destinations, {per_s}/s",
            f'account = "{rig.ACCOUNT}"\nrate = "{per_s}/s"',
            per_s=per_s,
            mails=mails,
            destinations=ACCOUNT_DESTINATIONS,
            hosts=ACCOUNT_DESTINATIONS,
        )
        _measure(
            place / "site",
            report,
            f"{domains} domains at one site, {per_s}/s",
            f'site = "*"\nrate = "{per_s}/s"',
            per_s=per_s,
            mails=mails,
            destinations=domains,
            hosts=0,
        )
        _interrupt(place / "lives", report, per_s=per_s, seconds=max(2, seconds // 2))


@contextmanager
def _world(place: Path, report: Report, rule: str, hosts: int) -> Iterator[rig.World]:
    """Make an engine with one rule; `hosts` 0 is one host for all domains."""
    place.mkdir(parents=True)
    rules = place / "rules.toml"
    rules.write_text(f"[[rule]]\n{rule}\n", encoding="utf-8")
    with (
        Sink(hosts=max(1, hosts), stamps=True) as sink,
        NameServer({"good": (sink.address, hosts)}) as name_server,
    ):
        more = f'[shaping]\ndefaults = false\nfiles = ["{rules}"]\n'
        engine, credentials = rig.new_engine(
            place / "engine", rig.settings(name_server, sink.port, more)
        )
        report.limits = rig.limits_of(engine)
        try:
            yield rig.World(sink, engine, credentials)
        finally:
            engine.kill()
    rig.remove(place)


def _measure(
    place: Path,
    report: Report,
    case: str,
    rule: str,
    *,
    per_s: int,
    mails: int,
    destinations: int,
    hosts: int,
) -> None:
    with _world(place, report, rule, hosts) as world:
        sink, engine = world.sink, world.engine
        # At each of very many domains there is mail, more than can go while it is measured.
        laid_in = max(mails, destinations)
        rig.prefill(engine, messages=laid_in, destinations=destinations, octets=OCTETS)
        engine.start()
        baseline = rig.wait_for_first(engine, sink)
        drained = rig.wait_for_last(engine, sink, baseline, mails)
        times = _add_over(report, case, sink, [(0.0, per_s)])
    used = (len(times) - 1) / (times[-1] - times[0]) / per_s
    report.add(case, "used", 100 * used, "%")
    cpu = drained.cpu_s / max(1, drained.measured) * 1e6
    report.add(case, "CPU of the engine", cpu, "us/message")


def _interrupt(place: Path, report: Report, *, per_s: int, seconds: int) -> None:
    """Kill the engine in the middle, and double its rate later."""
    rule = f'destination = "*"\nrate = "{per_s}/s"'
    case = f"kill -9, then {per_s}/s doubled while it runs"
    mails = per_s * seconds * 4
    with _world(place, report, rule, 1) as world:
        sink, engine = world.sink, world.engine
        rig.prefill(engine, messages=mails, destinations=1, octets=OCTETS)
        engine.start()
        rig.wait_for_first(engine, sink)
        time.sleep(seconds)
        engine.kill()
        killed_s = time.monotonic()
        engine.start()
        engine.wait_until_ready()
        time.sleep(seconds)
        # From here on the new rate may hold, and from the answer on it does.
        changing_s = time.monotonic()
        rules = place / "rules.toml"
        rules.write_text(f"[[rule]]\n{rule.replace(str(per_s), str(2 * per_s))}\n")
        engine.run("shaping", "reload")
        changed_s = time.monotonic()
        baseline = rig.Baseline(0, 0.0, 0.0)
        rig.wait_for_last(engine, sink, baseline, mails)
        times = _add_over(report, case, sink, [(0.0, per_s), (changing_s, 2 * per_s)])
    restarted = [each for each in times if killed_s <= each < changing_s]
    used = (len(restarted) - 1) / (restarted[-1] - restarted[0]) / per_s
    report.add(case, "used after the restart", 100 * used, "%")
    doubled = [each for each in times if each >= changed_s]
    used = (len(doubled) - 1) / (doubled[-1] - doubled[0]) / (2 * per_s)
    report.add(case, "used after the change", 100 * used, "%")


def _add_over(
    report: Report, case: str, sink: Sink, regimes: Sequence[tuple[float, int]]
) -> list[float]:
    """Report by how much the limit was exceeded; return when the mails arrived."""
    arrivals = sink.ask("arrivals")["arrivals"]
    begun, ended, seen = (
        sorted(each / 1e9 for each in times) for times in zip(*arrivals, strict=True)
    )
    report.add(case, "over the limit at the end of the data", _worst(ended, regimes), "mails")
    report.add(case, "over the limit at MAIL", _worst(begun, regimes), "mails")
    report.add(case, "over, as the receiving process saw it", _worst(seen, regimes), "mails")
    late_s = max(at_ns - arrived_ns for _, arrived_ns, at_ns in arrivals) / 1e9
    report.add(case, "latest look of the receiving process", late_s * 1000.0, "ms")
    return ended


def _worst(times: Sequence[float], regimes: Sequence[tuple[float, int]]) -> float:
    """Return the most mails that a window has over rate x time + burst; 0 if none has any.

    `regimes` are from when which rate held. A rate that names no burst has a tenth of a second's.
    """
    ends = [begin for begin, _ in regimes[1:]] + [float("inf")]

    def allowed_until(at: float) -> float:
        return sum(
            rate * (min(at, end) - begin)
            for (begin, rate), end in zip(regimes, ends, strict=True)
            if at > begin
        )

    burst = max(rate for _, rate in regimes) / 10
    lowest = float("inf")
    worst = 0.0
    for place, at in enumerate(times):
        lowest = min(lowest, place - allowed_until(at))
        worst = max(worst, place + 1 - allowed_until(at) - lowest - burst)
    return worst
