"""Everybody at once, in real threads: no two hold one envelope, and the books balance."""

import random
from collections import Counter

import pytest
import trio

from engine.spool.interface import (
    Accepted,
    AttemptResult,
    CommitNotice,
    Decision,
    EventFilter,
    Finish,
    Group,
    Quota,
    Rest,
    RetryAt,
    Spool,
    WindowPosition,
)
from protocols.records import (
    FINAL_STATUSES,
    Account,
    DestinationRecord,
    Envelope,
    Reason,
    Status,
)
from tests.spool import harness as h
from tests.spool.harness import Harness

NAMES = ("one.test", "two.test", "three.test")


class Storm:
    """What several tasks do to one spool, and what they know of it."""

    def __init__(self, harness: Harness, spool: Spool, account: Account, seed: int) -> None:
        self.harness = harness
        self.spool = spool
        self.account = account
        self.random = random.Random(seed)
        self.held: set[int] = set()
        self.attempts: Counter[int] = Counter()
        self.ended: set[int] = set()
        self.accepted: list[int] = []
        self.senders_left = 3

    async def send(self) -> None:
        for number in range(25):
            # Mostly somebody new: who bounced once is suppressed and takes no part any more.
            people = [
                f"r{self.random.randrange(10_000)}@{self.random.choice(NAMES)}"
                for _ in range(self.random.randrange(1, 6))
            ]
            quota = Quota(per_day=40) if number % 5 == 4 else Quota()
            part = h.message(*people, campaign=self.random.choice(["a", "b", None]))
            with trio.CancelScope() as scope:
                if number % 7 == 6:
                    scope.cancel()
                [answer] = await self.spool.accept([h.request_of(self.account, part, quota=quota)])
                assert isinstance(answer, Accepted)
                self.accepted += [each.envelope_id for each in answer.envelopes]
        self.senders_left -= 1

    async def serve(self, destination: str) -> None:
        """Be one of several connections of a destination."""
        position = WindowPosition()
        idle = 0
        while self.senders_left or idle < 3:
            limit = self.random.randrange(1, 9)
            window = await self.spool.window(destination, position, limit, self.spool.now_unix_ms())
            for envelope in window.envelopes:
                self._take(envelope)
            await trio.lowlevel.checkpoint()
            await self._settle(list(window.envelopes))
            idle = 0 if window.envelopes or window.more else idle + 1
            if not window.envelopes:
                await self.spool.settle([], [Rest(destination, DestinationRecord())])

    def _take(self, envelope: Envelope) -> None:
        envelope_id = envelope.fixed.envelope_id
        assert envelope_id not in self.held, "two hold one envelope"
        assert envelope_id not in self.ended, "a finished envelope is handed out again"
        assert envelope.state.attempts == self.attempts[envelope_id], "an old state is handed out"
        self.held.add(envelope_id)

    async def _settle(self, envelopes: list[Envelope]) -> None:
        now = self.spool.now_unix_ms()
        results: list[AttemptResult] = []
        decisions: list[Decision] = []
        back: list[int] = []
        for envelope in envelopes:
            envelope_id = envelope.fixed.envelope_id
            self.held.remove(envelope_id)
            match self.random.randrange(8):
                case 0:
                    back.append(envelope_id)
                case 1:
                    decisions.append(RetryAt(envelope_id, now))
                case 2:
                    finish = Finish(envelope_id, Status.HARD_BOUNCED, now, Reason.NULL_MX)
                    decisions.append(finish)
                    self.ended.add(envelope_id)
                case 3 | 4:
                    deferral = h.result_of(self.spool, envelope, Status.DEFERRED, due_unix_ms=now)
                    results.append(deferral)
                    self.attempts[envelope_id] += 1
                case _:
                    results.append(h.result_of(self.spool, envelope))
                    self.attempts[envelope_id] += 1
                    self.ended.add(envelope_id)
        self.spool.give_back(back)
        await self.spool.settle(results, decisions)

    async def disturb(self) -> None:
        """Cancel, sweep, release, and look at things, until the senders are done."""
        while self.senders_left:
            now = self.spool.now_unix_ms()
            await self.spool.sweep(now, 20)
            await self.spool.release(now)
            unheld = [each for each in self.accepted if each not in self.held]
            if unheld:
                # Whoever holds it, or will while this waits: that must do no harm.
                await self.spool.settle(
                    [], [Finish(self.random.choice(unheld), Status.CANCELLED, now, None)]
                )
            await self.spool.statistics(Group.DESTINATION)
            await self.spool.due_destinations(now, 10)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_the_books_balance_after_a_storm(harness: Harness, seed: int) -> None:
    told: list[int] = []

    def hear(notice: CommitNotice) -> None:
        told.extend(each.seq for each in notice.events)

    async with harness.open(trio.to_thread.run_sync) as spool:
        account = await h.make_account(spool)
        spool.add_listener(hear)
        storm = Storm(harness, spool, account, seed)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(storm.send)
            for name in NAMES * 2:
                nursery.start_soon(storm.serve, name)
            nursery.start_soon(storm.disturb)
        assert await spool.check_invariants() == []
        assert spool.spool_statistics().in_flight == 0
        assert told == list(range(1, spool.head() + 1))
        envelopes = await h.all_envelopes(spool)
        # A sender that was cancelled may have been heard or not.
        assert set(storm.accepted) <= {each.fixed.envelope_id for each in envelopes}
        by_status = Counter(each.state.status for each in envelopes)
        [total] = await spool.statistics(Group.TOTAL)
        assert sum(total.counts) == len(envelopes)
        assert by_status[Status.DELIVERED] > 50
        # A cancellation may come before an actor's own end, but never after a delivery.
        for envelope in envelopes:
            if envelope.fixed.envelope_id in storm.ended:
                assert envelope.state.status in FINAL_STATUSES
    async with harness.open() as spool:
        assert await h.all_envelopes(spool) == envelopes
        page = await spool.events(0, EventFilter(), 10_000, 10_000)
        finals = Counter(each.envelope_id for each in page.events if each.status in FINAL_STATUSES)
        assert set(finals.values()) == {1}
