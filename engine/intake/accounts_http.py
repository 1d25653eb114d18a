"""`/v1/accounts`: an operator's way to make, list and change accounts.

An account's own key opens nothing here. A secret is in the answer to its making and in no other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec.structs import asdict

from engine.clock import Clock
from engine.config import Config
from engine.http_server import Access, HttpError, Request, Response, Route
from engine.intake.accounts import AccountRefused, check_plan, create_account, new_key, quota_of
from engine.spool.account_calls import AccountChange
from engine.spool.interface import Spool, SpoolError, SpoolFailed, SpoolFull
from protocols.records import Account, ApiKey
from protocols.timestamps import time_text, time_text_or_none

# Whoever has not changed the key of a program within a quarter has forgotten that program.
KEEP_OLD_S_MAX: Final = 90 * 86_400


class AccountBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`plan` null is no limit; a plan's days begin at midnight in `time_zone`, an IANA name."""

    account: str
    plan: str | None = None
    time_zone: str = "UTC"


class PlanBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    plan: str | None


class RotateBody(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How long the keys so far go on opening the account; 0 ends them at once."""

    keep_old_for_s: Annotated[int, msgspec.Meta(ge=0, le=KEEP_OLD_S_MAX)] = 0


class AccountKeys(msgspec.Struct, frozen=True):
    """New credentials. The secret key is shown this once."""

    account: str
    plan: str | None
    time_zone: str
    api_key: str
    secret_key: str


class RotatedKeys(AccountKeys, frozen=True):
    """New credentials, and until when the keys so far go on; null: they have ended."""

    old_keys_end_at: str | None


class KeyView(msgspec.Struct, frozen=True):
    """A key that opens the account; `ends_at` is null if it has no end."""

    api_key: str
    created_at: str
    ends_at: str | None


class AccountView(msgspec.Struct, frozen=True):
    """An account, with its keys from the oldest on; `api_keys` are their names alone.

    An `internal` one is the engine's own; it has none and cannot be changed.
    """

    account: str
    plan: str | None
    time_zone: str
    disabled: bool
    created_at: str
    api_keys: list[str]
    keys: list[KeyView]
    internal: bool


class PlanView(AccountView, frozen=True):
    """The account with its new plan; `rebooked` paused mails go earlier for it."""

    rebooked: int


class AccountPage(msgspec.Struct, frozen=True):
    accounts: list[AccountView]
    after: str | None


B = TypeVar("B")


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
        one = "/v1/accounts/{name}"
        return [
            Route("POST", "/v1/accounts", self.create, Access.OPERATOR),
            Route("GET", "/v1/accounts", self.list, Access.OPERATOR),
            Route("GET", one, self.show, Access.OPERATOR),
            Route("POST", f"{one}/plan", self.set_plan, Access.OPERATOR),
            Route("POST", f"{one}/disable", self.disable, Access.OPERATOR),
            Route("POST", f"{one}/enable", self.enable, Access.OPERATOR),
            Route("POST", f"{one}/keys", self.rotate, Access.OPERATOR),
        ]

    async def create(self, request: Request) -> Response:
        """Make an account; 201 with its keys."""
        wanted = body_of(request, AccountBody)
        with refusals("account_exists", 409, "account"):
            made = await create_account(
                self._spool,
                self._config,
                wanted.account,
                plan=wanted.plan or "",
                time_zone=wanted.time_zone,
                now_unix_ms=self._clock.now_unix_ms(),
                random_octets=self._random_octets,
            )
        return Response.json(_keys(made.account, made.api_key, made.secret_key), 201)

    async def list(self, request: Request) -> Response:
        """List all accounts by name; there are few, so they come in one page."""
        accounts = sorted(await self._spool.accounts(), key=lambda account: account.name)
        keys = await self._spool.api_keys()
        views = [self._view(account, keys) for account in accounts]
        return Response.json(AccountPage(views, None))

    async def show(self, request: Request) -> Response:
        return await self._answer(await account_named(self._spool, request.params["name"]))

    async def set_plan(self, request: Request) -> Response:
        """Give an account another plan.

        Paused mail goes as early as the new one allows, at once where it has room today; none goes
        later than it would have.
        """
        plan = body_of(request, PlanBody).plan or ""
        account = await changeable_account(self._spool, request.params["name"])
        with refusals("account_refused", 400, "plan"):
            check_plan(plan, self._config)
            changed = await self._spool.change_account(account.account_id, AccountChange(plan=plan))
            rebooked = await self._spool.rebook(account.account_id, quota_of(changed, self._config))
        view = self._view(changed, await self._spool.api_keys())
        return Response.json(PlanView(**asdict(view), rebooked=rebooked))

    async def disable(self, request: Request) -> Response:
        """Refuse an account's credentials from now on; the mail that it has handed in goes on."""
        return await self._changed(request, AccountChange(disabled=True))

    async def enable(self, request: Request) -> Response:
        return await self._changed(request, AccountChange(disabled=False))

    async def rotate(self, request: Request) -> Response:
        """Make a new key and secret; 201. The keys so far end at once, or after a while."""
        keep_old_ms = body_of(request, RotateBody).keep_old_for_s * 1000
        account = await changeable_account(self._spool, request.params["name"])
        now_unix_ms = self._clock.now_unix_ms()
        key, secret = new_key(
            account.account_id, now_unix_ms=now_unix_ms, random_octets=self._random_octets
        )
        old_keys_end_unix_ms = now_unix_ms + keep_old_ms if keep_old_ms else 0
        with refusals("account_refused", 400, "account"):
            await self._spool.rotate_keys(key, old_keys_end_unix_ms)
        made = _keys(account, key.api_key, secret)
        end_at = time_text_or_none(old_keys_end_unix_ms)
        return Response.json(RotatedKeys(**asdict(made), old_keys_end_at=end_at), 201)

    async def _changed(self, request: Request, change: AccountChange) -> Response:
        account = await changeable_account(self._spool, request.params["name"])
        with refusals("account_refused", 400, "account"):
            return await self._answer(await self._spool.change_account(account.account_id, change))

    async def _answer(self, account: Account) -> Response:
        return Response.json(self._view(account, await self._spool.api_keys()))

    def _view(self, account: Account, keys: Sequence[ApiKey]) -> AccountView:
        now_unix_ms = self._clock.now_unix_ms()
        own = [
            KeyView(
                key.api_key, time_text(key.created_unix_ms), time_text_or_none(key.ends_unix_ms)
            )
            for key in keys
            if key.account_id == account.account_id and not 0 < key.ends_unix_ms <= now_unix_ms
        ]
        return AccountView(
            account.name,
            account.plan or None,
            account.time_zone,
            account.disabled,
            time_text(account.created_unix_ms),
            [key.api_key for key in own],
            own,
            account.internal,
        )


def body_of(request: Request, kind: type[B]) -> B:
    """Return the request's body; an empty one is an empty object. Raises HttpError 400."""
    try:
        return msgspec.json.decode(request.body or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, "bad_request", f"The body is not as expected: {error}.") from error


async def account_named(spool: Spool, name: str) -> Account:
    """Return an account. Raises HttpError 404 if there is none of that name."""
    for account in await spool.accounts():
        if account.name == name:
            return account
    raise HttpError(404, "not_found", f"There is no account {name[:64]!a}.", "account")


async def changeable_account(spool: Spool, name: str) -> Account:
    """Return an account. Raises HttpError 404, or 409 for one of the engine's own."""
    account = await account_named(spool, name)
    if account.internal:
        text = f"{name!a} is the engine's own account: it has no keys and no plan."
        raise HttpError(409, "internal_account", text, "account")
    return account


@contextmanager
def refusals(code: str, status: int, where: str) -> Iterator[None]:
    """Give a refusal of the block its form; `code` and `status` are for one by the spool."""
    try:
        yield
    except AccountRefused as error:
        raise HttpError(400, "account_refused", _sentence(error), where) from error
    except (SpoolFull, SpoolFailed) as error:
        raise HttpError(503, "spool_unavailable", "Nothing can be stored now.") from error
    except SpoolError as error:
        raise HttpError(status, code, _sentence(error), where) from error


def _sentence(error: Exception) -> str:
    """Return the text of an error as people are told it everywhere: with a capital and a stop."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def _keys(account: Account, api_key: str, secret_key: str) -> AccountKeys:
    return AccountKeys(account.name, account.plan or None, account.time_zone, api_key, secret_key)
