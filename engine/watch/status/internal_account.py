"""The account that the status page's own mail is accepted under.

An ordinary account in every listing and every sum, but marked as internal: its key has no secret
that anybody could know, and intake lets nobody in, gives it no other key and disables it not.
"""

from typing import Final

from engine.spool.interface import Spool, SpoolError
from protocols.records import Account, ApiKey

NAME: Final = "status"
# A customer may have the name already, from before it was taken.
NAMES: Final = (NAME, *(f"{NAME}-{number}" for number in range(2, 10)))


async def internal_account(spool: Spool, *, make: bool) -> Account | None:
    """Return the account; `make` it if there is none yet. SpoolError if that is not possible."""
    taken: set[str] = set()
    for account in await spool.accounts():
        if account.internal:
            return account
        taken.add(account.name)
    if not make:
        return None
    name = next((each for each in NAMES if each not in taken), None)
    if name is None:
        raise SpoolError(f"all names from {NAMES[0]} to {NAMES[-1]} are taken")
    now_unix_ms = spool.now_unix_ms()
    # No secret has a digest of zeros; and the key has ended before it began.
    key = ApiKey(f"internal-{name}", 0, bytes(32), now_unix_ms, ends_unix_ms=1)
    try:
        return await spool.create_account(Account(0, name, "", now_unix_ms, internal=True), key)
    except SpoolError:
        # Two who were the first to ask: one of them has made it.
        made = await internal_account(spool, make=False)
        if made is None:
            raise
        return made
