"""The calls about accounts in the `lmdb:` adapter; see `engine.spool.account_calls`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from engine.clock import Stamp
from engine.spool import lmdb_accounts, lmdb_rebooking, lmdb_suppressions
from engine.spool.account_calls import AccountChange
from engine.spool.interface import Quota, SpoolSettings
from engine.spool.lmdb_writer import Turn, Writer
from protocols.records import Account, ApiKey, Suppression

# The keys of everybody who sends within minutes, at half a kilobyte each.
API_KEYS_KEPT: Final = 10_000


class LmdbAccountCalls:
    """A part of `LmdbSpool`, which sets what it needs and tells of commits."""

    writer: Writer
    _settings: SpoolSettings
    _stamp: Stamp
    _read: Callable[..., Awaitable[Any]]

    def __init__(self) -> None:
        self._api_keys: dict[str, tuple[ApiKey, Account]] = {}
        self._accounts_version = 0

    @property
    def accounts_version(self) -> int:
        return self._accounts_version

    def accounts_have_changed(self) -> None:
        """After a commit that changed an account or a key: forget what is remembered of them."""
        self._accounts_version += 1
        self._api_keys.clear()

    async def create_account(self, account: Account, key: ApiKey) -> Account:
        created: Account = await self.writer.do(
            Turn.HOUSEKEEPING, partial(lmdb_accounts.create, account=account, key=key)
        )
        return created

    async def change_account(self, account_id: int, change: AccountChange) -> Account:
        account: Account = await self.writer.do(
            Turn.HOUSEKEEPING, partial(lmdb_accounts.change, account_id=account_id, change=change)
        )
        return account

    async def rebook(self, account_id: int, quota: Quota) -> int:
        moved = 0
        after: bytes | None = b""
        while after is not None:
            count, after = await self.writer.do(
                Turn.HOUSEKEEPING,
                partial(
                    lmdb_rebooking.rebook,
                    account_id=account_id,
                    quota=quota,
                    after=after,
                    max_age_ms=self._settings.max_age_ms,
                ),
                items=lmdb_rebooking.ROWS_MAX,
            )
            moved += count
        return moved

    async def rotate_keys(self, key: ApiKey, old_keys_end_unix_ms: int) -> None:
        await self.writer.do(
            Turn.HOUSEKEEPING,
            partial(lmdb_accounts.rotate, key=key, old_keys_end_unix_ms=old_keys_end_unix_ms),
        )

    async def suppressions(
        self, account_id: int, *, after: str = "", limit: int = 1000
    ) -> list[Suppression]:
        found: list[Suppression] = await self._read(
            lmdb_suppressions.read_suppressions,
            account_id,
            after,
            limit,
            self._stamp.now_unix_ms(),
        )
        return found

    async def suppression(self, account_id: int, address: str) -> Suppression | None:
        found: Suppression | None = await self._read(
            lmdb_suppressions.read_suppression, account_id, address, self._stamp.now_unix_ms()
        )
        return found

    async def suppress(self, account_id: int, suppression: Suppression) -> None:
        await self.writer.do(
            Turn.HOUSEKEEPING,
            partial(lmdb_suppressions.suppress, account_id=account_id, suppression=suppression),
        )

    async def lift_suppression(self, account_id: int, address: str) -> bool:
        was_suppressed: bool = await self.writer.do(
            Turn.HOUSEKEEPING,
            partial(lmdb_suppressions.lift, account_id=account_id, address=address),
        )
        return was_suppressed

    async def booked(self, account_id: int, days: range) -> Mapping[int, int]:
        found: dict[int, int] = await self._read(lmdb_accounts.read_booked, account_id, days)
        return found

    async def accounts(self) -> list[Account]:
        found: list[Account] = await self._read(lmdb_accounts.read_accounts)
        return found

    async def api_keys(self) -> list[ApiKey]:
        found: list[ApiKey] = await self._read(lmdb_accounts.read_api_keys)
        return found

    async def api_key(self, api_key: str) -> tuple[ApiKey, Account] | None:
        # Asked for with every request; what changes a key or an account empties the table.
        found = self._api_keys.get(api_key)
        if found is None:
            version = self._accounts_version
            found = await self._read(lmdb_accounts.read_api_key, api_key)
            # What was read before a change must not be remembered behind it.
            if found is not None and version == self._accounts_version:
                if len(self._api_keys) == API_KEYS_KEPT:
                    self._api_keys.clear()
                self._api_keys[api_key] = found
        return found
