"""Looking at what waits, so that somebody can be told what for: some of a queue, the next releases.

Both calls look at a bounded number of rows, whatever waits; what they leave out is in the counters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocols.records import Envelope


@dataclass(frozen=True, slots=True)
class FirstReleases:
    """When the first paused mail of each destination is released, as far as was looked.

    Of what was not looked at none is released before `beyond_unix_ms`; None if that is nothing.
    """

    by_destination: Mapping[str, int]
    beyond_unix_ms: int | None


class WaitingCalls(Protocol):
    """What waits where, some of it."""

    async def waiting_at(
        self, destination: str, *, account_id: int | None, campaign: str | None, limit: int
    ) -> Sequence[Envelope]:
        """Return up to `limit` of the mails in a destination's queue, an account's or a campaign's.

        Of each flow in turn the one that is due last: what was put off is there. All of them if
        there are no more than `limit`, and of a thousand flows at most.
        """
        ...

    async def first_releases(
        self, *, account_id: int | None, campaign: str | None, looked_at_max: int
    ) -> FirstReleases:
        """Return the next releases of paused mail, an account's or a campaign's."""
        ...
