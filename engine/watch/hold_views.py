"""A hold as people see it, alone or with how much of some waiting mail it keeps back.

Values in, values out; looks nothing up and decides nothing.
"""

import msgspec

from engine.spool.hold_calls import Hold
from protocols.timestamps import time_text, time_text_or_none


class HoldView(msgspec.Struct, frozen=True):
    """A hold, with its filter. `until` null has no end; `who` is an account or "operator"."""

    hold_id: int
    account: str | None
    campaign: str | None
    destination: str | None
    site: str | None
    reply: str | None
    older_s: float | None
    address: str | None
    since: str
    until: str | None
    who: str
    reason: str


class HeldMails(HoldView, frozen=True):
    """A hold, and how many of the mails in question it keeps back.

    A mail that several holds keep back counts with each that is named.
    """

    mails: int


def hold_view(hold: Hold, account: str | None) -> HoldView:
    """`account` is the name of the account that the hold is about, if it names one."""
    wanted = hold.wanted
    return HoldView(
        hold_id=hold.hold_id,
        account=account,
        campaign=wanted.campaign,
        destination=wanted.destination,
        site=wanted.site,
        reply=wanted.reply,
        older_s=None if wanted.older_ms is None else wanted.older_ms / 1000,
        address=wanted.address,
        since=time_text(hold.since_unix_ms),
        until=time_text_or_none(hold.until_unix_ms or 0),
        who=hold.who,
        reason=hold.why,
    )


def held_mails(hold: Hold, account: str | None, mails: int) -> HeldMails:
    """A hold with the number of mails that it keeps back; `account` as in `hold_view`."""
    return HeldMails(**msgspec.structs.asdict(hold_view(hold, account)), mails=mails)
