"""What a spool does, whichever way it keeps its data.

Every call takes and gives batches of plain values and means the same on every
adapter. Adapters are `memory:` (the model the contract tests compare with) and
`lmdb:` (the embedded default). Times are wall time in milliseconds
(`..._unix_ms`). A call that changes something returns when the change is durable,
and listeners are told only then.

In flight: `window` claims what it returns. A claim lives in memory only; it ends
with the `settle` of that envelope or with `give_back`, and a crash ends all. A
claimed envelope is in no other window; `sweep` does not expire it, and a `Finish`
with status cancelled does nothing to it (and leaves the claim).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

import msgspec

from engine.spool.account_calls import AccountCalls
from engine.spool.campaign_calls import CampaignCalls
from engine.spool.disk_calls import DiskCalls
from engine.spool.figure_calls import FigureCalls
from engine.spool.handed_in import Accepted as Accepted
from engine.spool.handed_in import AcceptedEnvelope as AcceptedEnvelope
from engine.spool.handed_in import AcceptRequest as AcceptRequest
from engine.spool.handed_in import ContentKind as ContentKind
from engine.spool.handed_in import NewMessage as NewMessage
from engine.spool.handed_in import NewRecipient as NewRecipient
from engine.spool.handed_in import Quota as Quota
from engine.spool.held_counts import HeldMail
from engine.spool.hold_calls import HoldCalls
from engine.spool.listing_calls import ListingCalls
from engine.spool.note_calls import NoteCalls
from engine.spool.waiting_calls import WaitingCalls
from protocols.records import (
    DestinationRecord,
    Envelope,
    Event,
    Reason,
    Status,
)


class SpoolError(Exception):
    """The spool cannot do what was asked; the text says what and where."""


class SpoolFull(SpoolError):
    """No room (map, disk or low-water mark): nothing was stored; try again later (452, 503)."""


class SpoolFailed(SpoolError):
    """A commit failed: whether it is stored is unknown, and the process must end (451, 503)."""


class SpoolUnusable(SpoolError):
    """The spool cannot be opened: damaged, truncated, foreign, locked, or not permitted."""


class QuotaBeyondReach(SpoolError):
    """The mail could not be released within the longest pause (60 days): refused at intake."""


class CampaignEnded(SpoolError):
    """The campaign takes no recipients (any more): it is closed, cancelled, gone or damaged."""


@dataclass(frozen=True, slots=True)
class AgendaRow:
    wake_unix_ms: int
    destination: str
    cause: str


class PassedOver(Protocol):
    """Whose mail windows pass over for a while; may be asked in another thread."""

    def until_unix_ms(self, account_id: int, campaign: str | None) -> int:
        """Return until when a flow is passed over: 0, or what is over, if it is not."""
        ...


@dataclass(slots=True)
class WindowPosition:
    """Whose turn it is among the flows of a destination. Kept by the actor, lost with it.

    Only `engine.spool.fair_turns` reads or writes it. By lane: the flow whose turn it is, how
    many envelopes it has had in this turn, and a flow that had mail lately; and how many of lane 0
    went since the last of lane 1. Where single mails are held, up to where in each flow they were
    `passed`, under the holds of `passed_key`. `waits` is the actor's to set: whose mail is passed
    over, which is asked for those flows only that a window comes to.
    """

    flow: list[int] = field(default_factory=lambda: [0, 0])
    turn_taken: list[int] = field(default_factory=lambda: [0, 0])
    lively: list[int | None] = field(default_factory=lambda: [None, None])
    lane_0_run: int = 0
    passed: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    passed_key: tuple[int, ...] = ()
    waits: PassedOver | None = None

    def copied(self) -> "WindowPosition":
        """Return one that can be moved without moving this one; it passes over nobody."""
        copied = replace(self, waits=None)
        copied.flow, copied.turn_taken = [*self.flow], [*self.turn_taken]
        copied.lively, copied.passed = [*self.lively], {**self.passed}
        return copied

    def look_again(self) -> None:
        """Have the next window look at what was passed: some was given back, or holds changed."""
        self.passed = {}


@dataclass(frozen=True, slots=True)
class Window:
    """Claimed envelopes, in fair order, and what comes after them.

    `more` says that others are due now; else `next_due_unix_ms` is when the next
    one is, or None if the destination has no further mail.
    """

    envelopes: Sequence[Envelope]
    more: bool
    next_due_unix_ms: int | None


@dataclass(frozen=True, slots=True)
class Content:
    kind: ContentKind
    octets: bytes


# Not a dataclass: one is made for every mail, and a frozen dataclass of ten fields takes as long as
# all the rest of its disposition.
class AttemptResult(msgspec.Struct, frozen=True, gc=False):
    """A fact: what an attempt at one envelope came to. Always applied, once.

    `attempt` is the number of this attempt (state.attempts + 1 when it began): a
    result that is not above the stored count is a repeat and changes nothing.
    `status` is delivered, deferred, soft_bounced or hard_bounced;
    `due_unix_ms` is the next attempt's time for a deferred one.
    """

    envelope_id: int
    attempt: int
    status: Status
    at_unix_ms: int
    due_unix_ms: int = 0
    reply: str = ""
    reason: Reason | None = None
    mx_host: str = ""
    mx_address: str = ""
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """A decision: end one open envelope without an attempt (no MX, expiry, cancel, policy)."""

    envelope_id: int
    status: Status
    at_unix_ms: int
    reason: Reason | None
    reply: str = ""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """A decision: move one open envelope's due time, with no event and no attempt used up."""

    envelope_id: int
    due_unix_ms: int
    unless_in_flight: bool = False  # then a claimed one stays as it is, and claimed


