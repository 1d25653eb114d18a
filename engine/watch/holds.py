"""`/v1/holds`, `/v1/retry`, `/v1/cancel`: what operators and senders decide about waiting mail.

All three name mail by the same filter. An account decides about its own mail only, whatever the
filter says, and sees and lifts the holds that it made; an operator's are for operators. Retry and
cancel go through the mail a few hundred a commit, and answer after so many with where to go on.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

import msgspec

from engine.http_server import Access, HttpError, Identity, Request, Response, Route
from engine.intake.accounts_http import body_of, refusals
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import Spool
from engine.watch.bulk import Decided, Deed, decide
from engine.watch.hold_views import HeldMails, HoldView, held_mails, hold_view
from engine.watch.messages import account_id_of, account_named
from engine.watch.queries import Query, not_found, whole_number
from protocols.addresses import AddressFault, normalise_domain, parse_address

REASON_CHARACTERS_MAX: Final = 500
TEN_YEARS_S: Final = 315_360_000

logger = logging.getLogger("eilpost.decisions")


class FilterBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which mail: everything that is given has to fit, and something has to be given.

    `reply` is a text within the last reply, `older_s` an age since acceptance in seconds, `address`
    the recipient's as it was given.
    """

    account: str | None = None
    campaign: str | None = None
    destination: str | None = None
    site: str | None = None
    reply: str | None = None
    older_s: float | None = None
    address: str | None = None


class HoldBody(FilterBody, forbid_unknown_fields=True, frozen=True):
    """Without `for_s`, seconds from now, it holds until it is lifted. `reason` is for people."""

    for_s: float | None = None
    reason: str = ""


class BulkBody(FilterBody, forbid_unknown_fields=True, frozen=True):
    """`after` is the answer's before; a dry run only counts.

    `reason` goes to the engine's log, and into the story of what is cancelled.
    """

    reason: str = ""
    dry_run: bool = False
    after: str | None = None


class HoldPage(msgspec.Struct, frozen=True):
    holds: list[HoldView]
    after: str | None


class BulkView(msgspec.Struct, frozen=True):
    """What became of the mails looked at: how many fit, by status, and how many were changed.

    `in_flight` are with a server, so nothing was done to them: asked again, those that did not get
    through are there. `after` null: it is done; else more is to be looked at from there.
    """

    matched: dict[str, int]
    changed: int
    in_flight: int
    dry_run: bool
    after: str | None


class RetryView(BulkView, frozen=True):
    """`changed` were made due; what else fits and is not in flight was due already.

    `destinations` could not be reached and are tried now; `held` has the holds that keep some of
    the mails where they are, each mail with the one that ends last.
    """

    destinations: list[str]
    held: list[HeldMails]


