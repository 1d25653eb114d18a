"""`/v1/campaigns`: how far each is, and its pause, resumption, end and cancellation.

Beside the campaigns that were made with a template, the names that senders give to single mails are
listed: they can be paused and cancelled, too. An account sees its own; an operator, who has none,
names one with `account`, and lists all without.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final, NamedTuple

import msgspec
import trio

from engine.http_server import HttpError, Request, Response, Route
from engine.intake.accounts_http import body_of, refusals
from engine.intake.campaign_views import (
    CampaignView,
    account_meant,
    campaign_view,
    holds_of,
    view_of,
)
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import Spool
from engine.watch.cancellations import Cancellations
from engine.watch.queries import Query, refuse, whole_number
from protocols.records import Account, Campaign, CampaignState

REASON_CHARACTERS_MAX: Final = 500
# Small campaigns are cancelled within a moment, and whoever asked sees the counts that stay.
CANCEL_WAIT_S: Final = 5.0
# In `after`, before an account and a number: behind the campaigns with a template come the names
# without.
ONLY_NAMES: Final = "="


class PauseBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`reason` is for people."""

    reason: str = ""


class CampaignPage(msgspec.Struct, frozen=True):
    """Campaigns with a template, newest first, then names without one, newest first.

    A page of names may have fewer than were asked for, or none, and go on.
    """

    campaigns: list[CampaignView]
    after: str | None


class _Row(NamedTuple):
    account: Account
    name: str
    campaign: Campaign | None


