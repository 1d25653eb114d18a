"""What a spool knows about accounts: a part of `engine.spool.interface.Spool`, which says the rest.

Changes are durable when a call returns, and felt at once: `accounts_version` has grown by then, so
whoever remembers an account or a key can see that what it remembers is no longer so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from protocols.records import Account, ApiKey, Suppression

if TYPE_CHECKING:
    from engine.spool.interface import Quota


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What is to be different about an account; None leaves it as it is. `plan` "" is none."""

    plan: str | None = None
    disabled: bool | None = None


class AccountCalls(Protocol):
    """Accounts, their keys, and the addresses that their mail does not go to.

    A hard bounce suppresses its address for its account in the commit that settles it. What is
    accepted later for such an address ends `blocked` there and then and takes no part of a quota.
    """

    @property
    def accounts_version(self) -> int:
        """Grows with every change of an account or a key that is there already."""
        ...

    async def create_account(self, account: Account, key: ApiKey) -> Account:
        """Store a new account (its `account_id` is chosen here). SpoolError if the name exists."""
        ...

    async def change_account(self, account_id: int, change: AccountChange) -> Account:
        """Return the account as it is from now on. SpoolError if there is none of that id."""
        ...

    async def rebook(self, account_id: int, quota: "Quota") -> int:
        """Move paused mail to the first day with room under a wider quota; return how many.

        In its order, at most 500 rows a commit; what fits into today is released at once. No mail
        moves to a later day. For after `change_account`: what is accepted meanwhile is booked with
        the quota of its own request. SpoolError if there is no such account.
        """
        ...

    async def booked(self, account_id: int, days: range) -> Mapping[int, int]:
        """Return how many mails are booked on these days, without those on which none are.

        Days are numbered as in `engine.spool.booking`. Those of a later day are the paused ones.
        """
        ...

    async def rotate_keys(self, key: ApiKey, old_keys_end_unix_ms: int) -> None:
        """Give `key.account_id` a new key; its other keys end at a time, or at once for 0.

        A key that ends earlier keeps its end. SpoolError if the new key exists already.
        """
        ...

    async def suppressions(
        self, account_id: int, *, after: str = "", limit: int = 1000
    ) -> list[Suppression]:
        """Return the suppressed addresses of an account behind `after`, by address."""
        ...

    async def suppression(self, account_id: int, address: str) -> Suppression | None: ...

    async def suppress(self, account_id: int, suppression: Suppression) -> None:
        """Suppress an address by hand, in place of what was there."""
        ...

    async def lift_suppression(self, account_id: int, address: str) -> bool:
        """Let mail go to an address again; return whether it was suppressed."""
        ...

    async def accounts(self) -> list[Account]: ...

    async def api_keys(self) -> list[ApiKey]:
        """Return the keys of all accounts, oldest first; those that have ended too."""
        ...

    async def api_key(self, api_key: str) -> tuple[ApiKey, Account] | None:
        """Return a key with its account, whether or not it has ended or is disabled."""
        ...
