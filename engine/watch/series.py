"""`/v1/statistics/series`: what happened in each minute, hour or day, for a chart.

It counts events by the time at which they happened, where `/v1/statistics` counts mails by the
time of their acceptance and by where they stand now. A mail that is deferred three times counts
three times as deferred. The last step is usually not over, so that its counts still grow.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from engine.http_server import Access, Request, Response, Route
from engine.spool.activity import ACTIVITIES, HOUR_MS, MINUTES_KEPT_MS
from engine.spool.interface import Spool
from engine.watch.messages import asked_account_id
from engine.watch.queries import Query, refuse
from engine.watch.tables import csv_answer, wants_csv
from protocols.csv_tables import csv_octets
from protocols.timestamps import time_text

STEP_DEFAULT_S: Final = 60
STEP_MAX_S: Final = 7 * 86_400
# More of them no chart can show, and a day in minutes fits.
STEPS_MAX: Final = 1_500
STEPS_DEFAULT: Final = 60
# 9999-12-31: what is later has no text.
LATEST_UNIX_MS: Final = 253_402_214_400_000


class SeriesStep(msgspec.Struct, frozen=True):
    """Events from `at` on, before the next step's `at`. `released` were paused before."""

    at: str
    accepted: int
    released: int
    deferred: int
    delivered: int
    soft_bounced: int
    hard_bounced: int
    blocked: int
    cancelled: int


assert SeriesStep.__struct_fields__ == ("at", *ACTIVITIES)


class SeriesPage(msgspec.Struct, frozen=True):
    """Every step of the range, the empty ones too. `from` and `to` are whole steps."""

    from_: str = msgspec.field(name="from")
    to: str
    step_s: int
    steps: list[SeriesStep]


def routes(spool: Spool, *, now_unix_ms: Callable[[], int]) -> list[Route]:
    async def series(request: Request) -> Response:
        query = Query(request, ("from", "to", "step", "account", "format"))
        is_csv = wants_csv(request, query)
        account_id = await asked_account_id(spool, query, request.identity)
        start, end, step = _range_of(query, now_unix_ms())
        points = await spool.series(start, end, step, account_id=account_id)
        steps = [SeriesStep(time_text(each.start_unix_ms), *each.counts) for each in points]
        if is_csv:
            rows = csv_octets(None, [*map(msgspec.structs.astuple, steps)])
            return csv_answer(SeriesStep, [rows], "series")
        return Response.json(SeriesPage(time_text(start), time_text(end), step // 1000, steps))

    return [Route("GET", "/v1/statistics/series", series, Access.ACCOUNT)]


def _range_of(query: Query, now_unix_ms: int) -> tuple[int, int, int]:
    """Return start, end and step in ms; the start and the end are moved outwards to whole steps."""
    step = query.number("step", STEP_DEFAULT_S, 60, STEP_MAX_S) * 1000
    if step % 60_000:
        refuse("step", "A whole number of minutes is expected, in seconds: 60, 300, 3600, 86400.")
    end = query.time_unix_ms("to")
    end = now_unix_ms + 1 if end is None else end
    end += -end % step
    start = query.time_unix_ms("from")
    start = end - STEPS_DEFAULT * step if start is None else start - start % step
    if start >= end:
        refuse("from", "The range ends before it begins.")
    if start < 0 or end > LATEST_UNIX_MS:
        refuse("from" if start < 0 else "to", "Expected is a time from 1970 to 9999.")
    if end - start > STEPS_MAX * step:
        refuse("step", f"This range has more than {STEPS_MAX:,} steps; a longer step has fewer.")
    if step % HOUR_MS and start < now_unix_ms - MINUTES_KEPT_MS:
        refuse("from", "Minutes are kept for 48 hours; before that a step is whole hours (3600).")
    return start, end, step
