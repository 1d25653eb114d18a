"""Accounts: who may hand in mail, and how they prove it.

Owns making an account with its key and secret, checking credentials, and what a plan allows.
A secret is 160 random bits, shown once and kept as SHA-256: it cannot be guessed, so a slow hash
would protect nothing and cost a thousand requests a second. Credentials that were right are
remembered for a while, so that a busy sender's batches do not each ask the spool.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import trio

from engine.config import FREE_PLAN, Config
from engine.spool.interface import Quota, Spool
from protocols.records import Account, ApiKey

# Names stand in filters, listings and on pages: short, on one line, and without edges that vanish.
NAME_CHARACTERS_MAX: Final = 64
API_KEY_OCTETS: Final = 16
SECRET_OCTETS: Final = 20  # 160 bits
# How long a change of an account may take to be felt, against a look-up for each request.
VERIFIED_S: Final = 30.0
VERIFIED_MAX: Final = 1_000  # Senders busy within that time; the oldest goes.


class AccountRefused(Exception):
    """An account cannot be made as asked; the text says why."""


@dataclass(frozen=True, slots=True)
class NewAccount:
    """A new account with its credentials. The secret is nowhere else and cannot be shown again."""

    account: Account
    api_key: str
    secret_key: str


class Accounts:
    """Checks credentials. `authenticate` is what the HTTP port and later the SMTP port ask."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._verified: dict[tuple[str, bytes], tuple[float, Account]] = {}

    async def authenticate(self, api_key: str, secret: str) -> Account | None:
        """Return the account these credentials belong to; None if they are wrong or suspended.

        An unknown key takes the same comparison as a wrong secret.
        """
        digest = sha256(secret.encode("utf-8", "surrogatepass")).digest()
        now_s = trio.current_time()
        # The secret itself is not kept; finding its digest in the table needs the whole of it.
        known = self._verified.get((api_key, digest))
        if known is not None and known[0] > now_s:
            return known[1]
        found = await self._spool.api_key(api_key) if api_key else None
        expected = found[0].secret_sha256 if found else bytes(32)
        if not hmac.compare_digest(digest, expected) or found is None or found[1].disabled:
            return None
        self._remember((api_key, digest), now_s + VERIFIED_S, found[1])
        return found[1]

    def _remember(self, key: tuple[str, bytes], until_s: float, account: Account) -> None:
        self._verified.pop(key, None)
        while len(self._verified) >= VERIFIED_MAX:
            del self._verified[next(iter(self._verified))]
        self._verified[key] = (until_s, account)


async def create_account(
    spool: Spool,
    config: Config,
    name: str,
    *,
    plan: str = "",
    now_unix_ms: int,
    random_octets: Callable[[int], bytes],
) -> NewAccount:
    """Make an account and its first key. `plan` is "" for no limit, or one of the configuration.

    Raises AccountRefused for a bad name or an unknown plan, SpoolError if the name is taken.
    """
    if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name != name.strip():
        raise AccountRefused(
            f"an account's name has 1 to {NAME_CHARACTERS_MAX} printable characters "
            f"and no spaces around it, unlike {name[:NAME_CHARACTERS_MAX]!a}"
        )
    if plan and config.plan(plan) is None:
        known = ", ".join(sorted({FREE_PLAN.name, *(each.name for each in config.plans)}))
        raise AccountRefused(f"there is no plan {plan!a}; known are: {known}")
    api_key = random_octets(API_KEY_OCTETS).hex()
    secret = random_octets(SECRET_OCTETS).hex()
    wanted = Account(account_id=0, name=name, plan=plan, created_unix_ms=now_unix_ms)
    key = ApiKey(
        api_key=api_key,
        account_id=0,
        secret_sha256=sha256(secret.encode()).digest(),
        created_unix_ms=now_unix_ms,
    )
    account = await spool.create_account(wanted, key)
    return NewAccount(account, api_key, secret)


def quota_of(account: Account, config: Config) -> Quota:
    """Return what the account's plan allows."""
    if not account.plan:
        return Quota()
    # A plan that was taken out of the configuration must not become a plan without limits.
    plan = config.plan(account.plan) or FREE_PLAN
    return Quota(plan.messages_per_day, plan.messages_per_month)
