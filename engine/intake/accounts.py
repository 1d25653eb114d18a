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
from engine.spool import booking
from engine.spool.interface import Quota, Spool, SpoolError, SpoolSettings
from protocols.records import Account, ApiKey

# Names stand in filters, listings and on pages: short, on one line, and without edges that vanish.
NAME_CHARACTERS_MAX: Final = 64
# The status page sends its mail under this name.
RESERVED_NAMES: Final = frozenset({"status"})
API_KEY_OCTETS: Final = 16
SECRET_OCTETS: Final = 20  # 160 bits
# How long credentials are remembered; a change of an account or a key ends that at once.
VERIFIED_S: Final = 30.0
# How far ahead mail is booked.
PAUSED_DAYS_MAX: Final = SpoolSettings().paused_max_ms // booking.DAY_MS
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
    """Checks credentials. `authenticate` is for every door; `owner_of` for one that says more."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._version = spool.accounts_version
        self._verified: dict[tuple[str, bytes], tuple[float, Account]] = {}

    async def authenticate(self, api_key: str, secret: str) -> Account | None:
        """Return the account these credentials belong to; None if they are wrong or suspended."""
        account = await self.owner_of(api_key, secret)
        return None if account is None or account.disabled else account

    async def owner_of(self, api_key: str, secret: str) -> Account | None:
        """Return whose credentials these are, suspended or not; None if they are wrong.

        An unknown key takes the same comparison as a wrong secret.
        """
        digest = sha256(secret.encode("utf-8", "surrogatepass")).digest()
        now_s = trio.current_time()
        if self._version != self._spool.accounts_version:
            # A disabled account or a key that was taken away must open nothing any more.
            self._version = self._spool.accounts_version
            self._verified.clear()
        # The secret itself is not kept; finding its digest in the table needs the whole of it.
        known = self._verified.get((api_key, digest))
        if known is not None and known[0] > now_s:
            return known[1]
        version = self._version
        found = await self._spool.api_key(api_key) if api_key else None
        expected = found[0].secret_sha256 if found else bytes(32)
        if not hmac.compare_digest(digest, expected) or found is None:
            return None
        key, account = found
        if account.internal:
            return None
        lives_s = VERIFIED_S
        if key.ends_unix_ms:
            lives_s = min(lives_s, (key.ends_unix_ms - self._spool.now_unix_ms()) / 1000)
            if lives_s <= 0:
                return None
        if version == self._spool.accounts_version:
            self._remember((api_key, digest), now_s + lives_s, account)
        return account

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
    time_zone: str = "UTC",
    now_unix_ms: int,
    random_octets: Callable[[int], bytes],
) -> NewAccount:
    """Make an account and its first key. `plan` is "" for no limit, or one of the configuration.

    A plan's days begin at midnight in `time_zone`, an IANA name. Raises AccountRefused for a bad
    name, an unknown plan or time zone, SpoolError if the name is taken.
    """
    if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable() or name != name.strip():
        raise AccountRefused(
            f"an account's name has 1 to {NAME_CHARACTERS_MAX} printable characters "
            f"and no spaces around it, unlike {name[:NAME_CHARACTERS_MAX]!a}"
        )
    if name in RESERVED_NAMES:
        raise AccountRefused(f"the name {name!a} is kept for the engine's own mail")
    check_plan(plan, config)
    try:
        booking.zone_of(time_zone)
    except SpoolError as error:
        raise AccountRefused(f"{error}; an IANA name is expected, like Europe/Berlin") from error
    key, secret = new_key(0, now_unix_ms=now_unix_ms, random_octets=random_octets)
    wanted = Account(
        account_id=0, name=name, plan=plan, created_unix_ms=now_unix_ms, time_zone=time_zone
    )
    account = await spool.create_account(wanted, key)
    return NewAccount(account, key.api_key, secret)


def check_plan(plan: str, config: Config) -> None:
    """Raise AccountRefused for a plan that the configuration does not have; "" is no plan."""
    if plan and config.plan(plan) is None:
        known = ", ".join(sorted({FREE_PLAN.name, *(each.name for each in config.plans)}))
        raise AccountRefused(f"there is no plan {plan!a}; known are: {known}")


def new_key(
    account_id: int, *, now_unix_ms: int, random_octets: Callable[[int], bytes]
) -> tuple[ApiKey, str]:
    """Return a new key, ready to be stored, and its secret, which is to be shown once."""
    api_key = random_octets(API_KEY_OCTETS).hex()
    secret = random_octets(SECRET_OCTETS).hex()
    return ApiKey(api_key, account_id, sha256(secret.encode()).digest(), now_unix_ms), secret


def quota_of(account: Account, config: Config) -> Quota:
    """Return what the account's plan allows."""
    if not account.plan:
        return Quota()
    # A plan that was taken out of the configuration must not become a plan without limits.
    plan = config.plan(account.plan) or FREE_PLAN
    return Quota(plan.messages_per_day, plan.messages_per_month)


def no_room_text(quota: Quota) -> str:
    """Return what is said of mail that the quota has no room for."""
    allowed = [
        f"{count:,} messages a {period}"
        for count, period in ((quota.per_day, "day"), (quota.per_month, "month"))
        if count is not None
    ]
    return (
        f"The quota of your plan ({', '.join(allowed)}) leaves no room for this mail within the "
        f"longest pause of {PAUSED_DAYS_MAX} days."
    )
