"""`.../explain`: the one thing that holds a mail back, since when, and what its sender can do.

Puts the verdict of `engine.delivery.holding` on what `explain_facts` knows into words. Decides
nothing itself, so that explanation and engine cannot disagree.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import trio

from engine.config import Config, load_typos
from engine.delivery.holding import Holding, holding, holding_destination, waiting_in
from engine.http_server import Identity
from engine.spool.interface import DestinationRow, Spool
from engine.spool.listing_calls import EnvelopeFilter
from engine.spool.waiting_calls import FirstReleases
from engine.watch import explain_words
from engine.watch.delivering import Delivering
from engine.watch.destinations import (
    PLACE_OF,
    DestinationView,
    LiveDestinations,
    destination_view,
    hold_of_row,
    just_before,
    next_attempt_unix_ms,
)
from engine.watch.explain_causes import Causes, Wanted, causes_at, earlier, refined
from engine.watch.explain_facts import KnownFacts
from engine.watch.explain_views import (
    AddressedExplanation,
    AddressExplanation,
    CampaignExplanation,
    DestinationExplanation,
    Explanation,
    cause_view,
    held_by_view,
)
from engine.watch.final_words import final_advice
from engine.watch.messages import WAITING, account_id_of, reader_of
from protocols.languages import Language
from protocols.records import FINAL_STATUSES, Account, Envelope, Status
from protocols.timestamps import time_text, time_text_or_none

# An address rarely has more mails under way, and who has a hundred looks at the listing.
MESSAGES_OF_ADDRESS: Final = 10
# Paused mails that are looked at for the next releases: some milliseconds.
RELEASES_LOOKED_AT: Final = 1000
NO_RELEASES: Final = FirstReleases({}, None)
# Mails that are looked at in each of a campaign's destinations.
LOOKED_AT_OF_CAMPAIGN: Final = 20
# A campaign's destinations beyond these are in the sums, but not in the list.
DESTINATIONS_SHOWN: Final = 20
PAGE: Final = 1000
# Verdicts between two turns of other tasks: a millisecond or two.
ROWS_AT_ONCE: Final = 32


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
        self._facts = KnownFacts(spool, config, now_unix_ms=now_unix_ms, delivering=delivering)
        self._typos = load_typos(config.intake.typo_files)

    async def message(self, envelope: Envelope, language: Language) -> Explanation:
        fixed, state = envelope.fixed, envelope.state
        meant = self._typos.right_domain(fixed.destination)
        if state.status in FINAL_STATUSES:
            advice = final_advice(language, state.status, state.reason, state.reply, meant=meant)
            reply = state.reply or None
            return Explanation(
                fixed.envelope_id, state.status, None, None, None, None, reply, advice
            )
        facts = await self._facts.of_mail(envelope)
        held = holding(envelope, facts)
        assert held is not None, "only what is final is held by nothing"
        next_unix_ms = held.next_attempt_unix_ms
        return Explanation(
            message_id=fixed.envelope_id,
            status=state.status,
            held_by=held_by_view(
                held, language, ahead=facts.ahead, tells_all=held.scope == "envelope"
            ),
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
                is_own=held.is_own,
                is_silent=held.is_silent,
            ),
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
        [row], account = rows, reader_of(identity)
        releases = NO_RELEASES
        if row.counts[PLACE_OF[Status.PAUSED]]:
            releases = await self._spool.first_releases(
                account_id=account_id_of(identity), campaign=None, looked_at_max=RELEASES_LOOKED_AT
            )
        wanted = Wanted(account_id_of(identity))
        return await self._explained(row, language, account, releases, wanted)

    async def campaign(
        self, name: str, identity: Identity, language: Language, account_id: int | None
    ) -> CampaignExplanation | None:
        """None if the reader has no such campaign.

        Of one account's mail; with None of all accounts that have a campaign of this name.
        """
        by_code: dict[str, int] = {}
        sums = dict.fromkeys((Status.QUEUED, Status.DEFERRED, Status.PAUSED), 0)
        fullest: list[DestinationRow] = []
        seen: dict[str, tuple[str, int | None]] = {}
        account, is_known = reader_of(identity), False
        async for row in self.campaign_rows(name, account_id):
            is_known = True
            for status in sums:
                sums[status] += row.counts[PLACE_OF[status]]
            if not waiting_in(row):
                continue
            held = self.held(row, account)
            assert held is not None, "what waits is held by something"
            by_code[held.code] = by_code.get(held.code, 0) + waiting_in(row)
            seen[row.destination] = (held.code, self._next_unix_ms(row))
            fullest.append(row)
            if len(fullest) >= 2 * DESTINATIONS_SHOWN:
                fullest = _fullest(fullest)
        if not is_known:
            return None
        releases = NO_RELEASES
        if sums[Status.PAUSED]:
            releases = await self._spool.first_releases(
                account_id=account_id, campaign=name, looked_at_max=RELEASES_LOOKED_AT
            )
        told = []
        for row in _fullest(fullest):
            wanted = Wanted(account_id, name, LOOKED_AT_OF_CAMPAIGN)
            explained = await self._explained(row, language, account, releases, wanted)
            told.append(explained)
            code, _ = seen.pop(row.destination)
            _tell_apart(by_code, code, explained)
        # Texts of one form are in the order of their times.
        times = [each.next_attempt_at for each in told if each.next_attempt_at is not None]
        for destination, (_, next_unix_ms) in seen.items():
            first = earlier(next_unix_ms, releases.by_destination.get(destination))
            if first is not None:
                times.append(time_text(first))
        queued, deferred, paused = sums.values()
        return CampaignExplanation(
            name, queued, deferred, paused, min(times, default=None), by_code, told
        )

    async def _explained(
        self,
        row: DestinationRow,
        language: Language,
        account: Account | None,
        releases: FirstReleases,
        wanted: Wanted,
    ) -> DestinationExplanation:
        """Explain what waits at one destination, as far as it is `wanted`."""
        held = self.held(row, account)
        found = Causes([], is_exact=True)
        advice = explain_words.nothing_waits(language)
        release_unix_ms = None
        if held is not None:
            if row.counts[PLACE_OF[Status.PAUSED]]:
                release_unix_ms = releases.by_destination.get(
                    row.destination, releases.beyond_unix_ms
                )
            found = await causes_at(
                row,
                held,
                self._spool,
                self._facts,
                wanted,
                account=account,
                row_next_unix_ms=self._next_unix_ms(row),
                release_unix_ms=release_unix_ms,
            )
            held = refined(held, found, row)
            advice = self._advice(held, row, language, many=waiting_in(row) > 1)
        view = self._view(row, held, language, account, is_own=True)
        return DestinationExplanation(
            destination=row.destination,
            state=view.state,
            queued=view.queued,
            deferred=view.deferred,
            paused=view.paused,
            held_by=view.held_by,
            next_attempt_at=time_text_or_none(found.next_unix_ms or 0),
            rate_per_s=view.rate_per_s,
            advice=advice,
            causes=[
                cause_view(
                    each,
                    language,
                    advice=self._advice(each.held, row, language, many=each.count > 1),
                    is_operator=account is None,
                )
                for each in found.causes
            ],
            is_exact=found.is_exact,
            held=view.held,
            holds=view.holds,
        )

    def _advice(self, held: Holding, row: DestinationRow, language: Language, *, many: bool) -> str:
        return explain_words.waiting_advice(
            language,
            held.code,
            held.reason,
            scope=held.scope,
            many=many,
            contact=self._config.contact,
            meant=self._typos.right_domain(row.destination),
            is_own=held.is_own,
            is_silent=held.is_silent,
        )

    def _next_unix_ms(self, row: DestinationRow) -> int | None:
        """When the first of what is queued moves; None if nothing is, or nobody can tell."""
        hold = hold_of_row(self._spool, row)
        live = self._live().get(row.destination)
        now_unix_ms = self._now_unix_ms()
        next_unix_ms = next_attempt_unix_ms(row, live, now_unix_ms, hold=hold)
        # While an actor is at work its row on the agenda is history.
        return None if next_unix_ms is None else max(next_unix_ms, now_unix_ms)

    def view(
        self, row: DestinationRow, language: Language, account: Account | None
    ) -> DestinationView:
        """One destination as `account` sees it; None is an operator."""
        return self._view(row, self.held(row, account), language, account)

    def _view(
        self,
        row: DestinationRow,
        held: Holding | None,
        language: Language,
        account: Account | None,
        *,
        is_own: bool = False,
    ) -> DestinationView:
        """`is_own`: what is said of single mails is about the reader's."""
        held_by = None
        if held is not None:
            waiting = waiting_in(row)
            # One mail's own reason is told as such; all else is about the destination.
            many = waiting > 1 or held.code != "retry_wait" or held.reason is None
            held_by = held_by_view(
                held,
                language,
                ahead=waiting,
                many=many,
                tells_all=account is None or (is_own and held.scope == "envelope"),
            )
        return destination_view(
            row,
            self._live().get(row.destination),
            self._now_unix_ms(),
            held_by=held_by,
            hold=hold_of_row(self._spool, row, account.account_id if account else None),
            is_operator=account is None,
        )

    def held(self, row: DestinationRow, account: Account | None) -> Holding | None:
        """What holds the mail at one destination; `account` is whose counts it has, if one's."""
        facts = self._facts.of_row(row, account)
        return holding_destination(row, facts, account.name if account else "")

    async def campaign_rows(
        self, name: str, account_id: int | None
    ) -> AsyncIterator[DestinationRow]:
        """The destinations that a campaign has mail to, with its own counts, page by page."""
        after = ""
        while True:
            rows = await self._spool.destinations(
                account_id=account_id, campaign=name, after=after, limit=PAGE
            )
            for number, row in enumerate(rows):
                yield row
                if number % ROWS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            if len(rows) < PAGE:
                return
            after = rows[-1].destination


def _tell_apart(by_code: dict[str, int], code: str, explained: DestinationExplanation) -> None:
    """Count the mails of one destination by what holds each, and not by what holds most of all."""
    by_code[code] -= sum(each.count for each in explained.causes)
    for cause in explained.causes:
        by_code[cause.code] = by_code.get(cause.code, 0) + cause.count
    if by_code[code] == 0:
        del by_code[code]


def _fullest(rows: list[DestinationRow]) -> list[DestinationRow]:
    in_order = sorted(rows, key=lambda row: (-waiting_in(row), row.destination))
    return in_order[:DESTINATIONS_SHOWN]
