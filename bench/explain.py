"""How long does explain take at 1,000,000 queued?

The receiver is out of reach, so that everything stays queued behind it. Mails from all over the
queue are asked for one after the other, and beside each explanation the same mail's listing:
what an answer over HTTP costs at all. Its destination is explained, too: what all mail there waits
for.
"""

import random
import statistics
import time
from pathlib import Path
from typing import Any

from bench import rig
from bench.report import Report
from engine.rehearsal.engine_process import EngineFailed, HttpClient
from engine.watch.long_looks import KEPT_S_MAX, QUICK_S

SIZES = {"queued": (1_000_000,), "destinations": (1, 10_000), "asks": (400,)}

CAMPAIGN = "bench"
CAMPAIGN_ASKS = 3


def answer(sizes: dict[str, list[int]], directory: Path, report: Report) -> None:
    for case in rig.cases(sizes):
        _measure(directory, report, **case)


def _measure(directory: Path, report: Report, queued: int, destinations: int, asks: int) -> None:
    case = f"{queued} queued, {destinations} destinations, {asks} asked"
    place = directory / f"explain-{queued}-{destinations}"
    with rig.waiting(place, report, queued=queued, destinations=destinations) as (engine, account):
        client = HttpClient(engine.port, account)
        ids = _ids(client, asks)
        told, took_ms = _ask(client, [f"/v1/messages/{each}/explain" for each in ids])
        mails, alone_ms = _ask(client, [f"/v1/messages/{each}" for each in ids])
        places = [f"/v1/destinations/{each['destination']}/explain" for each in mails]
        _, places_ms = _ask(client, places)
        whole = {
            name: _ask_anew_and_again(client, f"/v1/campaigns/{CAMPAIGN}/{what}")
            for name, what in (("the whole campaign", "explain"), ("its forecast", "forecast"))
        }
        client.close()
    for name, times_ms in (
        ("explain", took_ms),
        ("the mail alone", alone_ms),
        ("its destination", places_ms),
    ):
        cuts = statistics.quantiles(times_ms, n=100)
        report.add(case, f"{name}, p50", cuts[49], "ms")
        report.add(case, f"{name}, p99", cuts[98], "ms")
    for name, (anew_ms, again_ms) in whole.items():
        report.add(case, f"{name}, median", statistics.median(anew_ms), "ms")
        report.add(case, f"{name}, asked again at once", statistics.median(again_ms), "ms")
    if any(each["held_by"] is None for each in told):
        report.notes.append(f"{case}: not everything was waiting")


def _ids(client: HttpClient, asks: int) -> list[int]:
    """Return mails from all over the queue: the listing goes on from any id, there or not."""
    [newest] = _get(client, "/v1/messages?limit=1")["messages"]
    newest_id, oldest_id = newest["message_id"], newest["message_id"]
    step = 1
    while page := _get(client, f"/v1/messages?limit=1&after={max(1, newest_id - step)}")[
        "messages"
    ]:
        oldest_id, step = page[0]["message_id"], step * 2
        if step > newest_id:
            break
    rand = random.Random(1)
    ids: list[int] = []
    while len(ids) < asks:
        after = rand.randint(oldest_id, newest_id) + 1
        ids += [
            each["message_id"]
            for each in _get(client, f"/v1/messages?limit=1&after={after}")["messages"]
        ]
    return ids


def _ask(client: HttpClient, paths: list[str]) -> tuple[list[Any], list[float]]:
    """Ask one after the other; return the answers, and how long each took in milliseconds."""
    answers, times_ms = [], []
    for path in paths:
        began = time.perf_counter()
        answers.append(_get(client, path))
        times_ms.append((time.perf_counter() - began) * 1000.0)
    return answers, times_ms


def _ask_anew_and_again(client: HttpClient, path: str) -> tuple[list[float], list[float]]:
    """Return how long it takes when nobody has asked for a while, and right afterwards."""
    anew_ms: list[float] = []
    again_ms: list[float] = []
    for _ in range(CAMPAIGN_ASKS):
        anew_ms += _ask(client, [path])[1]
        again_ms += _ask(client, [path])[1]
        time.sleep(KEPT_S_MAX if anew_ms[-1] > QUICK_S * 1000.0 else 0.0)
    return anew_ms, again_ms


def _get(client: HttpClient, path: str) -> Any:
    status, found = client.request("GET", path)
    if status != 200:
        raise EngineFailed(f"GET {path}: {status} {found}")
    return found
