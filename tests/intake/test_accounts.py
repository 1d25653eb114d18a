"""Accounts: credentials that are right pass, any others do not, and secrets are not kept."""

import os
import random
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest
import trio
import trio.testing

from engine.clock import SystemClock
from engine.config import Config, Plan
from engine.intake.accounts import (
    VERIFIED_MAX,
    VERIFIED_S,
    AccountRefused,
    Accounts,
    NewAccount,
    create_account,
    quota_of,
)
from engine.spool import open_spool
from engine.spool.interface import Quota, Spool, SpoolError, SpoolSettings
from protocols.records import Account, ApiKey, pack_record

PLANS = Config(plans=(Plan(name="small", messages_per_day=10, messages_per_month=100),))


@pytest.fixture
async def spool() -> AsyncIterator[Spool]:
    async with open_spool(
        "memory:",
        Path(),
        settings=SpoolSettings(),
        clock=SystemClock(),
        run_blocking=trio.to_thread.run_sync,
        random=random.Random(1),
    ) as opened:
        yield opened


async def create(spool: Spool, name: str = "ann", plan: str = "") -> NewAccount:
    return await create_account(
        spool, PLANS, name, plan=plan, now_unix_ms=1, random_octets=os.urandom
    )


class CountingSpool:
    """A spool that holds one key, counts how often it is asked, and can change the account."""

    def __init__(self, key: ApiKey, account: Account) -> None:
        self.found = (key, account)
        self.asked = 0
        self.accounts_version = 0

    def now_unix_ms(self) -> int:
        return int(trio.current_time() * 1000)

    async def api_key(self, api_key: str) -> tuple[ApiKey, Account] | None:
        self.asked += 1
        found = self.found
        await trio.lowlevel.checkpoint()
        return found if api_key == found[0].api_key else None


async def test_the_right_credentials_name_the_account(spool: Spool) -> None:
    ann, bob = await create(spool, "ann"), await create(spool, "bob")
    accounts = Accounts(spool)
    assert await accounts.authenticate(ann.api_key, ann.secret_key) == ann.account
    assert await accounts.authenticate(bob.api_key, bob.secret_key) == bob.account
    assert {account.name for account in await spool.accounts()} == {"ann", "bob"}


async def test_any_other_credentials_do_not(spool: Spool) -> None:
    ann, bob = await create(spool, "ann"), await create(spool, "bob")
    accounts = Accounts(spool)
    await accounts.authenticate(ann.api_key, ann.secret_key)
    for api_key, secret in [
        (ann.api_key, bob.secret_key),
        (ann.api_key, ""),
        (ann.api_key, ann.secret_key + "0"),
        (ann.api_key, ann.secret_key.upper()),
        (ann.api_key.upper() + "x", ann.secret_key),
        ("", ""),
        ("\0", "\ud800"),
        ("ann", ann.secret_key),
    ]:
        assert await accounts.authenticate(api_key, secret) is None


async def test_secrets_have_160_bits_and_are_kept_as_a_digest_only(spool: Spool) -> None:
    ann = await create(spool)
    found = await spool.api_key(ann.api_key)
    assert found is not None
    assert len(bytes.fromhex(ann.secret_key)) == 20
    assert ann.secret_key.encode() not in pack_record(found[0]) + pack_record(found[1])
    assert len(found[0].secret_sha256) == 32
    assert ann.secret_key != (await create(spool, "bob")).secret_key


ANN = Account(account_id=1, name="ann", plan="", created_unix_ms=1)
SUSPENDED = Account(account_id=1, name="ann", plan="", created_unix_ms=1, disabled=True)


def counting_spool(**fields: int) -> CountingSpool:
    return CountingSpool(ApiKey("key", 1, sha256(b"secret").digest(), 1, **fields), ANN)


async def test_a_verified_account_is_remembered_for_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    spool = counting_spool()
    accounts = Accounts(spool)  # type: ignore[arg-type]  # only these calls are needed
    for _ in range(3):
        assert await accounts.authenticate("key", "secret") == ANN
    assert spool.asked == 1
    assert await accounts.authenticate("key", "wrong") is None
    await trio.sleep(VERIFIED_S)
    assert await accounts.authenticate("key", "secret") == ANN
    assert spool.asked == 3