@dataclass(frozen=True, slots=True)
class Rest:
    """A decision: an actor has nothing to do now.

    The destination's record is stored and its agenda row becomes the later of the
    true earliest due time (looked up in the same transaction; of held mail the end of its hold, of
    mail in `record.waits` the end of its wait)
    and `record.not_before_unix_ms`; it goes if the destination has no queue rows.
    """

    destination: str
    record: DestinationRecord


@dataclass(frozen=True, slots=True)
class TryNow:
    """A decision: have a destination that backs off tried now, not when its back-off ends.

    Listeners are told of it if some of its mail may go. When the back-off would have ended stays in
    its record. Nothing happens to a destination that does not back off.
    """

    destination: str


Decision = Finish | RetryAt | Rest | TryNow


@dataclass(frozen=True, slots=True)
class CommitNotice:
    """What a listener is told after a commit: its events, and which destinations have work.

    One that backs off has none until that ends: ten thousand new mails are no news about it.
    `holds_changed`: there is a new hold, and what was claimed before may be held now.
    """

    events: Sequence[Event]
    due_destinations: Collection[str]
    holds_changed: bool = False


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; None is any. An account's reader always has `account_id` set."""

    account_id: int | None = None
    accounts: frozenset[str] | None = None
    campaigns: frozenset[str | None] | None = None
    destinations: frozenset[str] | None = None
    envelope_ids: frozenset[int] | None = None
    statuses: frozenset[Status] | None = None
    reasons: frozenset[Reason] | None = None

    def admits(self, event: Event) -> bool:
        return (
            (self.account_id is None or event.account_id == self.account_id)
            and (self.accounts is None or event.account in self.accounts)
            and (self.campaigns is None or event.campaign in self.campaigns)
            and (self.destinations is None or event.destination in self.destinations)
            and (self.envelope_ids is None or event.envelope_id in self.envelope_ids)
            and (self.statuses is None or event.status in self.statuses)
            and (self.reasons is None or event.reason in self.reasons)
        )


@dataclass(frozen=True, slots=True)
class EventPage:
    """Matching events after a place in the log, and up to where was looked.

    `seq` is the last place looked at. `gap` is (first, last) of what retention
    had already removed, when the place asked for lies before it.
    """

    events: Sequence[Event]
    seq: int
    gap: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """How many mails of the same destination go before one, if nothing fails and none comes.

    Counted by the turns that a window would take. Where more are ahead than were looked at, it is
    an estimate from the counters, and no less than that.
    """

    count: int
    is_exact: bool


class Group(Enum):
    TOTAL = "total"
    DESTINATION = "destination"
    ACCOUNT = "account"
    CAMPAIGN = "campaign"
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class StatisticsRow:
    """Counts of envelopes by status, in the order of `records.STATUSES`.

    Hours and days are those of acceptance, in UTC: a row's sum never changes
    when its mails move on. `key` is text: a domain, a name, "2026-11-24T13" or "2026-11-24".
    """

    key: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DestinationRow:
    """`held` is what holds of whole flows keep back of the mail that is counted."""

    destination: str
    counts: tuple[int, ...]
    record: DestinationRecord
    wake_unix_ms: int | None
    held: HeldMail | None = None


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """What an adapter must know to keep the rules; times in milliseconds, sizes in octets."""

    max_age_ms: int = 259_200_000
    paused_max_ms: int = 60 * 86_400_000  # longer than two months of a monthly plan helps nobody
    finished_retention_ms: int = 2_592_000_000
    events_retention_ms: int = 2_592_000_000
    events_retention_bytes: int = 10_000_000_000
    disk_free_bytes_min: int = 512 * 1024 * 1024  # below it intake closes, deliveries go on


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    envelopes_open: int
    in_flight: int
    commits: int
    items_committed: int
    waiting_for_commit: int
    head_seq: int
    oldest_seq: int
    start_count: int
    quarantined: int
    intake_open: bool
    # Mails that the last process had with a server when it died.
    doubts_at_start: int


