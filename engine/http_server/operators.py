"""Operators: a one-time token in a link buys credentials that outlive a restart.

The link is printed on a terminal and may end up in its history, so the token
serves once and soon expires. What it buys has the form of an account's keys, so
that pages and tools need one way to sign in, and is signed instead of remembered:
a page that is open when the engine is killed goes on when it is back. Whoever
may read the signing key's file may open the control socket as well.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

# Long enough to walk from the terminal to a browser, short enough to be worthless in a log.
TOKEN_MS: Final = 60 * 60 * 1000
# Links that are out at a time: one for each operator and many forgotten ones.
TOKENS_MAX: Final = 100
SESSION_MS: Final = 12 * 60 * 60 * 1000  # One working day.
KEY_PREFIX: Final = "operator-"
# What was signed has 48 bits of chance and at most 60 of time; longer is no key of ours.
API_KEY_CHARACTERS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class OperatorSession:
    api_key: str
    secret_key: str
    expires_unix_ms: int


class OperatorSessions:
    """Tokens given out, and the credentials that they buy.

    `signing_key` has 32 octets and is the same after a restart. `secret_text` returns a fresh
    unguessable text (160 random bits or more); it is an argument because randomness is a seam.
    """

    def __init__(
        self,
        *,
        now_unix_ms: Callable[[], int],
        secret_text: Callable[[], str],
        signing_key: bytes,
    ) -> None:
        assert len(signing_key) == 32
        self._now_unix_ms = now_unix_ms
        self._secret_text = secret_text
        self._signing_key = signing_key
        self._tokens: dict[bytes, int] = {}

    def new_token(self) -> str:
        now, token = self._now_unix_ms(), self._secret_text()
        self._tokens = {each: until for each, until in self._tokens.items() if until >= now}
        while len(self._tokens) >= TOKENS_MAX:
            # The oldest: whoever asks wants the new one.
            del self._tokens[next(iter(self._tokens))]
        self._tokens[_digest(token)] = now + TOKEN_MS
        return token

    def exchange(self, token: str) -> OperatorSession | None:
        """Spend a token; None if it is unknown, spent or too old."""
        expires = self._tokens.pop(_digest(token), None)
        now = self._now_unix_ms()
        if expires is None or expires < now:
            return None
        api_key = f"{KEY_PREFIX}{now + SESSION_MS:x}-{self._secret_text()[:12]}"
        return OperatorSession(api_key, self._signature(api_key), now + SESSION_MS)

    def is_operator(self, api_key: str, secret: str) -> bool:
        if not api_key.startswith(KEY_PREFIX) or len(api_key) > API_KEY_CHARACTERS_MAX:
            return False
        if not hmac.compare_digest(_digest(self._signature(api_key)), _digest(secret)):
            return False
        # Signed by us, so it has the form that `exchange` gave it.
        expires_unix_ms = int(api_key.removeprefix(KEY_PREFIX).partition("-")[0], 16)
        return self._now_unix_ms() < expires_unix_ms

    def _signature(self, api_key: str) -> str:
        return hmac.new(self._signing_key, api_key.encode(), sha256).hexdigest()[:40]


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
