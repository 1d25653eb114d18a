"""How fast the rules let the sender of a campaign send: its account's rate, and the campaign's own.

Such a rate is shared by all destinations that it is for, so what counts is the sum of what goes by
it. Gathers; the arithmetic is `forecasting`. Where several accounts have a campaign of one name
(an operator can ask for them together), the limits are those of the account with most of its mail.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from engine.delivery.holding import flow_refusing, waiting_in
from engine.spool.interface import DestinationRow, Group, Spool
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.delivering import Delivering
from engine.watch.explain import ROWS_AT_ONCE
from engine.watch.forecasting import Share
from protocols.records import FINAL_STATUSES, STATUSES, EnvelopeFixed, Status

# Whose mail it mostly is shows in so many of them.
MAILS_LOOKED_AT: Final = 50

_Key = tuple[str, str | None, str]


@dataclass(frozen=True, slots=True)
class SenderLimits:
    """What each destination's mail of a campaign goes by, beside the destination's own limits."""

    shares: Mapping[str, Sequence[Share]]
    waiting_for: frozenset[str]

    def narrowest_per_s(self, destination: str) -> float | None:
        """Return the lowest of these rates at a destination; None without one."""
        return min((each.per_s for each in self.shares.get(destination, ())), default=None)


async def sender_limits(
    spool: Spool,
    delivering: Delivering,
    name: str,
    account_id: int | None,
    rows: Sequence[DestinationRow],
    everybodys: Mapping[str, int],
    now_unix_ms: int,
) -> SenderLimits:
    """Return the limits of whoever sends campaign `name`, whose waiting mail is `rows`.

    `everybodys` counts all that is due at each destination. In `waiting_for` are the destinations
    where the campaign's mail waits for such a limit now.
    """
    sender = await _sender(spool, name, account_id, rows)
    if sender is None:
        return SenderLimits({}, frozenset())
    rates: dict[str, list[tuple[_Key, float]]] = {}
    own: Counter[_Key] = Counter()
    whole: Counter[_Key] = Counter()
    waiting_for: set[str] = set()
    for number, row in enumerate(rows):
        if number % ROWS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        destination = row.destination
        for rate in delivering.flow_rates(destination, row.record, sender.account, sender.campaign):
            places = {"destination": destination, "site": row.record.site}
            key: _Key = (rate.scope, rate.place, places.get(rate.place or "", ""))
            rates.setdefault(destination, []).append((key, rate.rate.per_s))
            own[key] += waiting_in(row)
            whole[key] += max(waiting_in(row), everybodys.get(destination, 0))
        if destination in rates and _waits(delivering, row, sender, now_unix_ms):
            waiting_for.add(destination)
    total = await _account_total(spool, sender) if rates else 0
    shares: dict[str, list[Share]] = {}
    for destination, found in rates.items():
        for key, per_s in found:
            scope, place, _ = key
            everything = own[key] if scope == "campaign" else whole[key]
            if scope == "account" and place is None:
                everything = max(own[key], total)
            shares.setdefault(destination, []).append(Share(per_s, own[key], everything))
    return SenderLimits(shares, frozenset(waiting_for))


async def _sender(
    spool: Spool, name: str, account_id: int | None, rows: Sequence[DestinationRow]
) -> EnvelopeFixed | None:
    """Return one mail of a campaign, of the account that has the most."""
    if not rows:
        return None
    fullest = max(rows, key=waiting_in)
    mails = await spool.waiting_at(
        fullest.destination, account_id=account_id, campaign=name, limit=MAILS_LOOKED_AT
    )
    if not mails:
        paused = EnvelopeFilter(
            account_id=account_id, campaign=name, statuses=frozenset({Status.PAUSED})
        )
        mails = (await spool.find(paused, None, 1)).envelopes
    of_account: Counter[int] = Counter(each.fixed.account_id for each in mails)
    return next(
        (
            each.fixed
            for most_id, _ in of_account.most_common(1)
            for each in mails
            if each.fixed.account_id == most_id
        ),
        None,
    )


def _waits(
    delivering: Delivering, row: DestinationRow, sender: EnvelopeFixed, now_unix_ms: int
) -> bool:
    outlook = delivering.outlook(row.destination, sender)
    if outlook is None:
        return False
    return flow_refusing(outlook.flow_path, waiting_in(row) - 1, now_unix_ms) is not None


async def _account_total(spool: Spool, sender: EnvelopeFixed) -> int:
    """Return how many mails of an account wait, wherever."""
    [total] = await spool.statistics(Group.TOTAL, account_id=sender.account_id)
    return sum(
        count
        for status, count in zip(STATUSES, total.counts, strict=True)
        if status not in FINAL_STATUSES
    )
