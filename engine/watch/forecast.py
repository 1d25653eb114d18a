"""`/v1/campaigns/{id}/forecast`: when will this campaign be through, and what that rests on.

Gathers what waits where and how fast it goes; the arithmetic is `forecasting`. Where nobody can
tell, it says so, and for how many mails.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import msgspec
import trio

from engine.config import Config
from engine.delivery.holding import waiting_in
from engine.delivery.limits import TokenBucket
from engine.http_server import Access, Identity, Route
from engine.spool.interface import DestinationRow, Group, Spool
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.campaign_answers import campaign_answers
from engine.watch.delivering import Delivering
from engine.watch.destinations import PLACE_OF, LiveDestinations, just_before
from engine.watch.explain import ROWS_AT_ONCE, Explainer
from engine.watch.forecast_shares import SenderLimits, sender_limits
from engine.watch.forecast_words import forecast_text
from engine.watch.forecasting import Estimate, Waiting, estimate
from engine.watch.messages import WAITING
from protocols.languages import Language
from protocols.records import FINAL_STATUSES, Status
from protocols.timestamps import time_text, time_text_or_none

# Destinations that are listed, those that take longest first; all are in the sums.
DESTINATIONS_SHOWN: Final = 20
# Up to so many destinations, everybody's mail there is looked up one by one; for more of them a
# walk over all counters costs less.
SINGLE_LOOKUPS_MAX: Final = 200


class DestinationForecast(msgspec.Struct, frozen=True):
    """`rests_on` is `measured_rate`, `rate_limit`, `retry_wait` or `quota`, or why nobody can tell:
    `destination_unreachable`, `dns_failure`, `hold`, `spool_fault`, `nothing_measured`.
    `limit_per_s` is the lowest rate on its way; the account's or the campaign's is shared by all
    destinations that it is for.
    """

    destination: str
    waiting: int
    rate_per_s: float
    limit_per_s: float | None
    rests_on: str
    earliest_at: str
    finish_at: str | None
    latest_at: str


class Forecast(msgspec.Struct, frozen=True):
    """`finish_at` is for all but the `unknown` mails, for which nobody can tell. `earliest_at` is
    if all goes well, `latest_at` if the pace halves, or when the last mail is given up. `deferred`
    are those that were put off and may be later. Times are null when it is through.
    """

    campaign: str
    total: int
    finished: int
    delivered: int
    waiting: int
    deferred: int
    paused: int
    unknown: int
    earliest_at: str | None
    finish_at: str | None
    latest_at: str | None
    rests_on: dict[str, int]
    text: str
    destinations: list[DestinationForecast]


class Forecaster:
    """Looks ahead for one campaign at a time."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        live: LiveDestinations,
        explainer: Explainer,
        delivering: Delivering,
        *,
        now_unix_ms: Callable[[], int],
    ) -> None:
        self._spool = spool
        self._config = config
        self._live = live
        self._explainer = explainer
        self._delivering = delivering
        self._now_unix_ms = now_unix_ms

    async def forecast(
        self, name: str, identity: Identity, language: Language, account_id: int | None
    ) -> Forecast | None:
        """None if the reader has no such campaign.

        Of one account's mail; with None of all accounts that have a campaign of this name.
        """
        rows = [row async for row in self._explainer.campaign_rows(name, account_id)]
        if not rows:
            return None
        waiting = [self._with_site(row) for row in rows if waiting_in(row)]
        everybodys = await self._everybodys_due([row.destination for row in waiting])
        released = await self._last_release_unix_ms(name, account_id, waiting)
        limits = await sender_limits(
            self._spool,
            self._delivering,
            name,
            account_id,
            waiting,
            everybodys,
            self._now_unix_ms(),
        )
        rests_on: dict[str, int] = {}
        estimates: list[tuple[DestinationRow, Estimate]] = []
        for number, row in enumerate(waiting):
            if number % ROWS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            all_due = everybodys.get(row.destination, 0)
            found = self._estimate(row, identity, all_due, released, limits)
            estimates.append((row, found))
            rests_on[found.basis] = rests_on.get(found.basis, 0) + waiting_in(row)
        known = [each.expected_unix_ms for _, each in estimates if each.expected_unix_ms]
        unknown = sum(waiting_in(row) for row, each in estimates if not each.expected_unix_ms)
        sums = {
            status: sum(row.counts[place] for row in rows) for status, place in PLACE_OF.items()
        }
        waiting_count = sum(waiting_in(row) for row in waiting)
        return Forecast(
            campaign=name,
            total=sum(sums.values()),
            finished=sum(sums[status] for status in FINAL_STATUSES),
            delivered=sums[Status.DELIVERED],
            waiting=waiting_count,
            deferred=sums[Status.DEFERRED],
            paused=sums[Status.PAUSED],
            unknown=unknown,
            earliest_at=_latest(each.earliest_unix_ms for _, each in estimates),
            finish_at=_latest(known),
            latest_at=_latest(each.latest_unix_ms for _, each in estimates),
            rests_on=rests_on,
            text=forecast_text(language, waiting=waiting_count, unknown=unknown),
            destinations=[self._view(*each, limits) for each in _longest(estimates)],
        )

    def _with_site(self, row: DestinationRow) -> DestinationRow:
        """Return a row with the site at which its actor delivers, which it stores when it rests."""
        live = self._live().get(row.destination)
        if live is None or live.site in ("", row.record.site):
            return row
        return replace(row, record=msgspec.structs.replace(row.record, site=live.site))

    def _estimate(
        self,
        row: DestinationRow,
        identity: Identity,
        all_due: int,
        released_unix_ms: int,
        limits: SenderLimits,
    ) -> Estimate:
        live = self._live().get(row.destination)
        paused = row.counts[PLACE_OF[Status.PAUSED]]
        return estimate(
            Waiting(
                now_unix_ms=self._now_unix_ms(),
                due=waiting_in(row) - paused,
                all_due=all_due,
                paused=paused,
                held=self._explainer.held(row, identity.account),
                next_unix_ms=row.wake_unix_ms,
                rate_per_s=live.rate_per_s if live else 0.0,
                limit_per_s=self._limit_per_s(row),
                released_unix_ms=released_unix_ms if paused else 0,
                max_age_ms=round(self._config.delivery.max_age_s * 1000),
                shares=limits.shares.get(row.destination, ()),
                waits_for_share=row.destination in limits.waiting_for,
            )
        )

    def _limit_per_s(self, row: DestinationRow) -> float | None:
        path = self._delivering.limits_at_rest(row.destination, row.record)
        rates = (each.rate_per_s for each in path if isinstance(each, TokenBucket))
        return min(rates, default=None)

    async def _everybodys_due(self, names: list[str]) -> dict[str, int]:
        """Count what is queued and deferred at these destinations, whoever's it is."""
        found: dict[str, int] = {}
        if len(names) <= SINGLE_LOOKUPS_MAX:
            for name in names:
                for row in await self._spool.destinations(after=just_before(name), limit=1):
                    found[row.destination] = _due_in(row)
            return found
        # All at once, without what their actors left: that is what a page of them costs most.
        for counted in await self._spool.statistics(Group.DESTINATION):
            found[counted.key] = sum(counted.counts[PLACE_OF[each]] for each in WAITING)
        return found

    async def _last_release_unix_ms(
        self, name: str, account_id: int | None, waiting: list[DestinationRow]
    ) -> int:
        """Return when the last paused mail of a campaign is released; 0 if none is paused.

        Mail is booked in the order in which it is accepted, so the newest one comes last.
        """
        if not any(row.counts[PLACE_OF[Status.PAUSED]] for row in waiting):
            return 0
        wanted = EnvelopeFilter(
            account_id=account_id,
            statuses=frozenset({Status.PAUSED}),
            campaign=name or None,
        )
        page = await self._spool.find(wanted, None, 1)
        while page.after is not None and not page.envelopes:
            page = await self._spool.find(wanted, page.after, 1)
        return max((each.state.due_unix_ms for each in page.envelopes), default=0)

    def _view(
        self, row: DestinationRow, found: Estimate, limits: SenderLimits
    ) -> DestinationForecast:
        live = self._live().get(row.destination)
        rates = (self._limit_per_s(row), limits.narrowest_per_s(row.destination))
        return DestinationForecast(
            destination=row.destination,
            waiting=waiting_in(row),
            rate_per_s=round(live.rate_per_s, 3) if live else 0.0,
            limit_per_s=min((each for each in rates if each is not None), default=None),
            rests_on=found.basis,
            earliest_at=time_text(found.earliest_unix_ms),
            finish_at=time_text_or_none(found.expected_unix_ms or 0),
            latest_at=time_text(found.latest_unix_ms),
        )


def routes(forecaster: Forecaster, spool: Spool) -> list[Route]:
    """The forecast of a campaign."""
    forecast = campaign_answers(spool, forecaster.forecast)
    return [Route("GET", "/v1/campaigns/{id}/forecast", forecast, Access.ACCOUNT)]


def _due_in(row: DestinationRow) -> int:
    return waiting_in(row) - row.counts[PLACE_OF[Status.PAUSED]]


def _latest(times_unix_ms: Iterable[int]) -> str | None:
    return time_text_or_none(max(times_unix_ms, default=0))


def _longest(
    estimates: list[tuple[DestinationRow, Estimate]],
) -> list[tuple[DestinationRow, Estimate]]:
    """Return those of which nobody can tell, then those that take longest."""

    def order(each: tuple[DestinationRow, Estimate]) -> tuple[float, int]:
        expected_unix_ms = each[1].expected_unix_ms
        return (expected_unix_ms or float("inf"), waiting_in(each[0]))

    return heapq.nlargest(DESTINATIONS_SHOWN, estimates, key=order)
