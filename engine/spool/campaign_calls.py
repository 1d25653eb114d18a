"""What a spool knows about campaigns: a part of `engine.spool.interface.Spool`.

A campaign is one template and the people who get it. Its mail comes in by `accept` with the
campaign's id, where each address is taken once: that is checked and written in the transaction of
the mail itself, so that a list can be handed in again after any break. The template is kept as long
as recipients may come or mail waits.

A campaign is forgotten, with what it knows of its recipients, once it has had nothing waiting and
nothing new for as long as finished mail is kept; then its name is free again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protocols.records import Account, Campaign, CampaignState

# Names that a page may leave out: ten milliseconds' worth.
NAMES_PASSED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """A campaign to be. `digest` (16 octets over all that the sender said) tells it from others.

    The rest is what all its mails share; see `NewMessage`.
    """

    account: Account
    name: str
    template: bytes
    digest: bytes
    reverse_path: str
    subject: str = ""
    lane: int = 1
    needs_8bit: bool = False
    needs_utf8: bool = False


@dataclass(frozen=True, slots=True)
class NamesPage:
    """Names of single mails; with `before` the next page begins, None after the last."""

    names: Sequence[str]
    before: int | None = None


class CampaignCalls(Protocol):
    """Campaigns. Changes are durable when a call returns."""

    async def create_campaign(self, new: NewCampaign) -> tuple[Campaign, bool]:
        """Return the campaign of that name, and whether it is new; an old one stays as it is.

        SpoolError if the account has too many.
        """
        ...

    async def end_campaign(
        self, account_id: int, campaign_id: int, state: CampaignState
    ) -> Campaign:
        """Let no more recipients in. What is cancelled stays so; CampaignEnded if it is gone."""
        ...

    async def count_refused(self, account_id: int, campaign_id: int, count: int) -> None:
        """Add to the lines of its lists that were refused; nothing happens if it is gone."""
        ...

    async def campaign(self, account_id: int, name: str) -> Campaign | None: ...

    async def campaigns(
        self, account_id: int | None, *, before: int | None = None, limit: int = 1000
    ) -> list[Campaign]:
        """Return an account's campaigns (None: all) with ids below `before`, newest first."""
        ...

    async def single_names(
        self, account_id: int, *, before: int | None = None, limit: int = 1000
    ) -> NamesPage:
        """Return names of an account's mails that are no campaign here, the newest name first.

        What a call goes through is bounded by `limit` and NAMES_PASSED_MAX: between many names of
        campaigns a page has fewer, or none, and goes on.
        """
        ...

    async def campaign_counts(self, account_id: int, names: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the counts by status of all mail under these names, in their order."""
        ...
