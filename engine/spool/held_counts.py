"""How many of a destination's waiting mails do holds keep back, and which holds?

Read off the counters, so that it costs the same however many wait. That is possible for holds of
whole flows; what a reply, an address or an age holds can only be found out mail by mail, and is not
counted here. Pure: counts are asked for through a function.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.spool.hold_calls import Hold, MailFilter

# An account, and a campaign of it; None is all of the account's mail.
Flow = tuple[int, str | None]


@dataclass(frozen=True, slots=True)
class HeldPart:
    """A hold, the name of the account that it is about, and how many mails it keeps back."""

    hold: Hold
    account: str | None
    mails: int


@dataclass(frozen=True, slots=True)
class HeldMail:
    """What is held of the mail at one destination: `mails` in all, each counted once.

    A mail that several holds keep back is in the part of each. `until_unix_ms` is when the first of
    them may go.
    """

    mails: int
    until_unix_ms: int
    parts: Sequence[HeldPart]


@dataclass(frozen=True, slots=True)
class _Reach:
    """Which of the mail that is asked about a hold concerns: all of it, or that of some flows."""

    hold: Hold
    account: str | None
    is_all: bool
    flows: Sequence[Flow] = ()


class HeldCounts:
    """What holds keep back, destination by destination, of one account's or campaign's mail.

    With None for both of everybody's. `accounts_with` gives the accounts that have waiting mail of
    a campaign, one account or all; `account_name` the name of one.
    """

    def __init__(
        self,
        holds: Iterable[Hold],
        account_id: int | None,
        campaign: str | None,
        *,
        accounts_with: Callable[[str, int | None], Iterable[int]],
        account_name: Callable[[int], str],
    ) -> None:
        self._reaches: Final[list[_Reach]] = []
        for hold in holds:
            wanted = hold.wanted
            if not wanted.is_of_flow or not _concerns(wanted, account_id, campaign):
                continue
            owner_id = wanted.account_id
            name = None if owner_id is None else account_name(owner_id)
            whose = account_id if owner_id is None else owner_id
            which = campaign if wanted.campaign is None else wanted.campaign
            if (whose, which) == (account_id, campaign):
                self._reaches.append(_Reach(hold, name, is_all=True))
                continue
            if which is None:
                assert whose is not None, "a hold of neither is one of all"
                flows: list[Flow] = [(whose, None)]
            else:
                flows = [(each, which) for each in accounts_with(which, whose)]
            if flows:
                self._reaches.append(_Reach(hold, name, is_all=False, flows=flows))

    def at(
        self, destination: str, site: str, waiting: int, count_of: Callable[[Flow], int]
    ) -> HeldMail | None:
        """Return what is held of the `waiting` mails of a destination; None if nothing is.

        `count_of` says how many of those are a flow's.
        """
        here = [each for each in self._reaches if each.hold.wanted.fits_place(destination, site)]
        if not here or not waiting:
            return None
        counts = {flow: count_of(flow) for each in here for flow in each.flows}
        parts: list[HeldPart] = []
        ends: dict[Flow, int] = {}
        end_of_all = 0
        for reach in here:
            mails = waiting if reach.is_all else sum(counts[flow] for flow in reach.flows)
            if not mails:
                continue
            parts.append(HeldPart(reach.hold, reach.account, mails))
            end_unix_ms = reach.hold.end_unix_ms
            if reach.is_all:
                end_of_all = max(end_of_all, end_unix_ms)
            for flow in reach.flows:
                if counts[flow]:
                    ends[flow] = max(ends.get(flow, 0), end_unix_ms)
        if not parts:
            return None
        parts.sort(key=lambda part: (-part.mails, -part.hold.end_unix_ms))
        groups = _apart(counts, ends, waiting, end_of_all)
        return HeldMail(sum(mails for mails, _ in groups), min(end for _, end in groups), parts)


def _apart(
    counts: Mapping[Flow, int], ends: Mapping[Flow, int], waiting: int, end_of_all: int
) -> list[tuple[int, int]]:
    """Return what is held in parts that have no mail in common: how many, and until when."""
    groups: list[tuple[int, int]] = []
    of_campaigns: Counter[int] = Counter()
    for (account_id, campaign), end_unix_ms in ends.items():
        if campaign is not None:
            of_campaigns[account_id] += counts[account_id, campaign]
            end_of_account = ends.get((account_id, None), 0)
            end = max(end_unix_ms, end_of_account, end_of_all)
            groups.append((counts[account_id, campaign], end))
    for (account_id, campaign), end_unix_ms in ends.items():
        if campaign is None:
            rest = counts[account_id, None] - of_campaigns[account_id]
            groups.append((rest, max(end_unix_ms, end_of_all)))
    if end_of_all:
        groups.append((waiting - sum(mails for mails, _ in groups), end_of_all))
    return [group for group in groups if group[0] > 0]


def _concerns(wanted: MailFilter, account_id: int | None, campaign: str | None) -> bool:
    """Say whether a hold may be about an account's or campaign's mail; None is everybody's."""
    return (account_id is None or wanted.account_id in (None, account_id)) and (
        campaign is None or wanted.campaign in (None, campaign)
    )
