"""Outcomes become facts and decisions, and these become one settle after another.

Owns what an outcome means for the spool (status, next attempt, expiry) and the
batching: while one commit runs, everything that comes in waits together for the
next. The number of envelopes that are with a server or waiting for a commit is
bounded here; that bound is the published bound on duplicates after a crash.
Speaks no SMTP and chooses no mail.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from engine.clock import Clock
from engine.delivery.retry import RetrySchedule
from engine.spool.interface import AttemptResult, Finish, Rest, Spool, SpoolFull
from protocols.outcomes import Bounced, Deferred, Delivered, Outcome, Unattempted
from protocols.records import Envelope, Reason, Status

# What the spool takes in one commit at most. A busy loop sees to the spool about twenty times a
# second, however short the commits are: smaller batches would hold up the mail behind them.
SETTLE_ITEMS_MAX: Final = 500
# One batch waits while the other is stored, so that the next commit begins when the last one ends.
# Alone, a batch has to come back to the loop first, which takes a busy one longer than the disk.
SETTLERS: Final = 2
# Enough for 8,000 mails a second over half a second from the first command to the commit, and for
# all connections with two transactions each. After a crash so many mails, at most, can be
# delivered a second time.
UNSETTLED_ENVELOPES_MAX: Final = 4096
# A full spool is waited for: deletions and the operator make room, and forgetting a result
# would deliver the mail again.
SPOOL_FULL_WAIT_S: Final = 1.0


# A decision, with the event of who waits until it is durable.
_Decided = tuple[Finish | Rest, trio.Event | None]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who gave an outcome: the MX host's name, its address, and the TLS version ("" is none)."""

    host: str = ""
    address: str = ""
    tls: str = ""


class Disposition:
    """Takes outcomes without waiting and settles them. Run `run` in a nursery, `SETTLERS` times.

    What is attempted is reserved before (`reserve`) and comes back with `report`; whoever
    finds no room waits with `wait_for_room`.
    """

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        rand: random.Random,
        schedule: RetrySchedule,
        *,
        unsettled_max: int = UNSETTLED_ENVELOPES_MAX,
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._rand = rand
        self._schedule = schedule
        self._unsettled_max = unsettled_max
        self._unsettled = 0
        self._batches_under_way = 0
        # Since when results have been waiting because the spool is full; None if they do not.
        self.refused_since_unix_ms: int | None = None
        self._results: deque[AttemptResult] = deque()
        self._decisions: deque[_Decided] = deque()
        self._work = trio.Event()
        self._waiting: deque[trio.Event] = deque()
        self._all_settled = trio.Event()

    @property
    def unsettled(self) -> int:
        """How many envelopes are with a server or waiting for a commit."""
        return self._unsettled

    def room(self) -> int:
        """Return how many more envelopes may be attempted now."""
        return self._unsettled_max - self._unsettled

    def reserve(self, envelopes: int) -> None:
        """Count envelopes that are about to be attempted; there must be room."""
        assert envelopes <= self.room(), (envelopes, self._unsettled)
        self._unsettled += envelopes

    async def wait_for_room(self) -> None:
        """Wait for one's turn, if there is no room; it may be gone again when this returns."""
        if self.room() <= 0:
            turn = trio.Event()
            self._waiting.append(turn)
            try:
                await turn.wait()
            finally:
                if not turn.is_set():
                    self._waiting.remove(turn)

    def report(self, envelope: Envelope, outcome: Outcome, peer: Peer) -> int:
        """Take the outcome of one reserved envelope.

        Returns when it is due again (wall milliseconds): now if it was not attempted, 0 if
        it is finished.
        """
        if isinstance(outcome, Unattempted):
            self._spool.give_back((envelope.fixed.envelope_id,))
            self._release(1)
            return envelope.state.due_unix_ms
        result = self._result(envelope, outcome, peer)
        self._results.append(result)
        self._work.set()
        return result.due_unix_ms

    async def decide(self, decisions: Sequence[Finish | Rest]) -> None:
        """Store decisions, behind everything reported before; returns when they are durable."""
        if not decisions:
            return
        done = trio.Event()
        self._decisions.extend((decision, None) for decision in decisions[:-1])
        self._decisions.append((decisions[-1], done))
        self._work.set()
        await done.wait()

    async def wait_until_settled(self) -> None:
        """Wait until nothing that was reported waits for a commit."""
        while self._batches_under_way or self._results or self._decisions:
            self._all_settled = trio.Event()
            await self._all_settled.wait()

    async def run(self) -> None:
        """Settle what comes in, until cancelled. SpoolFailed ends it, and with it the process."""
        while True:
            while not self._results and not self._decisions:
                if self._work.is_set():
                    # The other one may wait for an event that is not set yet: share it.
                    self._work = trio.Event()
                await self._work.wait()
            self._batches_under_way += 1
            await self._settle(*self._next_batch())
            self._batches_under_way -= 1
            if not (self._batches_under_way or self._results or self._decisions):
                self._all_settled.set()

    def _next_batch(self) -> tuple[list[AttemptResult], list[_Decided]]:
        count = min(len(self._results), SETTLE_ITEMS_MAX)
        results = [self._results.popleft() for _ in range(count)]
        # Decisions stand behind the results they came after: a rest looks at what those left.
        decisions_count = 0
        if not self._results:
            decisions_count = min(len(self._decisions), SETTLE_ITEMS_MAX - count)
        return results, [self._decisions.popleft() for _ in range(decisions_count)]

    async def _settle(self, results: list[AttemptResult], decided: list[_Decided]) -> None:
        decisions = [decision for decision, _ in decided]
        while True:
            try:
                await self._spool.settle(results, decisions)
                self.refused_since_unix_ms = None
                break
            except SpoolFull:
                self.refused_since_unix_ms = self.refused_since_unix_ms or self._clock.now_unix_ms()
                await trio.sleep(SPOOL_FULL_WAIT_S)
        for _, done in decided:
            if done is not None:
                done.set()
        self._release(len(results))

    def _release(self, envelopes: int) -> None:
        self._unsettled -= envelopes
        # As many as there is room for, and not all: hundreds would wake to find nothing.
        for _ in range(min(self.room(), len(self._waiting))):
            self._waiting.popleft().set()

    def _result(self, envelope: Envelope, outcome: Outcome, peer: Peer) -> AttemptResult:
        assert not isinstance(outcome, Unattempted)
        now_unix_ms = self._clock.now_unix_ms()
        attempt = envelope.state.attempts + 1
        status, due_unix_ms, reason = Status.DELIVERED, 0, None
        if isinstance(outcome, Bounced):
            status = Status.HARD_BOUNCED if outcome.is_hard else Status.SOFT_BOUNCED
            reason = outcome.reason
        elif isinstance(outcome, Deferred):
            status, reason = Status.DEFERRED, outcome.reason
            due_unix_ms = now_unix_ms + self._schedule.wait_ms(
                attempt, self._rand, greylisted=reason is Reason.GREYLISTED
            )
            if now_unix_ms >= envelope.state.expires_unix_ms:
                status, due_unix_ms, reason = Status.SOFT_BOUNCED, 0, Reason.EXPIRED
        else:
            assert isinstance(outcome, Delivered)
        return AttemptResult(
            envelope.fixed.envelope_id,
            attempt,
            status,
            now_unix_ms,
            due_unix_ms,
            outcome.reply,
            reason,
            peer.host,
            peer.address,
            peer.tls,
        )
