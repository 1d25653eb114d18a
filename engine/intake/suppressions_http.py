"""`/v1/suppressions`: the addresses that an account's mail does not go to.

Hard bounces put them there for ninety days, senders for as long as they like; senders lift them. An
account sees its own; an operator, who has none, names one with `account`.
"""

from typing import Final

import msgspec

from engine.clock import Clock
from engine.http_server import HttpError, Request, Response, Route
from engine.intake.accounts_http import account_named, body_of, refusals
from engine.spool.interface import Spool
from engine.spool.suppressing import ADDRESS_OCTETS_MAX
from protocols.addresses import AddressFault, parse_address
from protocols.records import Account, Suppression
from protocols.timestamps import parse_time, time_text

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
TEXT_CHARACTERS_MAX: Final = 500


class SuppressBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`reason` is for people; without `until` (RFC 3339) it holds until it is lifted."""

    address: str
    reason: str = ""
    until: str | None = None
    account: str | None = None


class SuppressionView(msgspec.Struct, frozen=True):
    """`message_id` and `reply` tell of the bounce, null and "" for one that was made by hand.

    `until` null has no end.
    """

    account: str
    address: str
    since: str
    until: str | None
    reason: str
    reply: str
    message_id: int | None


class SuppressionPage(msgspec.Struct, frozen=True):
    suppressions: list[SuppressionView]
    after: str | None


class SuppressionsDoor:
    """The handlers."""

    def __init__(self, spool: Spool, *, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the routes of this door, for the HTTP port."""
        return [
            Route("GET", "/v1/suppressions", self.list),
            Route("POST", "/v1/suppressions", self.suppress),
            Route("DELETE", "/v1/suppressions/{address}", self.lift),
        ]

    async def list(self, request: Request) -> Response:
        """List suppressions by address, or the one of `address`."""
        query = _query(request, {"account", "address", "after", "limit"})
        account = await self._account(request, query.get("account"))
        if (given := query.get("address")) is not None:
            found = await self._spool.suppression(account.account_id, _address(given))
            views = [] if found is None else [_view(account, found)]
            return Response.json(SuppressionPage(views, None))
        limit, after = _limit(query.get("limit")), query.get("after", "")
        if len(after.encode()) > ADDRESS_OCTETS_MAX:
            raise _fault("after", "This is not the `after` of a page.")
        page = await self._spool.suppressions(account.account_id, after=after, limit=limit + 1)
        has_more = len(page) > limit
        page = page[:limit]
        views = [_view(account, each) for each in page]
        return Response.json(SuppressionPage(views, page[-1].address if has_more else None))

    async def suppress(self, request: Request) -> Response:
        """Suppress an address; 201 with the suppression. One that is there is replaced."""
        wanted = body_of(request, SuppressBody)
        account = await self._account(request, wanted.account)
        now_unix_ms = self._clock.now_unix_ms()
        if len(wanted.reason) > TEXT_CHARACTERS_MAX:
            raise _fault("reason", f"A reason has at most {TEXT_CHARACTERS_MAX} characters.")
        suppression = Suppression(
            _address(wanted.address),
            now_unix_ms,
            0 if wanted.until is None else _end(wanted.until, now_unix_ms),
            text=wanted.reason,
        )
        with refusals("account_refused", 400, "account"):
            await self._spool.suppress(account.account_id, suppression)
        return Response.json(_view(account, suppression), 201)

    async def lift(self, request: Request) -> Response:
        """Let mail go to an address again; 404 if it was not suppressed."""
        query = _query(request, {"account"})
        account = await self._account(request, query.get("account"))
        given = request.params["address"]
        with refusals("account_refused", 400, "account"):
            if not await self._spool.lift_suppression(account.account_id, _address(given)):
                text = f"{given[:320]!a} is not suppressed."
                raise HttpError(404, "not_found", text, "address")
        return Response(204)

    async def _account(self, request: Request, name: str | None) -> Account:
        """Return whose suppressions are meant. Raises HttpError 400 or 404."""
        own = request.identity.account
        if own is not None:
            if name not in (None, own.name):
                raise HttpError(404, "not_found", f"There is no account {name!a}.", "account")
            return own
        if name is None:
            raise _fault("account", "An operator says whose suppressions are meant.")
        return await account_named(self._spool, name)


def _view(account: Account, found: Suppression) -> SuppressionView:
    return SuppressionView(
        account.name,
        found.address,
        time_text(found.since_unix_ms),
        time_text(found.until_unix_ms) if found.until_unix_ms else None,
        found.text or ("hard_bounced" if found.envelope_id else ""),
        found.reply,
        found.envelope_id or None,
    )


def _query(request: Request, known: set[str]) -> dict[str, str]:
    """Return the parameters, each given once. Raises HttpError 400."""
    query: dict[str, str] = {}
    for name, value in request.query:
        if name not in known:
            raise _fault(name, f"There is no such parameter; known are {', '.join(sorted(known))}.")
        if name in query:
            raise _fault(name, "This parameter may be given once.")
        query[name] = value
    return query


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    is_number = text.isascii() and text.isdecimal() and len(text) < 5
    if not is_number or not 1 <= int(text) <= LIMIT_MAX:
        raise _fault("limit", f"A whole number from 1 to {LIMIT_MAX:,} is expected.")
    return int(text)


def _address(text: str) -> str:
    """Return an address in the form in which they are compared."""
    read = parse_address(text)
    if isinstance(read, AddressFault):
        raise HttpError(400, "bad_address", f"At position {read.position}: {read.text}.", "address")
    return read.wire


def _end(text: str, now_unix_ms: int) -> int:
    try:
        until_unix_ms = parse_time(text)
    except ValueError as error:
        raise _fault("until", f"{error}.") from error
    if until_unix_ms <= now_unix_ms:
        raise _fault("until", "This time is over.")
    return until_unix_ms


def _fault(where: str, text: str) -> HttpError:
    return HttpError(400, "bad_parameter", f"{where[:64]}: {text}", where[:64])
