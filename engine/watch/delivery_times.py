"""`/v1/statistics/delivery-times`: how long it took from acceptance to delivery, as percentiles.

A sender's time begins when the mail was taken: a pause by quota, a hold and every retry are in it.
Days are those of acceptance, as in `/v1/statistics`; so a day's figures grow until its last mail
has ended. Only what was delivered has a time.
"""

import heapq

import msgspec

from engine.http_server import Access, Request, Response, Route
from engine.spool.activity import FIRST_ATTEMPT, LONGEST, count_of, percentiles_ms
from engine.spool.figure_calls import TimesGroup, TimesRow
from engine.spool.interface import Group, Spool
from engine.watch.messages import asked_account_id
from engine.watch.queries import LIMIT_MAX, Query, refuse
from engine.watch.tables import part_of, table_answer, wants_csv
from protocols.records import STATUSES, Status


class DeliveryTimes(msgspec.Struct, frozen=True):
    """Seconds from acceptance to delivery. `key` is a domain, a name, a day, or "total".

    Each `p..._s` is an upper bound: so many per cent of the `count` deliveries took no longer. The
    bounds are a quarter apart, from 10 ms on. `max_s` is exact; `first_attempt` is how many were
    delivered at their first attempt.
    """

    key: str
    count: int
    first_attempt: int
    p50_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    max_s: float


class DeliveryTimesPage(msgspec.Struct, frozen=True):
    """All rows, or with a `limit` some of them and where to go on."""

    rows: list[DeliveryTimes]
    after: str | None


def routes(spool: Spool) -> list[Route]:
    async def delivery_times(request: Request) -> Response:
        query = Query(
            request, ("group", "from", "to", "account", "after", "limit", "busiest", "format")
        )
        is_csv = wants_csv(request, query)
        name = query.one("group") or TimesGroup.TOTAL.value
        groups = {each.value: each for each in TimesGroup}
        group = groups.get(name)
        if group is None:
            refuse("group", f"{name[:40]!r} is none of {', '.join(sorted(groups))}.")
        after, limit = part_of(query)
        account_id = await asked_account_id(spool, query, request.identity)
        busiest = query.number("busiest", 0, 1, LIMIT_MAX)
        names = None
        if busiest:
            if group is not TimesGroup.DESTINATION or after is not None or limit is not None:
                refuse("busiest", "It is for group=destination, without `after` and `limit`.")
            names = await _busiest(spool, account_id, busiest)
        rows = await spool.delivery_times(
            group,
            account_id=account_id,
            from_unix_ms=query.time_unix_ms("from"),
            to_unix_ms=query.time_unix_ms("to"),
            after=after,
            limit=None if limit is None else limit + 1,
            names=names,
        )
        if busiest:
            rows = sorted(rows, key=lambda row: (-count_of(row.times), row.key))
        csv_name = f"delivery-times-{name}" if is_csv else None
        return await table_answer(rows, view_of, DeliveryTimes, limit=limit, csv_name=csv_name)

    return [Route("GET", "/v1/statistics/delivery-times", delivery_times, Access.ACCOUNT)]


async def _busiest(spool: Spool, account_id: int | None, most: int) -> frozenset[str]:
    """The destinations with the most deliveries of all time: a row each, where days are many."""
    rows = await spool.statistics(Group.DESTINATION, account_id=account_id)
    delivered = STATUSES.index(Status.DELIVERED)
    return frozenset(
        row.key for row in heapq.nlargest(most, rows, key=lambda row: row.counts[delivered])
    )


def view_of(row: TimesRow) -> DeliveryTimes:
    times = row.times
    p50, p90, p95, p99 = (each / 1000 for each in percentiles_ms(times, (50, 90, 95, 99)))
    return DeliveryTimes(
        key=row.key,
        count=count_of(times),
        first_attempt=times[FIRST_ATTEMPT],
        p50_s=p50,
        p90_s=p90,
        p95_s=p95,
        p99_s=p99,
        max_s=times[LONGEST] / 1000,
    )
