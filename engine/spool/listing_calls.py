"""Listings of envelopes: which ones are shown, and the page that shows them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protocols.records import Envelope, Status

NOT_ASCII: Final = re.compile(rb"[\x80-\xff]+")


@dataclass(frozen=True, slots=True)
class EnvelopeFilter:
    """Which envelopes a listing shows; None is any. Matches are exact, but for the subject.

    A subject is one that contains this text, in any case; see `subject_contains`.
    """

    account_id: int | None = None
    statuses: frozenset[Status] | None = None
    destination: str | None = None
    address: str | None = None
    campaign: str | None = None
    custom_id: str | None = None
    subject: str | None = None
    from_unix_ms: int | None = None
    to_unix_ms: int | None = None

    def admits(self, envelope: Envelope) -> bool:
        """Say whether it is one of them; the range is of acceptance, without its end."""
        fixed = envelope.fixed
        at_unix_ms = fixed.accepted_unix_ms
        return (
            (self.account_id is None or fixed.account_id == self.account_id)
            and (self.statuses is None or envelope.state.status in self.statuses)
            and (self.destination is None or fixed.destination == self.destination)
            and (self.address is None or fixed.address == self.address)
            and (self.campaign is None or fixed.campaign == self.campaign)
            and (self.custom_id is None or fixed.custom_id == self.custom_id)
            and (self.subject is None or subject_contains(fixed.subject, self.subject))
            and (self.from_unix_ms is None or at_unix_ms >= self.from_unix_ms)
            and (self.to_unix_ms is None or at_unix_ms < self.to_unix_ms)
        )


@dataclass(frozen=True, slots=True)
class EnvelopePage:
    """Newest first; `after` is the id to go on from, None at the end."""

    envelopes: Sequence[Envelope]
    after: int | None


class ListingCalls(Protocol):
    """Looking for mail."""

    async def find(self, wanted: EnvelopeFilter, after: int | None, limit: int) -> EnvelopePage:
        """Return up to `limit` envelopes that a filter admits, newest first, below id `after`.

        What is looked at for one page is bounded. So a page may have fewer than that, even none,
        and go on all the same: only `after` None says that there are no more.
        """
        ...


def subject_contains(subject: str, text: str) -> bool:
    """Say whether a text is in a subject, whatever the case of its letters."""
    octets = subject.encode("utf-8", "surrogatepass").lower()
    if not all(piece in octets for piece in ascii_pieces(text)):
        return False
    return text.isascii() or text.lower() in subject.lower()


def ascii_pieces(text: str) -> list[bytes]:
    """Return those parts of a text that a store can look for without taking records apart."""
    octets = text.encode("utf-8", "surrogatepass").lower()
    return [piece for piece in NOT_ASCII.split(octets) if piece]
