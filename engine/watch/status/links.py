"""Links that prove something: who opens one has got the mail that it stood in.

A token says what it is about in the clear, with a signature over it. Nothing is remembered, so a
link works after a restart, and making one leaves nothing behind. Opening a link changes nothing,
because programs that look for malware open them all: what counts is the button behind it.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Final

import msgspec

from engine.watch.status.subscribers import Frequency
from protocols.addresses import AddressFault, parse_address
from protocols.languages import Language

CONFIRM_MS: Final = 48 * 3_600_000  # Over a night and a day off, and not for ever.
TOKEN_CHARACTERS_MAX: Final = 2_000


class BadLink(Exception):
    """A link is not one of ours, or too old."""


class Wish(msgspec.Struct, frozen=True, array_like=True):
    """What a confirmation confirms."""

    address: str
    language: Language
    frequency: Frequency
    until_unix_ms: int


class Links:
    """Makes and reads tokens. `key` has 32 octets and is the same after a restart."""

    def __init__(self, key: bytes, url: str) -> None:
        assert len(key) == 32
        self._key = key
        self._url = url

    def confirmation(self, wish: Wish) -> str:
        """Return the address of the page on which somebody confirms."""
        token = self._signed(b"confirm", msgspec.json.encode(wish))
        return f"{self._url}/status/subscriptions/confirm?token={token}"

    def farewell(self, address: str, language: Language) -> str:
        """Return the address that ends a subscription; it has no end itself."""
        token = self._signed(b"farewell", msgspec.json.encode([address, language]))
        return f"{self._url}/status/unsubscribe?token={token}"

    def wish_in(self, token: str, now_unix_ms: int) -> Wish:
        """Return what a token confirms. Raises BadLink."""
        try:
            wish = msgspec.json.decode(self._opened(b"confirm", token), type=Wish)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadLink("signed by us, and not as we do it today") from error
        if wish.until_unix_ms < now_unix_ms:
            raise BadLink("too old")
        return wish

    def farewell_in(self, token: str) -> tuple[str, Language]:
        """Return whose subscription a token ends, and the language. Raises BadLink."""
        try:
            address, language = msgspec.json.decode(
                self._opened(b"farewell", token), type=tuple[str, Language]
            )
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadLink("signed by us, and not as we do it today") from error
        if isinstance(parse_address(address), AddressFault):
            raise BadLink("signed by us, for what is no address any more")
        return address, language

    def _signed(self, purpose: bytes, body: bytes) -> str:
        return f"{_text(body)}.{_text(self._signature(purpose, body))}"

    def _opened(self, purpose: bytes, token: str) -> bytes:
        body_text, dot, signature_text = token.partition(".")
        if not dot or len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
            raise BadLink("not of our form")
        try:
            body, signature = _octets(body_text), _octets(signature_text)
        except ValueError as error:
            raise BadLink("not of our form") from error
        if not hmac.compare_digest(signature, self._signature(purpose, body)):
            raise BadLink("not signed by us")
        return body

    def _signature(self, purpose: bytes, body: bytes) -> bytes:
        # The purpose is signed too: a link to leave must not confirm anything.
        return hmac.new(self._key, purpose + b"\0" + body, sha256).digest()[:20]


def _text(octets: bytes) -> str:
    return urlsafe_b64encode(octets).decode().rstrip("=")


def _octets(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
