"""What is shown of a campaign, and whose it is: for the routes that fill one and those that watch.

A campaign may be a template with its recipients, or only a name that a sender gives to single
mails (`CustomCampaign`): the second has counts, and no state. Whether one is paused is not stored
with it: a hold says so, and whoever lifts that resumes it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from engine.http_server import HttpError, Request
from engine.intake.accounts_http import account_named
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import Spool
from protocols.records import (
    FINAL_STATUSES,
    STATUSES,
    Account,
    Campaign,
    CampaignState,
)
from protocols.timestamps import time_text, time_text_or_none

# Who made a hold that is the engine's own: it lasts until what it is for is done.
ENGINE: Final = "engine"
PAUSED: Final = "paused"
LANES: Final = ("transactional", "bulk")
FINAL_PLACES: Final = [STATUSES.index(each) for each in STATUSES if each in FINAL_STATUSES]


class CampaignCounts(msgspec.Struct, frozen=True):
    """Mails by status."""

    queued: int
    paused: int
    deferred: int
    delivered: int
    soft_bounced: int
    hard_bounced: int
    blocked: int
    cancelled: int


class CampaignHold(msgspec.Struct, frozen=True):
    """What pauses a campaign; `who` is an account or "operator"."""

    hold_id: int
    who: str
    reason: str
    since: str


class CampaignView(msgspec.Struct, frozen=True):
    """A campaign. `state` is open, paused, closed or cancelled; null where it has no template.

    `counts` are of all mail under its name, `finished` is the share of it that has a final status.
    `accepted`, `repeated` and `refused` count recipients handed in: mail was made for them, they
    were in it already, or their line had a fault.
    """

    campaign: str
    account: str
    state: str | None
    accepts_recipients: bool
    subject: str | None
    lane: str | None
    created_at: str | None
    ended_at: str | None
    last_accepted_at: str | None
    accepted: int
    repeated: int
    refused: int
    counts: CampaignCounts
    total: int
    finished: float
    held_by: CampaignHold | None


async def account_meant(spool: Spool, request: Request, name: str | None) -> Account:
    """Return whose campaigns are asked about: one's own. Raises HttpError 400 or 404.

    An operator, who has none, names the account.
    """
    own = request.identity.account
    if own is not None:
        if name not in (None, own.name):
            raise HttpError(404, "not_found", f"There is no account {name!a:.64}.", "account")
        return own
    if name is None:
        raise HttpError(
            400, "bad_parameter", "account: An operator says whose campaign is meant.", "account"
        )
    return await account_named(spool, name)


def holds_of(spool: Spool, account: Account, name: str) -> list[Hold]:
    """Return what pauses a campaign: holds of just its mail that somebody has put."""
    wanted = MailFilter(account_id=account.account_id, campaign=name)
    return [
        each
        for each in spool.holds()
        if each.wanted == wanted and (each.owner_id or each.who != ENGINE)
    ]


def unknown_campaign(name: str) -> HttpError:
    return HttpError(404, "not_found", f"There is no campaign {name!a:.300}.", "campaign")


async def view_of(spool: Spool, account: Account, name: str) -> CampaignView:
    """Return a campaign of an account. Raises HttpError 404 if there is no mail of that name."""
    campaign = await spool.campaign(account.account_id, name)
    [counts] = await spool.campaign_counts(account.account_id, [name])
    if campaign is None and not any(counts):
        raise unknown_campaign(name)
    return campaign_view(account, name, campaign, counts, holds_of(spool, account, name))


def campaign_view(
    account: Account,
    name: str,
    campaign: Campaign | None,
    counts: Sequence[int],
    holds: Sequence[Hold],
) -> CampaignView:
    total, hold = sum(counts), holds[0] if holds else None
    done = sum(counts[place] for place in FINAL_PLACES)
    return CampaignView(
        campaign=name,
        account=account.name,
        state=state_of(campaign, is_held=hold is not None),
        accepts_recipients=campaign is not None and campaign.state is CampaignState.OPEN,
        subject=campaign.subject if campaign else None,
        lane=LANES[campaign.lane] if campaign else None,
        created_at=time_text(campaign.created_unix_ms) if campaign else None,
        ended_at=time_text_or_none(campaign.ended_unix_ms) if campaign else None,
        last_accepted_at=time_text_or_none(campaign.last_accepted_unix_ms) if campaign else None,
        accepted=campaign.accepted if campaign else 0,
        repeated=campaign.repeated if campaign else 0,
        refused=campaign.refused if campaign else 0,
        counts=CampaignCounts(*counts),
        total=total,
        finished=done / total if total else 0.0,
        held_by=None
        if hold is None
        else CampaignHold(hold.hold_id, hold.who, hold.why, time_text(hold.since_unix_ms)),
    )


def state_of(campaign: Campaign | None, *, is_held: bool) -> str | None:
    """Return the word for where a campaign stands; None for a name without a template."""
    if campaign is not None and campaign.state is CampaignState.CANCELLED:
        return campaign.state.value
    if is_held:
        return PAUSED
    return campaign.state.value if campaign is not None else None
