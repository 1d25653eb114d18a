"""Accounts and their keys can be changed, and what is changed is felt and kept."""

import pytest

from engine.spool.account_calls import AccountChange
from engine.spool.interface import SpoolError
from protocols.records import ApiKey
from tests.spool import harness as h
from tests.spool.harness import Harness


async def test_a_change_is_felt_at_once_and_kept(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await h.make_account(spool, "other")
        found = await spool.api_key("key-acme")
        assert found is not None
        version = spool.accounts_version
        small = await spool.change_account(acme.account_id, AccountChange(plan="small"))
        assert (small.name, small.plan, small.disabled) == ("acme", "small", False)
        assert spool.accounts_version > version
        changed = await spool.change_account(acme.account_id, AccountChange(disabled=True))
        assert (changed.plan, changed.disabled) == ("small", True)
        found = await spool.api_key("key-acme")
        assert found is not None
        assert found[1] == changed
        with pytest.raises(SpoolError, match="no such account"):
            await spool.change_account(7, AccountChange(plan="small"))
    async with harness.open() as spool:
        assert [(each.name, each.plan) for each in await spool.accounts()] == [
            ("acme", "small"),
            ("other", ""),
        ]
        back = await spool.change_account(acme.account_id, AccountChange("", False))
        assert (back.plan, back.disabled) == ("", False)


async def test_keys_are_rotated_within_one_account(harness: Harness) -> None:
    async with harness.open() as spool:
        acme = await h.make_account(spool)
        await h.make_account(spool, "other")
        await spool.api_key("key-acme")
        second = ApiKey("second", acme.account_id, b"2" * 32, h.START_UNIX_MS + 1)
        await spool.rotate_keys(second, h.START_UNIX_MS + h.DAY_MS)
        found = await spool.api_key("key-acme")
        assert found is not None
        assert found[0].ends_unix_ms == h.START_UNIX_MS + h.DAY_MS
        third = ApiKey("third", acme.account_id, b"3" * 32, h.START_UNIX_MS + 2)
        await spool.rotate_keys(third, h.START_UNIX_MS + 5 * h.DAY_MS)
        ends = [(key.api_key, key.ends_unix_ms) for key in await spool.api_keys()]
        assert ends == [
            # An end that is near does not move away.
            ("key-acme", h.START_UNIX_MS + h.DAY_MS),
            ("key-other", 0),
            ("second", h.START_UNIX_MS + 5 * h.DAY_MS),
            ("third", 0),
        ]
        with pytest.raises(SpoolError, match="exists"):
            await spool.rotate_keys(third, 0)
        await spool.rotate_keys(ApiKey("fourth", acme.account_id, b"4" * 32, h.START_UNIX_MS), 0)
        assert await spool.api_key("key-acme") is None
        assert await spool.api_key("third") is None
    async with harness.open() as spool:
        assert {key.api_key for key in await spool.api_keys()} == {"key-other", "fourth"}
