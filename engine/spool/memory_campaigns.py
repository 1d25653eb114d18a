"""The calls about campaigns in the `memory:` adapter; see `engine.spool.campaign_calls`."""

from collections.abc import Sequence

import trio

from engine.clock import Stamp
from engine.spool import campaign_rules
from engine.spool.campaign_calls import NamesPage, NewCampaign
from engine.spool.interface import Content, ContentKind, SpoolSettings
from engine.spool.memory_data import MemoryData
from engine.spool.projections import NO_COUNTS, CounterKey, Projection
from protocols.records import FINAL_STATUSES, Campaign, CampaignState


class MemoryCampaigns:
    """A part of `MemorySpool`, which sets what it needs."""

    _data: MemoryData
    _stamp: Stamp
    _settings: SpoolSettings

    async def create_campaign(self, new: NewCampaign) -> tuple[Campaign, bool]:
        await trio.lowlevel.checkpoint()
        data, account_id = self._data, new.account.account_id
        known = self._campaign_named(account_id, new.name)
        if known is not None:
            return known, False
        owned = [each for each in data.campaigns.values() if each.account_id == account_id]
        campaign_rules.check_room(len(owned))
        data.campaign_id_high += 1
        data.content_id_high += 1
        data.contents[data.content_id_high] = Content(ContentKind.TEMPLATE, new.template)
        data.references[data.content_id_high] = 1
        campaign = Campaign(
            campaign_id=data.campaign_id_high,
            account_id=account_id,
            name=new.name,
            state=CampaignState.OPEN,
            digest=new.digest,
            content_id=data.content_id_high,
            content_size=len(new.template),
            reverse_path=new.reverse_path,
            subject=new.subject,
            lane=new.lane,
            needs_8bit=new.needs_8bit,
            needs_utf8=new.needs_utf8,
            created_unix_ms=self._stamp.now_unix_ms(),
        )
        data.campaigns[account_id, campaign.campaign_id] = campaign
        return campaign, True

    async def end_campaign(
        self, account_id: int, campaign_id: int, state: CampaignState
    ) -> Campaign:
        await trio.lowlevel.checkpoint()
        data, key = self._data, (account_id, campaign_id)
        campaign = data.campaigns.get(key)
        if campaign is None:
            return campaign_rules.open_one(None)
        if campaign.state is CampaignState.OPEN:
            data.drop_reference(campaign.content_id)
        data.campaigns[key] = campaign_rules.ended(campaign, state, self._stamp.now_unix_ms())
        return data.campaigns[key]

    async def count_refused(self, account_id: int, campaign_id: int, count: int) -> None:
        await trio.lowlevel.checkpoint()
        key = (account_id, campaign_id)
        if key in self._data.campaigns:
            counted = campaign_rules.with_refused(self._data.campaigns[key], count)
            self._data.campaigns[key] = counted

    async def campaign(self, account_id: int, name: str) -> Campaign | None:
        await trio.lowlevel.checkpoint()
        return self._campaign_named(account_id, name)

    async def campaigns(
        self, account_id: int | None, *, before: int | None = None, limit: int = 1000
    ) -> list[Campaign]:
        await trio.lowlevel.checkpoint()
        found = [
            each
            for each in self._data.campaigns.values()
            if account_id in (None, each.account_id)
            and (before is None or each.campaign_id < before)
        ]
        return sorted(found, key=lambda each: -each.campaign_id)[:limit]

    async def single_names(
        self, account_id: int, *, before: int | None = None, limit: int = 1000
    ) -> NamesPage:
        await trio.lowlevel.checkpoint()
        found = [
            (flow, name)
            for (owner, name), flow in self._data.flows.items()
            if name
            and owner == account_id
            and self._campaign_named(owner, name) is None
            and (before is None or flow < before)
        ]
        page = sorted(found, reverse=True)[:limit]
        more = page[-1][0] if page and len(found) > limit else None
        return NamesPage([name for _, name in page], more)

    async def campaign_counts(self, account_id: int, names: Sequence[str]) -> list[tuple[int, ...]]:
        await trio.lowlevel.checkpoint()
        counters = self._data.counters
        keys = [CounterKey(Projection.CAMPAIGN, account_id, 0, name) for name in names]
        return [counters.get(key, NO_COUNTS) for key in keys]

    def _campaign_named(self, account_id: int, name: str) -> Campaign | None:
        for each in self._data.campaigns.values():
            if (each.account_id, each.name) == (account_id, name):
                return each
        return None

    def forget_campaigns(self, now_unix_ms: int) -> None:
        """Forget what is over, with all that is known of its recipients."""
        data = self._data
        waiting = {
            (fixed.account_id, fixed.campaign)
            for envelope_id, fixed in data.fixed.items()
            if data.states[envelope_id].status not in FINAL_STATUSES
        }
        for key, campaign in list(data.campaigns.items()):
            is_over = campaign_rules.is_over(campaign, now_unix_ms, self._settings)
            if not is_over or (campaign.account_id, campaign.name) in waiting:
                continue
            if campaign.state is CampaignState.OPEN:
                data.drop_reference(campaign.content_id)
            del data.campaigns[key]
            for row in [row for row in data.campaign_recipients if row[:2] == key]:
                del data.campaign_recipients[row]
