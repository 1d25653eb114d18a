"""`/v1/quota`: how much of its plan an account has used, and when what is paused goes.

A mail is booked on the first day with room when it is taken, so that what is shown here is what
will happen: the mails booked on a later day are the paused ones.
"""

from collections.abc import Mapping

import msgspec

from engine.clock import Clock
from engine.config import Config
from engine.http_server import HttpError, Request, Response, Route
from engine.intake.accounts import quota_of
from engine.intake.accounts_http import account_named
from engine.spool.booking import day_of, day_start_unix_ms, month_of, zone_of
from engine.spool.interface import Spool
from protocols.records import Account
from protocols.timestamps import time_text

# Paused mail is never booked later than this: see `spool.interface.SpoolSettings.paused_max_ms`.
DAYS_AHEAD = 61


class QuotaView(msgspec.Struct, frozen=True):
    """An account's plan and what of it is booked, in its own days. Limits are null without one.

    `booked_this_month` has what is booked on days to come. `next_release_at` is when the next
    paused mails go, `last_release_at` when the last ones do; both null if none is paused.
    """

    account: str
    plan: str | None
    time_zone: str
    messages_per_day: int | None
    messages_per_month: int | None
    booked_today: int
    booked_this_month: int
    paused: int
    day_ends_at: str
    next_release_at: str | None
    last_release_at: str | None


class QuotaDoor:
    """The handler."""

    def __init__(self, spool: Spool, config: Config, *, clock: Clock) -> None:
        self._spool = spool
        self._config = config
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the route of this door, for the HTTP port."""
        return [Route("GET", "/v1/quota", self.show)]

    async def show(self, request: Request) -> Response:
        """Say how one's own plan stands; an operator names the `account`."""
        account = await self._account(request)
        zone = zone_of(account.time_zone)
        today = day_of(self._clock.now_unix_ms(), zone)
        month = month_of(today)
        days = range(month[0], max(month[-1], today + DAYS_AHEAD) + 1)
        booked = await self._spool.booked(account.account_id, days)
        later = [day for day in range(today + 1, days[-1] + 1) if booked.get(day, 0) > 0]
        quota = quota_of(account, self._config)
        view = QuotaView(
            account=account.name,
            plan=account.plan or None,
            time_zone=account.time_zone,
            messages_per_day=quota.per_day,
            messages_per_month=quota.per_month,
            booked_today=booked.get(today, 0),
            booked_this_month=_sum(booked, month),
            paused=sum(booked[day] for day in later),
            day_ends_at=time_text(day_start_unix_ms(today + 1, zone)),
            next_release_at=time_text(day_start_unix_ms(later[0], zone)) if later else None,
            last_release_at=time_text(day_start_unix_ms(later[-1], zone)) if later else None,
        )
        return Response.json(view)

    async def _account(self, request: Request) -> Account:
        asked = dict(request.query)
        name = asked.pop("account", None)
        if asked:
            where = next(iter(asked))
            raise HttpError(400, "bad_parameter", f"There is no parameter {where[:40]!a}.", where)
        own = request.identity.account
        if own is None:
            if name is None:
                raise HttpError(400, "bad_parameter", "Say whose: ?account=NAME.", "account")
            return await account_named(self._spool, name)
        if name not in (None, own.name):
            raise HttpError(404, "not_found", f"There is no account {name[:64]!a}.", "account")
        return own


def _sum(booked: Mapping[int, int], days: range) -> int:
    return sum(booked.get(day, 0) for day in days)
