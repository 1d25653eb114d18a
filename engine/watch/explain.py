"""`.../explain`: the one thing that holds a mail back, since when, and what its sender can do.

Gathers the facts (spool, live actor, configuration) and puts the verdict of
`engine.delivery.holding` into words. Decides nothing itself, so that explanation and engine cannot
disagree. Looks at a bounded number of rows, however many are queued.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import trio

from engine.config import Config, load_typos
from engine.delivery.holding import (
    Facts,
    Gate,
    Holding,
    Outlook,
    Place,
    holding,
    holding_destination,
    waiting_in,
)
from engine.delivery.limits import NOT_BY_WAITING, Limit
from engine.http_server import Access, Identity, Request, Response, Route
from engine.spool.hold_calls import Hold
from engine.spool.interface import DestinationRow, Spool
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch import explain_words
from engine.watch.delivering import Delivering
from engine.watch.destinations import (
    PLACE_OF,
    DestinationView,
    HeldBy,
    LiveDestinations,
    destination_view,
    hold_of_row,
    just_before,
    without_mailboxes,
)
from engine.watch.messages import WAITING, account_id_of, visible_envelope
from engine.watch.queries import Query, not_found, refuse
from protocols.languages import Language, preferred_language
from protocols.records import (
    FINAL_STATUSES,
    Account,
    DestinationRecord,
    Envelope,
    FlowWait,
    Status,
)
from protocols.timestamps import time_text, time_text_or_none

# So many of the mails ahead are counted one by one; it takes one or two milliseconds. A place
# further back is read off the counters: nobody minds whether it is 48,000 or 48,200.
AHEAD_COUNTED_MAX: Final = 1000
# An address rarely has more mails under way, and who has a hundred looks at the listing.
MESSAGES_OF_ADDRESS: Final = 10
# A campaign's destinations beyond these are in the sums, but not in the list.
DESTINATIONS_SHOWN: Final = 20
PAGE: Final = 1000
# Verdicts between two turns of other tasks: a millisecond or two.
ROWS_AT_ONCE: Final = 32


class Explanation(msgspec.Struct, frozen=True):
    """Why a mail is not delivered yet. `ahead` counts the mails of its destination that go first:
    one by one up to a thousand, about right beyond; null for what is paused. What is final is held
    by nothing, and its times are null. `reply` is the last one heard about it.
    """

    message_id: int
    status: Status
    held_by: HeldBy | None
    ahead: int | None
    next_attempt_at: str | None
    expires_at: str | None
    reply: str | None
    advice: str


class AddressedExplanation(Explanation, frozen=True):
    """The explanation of one of several mails, with what tells them apart."""

    subject: str
    accepted_at: str


class AddressExplanation(msgspec.Struct, frozen=True):
    """The latest waiting mails to an address; if none waits, its latest ones."""

    address: str
    messages: list[AddressedExplanation]


class DestinationExplanation(msgspec.Struct, frozen=True):
    """What holds a destination's mail back: all that waits there, not one mail of it."""

    destination: str
    state: str
    queued: int
    deferred: int
    paused: int
    held_by: HeldBy | None
    next_attempt_at: str | None
    rate_per_s: float
    advice: str


class CampaignExplanation(msgspec.Struct, frozen=True):
    """Where a campaign's mail waits, the most first, and how much is held by what."""

    campaign: str
    queued: int
    deferred: int
    paused: int
    waiting_by_code: dict[str, int]
    destinations: list[DestinationExplanation]


