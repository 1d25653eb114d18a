"""Campaigns being cancelled: everything of them that is open is ended, however long that takes.

A hold without an end marks what is to be cancelled, and keeps its mail from going meanwhile; it is
on disk, so that a restart goes on where a crash came. What is with a server has its outcome first:
what comes back is cancelled then. The hold goes when nothing is open any more.
"""

import logging
from typing import Final

import trio

from engine.intake.campaign_views import ENGINE
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import Spool, SpoolError, SpoolFailed
from engine.spool.invariants import OPEN_INDEXES
from engine.watch.bulk import Deed, decide
from protocols.records import CampaignState

# On disk: what these holds are known by.
MARK: Final = "is being cancelled with its campaign"
# What is with a server is there for seconds mostly.
LOOK_AGAIN_S: Final = 1.0
# A spool that refuses may have room again by then.
REFUSED_PAUSE_S: Final = 10.0

logger = logging.getLogger("eilpost.decisions")

Named = tuple[int, str]


class Cancellations:
    """Cancels, in `run`, what `start` was told, and what an earlier life has left."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._wake = trio.Event()
        self._active: set[Named] = set()
        self._done: dict[Named, trio.Event] = {}

    async def start(self, account_id: int, name: str) -> trio.Event:
        """Begin to cancel a campaign; the event is set when nothing of it is open any more.

        When this returns no recipient comes in and no mail goes out that is not with a server.
        """
        done = self._done.setdefault((account_id, name), trio.Event())
        if (account_id, name) not in self._marked():
            now_unix_ms = self._spool.now_unix_ms()
            wanted = MailFilter(account_id=account_id, campaign=name)
            await self._spool.put_hold(Hold(0, wanted, None, ENGINE, MARK, now_unix_ms))
        await self._end_intake(account_id, name)
        self._wake.set()
        return done

    async def run(self) -> None:
        """Cancel until cancelled. One waits for what is with a server, others need not."""
        async with trio.open_nursery() as nursery:
            while True:
                for named in [each for each in self._marked() if each not in self._active]:
                    self._active.add(named)
                    nursery.start_soon(self._cancel_once, named)
                await self._wake.wait()
                self._wake = trio.Event()

    async def _cancel_once(self, named: Named) -> None:
        while True:
            try:
                await self._cancel(*named)
            except SpoolFailed:
                raise
            except SpoolError as error:
                logger.warning("cancelling %r has to wait: %s", named[1], error)
                await trio.sleep(REFUSED_PAUSE_S)
            else:
                break
        self._active.discard(named)
        done = self._done.pop(named, None)
        if done is not None:
            done.set()
        # Whoever has asked for it again meanwhile is not forgotten.
        self._wake.set()

    def _marked(self) -> dict[Named, list[int]]:
        """Return what is being cancelled, with its holds."""
        found: dict[Named, list[int]] = {}
        for hold in self._spool.holds():
            wanted = hold.wanted
            is_mark = (hold.owner_id, hold.who, hold.why) == (0, ENGINE, MARK)
            if is_mark and wanted.account_id is not None and wanted.campaign is not None:
                found.setdefault((wanted.account_id, wanted.campaign), []).append(hold.hold_id)
        return found

    async def _end_intake(self, account_id: int, name: str) -> None:
        campaign = await self._spool.campaign(account_id, name)
        if campaign is not None and campaign.state is not CampaignState.CANCELLED:
            await self._spool.end_campaign(
                account_id, campaign.campaign_id, CampaignState.CANCELLED
            )

    async def _cancel(self, account_id: int, name: str) -> None:
        # A crash may have come between the mark and this.
        await self._end_intake(account_id, name)
        wanted = MailFilter(account_id=account_id, campaign=name)
        while await self._open(account_id, name):
            after: int | None = None
            found = 0
            while True:
                done = await decide(self._spool, Deed.CANCEL, wanted, after, is_dry=False)
                after, found = done.after, found + done.matched.total()
                if after is None:
                    break
            if not found:
                # A damaged record may be counted still, for ever if the log knows nothing of it.
                logger.warning("cancelling %r: not all that is counted can be found", name)
                break
            if await self._open(account_id, name):
                await trio.sleep(LOOK_AGAIN_S)
        await self._spool.lift_holds(self._marked().get((account_id, name), ()))

    async def _open(self, account_id: int, name: str) -> int:
        [counts] = await self._spool.campaign_counts(account_id, [name])
        return sum(counts[index] for index in OPEN_INDEXES)
