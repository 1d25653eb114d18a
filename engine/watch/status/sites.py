"""Which receiving sites hold back the mail of many? A walk over the destinations with mail.

A site is named only if its trouble concerns so many mails of so many accounts that it is nobody's
secret whom it concerns; how many of each is not told. Reads the spool, page by page, and what
delivery says of limits; decides nothing about incidents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Protocol

from publicsuffixlist import PublicSuffixList

from engine.delivery.holding import waiting_in
from engine.delivery.limits import Limit, TokenBucket
from engine.spool.agenda import UNREACHABLE_CAUSES
from engine.spool.interface import DestinationRow, Spool
from engine.watch.destinations import LiveDestinations, cause_now, just_before
from protocols.records import STATUSES, DestinationRecord, Reason, Status

PAGE: Final = 1_000
# More sites than these in trouble at once are our own trouble, and told as that.
NAMED_MAX: Final = 20
# Whose mails they are is asked for the fullest destinations of a site; more change no answer.
ASKED_MAX: Final = 5
# A pace at which what waits is gone within this time is no delay worth a line.
DRAIN_S_MIN: Final = 300.0
NAMELESS: Final = "…"
PAUSED_PLACE: Final = STATUSES.index(Status.PAUSED)


class LimitsAtRest(Protocol):
    """What delivery says of the limits on the way to a destination."""

    def limits_at_rest(self, destination: str, record: DestinationRecord) -> Sequence[Limit]: ...


@dataclass(frozen=True, slots=True)
class SiteTrouble:
    """One site that many wait for. `name` is for people, `key` tells it from others."""

    key: str
    name: str
    is_unreachable: bool
    is_dns: bool = False


@dataclass(frozen=True, slots=True)
class SitesSeen:
    """What one walk found: `reached_for` sites have mail waiting, `unreachable` of these fail."""

    troubled: tuple[SiteTrouble, ...] = ()
    reached_for: int = 0
    unreachable: int = 0


NOTHING_SEEN: Final = SitesSeen()


@dataclass(slots=True)
class _Site:
    key: str
    waiting: int = 0
    is_dns: bool = True
    backs_off: bool = False
    rows: list[tuple[int, DestinationRow]] = field(default_factory=list)


class SiteWalk:
    """Looks at all destinations with mail."""

    def __init__(
        self,
        spool: Spool,
        live: LiveDestinations,
        delivering: LimitsAtRest,
        *,
        messages_min: int,
        accounts_min: int,
        now_unix_ms: Callable[[], int],
    ) -> None:
        self._spool = spool
        self._live = live
        self._delivering = delivering
        self._messages_min = messages_min
        self._accounts_min = accounts_min
        self._now_unix_ms = now_unix_ms
        self._suffixes: PublicSuffixList | None = None

    async def look(self) -> SitesSeen:
        """Walk once. Costs a page of the spool for each thousand destinations."""
        unreachable: dict[str, _Site] = {}
        throttled: dict[str, _Site] = {}
        reached_for: set[str] = set()
        after = ""
        while True:
            rows = await self._spool.destinations(after=after, limit=PAGE)
            now_unix_ms, live = self._now_unix_ms(), self._live()
            for row in rows:
                waiting = waiting_in(row) - row.counts[PAUSED_PLACE]
                if not waiting or self._spool.hold_of_destination(row.destination, row.record.site):
                    continue
                key = row.record.site or row.destination
                reached_for.add(key)
                cause = cause_now(row.record, live.get(row.destination), now_unix_ms)
                asks_for_less = row.record.reason is Reason.THROTTLED
                if cause in UNREACHABLE_CAUSES and not asks_for_less:
                    site = unreachable.setdefault(key, _Site(key))
                    site.is_dns = site.is_dns and cause == "dns_failure"
                else:
                    site = throttled.setdefault(key, _Site(key))
                    # A server that says nothing but "too fast" is backed off from as a whole.
                    site.backs_off = site.backs_off or cause in UNREACHABLE_CAUSES
                _add(site, waiting, row)
            if len(rows) < PAGE:
                break
            after = rows[-1].destination
        troubled = [
            *await self._named(unreachable, is_unreachable=True),
            *await self._named(throttled, is_unreachable=False),
        ]
        return SitesSeen(tuple(troubled[:NAMED_MAX]), len(reached_for), len(unreachable))

    async def _named(
        self, sites: dict[str, _Site], *, is_unreachable: bool
    ) -> Sequence[SiteTrouble]:
        found: list[SiteTrouble] = []
        full = [each for each in sites.values() if each.waiting >= self._messages_min]
        for site in sorted(full, key=lambda each: -each.waiting):
            if len(found) == NAMED_MAX:
                break
            if not is_unreachable and not self._is_throttled(site):
                continue
            rows = [row for _, row in site.rows]
            if await self._is_of_many(rows):
                name = await self._name(site.key, rows)
                found.append(SiteTrouble(site.key, name, is_unreachable, site.is_dns))
        return found

    def _is_throttled(self, site: _Site) -> bool:
        """Whether replies have taught us to go so slowly that what waits takes a while."""
        if site.backs_off:
            return True
        now_unix_ms = self._now_unix_ms()
        row = site.rows[0][1]
        for limit in self._delivering.limits_at_rest(row.destination, row.record):
            if not getattr(limit, "reply", ""):
                continue  # A rule of ours: that is how it is meant to be.
            if isinstance(limit, TokenBucket):
                if site.waiting / limit.rate_per_s >= DRAIN_S_MIN:
                    return True
            elif limit.ready_at_unix_ms(now_unix_ms) > now_unix_ms:
                return True
        return False

    async def _is_of_many(self, rows: Sequence[DestinationRow]) -> bool:
        accounts = [
            account
            for account in await self._spool.accounts()
            if not account.disabled and not account.internal
        ]
        wanted = max(1, min(self._accounts_min, len(accounts)))
        concerned = 0
        for account in accounts:
            for row in rows[:ASKED_MAX]:
                own = await self._spool.destinations(
                    account_id=account.account_id, after=just_before(row.destination), limit=1
                )
                if own and own[0].destination == row.destination and waiting_in(own[0]):
                    concerned += 1
                    break
            if concerned >= wanted:
                return True
        return False

    async def _name(self, key: str, rows: Sequence[DestinationRow]) -> str:
        """What people know it by: its only domain, or whose mail servers they are."""
        if len(rows) == 1:
            return rows[0].destination
        host = key.partition(",")[0].rpartition(":")[0] or key.partition(",")[0]
        try:
            ip_address(host.strip("[]"))
        except ValueError:
            if self._suffixes is None:
                self._suffixes = PublicSuffixList()
            return str(self._suffixes.privatesuffix(host) or host)
        # A route of ours to an address, which is nobody's business, for domains of which some may
        # be one sender's alone.
        for row in rows[:ASKED_MAX]:
            if await self._is_of_many([row]):
                return row.destination
        return NAMELESS


def _add(site: _Site, waiting: int, row: DestinationRow) -> None:
    site.waiting += waiting
    site.rows.append((waiting, row))
    site.rows.sort(key=lambda each: -each[0])
    # One more than is asked about, so that a site with one domain is told from one with several.
    del site.rows[ASKED_MAX + 1 :]