class Explainer:
    """Answers for one mail, an address, a destination, a campaign."""

    def __init__(
        self,
        spool: Spool,
        config: Config,
        live: LiveDestinations,
        *,
        now_unix_ms: Callable[[], int],
        delivering: Delivering,
    ) -> None:
        self._spool = spool
        self._config = config
        self._live = live
        self._now_unix_ms = now_unix_ms
        self._delivering = delivering
        self._typos = load_typos(config.intake.typo_files)

    async def message(self, envelope: Envelope, language: Language) -> Explanation:
        fixed, state = envelope.fixed, envelope.state
        meant = self._typos.right_domain(fixed.destination)
        if state.status in FINAL_STATUSES:
            advice = explain_words.final_advice(language, state.status, state.reason, meant=meant)
            reply = state.reply or None
            return Explanation(
                fixed.envelope_id, state.status, None, None, None, None, reply, advice
            )
        facts = await self.facts(envelope)
        held = holding(envelope, facts)
        assert held is not None, "only what is final is held by nothing"
        next_unix_ms = held.next_attempt_unix_ms
        return Explanation(
            message_id=fixed.envelope_id,
            status=state.status,
            held_by=held_by_view(held, language, ahead=facts.ahead),
            ahead=facts.ahead if state.status in WAITING else None,
            next_attempt_at=time_text_or_none(next_unix_ms or 0),
            expires_at=time_text(state.expires_unix_ms),
            reply=state.reply or None,
            advice=explain_words.waiting_advice(
                language,
                held.code,
                held.reason,
                scope=held.scope,
                contact=self._config.contact,
                meant=meant,
                expires_first=next_unix_ms is not None and next_unix_ms >= state.expires_unix_ms,
            ),
        )

    async def facts(self, envelope: Envelope) -> Facts:
        """What is known about the way of one waiting mail."""
        fixed, state, spool = envelope.fixed, envelope.state, self._spool
        is_queued = state.status in WAITING
        outlook = self._delivering.outlook(fixed.destination, fixed) if is_queued else None
        record = outlook.record if outlook else None
        if record is None or record == DestinationRecord():
            # An actor that has just been started has not read what the last one left.
            record = await spool.destination(fixed.destination) or DestinationRecord()
        place = outlook.place if outlook else Place()
        # Who waits for its own account has the mail of that account before it.
        place.position.waits = ()
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

    async def address(
        self, address: str, identity: Identity, language: Language
    ) -> AddressExplanation:
        wanted = EnvelopeFilter(
            account_id=account_id_of(identity),
            statuses=frozenset({*WAITING, Status.PAUSED}),
            address=address,
        )
        page = await self._spool.find(wanted, None, MESSAGES_OF_ADDRESS)
        if not page.envelopes:
            anything = EnvelopeFilter(account_id=wanted.account_id, address=address)
            page = await self._spool.find(anything, None, MESSAGES_OF_ADDRESS)
        messages = []
        for envelope in page.envelopes:
            explained = await self.message(envelope, language)
            messages.append(
                AddressedExplanation(
                    **msgspec.structs.asdict(explained),
                    subject=envelope.fixed.subject,
                    accepted_at=time_text(envelope.fixed.accepted_unix_ms),
                )
            )
        return AddressExplanation(address, messages)

    async def destination(
        self, name: str, identity: Identity, language: Language
    ) -> DestinationExplanation | None:
        """None if the reader has no mail there, and never had."""
        rows = await self._spool.destinations(
            account_id=account_id_of(identity), after=just_before(name), limit=1
        )
        if not rows or rows[0].destination != name:
            return None
        return self.row(rows[0], language, reader_of(identity))

    async def campaign(
        self, name: str, identity: Identity, language: Language
    ) -> CampaignExplanation | None:
        """None if the reader has no such campaign."""
        by_code: dict[str, int] = {}
        sums = dict.fromkeys((Status.QUEUED, Status.DEFERRED, Status.PAUSED), 0)
        fullest: list[DestinationRow] = []
        is_known = False
        async for row in self.campaign_rows(name, identity):
            is_known = True
            for status in sums:
                sums[status] += row.counts[PLACE_OF[status]]
            if not waiting_in(row):
                continue
            held = self.held(row, reader_of(identity))
            assert held is not None, "what waits is held by something"
            by_code[held.code] = by_code.get(held.code, 0) + waiting_in(row)
            fullest.append(row)
            if len(fullest) >= 2 * DESTINATIONS_SHOWN:
                fullest = _fullest(fullest)
        if not is_known:
            return None
        told = [self.row(row, language, reader_of(identity)) for row in _fullest(fullest)]
        queued, deferred, paused = sums.values()
        return CampaignExplanation(name, queued, deferred, paused, by_code, told)

    def row(
        self, row: DestinationRow, language: Language, account: Account | None
    ) -> DestinationExplanation:
        """Explain what waits at one destination."""
        held = self.held(row, account)
        view = self._view(row, held, language, account)
        advice = explain_words.nothing_waits(language)
        if held is not None:
            advice = explain_words.waiting_advice(
                language,
                held.code,
                held.reason,
                scope=held.scope,
                contact=self._config.contact,
                meant=self._typos.right_domain(row.destination),
            )
        return DestinationExplanation(
            destination=row.destination,
            state=view.state,
            queued=view.queued,
            deferred=view.deferred,
            paused=view.paused,
            held_by=view.held_by,
            next_attempt_at=view.next_attempt_at,
            rate_per_s=view.rate_per_s,
            advice=advice,
        )

    def view(
        self, row: DestinationRow, language: Language, account: Account | None
    ) -> DestinationView:
        """One destination as `account` sees it; None is an operator."""
        return self._view(row, self.held(row, account), language, account)

    def _view(
        self, row: DestinationRow, held: Holding | None, language: Language, account: Account | None
    ) -> DestinationView:
        held_by = None
        if held is not None:
            waiting = waiting_in(row)
            held_by = held_by_view(
                held, language, ahead=waiting, many=True, is_operator=account is None
            )
        return destination_view(
            row,
            self._live().get(row.destination),
            self._now_unix_ms(),
            held_by=held_by,
            hold=hold_of_row(self._spool, row),
            is_operator=account is None,
        )

    def held(self, row: DestinationRow, account: Account | None) -> Holding | None:
        """What holds the mail at one destination; `account` is whose counts it has, if one's."""
        outlook = self._delivering.outlook(row.destination, None)
        record = outlook.record if outlook and outlook.record.site else row.record
        hold = hold_of_row(self._spool, row)
        wait = None
        if outlook is None and record.waits:
            # The one that its row on the agenda is about, if it is the reader's to know of.
            wait = next(
                (
                    each
                    for each in record.waits
                    if each.until_unix_ms == row.wake_unix_ms
                    and (account is None or account.account_id == each.account_id)
                ),
                None,
            )
        facts = Facts(
            now_unix_ms=self._now_unix_ms(),
            record=record,
            rest_path=self._rest_path(row.destination, record, outlook),
            wait=wait,
            flow_path=self._flow_path(row.destination, record, wait),
            hold=hold_gate(hold, account.name if account else ""),
            outlook=outlook,
            ahead=max(0, waiting_in(row) - 1),
            quota=self._quota_text(account),
            spool_refuses_since_unix_ms=self._delivering.spool_refuses_since_unix_ms,
        )
        return holding_destination(row, facts, account.name if account else "")

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

    async def campaign_rows(self, name: str, identity: Identity) -> AsyncIterator[DestinationRow]:
        """The destinations that a campaign has mail to, with its own counts, page by page."""
        after = ""
        while True:
            rows = await self._spool.destinations(
                account_id=account_id_of(identity), campaign=name, after=after, limit=PAGE
            )
            for number, row in enumerate(rows):
                yield row
                if number % ROWS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            if len(rows) < PAGE:
                return
            after = rows[-1].destination

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
    return Gate("hold", scope, key, until_unix_ms, hold.since_unix_ms, note=hold.why)


