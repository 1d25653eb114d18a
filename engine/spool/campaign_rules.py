"""What becomes of a campaign: pure, and the same for every adapter."""

from typing import Final

import msgspec

from engine.spool.interface import CampaignEnded, SpoolError, SpoolSettings
from protocols.records import Campaign, CampaignState

# Who makes a campaign for each mail wants another word for it; listings stay quick up to here.
CAMPAIGNS_PER_ACCOUNT_MAX: Final = 10_000


def check_room(count: int) -> None:
    """Raise SpoolError if an account with so many campaigns can have no other."""
    if count >= CAMPAIGNS_PER_ACCOUNT_MAX:
        raise SpoolError(f"an account has at most {CAMPAIGNS_PER_ACCOUNT_MAX:,} campaigns")


def open_one(campaign: Campaign | None) -> Campaign:
    """Return a campaign that takes recipients. Raises CampaignEnded for any other."""
    if campaign is None:
        raise CampaignEnded("there is no such campaign any more")
    if campaign.state is not CampaignState.OPEN:
        raise CampaignEnded(f"the campaign is {campaign.state}")
    return campaign


def with_accepted(campaign: Campaign, new: int, repeats: int, now_unix_ms: int) -> Campaign:
    return msgspec.structs.replace(
        campaign,
        accepted=campaign.accepted + new,
        repeated=campaign.repeated + repeats,
        last_accepted_unix_ms=now_unix_ms if new else campaign.last_accepted_unix_ms,
    )


def with_refused(campaign: Campaign, count: int) -> Campaign:
    return msgspec.structs.replace(campaign, refused=campaign.refused + count)


def ended(campaign: Campaign, state: CampaignState, now_unix_ms: int) -> Campaign:
    """Return the campaign without a way in; the same one if nothing changes."""
    assert state is not CampaignState.OPEN, "an end is final"
    if CampaignState.CANCELLED in (campaign.state, state) and campaign.state is not state:
        state = CampaignState.CANCELLED
    if campaign.state is state:
        return campaign
    return msgspec.structs.replace(
        campaign, state=state, ended_unix_ms=campaign.ended_unix_ms or now_unix_ms
    )


def is_over(campaign: Campaign, now_unix_ms: int, settings: SpoolSettings) -> bool:
    """Say whether a campaign is forgotten, if nothing of it waits.

    Even a mail that was paused for the longest time and tried for the longest is purged by then,
    so that no list can be repeated of which some mail is still to be seen.
    """
    last_unix_ms = max(
        campaign.created_unix_ms, campaign.ended_unix_ms, campaign.last_accepted_unix_ms
    )
    kept_ms = settings.paused_max_ms + settings.max_age_ms + settings.finished_retention_ms
    return last_unix_ms + kept_ms < now_unix_ms
