"""What a change makes of an account or a key: pure, and the same for every adapter."""

import msgspec

from engine.spool.account_calls import AccountChange
from engine.spool.interface import SpoolError
from protocols.records import Account, ApiKey


def known(account: Account | None) -> Account:
    """Return the account. Raises SpoolError without one."""
    if account is None:
        raise SpoolError("there is no such account")
    return account


def changed(account: Account | None, change: AccountChange) -> Account:
    """Return the account with its change. Raises SpoolError without an account."""
    account = known(account)
    return msgspec.structs.replace(
        account,
        plan=account.plan if change.plan is None else change.plan,
        disabled=account.disabled if change.disabled is None else change.disabled,
    )


def ended(key: ApiKey, end_unix_ms: int) -> ApiKey | None:
    """Return an old key with its end, never later than it was; None if that is now."""
    if end_unix_ms == 0:
        return None
    if key.ends_unix_ms:
        end_unix_ms = min(end_unix_ms, key.ends_unix_ms)
    return msgspec.structs.replace(key, ends_unix_ms=end_unix_ms)
