"""Whether somebody who came in may still be here: an open stream outlives a request.

What was true at the door stays true until an account or a key changes or the key's time is
over, so the answer costs two comparisons as long as nothing has happened.
"""

from dataclasses import dataclass

from engine.http_server import Identity
from engine.spool.interface import Spool


@dataclass(frozen=True, slots=True)
class Dismissal:
    """Why somebody has to go: a word for programs and a sentence for people."""

    code: str
    text: str


class Admittance:
    """One visitor's. Operators and their sessions are not looked at."""

    def __init__(self, spool: Spool, identity: Identity) -> None:
        self._spool = spool
        self._account = None if identity.operator else identity.account
        self._api_key = identity.api_key
        # Older than any: something may have changed between the door and here.
        self._version = -1
        self._ends_unix_ms = 0

    @property
    def is_certain(self) -> bool:
        """Whether nothing has happened since `dismissal` last found nothing wrong."""
        if self._account is None:
            return True
        if self._version != self._spool.accounts_version:
            return False
        return not self._ends_unix_ms or self._spool.now_unix_ms() < self._ends_unix_ms

    async def dismissal(self) -> Dismissal | None:
        """Look at the key and its account again; None if both are good."""
        if self._account is None:
            return None
        version = self._spool.accounts_version
        found = await self._spool.api_key(self._api_key)
        ends_unix_ms = found[0].ends_unix_ms if found else 0
        if found is None or 0 < ends_unix_ms <= self._spool.now_unix_ms():
            return Dismissal("unauthorized", "The API key that opened this is no longer valid.")
        if found[1].disabled:
            return Dismissal("account_suspended", "The account of this API key is suspended.")
        self._version, self._ends_unix_ms = version, ends_unix_ms
        return None
