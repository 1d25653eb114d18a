"""When paused mail goes, in lists of destinations: where nothing else waits, its release is next.

An explanation asks the spool for itself. A list is drawn many times a second and by many, so what
was found is kept for a moment, for each reader.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from engine.spool.interface import Spool
from engine.spool.waiting_calls import FirstReleases
from engine.watch.destinations import DestinationView
from protocols.timestamps import time_text

# Some milliseconds. Where more is paused, later releases are told for one mail or destination only.
LOOKED_AT_MAX: Final = 1_000
# A release is hours away, and a wider plan releases at once: nobody misses these seconds.
KEPT_S: Final = 5.0
READERS_MAX: Final = 1_000


class Releases:
    """Fills them into views of destinations."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known: dict[int | None, tuple[float, FirstReleases]] = {}

    async def filled(
        self, views: Sequence[DestinationView], account_id: int | None
    ) -> list[DestinationView]:
        """Return the views, with the release as next attempt of those where all mail is paused.

        `account_id` is whose mail they show, None for everybody's.
        """
        if not any(map(_is_paused, views)):
            return list(views)
        releases = await self._first(account_id)
        filled: list[DestinationView] = []
        for view in views:
            release_unix_ms = releases.by_destination.get(view.destination)
            if release_unix_ms is not None and _is_paused(view):
                next_at = time_text(release_unix_ms)
                view = msgspec.structs.replace(view, next_attempt_at=next_at)
            filled.append(view)
        return filled

    async def _first(self, account_id: int | None) -> FirstReleases:
        now_s = trio.current_time()
        until_s, releases = self._known.get(account_id, (now_s, None))
        if releases is None or until_s <= now_s:
            releases = await self._spool.first_releases(
                account_id=account_id, campaign=None, looked_at_max=LOOKED_AT_MAX
            )
            if len(self._known) >= READERS_MAX:
                self._known.clear()
            self._known[account_id] = (now_s + KEPT_S, releases)
        return releases


def _is_paused(view: DestinationView) -> bool:
    # What is held as well waits for the end of the hold.
    is_all = view.paused > 0 and not view.queued + view.deferred and not view.held
    return is_all and view.state != "held" and view.next_attempt_at is None
