"""Somebody asks why one mail waits, and the answer is put to the test in the running simulation.

At a moment of a run everybody outside stands still: nobody sends, operates or tears a wire, and the
engine's life goes on. One waiting mail is asked for over `GET /v1/messages/{id}/explain`. Then
either all that was *not* named is lifted, and it must stay where it is, or what was named is, again
and again, until it moves. Lifting is what a provider could do: mend the receiver, change the rules,
end the hold, raise the plan, make the mail due.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import trio

from engine.compose import Engine
from engine.delivery.learned import Learned
from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.zones import Records
from engine.shaping.book import RuleBook
from engine.spool.agenda import UNREACHABLE_CAUSES
from engine.spool.interface import Rest, RetryAt
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import FINAL_STATUSES, STATUSES, Envelope, Status
from protocols.timestamps import parse_time
from tests.simulation.lives import Life
from tests.simulation.operating import ask
from tests.simulation.peers import Mood, Notebook
from tests.simulation.plan import World
from tests.simulation.seeding import chances

OPEN: Final = EnvelopeFilter(statuses=frozenset(STATUSES) - FINAL_STATUSES)
# Of these there is no server that could be mended.
UNFINDABLE: Final = ("loop.test", "silent.test")
# A mail that was let go is at a receiver's door within this; nobody is asked for who would be
# there by himself so soon.
SOON_S: Final = 20.0
BY_TURNS: Final = frozenset({"in_flight", "waiting_turn"})
# Each kind of cause may have to be lifted once, and a receiver may still have the mail fail once.
LIFTS_MAX: Final = 8


@dataclass(slots=True)
class Inquiry:
    """One question, asked at `at_s` or as soon as there is a mail to ask for.

    `lifts_named` says which half of the law is tried. `codes` are the causes as they were named,
    one after the other; empty if no mail was waiting for long enough.
    """

    at_s: float
    lifts_named: bool
    codes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def run(self, life: Life, engine: Engine, world: World) -> None:
        case = _Case(life, engine, world)
        if not await case.choose(self.at_s):
            return
        self.codes.append(case.held["code"])
        if self.lifts_named:
            await self._lift_until_it_moves(case)
        else:
            others = [lift for lift in LIFTS.values() if lift is not LIFTS[self.codes[0]]]
            for lift in dict.fromkeys(others):
                await lift(case)
            if await case.moves():
                self.faults.append(f"{case} moved when everything else was lifted")

    async def _lift_until_it_moves(self, case: "_Case") -> None:
        for _ in range(LIFTS_MAX):
            named = replace(case)
            if lift := LIFTS.get(case.held["code"]):
                await lift(case)
                await case.explain()
                if await case.has_moved():
                    # Tried and put off again before it could be asked for: a wait of its own.
                    return
                # Whoever hangs up may have to be waited for, and who goes before is no cause.
                codes = {named.held["code"], case.held["code"]}
                is_cause = case.held["code"] in LIFTS and not codes & BY_TURNS
                if is_cause and case.next_unix_ms > named.next_unix_ms:
                    self.faults.append(f"{named} was held longer by {case.held}")
                    return
            if await case.moves():
                return
            # An attempt may have failed meanwhile, and have made a cause that was not there before.
            await case.explain()
            self.codes.append(case.held["code"])
        self.faults.append(f"{case} did not move although {', '.join(self.codes)} were lifted")


@dataclass(slots=True)
class _Case:
    """The mail that is asked for, what is said of it, and where it lives."""

    life: Life
    engine: Engine
    world: World
    envelope: Envelope | None = None
    held: dict[str, Any] = field(default_factory=dict)
    next_unix_ms: float = math.inf
    asked_before: int = 0

    def __str__(self) -> str:
        return f"{self.mail.fixed.recipient} (seed {self.world.seed}), held by {self.held},"

    @property
    def mail(self) -> Envelope:
        assert self.envelope is not None
        return self.envelope

    @property
    def domain(self) -> str:
        return self.mail.fixed.destination

    async def choose(self, at_s: float) -> bool:
        """Take a mail that has long to wait; of each cause the same chance."""
        page = await self.engine.spool.find(OPEN, None, 1000)
        by_code: dict[str, list[Envelope]] = {}
        for envelope in page.envelopes:
            self.envelope = envelope
            if await self.explain() and self.held["code"] in LIFTS:
                by_code.setdefault(self.held["code"], []).append(envelope)
        if not by_code:
            return False
        rand = chances(self.world.seed, f"inquiry {at_s}")
        self.envelope = rand.choice(by_code[rand.choice(sorted(by_code))])
        await self.explain()
        self.asked_before = self._asked(self.world.notebook)
        return True

    async def explain(self) -> bool:
        """Ask; say whether it waits so long that it could not be let go by chance."""
        found = await ask(
            self.life,
            self.engine,
            "GET",
            "/v1/messages/{id}/explain",
            None,
            id=str(self.mail.fixed.envelope_id),
        )
        assert found is not None, "the process lives and the mail is there"
        # What has its end by now is held by nothing.
        self.held, next_at = found["held_by"] or {"code": ""}, found["next_attempt_at"]
        self.next_unix_ms = (
            parse_time(next_at) if next_at else (math.inf if found["held_by"] else 0)
        )
        wait_ms = self.next_unix_ms - self.engine.spool.now_unix_ms()
        return wait_ms > 2 * SOON_S * 1000

    async def moves(self) -> bool:
        """Say whether a receiver is asked to take it, or it has its end, within SOON_S."""
        until_s = trio.current_time() + SOON_S
        while trio.current_time() < until_s:
            await trio.sleep(1.0)
            if await self.has_moved():
                return True
        return False

    async def has_moved(self) -> bool:
        now = await self.engine.spool.envelope(self.mail.fixed.envelope_id)
        assert now is not None
        is_over = now.state.status in FINAL_STATUSES
        return is_over or self._asked(self.world.notebook) != self.asked_before

    def _asked(self, notebook: Notebook) -> int:
        return sum(each.recipient == self.mail.fixed.recipient for each in notebook.asked)

    async def clear_back_off(self, *causes: str) -> None:
        """Let the destination be tried now if it rests for one of these."""
        spool = self.engine.spool
        record = await spool.destination(self.domain)
        if record is not None and record.cause in causes:
            cleared = msgspec.structs.replace(record, not_before_unix_ms=0, failures=0, cause="")
            await spool.settle([], [Rest(self.domain, cleared)])
        for actor in self.engine.delivery._scheduler.residents.values():
            actor.rules_changed()
        self.engine.delivery._scheduler.start_soon(self.domain)


async def _make_due(case: _Case) -> None:
    state, spool = case.mail.state, case.engine.spool
    if state.status is not Status.PAUSED:
        await spool.settle([], [RetryAt(case.mail.fixed.envelope_id, spool.now_unix_ms())])
        case.engine.delivery._scheduler.start_soon(case.domain)


async def _mend_receivers(case: _Case) -> None:
    """All receivers are in the best of moods, and the mail's domain is found."""
    world = case.world
    for receiver in world.receivers.values():
        receiver.behaviour, receiver.mood = Behaviour(), Mood()
    world.dns_faults.clear()
    if case.domain in UNFINDABLE:
        world.zones.set(case.domain, Records(mx=((10, "mx.fast.test"),)))
    await case.clear_back_off(*UNREACHABLE_CAUSES)