def held_by_view(
    held: Holding, language: Language, *, ahead: int, many: bool = False, is_operator: bool = False
) -> HeldBy:
    # Only a mail's own reply is sure to be about its sender's recipient.
    is_own = held.scope == "envelope" and not many
    return HeldBy(
        code=held.code,
        scope=held.scope,
        key=held.key,
        since=time_text_or_none(held.since_unix_ms),
        limit=held.limit or None,
        reply=held.reply if is_own or is_operator else without_mailboxes(held.reply),
        reason=held.reason.value if held.reason else None,
        text=explain_words.cause_text(
            language,
            held.code,
            scope=held.scope,
            key=held.key,
            limit=held.limit,
            ahead=ahead,
            reason=held.reason,
            many=many,
            note=held.note,
        ),
    )


def _fullest(rows: list[DestinationRow]) -> list[DestinationRow]:
    in_order = sorted(rows, key=lambda row: (-waiting_in(row), row.destination))
    return in_order[:DESTINATIONS_SHOWN]


def routes(explainer: Explainer, spool: Spool) -> list[Route]:
    """Explanations of a mail, an address, a destination and a campaign."""

    async def explain_message(request: Request) -> Response:
        envelope = await visible_envelope(spool, request.params["id"], request.identity)
        if envelope is None:
            raise not_found(f"message {request.params['id'][:40]}")
        return _answer(await explainer.message(envelope, language_of(request)))

    async def explain_address(request: Request) -> Response:
        address = Query(request, ("address",)).one("address")
        if not address:
            refuse("address", "Whose mail is to be explained?")
        return _answer(await explainer.address(address, request.identity, language_of(request)))

    async def explain_destination(request: Request) -> Response:
        name = request.params["domain"].lower()
        found = await explainer.destination(name, request.identity, language_of(request))
        if found is None:
            raise not_found(f"mail to {name[:80]}")
        return _answer(found)

    async def explain_campaign(request: Request) -> Response:
        name = request.params["id"]
        found = await explainer.campaign(name, request.identity, language_of(request))
        if found is None:
            raise not_found(f"campaign {name[:80]!r}")
        return _answer(found)

    return [
        Route("GET", "/v1/messages/{id}/explain", explain_message, Access.ACCOUNT),
        Route("GET", "/v1/destinations/{domain}/explain", explain_destination, Access.ACCOUNT),
        Route("GET", "/v1/campaigns/{id}/explain", explain_campaign, Access.ACCOUNT),
        Route("GET", "/v1/explain", explain_address, Access.ACCOUNT),
    ]


def reader_of(identity: Identity) -> Account | None:
    """Return whose mail a reader sees; None is everybody's, an operator's."""
    return None if identity.operator else identity.account


def language_of(request: Request) -> Language:
    return preferred_language(request.header(b"accept-language"))


def _answer(value: msgspec.Struct) -> Response:
    return Response.json(value, headers=(("vary", "accept-language"),))
