"""Operators: a one-time token in a link buys credentials that live as long as this process.

The link is printed on a terminal and may end up in its history, so the token
serves once and soon expires; what it buys is held in memory only. Credentials
have the form of an account's keys, so that pages and tools need one way to sign in.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

# Long enough to walk from the terminal to a browser, short enough to be worthless in a log.
TOKEN_MS: Final = 60 * 60 * 1000
SESSION_MS: Final = 12 * 60 * 60 * 1000  # One working day.
SESSIONS_MAX: Final = 100  # An operator's tabs; the oldest goes.


@dataclass(frozen=True, slots=True)
class OperatorSession:
    api_key: str
    secret_key: str
    expires_unix_ms: int


class OperatorSessions:
    """Tokens given out and sessions bought with them.

    `secret_text` returns a fresh unguessable text (160 random bits or more);
    it is an argument because randomness is a seam.
    """

    def __init__(self, *, now_unix_ms: Callable[[], int], secret_text: Callable[[], str]) -> None:
        self._now_unix_ms = now_unix_ms
        self._secret_text = secret_text
        self._tokens: dict[bytes, int] = {}
        self._sessions: dict[str, tuple[bytes, int]] = {}

    def new_token(self) -> str:
        token = self._secret_text()
        self._tokens[_digest(token)] = self._now_unix_ms() + TOKEN_MS
        return token

    def exchange(self, token: str) -> OperatorSession | None:
        """Spend a token; None if it is unknown, spent or too old."""
        expires = self._tokens.pop(_digest(token), None)
        now = self._now_unix_ms()
        if expires is None or expires < now:
            return None
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        api_key = f"operator-{self._secret_text()[:12]}"
        secret = self._secret_text()
        self._sessions[api_key] = (_digest(secret), now + SESSION_MS)
        return OperatorSession(api_key, secret, now + SESSION_MS)

    def is_operator(self, api_key: str, secret: str) -> bool:
        session = self._sessions.get(api_key)
        if session is None:
            return False
        digest, expires = session
        return hmac.compare_digest(digest, _digest(secret)) and self._now_unix_ms() < expires


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
