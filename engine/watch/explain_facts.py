"""What is known about the way of a mail, or of all mail to a destination.

Gathers from the spool, the live actor and the configuration what `engine.delivery.holding` decides
from; looks at a bounded number of rows, however many are queued. Says nothing in words.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

import msgspec

from engine.config import Config
from engine.delivery.holding import (
    Facts,
    Gate,
    Outlook,
    Place,
    waiting_in,
)
from engine.delivery.limits import NOT_BY_WAITING, Limit
from engine.spool.hold_calls import NO_END_UNIX_MS, Hold
from engine.spool.interface import DestinationRow, Spool
from engine.watch.delivering import Delivering
from engine.watch.destinations import WholeHold, hold_of_row
from engine.watch.messages import WAITING
from protocols.records import Account, DestinationRecord, Envelope, EnvelopeFixed, FlowWait

# So many of the mails ahead are counted one by one; it takes one or two milliseconds. A place
# further back is read off the counters: nobody minds whether it is 48,000 or 48,200.
AHEAD_COUNTED_MAX: Final = 1000


class KnownFacts:
    """Knows where to ask for the facts."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        *,
        now_unix_ms: Callable[[], int],
        delivering: Delivering,
    ) -> None:
        self._spool = spool
        self._config = config
        self._now_unix_ms = now_unix_ms
        self._delivering = delivering

    async def of_mail(self, envelope: Envelope) -> Facts:
        """What is known about the way of one waiting mail."""
        fixed, state, spool = envelope.fixed, envelope.state, self._spool
        is_queued = state.status in WAITING
        outlook = self._delivering.outlook(fixed.destination, fixed) if is_queued else None
        record = outlook.record if outlook else None
        if record is None or record == DestinationRecord():
            # An actor that has just been started has not read what the last one left.
            record = await spool.destination(fixed.destination) or DestinationRecord()
        place = outlook.place if outlook else Place()
        wait = _wait_of(record, fixed.account_id, fixed.campaign) if outlook is None else None
        ahead = place.before
        if is_queued and not place.is_claimed:
            found = await spool.ahead(envelope, place.position, AHEAD_COUNTED_MAX)
            ahead += found.count
        last = await spool.events_at(state.event_seqs[-1:])
        return Facts(
            now_unix_ms=self._now_unix_ms(),
            record=record,
            rest_path=self._rest_path(fixed.destination, record, outlook),
            wait=wait,
            flow_path=self._flow_path(fixed.destination, record, wait),
            hold=hold_gate(spool.hold_of(envelope, record.site), fixed.account),
            outlook=outlook,
            ahead=ahead,
            last_event_unix_ms=last[0].at_unix_ms if last else 0,
            quota="" if is_queued else await self._quota(fixed.account_id),
            spool_refuses_since_unix_ms=self._delivering.spool_refuses_since_unix_ms,
        )

    def of_row(self, row: DestinationRow, account: Account | None) -> Facts:
        """What is known about the mail at one destination; `account` is whose, if one's."""
        account_id = account.account_id if account else None
        outlook = self._delivering.outlook(row.destination, None, account_id)
        record = outlook.record if outlook and outlook.record.site else row.record
        hold = hold_of_row(self._spool, row, account_id)
        wait = None
        if outlook is None and record.waits:
            # The one that its row on the agenda is about, if it is the reader's to know of.
            wait = next(
                (
                    each
                    for each in record.waits
                    if each.until_unix_ms == row.wake_unix_ms
                    and account_id in (None, each.account_id)
                ),
                None,
            )
        return Facts(
            now_unix_ms=self._now_unix_ms(),
            record=record,
            rest_path=self._rest_path(row.destination, record, outlook),
            wait=wait,
            flow_path=self._flow_path(row.destination, record, wait),
            hold=_gate_of_all(hold, account),
            outlook=outlook,
            ahead=max(0, waiting_in(row) - 1),
            quota=self._quota_text(account),
            spool_refuses_since_unix_ms=self._delivering.spool_refuses_since_unix_ms,
        )

    def of_each(self, mails: Iterable[Envelope], of_all: Facts) -> Iterator[tuple[Envelope, Facts]]:
        """What is known about some mails of a destination, beside what is known `of_all`.

        Which of them is with a server just now is not looked up.
        """
        of_flow: dict[tuple[int, str | None], Facts] = {}
        of_held: dict[tuple[int, str | None, int], Facts] = {}
        hold_of = self._hold_of(of_all.record.site)
        for envelope in mails:
            fixed = envelope.fixed
            flow = (fixed.account_id, fixed.campaign)
            known = of_flow.get(flow)
            if known is None:
                known = of_flow[flow] = self._of_flow(fixed, of_all)
            hold = hold_of(envelope)
            if hold is None:
                yield envelope, known
                continue
            held = of_held.get((*flow, hold.hold_id))
            if held is None:
                held = replace(known, hold=hold_gate(hold, fixed.account))
                of_held[*flow, hold.hold_id] = held
            yield envelope, held

    def _hold_of(self, site: str) -> Callable[[Envelope], Hold | None]:
        """Return what says which hold keeps a mail of one destination back, now."""
        spool = self._spool
        if not all(hold.wanted.is_of_flow for hold in spool.holds()):
            return lambda envelope: spool.hold_of(envelope, site)
        # All mails of a flow are held alike: there can be a thousand holds to look through.
        of_flow: dict[tuple[int, str | None], Hold | None] = {}

        def hold_of(envelope: Envelope) -> Hold | None:
            flow = (envelope.fixed.account_id, envelope.fixed.campaign)
            if flow not in of_flow:
                of_flow[flow] = spool.hold_of(envelope, site)
            return of_flow[flow]

        return hold_of

    def _of_flow(self, fixed: EnvelopeFixed, of_all: Facts) -> Facts:
        record, outlook = of_all.record, of_all.outlook
        if outlook is not None:
            own = self._delivering.outlook(fixed.destination, fixed)
            flow_path = own.flow_path if own is not None else ()
            outlook = replace(outlook, flow_path=flow_path, place=Place())
            return replace(of_all, hold=None, wait=None, flow_path=(), outlook=outlook)
        wait = _wait_of(record, fixed.account_id, fixed.campaign)
        flow_path = self._flow_path(fixed.destination, record, wait)
        return replace(of_all, hold=None, wait=wait, flow_path=flow_path)

    def _rest_path(
        self, destination: str, record: DestinationRecord, outlook: Outlook | None
    ) -> tuple[Limit, ...]:
        # To find the rules of ten thousand destinations takes a while, and few of them matter.
        if outlook is not None or record.cause != "rate_limit":
            return ()
        return tuple(self._delivering.limits_at_rest(destination, record))

    def _flow_path(
        self, destination: str, record: DestinationRecord, wait: FlowWait | None
    ) -> tuple[Limit, ...]:
        if wait is None:
            return ()
        return self._delivering.flow_limits_at_rest(destination, record, wait)

    async def _quota(self, account_id: int) -> str:
        for account in await self._spool.accounts():
            if account.account_id == account_id:
                return self._quota_text(account)
        return ""

    def _quota_text(self, account: Account | None) -> str:
        plan = self._config.plan(account.plan) if account else None
        if plan is None:
            return ""
        numbers = ((plan.messages_per_day, "day"), (plan.messages_per_month, "month"))
        return ", ".join(f"{number}/{period}" for number, period in numbers if number is not None)


