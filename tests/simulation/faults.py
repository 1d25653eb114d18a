"""Engines with one guarantee taken away, for the controls: each of them is a bug that people write.

A fault is a context manager that gives what `simulate` is to wrap the spool in. Most are a spool
that does one call wrongly; those of the delivering side replace one function while they last.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any, cast
from unittest import mock

from msgspec import structs

from engine.delivery import filling
from engine.delivery.disposition import Disposition
from engine.spool import agenda, projections
from engine.spool.hold_calls import Hold
from engine.spool.interface import (
    Accepted,
    AcceptedEnvelope,
    AcceptRequest,
    AgendaRow,
    CommitNotice,
    Quota,
    Spool,
    SpoolFailed,
    SpoolFull,
)
from engine.spool.memory_commit import Commit
from engine.spool.memory_data import MemoryData
from protocols.outcomes import Deferred, Delivered
from protocols.records import DestinationRecord, Reason, Status
from tests.simulation.run import WrapSpool

Fault = Callable[[], AbstractContextManager[WrapSpool]]

# How often a fault of the rarer kind shows: often enough for one run, seldom enough to be a bug.
EVERY = 12


class _Faulty:
    """A spool that does what the one behind it does, but for what a subclass does wrongly."""

    def __init__(self, inner: Spool) -> None:
        self.inner = inner
        self.turns = itertools.count(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def is_faulty_turn(self) -> bool:
        return next(self.turns) % EVERY == 0


class _AnswersBeforeTheCommit(_Faulty):
    """Says yes at once and stores it with the next sweep, if there is one."""

    def __init__(self, inner: Spool) -> None:
        super().__init__(inner)
        self.owed: list[AcceptRequest] = []

    async def accept(self, requests: list[AcceptRequest]) -> list[Accepted]:
        self.owed += requests
        return [
            Accepted(
                [
                    AcceptedEnvelope(0, recipient.uuid, Status.QUEUED, 0)
                    for message in request.messages
                    for recipient in message.recipients
                ]
            )
            for request in requests
        ]

    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        owed, self.owed = self.owed, []
        await self.inner.accept(owed)
        return await self.inner.sweep(now_unix_ms, rows_max)


class _StoresWhatItRefuses(_Faulty):
    async def accept(self, requests: list[AcceptRequest]) -> list[Any]:
        answers: list[Any] = list(await self.inner.accept(requests))
        return [SpoolFull("full")] * len(answers) if next(self.turns) % 3 == 0 else answers


class _ForgetsWhatWasAsked(_Faulty):
    """Does not know a repeated request again."""

    async def accept(self, requests: list[AcceptRequest]) -> list[Any]:
        return list(await self.inner.accept([replace(each, digest=None) for each in requests]))


class _ForgetsBounces(_Faulty):
    """Knows no suppressed address at intake."""

    async def accept(self, requests: list[AcceptRequest]) -> list[Any]:
        with mock.patch.object(MemoryData, "suppression", return_value=None):
            return list(await self.inner.accept(requests))


class _ForgetsQuotas(_Faulty):
    async def accept(self, requests: list[AcceptRequest]) -> list[Any]:
        return list(await self.inner.accept([replace(each, quota=Quota()) for each in requests]))


class _DropsResults(_Faulty):
    async def settle(self, results: Any, decisions: Any = ()) -> None:
        kept = [each for each in results if not self.is_faulty_turn()]
        await self.inner.settle(kept, decisions)


class _DoubtsTheAnswer(_Faulty):
    """Takes a delivery for a deferral now and then."""

    async def settle(self, results: Any, decisions: Any = ()) -> None:
        doubted = [
            structs.replace(each, status=Status.DEFERRED, due_unix_ms=each.at_unix_ms + 1000)
            if each.status is Status.DELIVERED and self.is_faulty_turn()
            else each
            for each in results
        ]
        await self.inner.settle(doubted, decisions)


class _ShrugsItOff(_Faulty):
    """Goes on when a commit has failed."""

    async def settle(self, results: Any, decisions: Any = ()) -> None:
        with suppress(SpoolFailed):
            await self.inner.settle(results, decisions)


class _NeverTakesBack(_Faulty):
    def give_back(self, envelope_ids: Iterable[int]) -> None:
        """Keep the claims."""


class _ForgetsWhatWasSent(_Faulty):
    """Notes nothing of what a server may have."""

    def handing_over(self, envelopes: Iterable[tuple[int, int]]) -> None:
        """Keep no note."""


class _HoldsNothing(_Faulty):
    """Says that it holds, and forgets."""

    async def put_hold(self, hold: Hold) -> Hold:
        put = await self.inner.put_hold(hold)
        await self.inner.lift_holds([put.hold_id])
        return put


class _PausesNoCampaign(_Faulty):
    async def put_hold(self, hold: Hold) -> Hold:
        put = await self.inner.put_hold(hold)
        if hold.wanted.campaign is not None:
            await self.inner.lift_holds([put.hold_id])
        return put


class _InAHurry(_Faulty):
    """Gives out what is due within the next minutes."""

    async def window(
        self, destination: str, position: Any, limit: int, now_unix_ms: int, **named: Any
    ) -> Any:
        soon_unix_ms = now_unix_ms + 300_000
        return await self.inner.window(destination, position, limit, soon_unix_ms, **named)


class _NeverExpires(_Faulty):
    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        return False


class _FillsBuckets(_Faulty):
    """Finds every bucket full when its actor starts."""

    async def destination(self, name: str) -> DestinationRecord | None:
        record = await self.inner.destination(name)
        if record is None or not record.bucket_unix_ms:
            return record
        now_unix_ms = self.inner.now_unix_ms()
        return structs.replace(record, bucket_level=1e9, bucket_unix_ms=now_unix_ms)


class _ToldHalf(_Faulty):
    """Listeners are not told of every event of a commit."""

    def add_listener(self, listener: Callable[[CommitNotice], None]) -> None:
        turns = itertools.count(1)

        def tell(notice: CommitNotice) -> None:
            told = notice.events if next(turns) % 3 else notice.events[1:]
            listener(CommitNotice(told, notice.due_destinations))

        self.inner.add_listener(tell)


def _spool(kind: Callable[[Spool], _Faulty]) -> Fault:
    @contextmanager
    def fault() -> Iterator[WrapSpool]:
        yield lambda inner: cast(Spool, kind(inner))

    return fault


def _patch(target: object, name: str, make: Callable[[Any], Any]) -> Fault:
    """Replace `target.name` by what `make` makes of it."""

    @contextmanager
    def fault() -> Iterator[WrapSpool]:
        with mock.patch.object(target, name, make(getattr(target, name))):
            yield lambda inner: inner

    return fault


def _later(row_after_arrival: Any) -> Any:
    def late(
        name: str, due_unix_ms: int, row: AgendaRow | None, *others: Any, **named: Any
    ) -> AgendaRow:
        found: AgendaRow = row_after_arrival(name, due_unix_ms, row, *others, **named)
        return found if found is row else replace(found, wake_unix_ms=found.wake_unix_ms + 5000)

    return late


def _hopeful(report: Any) -> Any:
    def hope(self: Disposition, envelope: Any, outcome: Any, peer: Any) -> Any:
        if isinstance(outcome, Deferred) and outcome.reason is Reason.OUTCOME_UNKNOWN:
            outcome = Delivered(outcome.reply)
        return report(self, envelope, outcome, peer)

    return hope


def _miscounting(move: Any) -> Any:
    moves = itertools.count(1)

    def miscount(*arguments: Any) -> None:
        if next(moves) % 50:
            move(*arguments)

    return miscount


def _forgetting_people(listed: Any) -> Any:
    def forget(self: Commit, request: AcceptRequest) -> Any:
        self.data.campaign_recipients.clear()
        return listed(self, request)

    return forget


def _dating_anew(format_date: Any) -> Any:
    # Each time that a template is filled in it is some seconds later.
    later_s = itertools.count()

    def date(unix_s: float) -> str:
        dated: str = format_date(unix_s + next(later_s))
        return dated

    return date


# What is wrong, and the words of the law that have to be among the breaches.
FAULTS: dict[str, tuple[Fault, str]] = {
    "answers before the commit": (_spool(_AnswersBeforeTheCommit), "stored is []"),
    "stores what it refuses": (_spool(_StoresWhatItRefuses), "was not accepted"),
    "forgets what was asked": (_spool(_ForgetsWhatWasAsked), "stored more than once"),
    "forgets bounces": (_spool(_ForgetsBounces), "a_bounced_address_is_left_alone"),
    "forgets quotas": (_spool(_ForgetsQuotas), "quota_is_exact"),
    "drops results": (_spool(_DropsResults), "every_mail_has_its_end"),
    "never takes claims back": (_spool(_NeverTakesBack), "every_mail_has_its_end"),
    "shrugs failed commits off": (_spool(_ShrugsItOff), "went on after a failed commit"),
    "doubts the answer": (_spool(_DoubtsTheAnswer), "twice_only_if_nobody_could_know"),
    "is in a hurry": (_spool(_InAHurry), "before its time"),
    "forgets what was sent": (_spool(_ForgetsWhatWasSent), "what_may_be_twice_is_told"),
    "holds nothing": (_spool(_HoldsNothing), "what_is_held_stays"),
    "pauses no campaign": (_spool(_PausesNoCampaign), "its campaign is paused"),
    "forgets who is in a campaign": (_patch(Commit, "listed", _forgetting_people), "has 2 mails"),
    "never expires": (_spool(_NeverExpires), "no_mail_grows_too_old"),
    "tells listeners half": (_spool(_ToldHalf), "resuming_misses_nothing"),
    "wakes too late": (_patch(agenda, "row_after_arrival", _later), "too late"),
    "delivered before the reply": (
        _patch(Disposition, "report", _hopeful),
        "delivered_is_what_a_receiver_said",
    ),
    "dates templates anew": (
        _patch(filling, "format_date", _dating_anew),
        "arrived with other octets",
    ),
    "fills buckets": (_spool(_FillsBuckets), "limits_hold"),
    "miscounts": (_patch(projections.Tally, "move", _miscounting), "books_balance"),
}