async def _hang_up(case: _Case) -> None:
    """Whoever owes an answer hangs up: what was in his hands is over, and the next one's turn."""
    case.life.when_over()
    await trio.lowlevel.checkpoint()


async def _lift_rates(case: _Case) -> None:
    """No rule holds any more, and what replies have taught is forgotten."""
    delivery = case.engine.delivery
    delivery._book = RuleBook()
    for throttle in delivery._throttles._sites.values():
        throttle.rule = None
        delivery._throttles.set_learned(throttle, Learned())
    await case.clear_back_off("rate_limit")


async def _lift_holds(case: _Case) -> None:
    spool = case.engine.spool
    if holds := [hold.hold_id for hold in spool.holds()]:
        await spool.lift_holds(holds)
        case.engine.delivery._scheduler.start_soon(case.domain)


async def _release(case: _Case) -> None:
    """Its account has a larger plan: the day that was booked is today."""
    envelope = await case.engine.spool.envelope(case.mail.fixed.envelope_id)
    assert envelope is not None
    if envelope.state.status is Status.PAUSED:
        await case.engine.spool.release(envelope.state.due_unix_ms)
        now_unix_ms = case.engine.spool.now_unix_ms()
        await case.engine.spool.settle([], [RetryAt(envelope.fixed.envelope_id, now_unix_ms)])


LIFTS: Final[Mapping[str, Callable[[_Case], Awaitable[None]]]] = {
    "retry_wait": _make_due,
    "destination_unreachable": _mend_receivers,
    "dns_failure": _mend_receivers,
    "rate_limit": _lift_rates,
    "hold": _lift_holds,
    "quota": _release,
    # Either is asked about only if it is to last: then a server is silent that mail is with.
    "in_flight": _hang_up,
    "waiting_turn": _hang_up,
}
