"""The calls about campaigns in the `lmdb:` adapter; see `engine.spool.campaign_calls`."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from engine.spool import lmdb_campaigns
from engine.spool.campaign_calls import NamesPage, NewCampaign
from engine.spool.lmdb_writer import Turn, Writer
from protocols.records import Campaign, CampaignState


class LmdbCampaignCalls:
    """A part of `LmdbSpool`, which sets these."""

    writer: Writer
    _read: Callable[..., Awaitable[Any]]

    async def create_campaign(self, new: NewCampaign) -> tuple[Campaign, bool]:
        made: tuple[Campaign, bool] = await self.writer.do(
            Turn.INTAKE, partial(lmdb_campaigns.create, new=new), octets=len(new.template)
        )
        return made

    async def end_campaign(
        self, account_id: int, campaign_id: int, state: CampaignState
    ) -> Campaign:
        ended: Campaign = await self.writer.do(
            Turn.HOUSEKEEPING,
            partial(
                lmdb_campaigns.end, account_id=account_id, campaign_id=campaign_id, state=state
            ),
        )
        return ended

    async def count_refused(self, account_id: int, campaign_id: int, count: int) -> None:
        await self.writer.do(
            Turn.HOUSEKEEPING,
            partial(
                lmdb_campaigns.count_refused,
                account_id=account_id,
                campaign_id=campaign_id,
                count=count,
            ),
        )

    async def campaign(self, account_id: int, name: str) -> Campaign | None:
        found: Campaign | None = await self._read(lmdb_campaigns.read_campaign, account_id, name)
        return found

    async def campaigns(
        self, account_id: int | None, *, before: int | None = None, limit: int = 1000
    ) -> list[Campaign]:
        found: list[Campaign] = await self._read(
            lmdb_campaigns.read_campaigns, account_id, before, limit
        )
        return found

    async def single_names(
        self, account_id: int, *, before: int | None = None, limit: int = 1000
    ) -> NamesPage:
        found: NamesPage = await self._read(
            lmdb_campaigns.read_single_names, account_id, before, limit
        )
        return found

    async def campaign_counts(self, account_id: int, names: Sequence[str]) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = await self._read(
            lmdb_campaigns.read_counts, account_id, list(names)
        )
        return found
