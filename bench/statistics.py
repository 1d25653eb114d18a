"""What does a statistics query cost at a million messages?

The mails were accepted over the last days, most of them are delivered, and the rest waits behind
receivers that are out of reach. Each query is asked some times over HTTP, beside one that costs as
good as nothing.
"""

import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import rig
from bench.children import NameServer
from bench.report import Report
from engine.rehearsal.engine_process import Credentials, EngineFailed, HttpClient, free_port

SIZES = {
    "messages": (1_000_000,),
    "destinations": (10_000,),
    "days": (30,),
    "delivered": (98,),
    "asks": (50,),
}

RECIPIENTS_PER_CONTENT = 1_000
OCTETS = 400


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _measure(directory, report, **case)


def _measure(
    directory: Path,
    report: Report,
    messages: int,
    destinations: int,
    days: int,
    delivered: int,
    asks: int,
) -> None:
    case = f"{messages} messages, {destinations} destinations, {days} days"
    place = directory / f"statistics-{messages}-{destinations}"
    dead = f'[[route]]\ndomain = "*"\nnext_hop = "127.0.0.1:{free_port()}"\n'
    with NameServer({"good": ("127.0.0.1", 1)}) as name_server:
        engine = rig.bare_engine(place, rig.settings(name_server, 25, dead))
        credentials = Credentials(rig.ACCOUNT, "bench-key", "bench-secret")
        report.limits = rig.limits_of(engine)
        rig.prefill(
            engine,
            messages=messages,
            destinations=destinations,
            octets=OCTETS,
            recipients=RECIPIENTS_PER_CONTENT,
            days=days,
            delivered=delivered,
            credentials=credentials,
        )
        engine.start()
        try:
            engine.wait_until_ready()
            client = HttpClient(engine.port, credentials)
            for name, path in _queries(days).items():
                cuts = statistics.quantiles(_times_ms(client, path, asks), n=100)
                report.add(case, f"{name}, p50", cuts[49], "ms")
                report.add(case, f"{name}, p99", cuts[98], "ms")
            client.close()
        finally:
            engine.kill()
    rig.remove(place)


def _queries(days: int) -> dict[str, str]:
    """Return what is asked, by its name in the report."""
    now = datetime.now(UTC)
    today, yesterday = (
        (now - timedelta(days=ago)).strftime("%Y-%m-%dT00:00:00Z") for ago in (0, 1)
    )
    some = (now - timedelta(days=days // 2)).strftime("%Y-%m-%dT07:00:00Z")
    counts, times = "/v1/statistics", "/v1/statistics/delivery-times"
    series = "/v1/statistics/series"
    return {
        "an empty listing": "/v1/messages?address=nobody@example.test",
        "total": counts,
        "total in a range": f"{counts}?from={some}",
        "hour": f"{counts}?group=hour",
        "day": f"{counts}?group=day&from={some}",
        "campaign": f"{counts}?group=campaign",
        "destination": f"{counts}?group=destination",
        "destination, 100 rows": f"{counts}?group=destination&limit=100",
        "destination, 1,000 rows": f"{counts}?group=destination&limit=1000",
        "destination in one day": f"{counts}?group=destination&from={yesterday}&to={today}",
        "destination as CSV": f"{counts}?group=destination&format=csv",
        "times, total": times,
        "times, day": f"{times}?group=day",
        "times, destination in one day": f"{times}?group=destination&from={yesterday}&to={today}",
        "times, destination": f"{times}?group=destination",
        "times, destination, 1,000 rows": f"{times}?group=destination&limit=1000",
        "times, the 50 busiest in range": f"{times}?group=destination&busiest=50&from={some}",
        "series, hour in minutes": series,
        "series, month in hours": f"{series}?step=3600&from={some}",
        "waiting at one destination": "/v1/messages?destination=d7.good.bench.test&status=queued"
        "&status=deferred",
        "of a status that none has": "/v1/messages?status=cancelled",
        "a subject that all have": "/v1/messages?subject=FIGURE",
        "a subject that none has, first page": "/v1/messages?subject=needle",
    }


def _times_ms(client: HttpClient, path: str, asks: int) -> list[float]:
    times_ms = []
    for _ in range(asks):
        began = time.perf_counter()
        # Not decoded: what the asker does with the answer is no cost of the engine's.
        status, _, octets = client.exchange("GET", path)
        times_ms.append((time.perf_counter() - began) * 1000.0)
        if status != 200:
            raise EngineFailed(f"GET {path}: {status} {octets[:300]!r}")
    return times_ms