def _wait_of(record: DestinationRecord, account_id: int, campaign: str | None) -> FlowWait | None:
    """Return what a destination's record says of a flow; of several the one that ends last."""
    waits = [each for each in record.waits if each.concerns(account_id, campaign)]
    return max(waits, key=lambda each: each.until_unix_ms, default=None)


def _gate_of_all(hold: WholeHold | None, account: Account | None) -> Gate | None:
    """A hold of all mail at a destination, with when the first of it may go."""
    if hold is None:
        return None
    first_unix_ms = hold.until_unix_ms if hold.until_unix_ms < NO_END_UNIX_MS else None
    so_long = msgspec.structs.replace(hold.hold, until_unix_ms=first_unix_ms)
    return hold_gate(so_long, hold.account or (account.name if account else ""))


def hold_gate(hold: Hold | None, account: str) -> Gate | None:
    """A hold as an explanation names it: by the narrowest thing that it is about."""
    if hold is None:
        return None
    wanted = hold.wanted
    scope, key = "engine", ""
    for scope_given, given in (
        ("destination", wanted.destination),
        ("campaign", wanted.campaign),
        ("site", wanted.site),
        ("account", account if wanted.account_id is not None else None),
    ):
        if given is not None:
            scope, key = scope_given, given
            break
    until_unix_ms = NOT_BY_WAITING if hold.until_unix_ms is None else float(hold.until_unix_ms)
    return Gate(
        *("hold", scope, key, until_unix_ms, hold.since_unix_ms),
        note=hold.why,
        is_own=hold.owner_id != 0,
    )