async def test_a_suspension_is_felt_at_once() -> None:
    spool = counting_spool()
    accounts = Accounts(spool)  # type: ignore[arg-type]  # only these calls are needed
    assert await accounts.authenticate("key", "secret") == ANN
    spool.found, spool.accounts_version = (spool.found[0], SUSPENDED), 1
    assert await accounts.authenticate("key", "secret") is None
    assert await accounts.owner_of("key", "secret") == SUSPENDED
    assert await accounts.owner_of("key", "wrong") is None


async def test_what_was_read_before_a_change_is_not_remembered_behind_it() -> None:
    spool = counting_spool()
    accounts = Accounts(spool)  # type: ignore[arg-type]  # only these calls are needed
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accounts.authenticate, "key", "secret")
        while not spool.asked:
            await trio.lowlevel.checkpoint()
        # The question is under way, and its answer is the old one.
        spool.found, spool.accounts_version = (spool.found[0], SUSPENDED), 1
    assert await accounts.authenticate("key", "secret") is None


async def test_a_key_opens_nothing_after_its_end(autojump_clock: trio.testing.MockClock) -> None:
    spool = counting_spool(ends_unix_ms=int(trio.current_time() * 1000) + 10_000)
    accounts = Accounts(spool)  # type: ignore[arg-type]  # only these calls are needed
    assert await accounts.authenticate("key", "secret") == ANN
    await trio.sleep(9.9)
    assert await accounts.authenticate("key", "secret") == ANN
    await trio.sleep(0.1)
    assert await accounts.authenticate("key", "secret") is None


async def test_an_unknown_time_zone_is_refused(spool: Spool) -> None:
    with pytest.raises(AccountRefused, match="Europe/Nowhere"):
        await create_account(
            spool,
            PLANS,
            "ann",
            time_zone="Europe/Nowhere",
            now_unix_ms=1,
            random_octets=os.urandom,
        )
    assert await spool.accounts() == []


async def test_what_is_remembered_is_bounded(spool: Spool) -> None:
    made = [await create(spool, f"account {n}") for n in range(VERIFIED_MAX + 2)]
    accounts = Accounts(spool)
    for each in made:
        assert await accounts.authenticate(each.api_key, each.secret_key) == each.account
    assert len(accounts._verified) == VERIFIED_MAX
    assert await accounts.authenticate(made[0].api_key, made[0].secret_key) == made[0].account


async def test_names_are_taken_once(spool: Spool) -> None:
    await create(spool, "ann")
    with pytest.raises(SpoolError):
        await create(spool, "ann")


@pytest.mark.parametrize(
    "name", ["", " ann", "ann ", "a\nb", "a\0", "x" * 65, "a\u2028b", "\ud800"]
)
async def test_names_that_would_break_a_line_are_refused(spool: Spool, name: str) -> None:
    with pytest.raises(AccountRefused, match="name"):
        await create(spool, name)
    assert await spool.accounts() == []


async def test_plans_are_those_of_the_configuration(spool: Spool) -> None:
    small = await create(spool, "small one", "small")
    free = await create(spool, "free one", "free")
    none = await create(spool, "no plan")
    with pytest.raises(AccountRefused, match="known are: free, small"):
        await create(spool, "other", "large")
    assert quota_of(small.account, PLANS) == Quota(10, 100)
    assert quota_of(free.account, PLANS) == Quota(200, 6000)
    assert quota_of(none.account, PLANS) == Quota(None, None)


async def test_a_plan_that_is_gone_does_not_become_no_limit(spool: Spool) -> None:
    small = await create(spool, "small one", "small")
    assert quota_of(small.account, Config()) == Quota(200, 6000)


async def test_no_key_opens_an_account_of_the_engine_itself(spool: Spool) -> None:
    key = ApiKey("k", 0, sha256(b"secret").digest(), 1)
    await spool.create_account(Account(0, "status", "", 1, internal=True), key)
    accounts = Accounts(spool)
    assert await accounts.owner_of("k", "secret") is None
    assert await accounts.authenticate("k", "secret") is None
