"""The calls about accounts in the `memory:` adapter; see `engine.spool.account_calls`."""

from collections.abc import Mapping

import msgspec
import trio

from engine.clock import Stamp
from engine.spool import booking, suppressing
from engine.spool.account_calls import AccountChange
from engine.spool.account_rules import changed, ended
from engine.spool.interface import SpoolError
from engine.spool.memory_data import MemoryData
from protocols.records import Account, ApiKey, Suppression


class MemoryAccounts:
    """A part of `MemorySpool`, which sets what it needs."""

    _data: MemoryData
    _stamp: Stamp

    @property
    def accounts_version(self) -> int:
        return self._data.accounts_version

    async def create_account(self, account: Account, key: ApiKey) -> Account:
        await trio.lowlevel.checkpoint()
        booking.zone_of(account.time_zone)
        if any(each.name == account.name for each in self._data.accounts.values()):
            raise SpoolError(f"account {account.name!r} exists already")
        if key.api_key in self._data.api_keys:
            raise SpoolError("this API key exists already")
        account_id = len(self._data.accounts) + 1
        created = msgspec.structs.replace(account, account_id=account_id)
        self._data.accounts[account_id] = created
        self._data.api_keys[key.api_key] = msgspec.structs.replace(key, account_id=account_id)
        return created

    async def change_account(self, account_id: int, change: AccountChange) -> Account:
        await trio.lowlevel.checkpoint()
        account = changed(self._data.accounts.get(account_id), change)
        self._data.accounts[account_id] = account
        self._data.accounts_version += 1
        return account

    async def rotate_keys(self, key: ApiKey, old_keys_end_unix_ms: int) -> None:
        await trio.lowlevel.checkpoint()
        keys = self._data.api_keys
        if key.api_key in keys:
            raise SpoolError("this API key exists already")
        for old in [each for each in keys.values() if each.account_id == key.account_id]:
            kept = ended(old, old_keys_end_unix_ms)
            if kept is None:
                del keys[old.api_key]
            else:
                keys[old.api_key] = kept
        keys[key.api_key] = key
        self._data.accounts_version += 1

    async def suppressions(
        self, account_id: int, *, after: str = "", limit: int = 1000
    ) -> list[Suppression]:
        await trio.lowlevel.checkpoint()
        now_unix_ms = self._stamp.now_unix_ms()
        rows = sorted(
            (address, found)
            for (owner, address), found in self._data.suppressions.items()
            if owner == account_id and not suppressing.is_over(found, now_unix_ms)
        )
        return [found for address, found in rows if address > after][:limit]

    async def suppression(self, account_id: int, address: str) -> Suppression | None:
        await trio.lowlevel.checkpoint()
        return self._data.suppression(account_id, address, self._stamp.now_unix_ms())

    async def suppress(self, account_id: int, suppression: Suppression) -> None:
        await trio.lowlevel.checkpoint()
        self._data.suppressions[account_id, suppression.address] = suppression

    async def lift_suppression(self, account_id: int, address: str) -> bool:
        await trio.lowlevel.checkpoint()
        found = self._data.suppressions.pop((account_id, address), None)
        return found is not None and not suppressing.is_over(found, self._stamp.now_unix_ms())

    async def booked(self, account_id: int, days: range) -> Mapping[int, int]:
        await trio.lowlevel.checkpoint()
        usage = self._data.usage
        return {day: usage[account_id, day] for day in days if usage.get((account_id, day))}

    async def accounts(self) -> list[Account]:
        await trio.lowlevel.checkpoint()
        return list(self._data.accounts.values())

    async def api_keys(self) -> list[ApiKey]:
        await trio.lowlevel.checkpoint()
        keys = self._data.api_keys.values()
        return sorted(keys, key=lambda key: (key.created_unix_ms, key.api_key))

    async def api_key(self, api_key: str) -> tuple[ApiKey, Account] | None:
        await trio.lowlevel.checkpoint()
        key = self._data.api_keys.get(api_key)
        return None if key is None else (key, self._data.accounts[key.account_id])
