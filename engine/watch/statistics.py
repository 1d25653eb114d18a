"""`/v1/destinations` and `/v1/statistics`: how much is where, and in which state.

A range is of acceptance, widened to whole hours in UTC, for destinations and campaigns to days.
"""

from typing import Final

import msgspec

from engine.http_server import Access, Request, Response, Route
from engine.spool.interface import Group, Spool, StatisticsRow
from engine.watch.destinations import DestinationView, just_before
from engine.watch.explain import Explainer
from engine.watch.messages import account_id_of, asked_account_id, reader_of
from engine.watch.queries import Query, domain_name, language_of, refuse
from engine.watch.releases import Releases
from engine.watch.tables import part_of, table_answer, wants_csv
from protocols.records import STATUSES

GROUPS: Final = frozenset(each.value for each in Group)


class DestinationPage(msgspec.Struct, frozen=True):
    destinations: list[DestinationView]
    after: str | None


class CountsView(msgspec.Struct, frozen=True):
    """Mails by status. `key` is a domain, a name, an hour, a day, or "total"."""

    key: str
    queued: int
    paused: int
    deferred: int
    delivered: int
    soft_bounced: int
    hard_bounced: int
    blocked: int
    cancelled: int
    total: int


assert CountsView.__struct_fields__ == ("key", *STATUSES, "total")


class StatisticsPage(msgspec.Struct, frozen=True):
    """All rows, or with a `limit` some of them and where to go on."""

    rows: list[CountsView]
    after: str | None


def routes(spool: Spool, explainer: Explainer) -> list[Route]:
    """Destinations, one by one, and counts."""
    releases = Releases(spool)

    async def list_destinations(request: Request) -> Response:
        query = Query(request, ("after", "limit", "destination"))
        limit, after = query.limit(), query.one("after") or ""
        account_id = account_id_of(request.identity)
        named = query.one("destination")
        if named is not None:
            named = domain_name(named)
            # The listing is in the order of names, so that the one asked for follows this text.
            after, limit = just_before(named), 1
        rows = await spool.destinations(account_id=account_id, after=after, limit=limit)
        if named is not None:
            rows = [row for row in rows if row.destination == named]
        account, language = reader_of(request.identity), language_of(request)
        views = [explainer.view(row, language, account) for row in rows]
        views = await releases.filled(views, account_id)
        is_full = named is None and len(rows) == limit
        page = DestinationPage(views, rows[-1].destination if is_full else None)
        return Response.json(page, headers=(("vary", "accept-language"),))

    async def statistics(request: Request) -> Response:
        query = Query(request, ("group", "from", "to", "account", "after", "limit", "format"))
        is_csv = wants_csv(request, query)
        group = query.one("group") or Group.TOTAL.value
        if group not in GROUPS:
            refuse("group", f"{group[:40]!r} is none of {', '.join(sorted(GROUPS))}.")
        after, limit = part_of(query)
        rows = await spool.statistics(
            Group(group),
            account_id=await asked_account_id(spool, query, request.identity),
            from_unix_ms=query.time_unix_ms("from"),
            to_unix_ms=query.time_unix_ms("to"),
            after=after,
            limit=None if limit is None else limit + 1,
        )
        csv_name = group if is_csv else None
        return await table_answer(rows, counts_view, CountsView, limit=limit, csv_name=csv_name)

    return [
        Route("GET", "/v1/destinations", list_destinations, Access.ACCOUNT),
        Route("GET", "/v1/statistics", statistics, Access.ACCOUNT),
    ]


def counts_view(row: StatisticsRow) -> CountsView:
    queued, paused, deferred, delivered, soft, hard, blocked, cancelled = row.counts
    return CountsView(
        *(row.key, queued, paused, deferred, delivered, soft, hard, blocked, cancelled),
        total=sum(row.counts),
    )