@dataclass(frozen=True, slots=True)
class Checked:
    """Faults, one line each, and how many of all mails were looked at one by one."""

    faults: list[str]
    looked_at: int
    mails: int


class Spool(
    AccountCalls,
    CampaignCalls,
    DiskCalls,
    HoldCalls,
    NoteCalls,
    ListingCalls,
    FigureCalls,
    WaitingCalls,
    Protocol,
):
    """Domain-level storage. Obtained from `engine.spool.open_spool`, which runs its writer."""

    @property
    def stream_id(self) -> str: ...

    @property
    def start_count(self) -> int: ...

    def now_unix_ms(self) -> int:
        """Return the spool's time, which never steps back: for `at`, `due` and `until` here."""
        ...

    # Writing: durable when it returns.
    async def accept(self, requests: Sequence[AcceptRequest]) -> list[Accepted | SpoolError]: ...

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None: ...

    async def release(self, until_unix_ms: int) -> int:
        """Queue paused mail whose release has come, at most 500 rows a commit; return how many."""
        ...

    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        """Expire what is overdue (all of it), then walk on: check, quarantine, purge, trim.

        Returns whether there is more to do at once: False once a walk has reached its end.
        """
        ...

    # Finding work.
    async def due_destinations(self, until_unix_ms: int, limit: int) -> list[AgendaRow]: ...

    async def next_wake_unix_ms(self) -> int | None: ...

    async def window(
        self, destination: str, position: WindowPosition, limit: int, now_unix_ms: int
    ) -> Window: ...

    def give_back(self, envelope_ids: Iterable[int]) -> None:
        """End the claim on envelopes that were not attempted."""
        ...

    def handing_over(self, envelopes: Iterable[tuple[int, int]]) -> None:
        """Note ids and numbers of attempts whose final dot is about to be sent.

        If the process dies before their results are stored, the next one tells of them. It waits
        for no disk: a power cut may forget some.
        """
        ...

    async def content(self, content_ids: Collection[int]) -> dict[int, Content]: ...

    async def destination(self, name: str) -> DestinationRecord | None: ...

    # The read side.
    def head(self) -> int: ...

    async def events(
        self, after_seq: int, wanted: EventFilter, limit: int, scan_max: int = 1000
    ) -> EventPage: ...

    async def events_at(self, seqs: Sequence[int]) -> list[Event]:
        """The events at these places that retention has not removed."""
        ...

    async def envelope(self, envelope_id: int) -> Envelope | None: ...

    async def statistics(
        self,
        group: Group,
        *,
        account_id: int | None = None,
        from_unix_ms: int | None = None,
        to_unix_ms: int | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[StatisticsRow]:
        """Return counts by status, sorted by key; `Group.TOTAL` has one row, "total", always.

        A range is of acceptance, in whole periods that overlap it: hours, and days where
        `group` is a destination or a campaign.
        `after` and `limit` are of keys: rows behind that one, so many at most.
        """
        ...

    async def ahead(
        self, envelope: Envelope, position: WindowPosition, looked_at_max: int
    ) -> Ahead:
        """Count what goes before an envelope in the queue, from the moment that it is due.

        `position` is where its actor's turns stand; it is not moved. What is claimed, and the
        envelope itself if it is, is not counted.
        """
        ...

    async def destinations(
        self,
        *,
        account_id: int | None = None,
        campaign: str | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> list[DestinationRow]:
        """Destinations by name. With a campaign, those and the counts that are its own."""
        ...

    def spool_statistics(self) -> SpoolStatistics: ...

    async def check_invariants(self) -> list[str]:
        """Look at everything that must hold between the tables; return what does not.

        Each fault is one line that names its table and key. Costs a walk over the whole spool:
        for `doctor`, the simulation and the tests.
        """
        ...

    async def check_some(self) -> Checked:
        """Look at numbers, sums, the agenda and some mails; return what does not hold.

        Costs seconds at a million mails. What was left out is what `check_invariants` is for.
        """
        ...

    def add_listener(self, listener: Callable[[CommitNotice], None]) -> None:
        """Call `listener` in the loop after every commit that grew the log or the agenda."""
        ...
