"""`/v1/accounts`: an operator's way to make and list accounts.

An account's own key opens nothing here. The secret is in the answer to its making and in no other.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from engine.clock import Clock
from engine.config import Config
from engine.http_server import Access, HttpError, Request, Response, Route
from engine.intake.accounts import AccountRefused, create_account
from engine.spool.interface import Spool, SpoolError, SpoolFailed, SpoolFull


class _AccountIn(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    account: str
    plan: str | None = None


class AccountsDoor:
    """The handlers. `random_octets` is a seam, for runs that must repeat."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        clock: Clock,
        random_octets: Callable[[int], bytes],
    ) -> None:
        self._spool = spool
        self._config = config
        self._clock = clock
        self._random_octets = random_octets

    def routes(self) -> list[Route]:
        """Return the routes of this door, for the HTTP port."""
        return [
            Route("POST", "/v1/accounts", self.create, Access.OPERATOR),
            Route("GET", "/v1/accounts", self.list, Access.OPERATOR),
        ]

    async def create(self, request: Request) -> Response:
        """Make an account from `{"account": NAME, "plan": PLAN | null}`; 201 with its keys."""
        try:
            wanted = msgspec.json.decode(request.body, type=_AccountIn)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HttpError(400, "bad_request", f"The body is not as expected: {error}.") from error
        try:
            made = await create_account(
                self._spool,
                self._config,
                wanted.account,
                plan=wanted.plan or "",
                now_unix_ms=self._clock.now_unix_ms(),
                random_octets=self._random_octets,
            )
        except AccountRefused as error:
            raise HttpError(400, "account_refused", str(error)) from error
        except (SpoolFull, SpoolFailed) as error:
            raise HttpError(503, "spool_unavailable", "Nothing can be stored now.") from error
        except SpoolError as error:
            raise HttpError(409, "account_exists", str(error), "account") from error
        answer = {
            "account": made.account.name,
            "plan": made.account.plan or None,
            "api_key": made.api_key,
            "secret_key": made.secret_key,
        }
        return Response.json(answer, 201)

    async def list(self, request: Request) -> Response:
        """List all accounts by name; there are few, so they come in one page."""
        accounts = sorted(await self._spool.accounts(), key=lambda account: account.name)
        rows = [
            {
                "account": account.name,
                "plan": account.plan or None,
                "disabled": account.disabled,
                "created_at": datetime.fromtimestamp(account.created_unix_ms / 1000, UTC)
                .isoformat(timespec="milliseconds")
                .replace("+00:00", "Z"),
            }
            for account in accounts
        ]
        return Response.json({"accounts": rows, "after": None})