class CampaignsBoard:
    """The handlers."""

    def __init__(
        self, spool: Spool, cancellations: Cancellations, *, now_unix_ms: Callable[[], int]
    ) -> None:
        self._spool = spool
        self._cancellations = cancellations
        self._now_unix_ms = now_unix_ms

    def routes(self) -> list[Route]:
        """Return the routes of this board, for the HTTP port."""
        one = "/v1/campaigns/{campaign}"
        return [
            Route("GET", "/v1/campaigns", self.show_all),
            Route("GET", one, self.show),
            Route("POST", f"{one}/pause", self.pause),
            Route("POST", f"{one}/resume", self.resume),
            Route("POST", f"{one}/close", self.close),
            Route("POST", f"{one}/cancel", self.cancel),
        ]

    async def show_all(self, request: Request) -> Response:
        """List campaigns in pages, or those of one name."""
        query = Query(request, ("account", "campaign", "after", "limit"))
        limit, after, named = query.limit(), query.one("after") or "", query.one("account")
        if named is None and request.identity.operator:
            accounts = await self._spool.accounts()
        else:
            accounts = [await account_meant(self._spool, request, named)]
        if (name := query.one("campaign")) is not None:
            return Response.json(CampaignPage(await self._of_name(accounts, name), None))
        rows: list[_Row] = []
        if not after.startswith(ONLY_NAMES):
            rows = await self._with_template(accounts, after, limit + 1)
            if len(rows) > limit:
                last = rows[limit - 1].campaign
                assert last is not None
                views = await self._views(rows[:limit])
                return Response.json(CampaignPage(views, str(last.campaign_id)))
            after = ONLY_NAMES
        room = limit - len(rows)
        names, further = await self._only_names(accounts, after, max(room, 1))
        if names and room == 0:
            names, further = [], ONLY_NAMES
        return Response.json(CampaignPage(await self._views([*rows, *names]), further))

    async def _of_name(self, accounts: Sequence[Account], name: str) -> list[CampaignView]:
        """Return what each account has under a name."""
        found: list[CampaignView] = []
        for account in accounts:
            with suppress(HttpError):
                found.append(await view_of(self._spool, account, name))
        return found

    async def _with_template(
        self, accounts: Sequence[Account], after: str, limit: int
    ) -> list[_Row]:
        before = _number_in(after) if after else None
        by_id = {each.account_id: each for each in accounts}
        one = accounts[0].account_id if len(accounts) == 1 else None
        return [
            _Row(by_id[each.account_id], each.name, each)
            for each in await self._spool.campaigns(one, before=before, limit=limit)
            if each.account_id in by_id
        ]

    async def _only_names(
        self, accounts: Sequence[Account], after: str, limit: int
    ) -> tuple[list[_Row], str | None]:
        """Return rows of names without a template, account after account, and where to go on.

        Some senders give each mail a name of its own: a million of them are nothing to go through,
        so that a page of them costs what a page has.
        """
        first, _, number = after.removeprefix(ONLY_NAMES).partition(ONLY_NAMES)
        first_id, before = _number_in(first or "0"), _number_in(number) if number else None
        rows: list[_Row] = []
        for account in sorted(accounts, key=lambda each: each.account_id):
            account_id = account.account_id
            if account_id < first_id:
                continue
            if len(rows) == limit:
                return rows, f"{ONLY_NAMES}{account_id}{ONLY_NAMES}"
            page = await self._spool.single_names(
                account_id,
                before=before if account_id == first_id else None,
                limit=limit - len(rows),
            )
            rows += [_Row(account, name, None) for name in page.names]
            if page.before is not None:
                return rows, f"{ONLY_NAMES}{account_id}{ONLY_NAMES}{page.before}"
        return rows, None

    async def _views(self, rows: Sequence[_Row]) -> list[CampaignView]:
        views: list[CampaignView] = []
        for _, same in groupby(rows, key=lambda row: row.account.account_id):
            group = [*same]
            account = group[0].account
            names = [row.name for row in group]
            counts = await self._spool.campaign_counts(account.account_id, names)
            views += [
                campaign_view(
                    account, row.name, row.campaign, each, holds_of(self._spool, account, row.name)
                )
                for row, each in zip(group, counts, strict=True)
            ]
        return views

    async def show(self, request: Request) -> Response:
        """Show one campaign."""
        account, name = await self._meant(request)
        return Response.json(await view_of(self._spool, account, name))

    async def pause(self, request: Request) -> Response:
        """Hold all mail of a campaign; 200 with it. Recipients may come all the same."""
        reason = body_of(request, PauseBody).reason
        if len(reason) > REASON_CHARACTERS_MAX:
            text = f"reason: A reason has at most {REASON_CHARACTERS_MAX} characters."
            raise HttpError(400, "bad_parameter", text, "reason")
        account, name = await self._living(request)
        if not holds_of(self._spool, account, name):
            owner = request.identity.account
            hold = Hold(
                0,
                MailFilter(account_id=account.account_id, campaign=name),
                None,
                "operator" if owner is None else owner.name,
                reason,
                self._now_unix_ms(),
                0 if owner is None else owner.account_id,
            )
            with refusals("too_many_holds", 409, ""):
                await self._spool.put_hold(hold)
        return Response.json(await view_of(self._spool, account, name))

    async def resume(self, request: Request) -> Response:
        """Lift what pauses a campaign; 200 with it. What an operator holds, operators let go."""
        account, name = await self._living(request)
        found = holds_of(self._spool, account, name)
        is_operator = request.identity.operator
        mine = [
            each.hold_id for each in found if is_operator or each.owner_id == account.account_id
        ]
        with refusals("refused", 409, ""):
            await self._spool.lift_holds(mine)
        if len(mine) < len(found):
            raise HttpError(
                409, "paused_by_operator", "An operator has paused this campaign.", "campaign"
            )
        return Response.json(await view_of(self._spool, account, name))

    async def close(self, request: Request) -> Response:
        """Let no more recipients in; 200 with the campaign, whose mail goes on."""
        account, name = await self._living(request)
        campaign = await self._spool.campaign(account.account_id, name)
        if campaign is None:
            text = "This is a name of single mails: there is nothing to close."
            raise HttpError(409, "no_template", text, "campaign")
        with refusals("campaign_ended", 409, "campaign"):
            await self._spool.end_campaign(
                account.account_id, campaign.campaign_id, CampaignState.CLOSED
            )
        return Response.json(await view_of(self._spool, account, name))

    async def cancel(self, request: Request) -> Response:
        """End all mail of a campaign that waits; 200 with it, perhaps before that is done."""
        account, name = await self._meant(request)
        await view_of(self._spool, account, name)
        with refusals("too_many_holds", 409, ""):
            done = await self._cancellations.start(account.account_id, name)
        with trio.move_on_after(CANCEL_WAIT_S):
            await done.wait()
        return Response.json(await view_of(self._spool, account, name))

    async def _meant(self, request: Request) -> tuple[Account, str]:
        named = Query(request, ("account",)).one("account")
        return await account_meant(self._spool, request, named), request.params["campaign"]

    async def _living(self, request: Request) -> tuple[Account, str]:
        """Return a campaign that is there and not cancelled. Raises HttpError."""
        account, name = await self._meant(request)
        view = await view_of(self._spool, account, name)
        if view.state == CampaignState.CANCELLED.value:
            raise HttpError(409, "campaign_cancelled", "The campaign is cancelled.", "campaign")
        return account, name


def _number_in(after: str) -> int:
    try:
        return whole_number(after)
    except ValueError:
        refuse("after", "This is not the `after` of a page.")