class HoldsDoor:
    """The handlers."""

    def __init__(self, spool: Spool, *, now_unix_ms: Callable[[], int]) -> None:
        self._spool = spool
        self._now_unix_ms = now_unix_ms

    def routes(self) -> list[Route]:
        """Return the routes of this door, for the HTTP port."""
        return [
            Route("POST", "/v1/holds", self.put, Access.ACCOUNT),
            Route("GET", "/v1/holds", self.list, Access.ACCOUNT),
            Route("DELETE", "/v1/holds/{id}", self.lift, Access.ACCOUNT),
            Route("POST", "/v1/retry", partial(self.decide, Deed.RETRY), Access.ACCOUNT),
            Route("POST", "/v1/cancel", partial(self.decide, Deed.CANCEL), Access.ACCOUNT),
        ]

    async def put(self, request: Request) -> Response:
        """Hold mail; 201 with the hold."""
        body, owner = body_of(request, HoldBody), request.identity.account
        wanted = await self._wanted(body, request.identity)
        now_unix_ms = self._now_unix_ms()
        for_ms = _milliseconds("for_s", body.for_s)
        hold = Hold(
            0,
            wanted,
            None if for_ms is None else now_unix_ms + for_ms,
            "operator" if owner is None else owner.name,
            _reason(body.reason),
            now_unix_ms,
            0 if owner is None else owner.account_id,
        )
        with refusals("too_many_holds", 409, ""):
            hold = await self._spool.put_hold(hold)
        said = f": {hold.why}" if hold.why else ""
        logger.info("hold %d by %s of %s%s", hold.hold_id, hold.who, _given(body), said)
        return Response.json(_view(hold, await self._names()), 201)

    async def list(self, request: Request) -> Response:
        """List the holds that this reader may lift, oldest first; they come in one page."""
        names = await self._names()
        views = [_view(each, names) for each in self._liftable(request.identity)]
        return Response.json(HoldPage(views, None))

    async def lift(self, request: Request) -> Response:
        """Lift a hold and wake what it held; 200 with the hold as it was."""
        given = request.params["id"]
        why = _reason(Query(request, ("reason",)).one("reason") or "")
        for hold in self._liftable(request.identity):
            if str(hold.hold_id) == given:
                with refusals("hold_refused", 409, ""):
                    await self._spool.lift_holds([hold.hold_id])
                said = f": {why}" if why else ""
                logger.info("lifted hold %d%s", hold.hold_id, said)
                return Response.json(_view(hold, await self._names()))
        raise not_found(f"hold {given[:40]}")

    async def decide(self, deed: Deed, request: Request) -> Response:
        """Do one step of a deed; 200 with what became of it."""
        body = body_of(request, BulkBody)
        wanted = await self._wanted(body, request.identity)
        why = _reason(body.reason)
        try:
            after = None if body.after is None else whole_number(body.after)
        except ValueError as error:
            raise _fault("after", "This is not the `after` of an answer.") from error
        with refusals("refused", 409, ""):
            done = await decide(self._spool, deed, wanted, after, is_dry=body.dry_run, why=why)
        if (done.changed or done.destinations) and not body.dry_run:
            owner = request.identity.account
            by = "operator" if owner is None else owner.name
            tried = f", {len(done.destinations)} destinations tried" if done.destinations else ""
            came_to = f"{done.changed} mails{tried}{f': {why}' if why else ''}"
            logger.info("%s by %s of %s: %s", deed.value, by, _given(body), came_to)
        view = _bulk_view(done, is_dry=body.dry_run)
        if deed is not Deed.RETRY:
            return Response.json(view)
        names = await self._names() if done.held else {}
        held = [
            held_mails(hold, _account_of(hold, names), mails)
            for hold, mails in done.held.most_common()
        ]
        return Response.json(
            RetryView(**msgspec.structs.asdict(view), destinations=[*done.destinations], held=held)
        )

    def _liftable(self, identity: Identity) -> Iterable[Hold]:
        account_id = account_id_of(identity)
        return (row for row in self._spool.holds() if account_id in (None, row.owner_id))

    async def _names(self) -> dict[int, str]:
        return {each.account_id: each.name for each in await self._spool.accounts()}

    async def _wanted(self, body: FilterBody, identity: Identity) -> MailFilter:
        """Return the filter of a body, within what this reader may decide about."""
        given = (
            *(body.account, body.campaign, body.destination),
            *(body.site, body.reply, body.older_s, body.address),
        )
        if all(each is None for each in given):
            raise _fault("", "Say which mail: give at least one filter.")
        if body.reply == "":
            raise _fault("reply", "An empty text is within every reply.")
        account_id = account_id_of(identity)
        if body.account is not None:
            account_id = await account_named(self._spool, body.account, identity)
        return MailFilter(
            account_id,
            body.campaign,
            _domain(body.destination) or _domain_of(body.address),
            None if body.site is None else body.site.lower(),
            body.reply,
            _milliseconds("older_s", body.older_s),
            body.address,
        )


def _bulk_view(done: Decided, *, is_dry: bool) -> BulkView:
    return BulkView(
        {status.value: count for status, count in sorted(done.matched.items())},
        done.changed,
        done.in_flight,
        is_dry,
        None if done.after is None else str(done.after),
    )


def _account_of(hold: Hold, names: Mapping[int, str]) -> str | None:
    account_id = hold.wanted.account_id
    return None if account_id is None else names.get(account_id, str(account_id))


def _view(hold: Hold, names: Mapping[int, str]) -> HoldView:
    return hold_view(hold, _account_of(hold, names))


def _given(body: FilterBody) -> str:
    """Return the filter of a body as the log has it, in one line."""
    given = ((name, getattr(body, name)) for name in FilterBody.__struct_fields__)
    return ", ".join(f"{name} {value!r}" for name, value in given if value is not None)


def _domain(name: str | None) -> str | None:
    """Return a destination's name in lower-case A-labels; what is no domain is refused."""
    if name is None:
        return None
    domain = normalise_domain(name)
    if isinstance(domain, AddressFault):
        # Nothing has such a name: the filter would silently fit no mail.
        why = "it is an address, which is `address`" if "@" in name else domain.text
        raise _fault("destination", f"This is no domain: {why}.")
    return domain


def _domain_of(address: str | None) -> str | None:
    """Return an address's domain: who looks for its mail need not look anywhere else."""
    if address is None:
        return None
    parsed = parse_address(address)
    if isinstance(parsed, AddressFault):
        raise _fault("address", f"This is no address: {parsed.text}.")
    return parsed.domain


def _milliseconds(where: str, seconds: float | None) -> int | None:
    if seconds is not None and not 0 <= seconds <= TEN_YEARS_S:
        raise _fault(where, f"From 0 to {TEN_YEARS_S:,} seconds are expected.")
    return None if seconds is None else round(seconds * 1000)


def _reason(text: str) -> str:
    if len(text) > REASON_CHARACTERS_MAX:
        raise _fault("reason", f"A reason has at most {REASON_CHARACTERS_MAX} characters.")
    return text


def _fault(where: str, message: str) -> HttpError:
    return HttpError(400, "bad_parameter", message, where)
