"""The parts by themselves: slots, content budget, window, disposition, health, meter, scheduler."""

import random
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.clock import VirtualClock
from engine.delivery.disposition import SETTLERS, Disposition, Peer
from engine.delivery.health import BAD_SESSIONS_MIN, THROTTLED_RUN_MAX, Health
from engine.delivery.limits import ConnectionLimit
from engine.delivery.meter import Meter
from engine.delivery.retry import RetrySchedule
from engine.delivery.scheduler import Scheduler
from engine.delivery.slots import Site, Slots
from engine.delivery.window import WindowSize
from engine.spool.interface import (
    AttemptResult,
    Decision,
    Rest,
    SpoolFull,
    SpoolSettings,
    WindowPosition,
)
from engine.spool.memory import MemorySpool
from protocols.outcomes import Bounced, Deferred, Delivered, Outcome, Unattempted
from protocols.records import DestinationRecord, Envelope, Reason, Status
from protocols.smtp_states import Stage
from tests.delivery.world import START_UNIX_MS, World

BUSY = Deferred("4.7.0", "421 4.7.0 slow down", Reason.THROTTLED, Stage.MAIL)
FULL = Deferred("4.2.2", "452 4.2.2 mailbox full", Reason.MAILBOX_FULL, Stage.RCPT)
GREY = Deferred("4.7.1", "451 4.7.1 greylisted", Reason.GREYLISTED, Stage.RCPT)
GONE = Deferred("4.4.2", "451 4.4.2 (gone)", Reason.CONNECTION, Stage.MAIL)
NOBODY = Bounced("5.1.1", "550 5.1.1 nobody", Reason.UNKNOWN_USER, Stage.RCPT, is_hard=True)
TOO_BIG = Bounced("5.3.4", "552 5.3.4 too big", Reason.SIZE, Stage.LOCAL)

# Slots: whoever has none goes first, and nothing is ever counted twice.


@pytest.mark.parametrize("others_site", ["mx", "elsewhere"])
async def test_newcomers_go_before_those_who_have_one(others_site: str) -> None:
    slots: Slots[str] = Slots(1, discard=lambda connection: None)
    site = slots.site("mx", 5)
    assert slots.take_nowait(site)
    order: list[str] = []

    async def want(name: str, is_first: bool) -> None:
        wanted = site if is_first else slots.site(others_site, 5)
        assert await slots.wait_take(wanted, frozenset("k"), is_first=is_first) is None
        order.append(name)
        slots.give_back(wanted)

    async with trio.open_nursery() as nursery:
        for name, is_first in [("second a", False), ("first a", True), ("first b", True)]:
            nursery.start_soon(want, name, is_first)
            await wait_all_tasks_blocked()
        assert slots.newcomer_waits(site)
        slots.give_back(site)
    assert order == ["first a", "first b", "second a"]
    assert slots.open == 0


async def test_a_good_connection_is_handed_on_to_one_who_can_use_it() -> None:
    slots: Slots[str] = Slots(1, discard=lambda connection: None)
    site = slots.site("mx", 1)
    assert slots.take_nowait(site)
    got: list[str | None] = []

    async def want(kind: str) -> None:
        got.append(await slots.wait_take(site, frozenset([kind]), is_first=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want, "plain")
        await wait_all_tasks_blocked()
        assert not slots.hand_on(site, "tls", "a connection")
        assert slots.hand_on(site, "plain", "a connection")
    assert got == ["a connection"]
    assert slots.open == 1


async def test_a_slot_granted_in_the_moment_of_cancellation_comes_back() -> None:
    dropped: list[str] = []
    slots: Slots[str] = Slots(1, discard=dropped.append)
    site = slots.site("mx", 1)
    assert slots.take_nowait(site)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: slots.wait_take(site, frozenset("k"), is_first=True))
            await wait_all_tasks_blocked()
            assert slots.hand_on(site, "k", "a connection")
            scope.cancel()
    assert slots.open in (0, 1)
    assert (slots.open == 0) == (dropped == ["a connection"])


@pytest.mark.parametrize("seed", range(20))
async def test_counts_stay_true_whatever_happens(autojump_clock: MockClock, seed: int) -> None:
    rand = random.Random(seed)
    slots: Slots[object] = Slots(7, discard=lambda connection: None)
    held: dict[str, int] = {}
    most = 0

    async def user(name: str) -> None:
        nonlocal most
        site_name = f"site{rand.randrange(3)}"
        for _ in range(20):
            site: Site[object] = slots.site(site_name, 4)
            with trio.move_on_after(rand.choice([0.001, 1.0, 100.0])) as scope:
                if not slots.take_nowait(site):
                    await slots.wait_take(site, frozenset(), is_first=rand.random() < 0.5)
            if scope.cancelled_caught:
                continue
            held[site_name] = held.get(site_name, 0) + 1
            most = max(most, sum(held.values()))
            assert held[site_name] <= 4
            await trio.sleep(rand.random())
            held[site_name] -= 1
            slots.give_back(site)

    async with trio.open_nursery() as nursery:
        for number in range(25):
            nursery.start_soon(user, str(number))
    assert most == 7
    assert slots.open == 0


# Disposition.


class ScriptedSpool(MemorySpool):
    """Fails as often as it is told to, and keeps what it was given."""

    batches: list[tuple[Sequence[AttemptResult], Sequence[Decision]]]
    full_times = 0

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None:
        await trio.sleep(0.01)
        if self.full_times:
            self.full_times -= 1
            raise SpoolFull("no room")
        self.batches.append((results, decisions))
        await super().settle(results, decisions)


async def disposition_for(world: World) -> tuple[ScriptedSpool, Disposition, list[Envelope]]:
    await world.send([f"r{n}@one.test" for n in range(600)])
    spool = ScriptedSpool(
        world.data, settings=SpoolSettings(), clock=world.clock, random=random.Random(1)
    )
    spool.batches = []
    schedule = RetrySchedule((100.0, 200.0), (10.0,))
    window = await spool.window("one.test", WindowPosition(), 600, START_UNIX_MS + 1000)
    return (
        spool,
        Disposition(spool, world.clock, random.Random(1), schedule, unsettled_max=600),
        [*window.envelopes],
    )


@pytest.mark.parametrize(
    ("outcome", "status", "reason", "wait_s"),
    [
        (Delivered("250 ok"), Status.DELIVERED, None, None),
        (FULL, Status.DEFERRED, Reason.MAILBOX_FULL, (80, 120)),
        (GREY, Status.DEFERRED, Reason.GREYLISTED, (8, 12)),
        (NOBODY, Status.HARD_BOUNCED, Reason.UNKNOWN_USER, None),
        (TOO_BIG, Status.SOFT_BOUNCED, Reason.SIZE, None),
    ],
)
async def test_what_an_outcome_becomes(
    autojump_clock: MockClock,
    outcome: Outcome,
    status: Status,
    reason: Reason | None,
    wait_s: tuple[int, int] | None,
) -> None:
    spool, disposition, envelopes = await disposition_for(World())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disposition.run)
        disposition.reserve(1)
        due = disposition.report(envelopes[0], outcome, Peer("mx.one.test", "192.0.2.1", "TLSv1.3"))
        await disposition.wait_until_settled()
        nursery.cancel_scope.cancel()
    (((result,), _),) = spool.batches
    assert (result.status, result.reason, result.reply) == (status, reason, outcome.reply)
    assert (result.attempt, result.mx_host, result.mx_address) == (1, "mx.one.test", "192.0.2.1")
    assert result.due_unix_ms == due
    if wait_s is None:
        assert due == 0
    else:
        assert wait_s[0] * 1000 <= due - result.at_unix_ms <= wait_s[1] * 1000


async def test_a_delay_after_the_last_day_is_the_end(autojump_clock: MockClock) -> None:
    spool, disposition, envelopes = await disposition_for(World())
    await trio.sleep(4 * 86_400)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disposition.run)
        disposition.reserve(1)
        assert disposition.report(envelopes[0], FULL, Peer()) == 0
        await disposition.wait_until_settled()
        nursery.cancel_scope.cancel()
    (((result,), _),) = spool.batches
    assert (result.status, result.reason) == (Status.SOFT_BOUNCED, Reason.EXPIRED)
    assert result.reply == FULL.reply


async def test_results_are_settled_in_batches_and_rests_stand_behind_them(
    autojump_clock: MockClock,
) -> None:
    spool, disposition, envelopes = await disposition_for(World())
    spool.full_times = 2
    rest = Rest("one.test", DestinationRecord())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disposition.run)
        disposition.reserve(600)
        assert disposition.room() == 0
        for envelope in envelopes:
            disposition.report(envelope, Delivered(), Peer())
        nursery.start_soon(disposition.wait_for_room)
        await disposition.decide([rest])
        assert disposition.room() == 600
        nursery.cancel_scope.cancel()
    assert [(len(results), len(decisions)) for results, decisions in spool.batches] == [
        (500, 0),
        (100, 1),
    ]
    assert spool.spool_statistics().envelopes_open == 0


async def test_a_second_settler_keeps_the_spool_busy_and_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    spool, disposition, envelopes = await disposition_for(World())
    spool.full_times = 1
    async with trio.open_nursery() as nursery:
        for _ in range(SETTLERS):
            nursery.start_soon(disposition.run)
        disposition.reserve(600)
        for envelope in envelopes:
            disposition.report(envelope, Delivered(), Peer())
        await disposition.wait_until_settled()
        assert disposition.unsettled == 0
        # One of the batches was refused and waited a second; the other one did not wait for it.
        assert sorted(len(results) for results, _ in spool.batches) == [100, 500]
        await disposition.decide([Rest("one.test", DestinationRecord())])
        nursery.cancel_scope.cancel()
    assert spool.spool_statistics().envelopes_open == 0


async def test_what_was_not_attempted_can_be_pulled_again(autojump_clock: MockClock) -> None:
    spool, disposition, envelopes = await disposition_for(World())
    disposition.reserve(1)
    due = disposition.report(envelopes[0], Unattempted("421 bye", Reason.CONNECTION), Peer())
    assert due == envelopes[0].state.due_unix_ms
    assert disposition.unsettled == 0
    assert spool.spool_statistics().in_flight == 599


# Health.


def health(record: DestinationRecord | None = None) -> Health:
    return Health(record or DestinationRecord(), backoff_ms=lambda failures: failures * 1000)


def test_a_failed_opening_counts_only_when_nobody_else_may_succeed() -> None:
    one = health()
    assert not one.opening_failed(GONE, others=1, now_unix_ms=50)
    assert one.is_doubtful
    assert one.opening_failed(GONE, others=0, now_unix_ms=50)
    record = one.record
    assert (record.failures, record.not_before_unix_ms, record.since_unix_ms) == (1, 1050, 50)
    assert (record.cause, record.reason) == ("destination_unreachable", Reason.CONNECTION)
    one.opening_failed(GONE, others=0, now_unix_ms=1050)
    assert (record.failures, record.not_before_unix_ms, record.since_unix_ms) == (2, 3050, 50)
    one.opened()
    assert not one.is_doubtful
    one.delivered()
    assert (record.failures, record.cause, record.since_unix_ms, record.reply) == (0, "", 0, "")


def test_sessions_without_work_add_up() -> None:
    one = health()
    for _ in range(BAD_SESSIONS_MIN - 1):
        assert not one.session_ended(BUSY, was_good=False, others=0, now_unix_ms=0)
    assert not one.session_ended(BUSY, was_good=True, others=0, now_unix_ms=0)
    for _ in range(BAD_SESSIONS_MIN - 1):
        assert not one.session_ended(BUSY, was_good=False, others=0, now_unix_ms=0)
    one.refused(FULL, 0)
    assert not one.session_ended(BUSY, was_good=False, others=0, now_unix_ms=0)
    assert one.session_ended(BUSY, was_good=False, others=0, now_unix_ms=0)
    assert one.record.reason is Reason.THROTTLED


def test_a_run_of_refusals_for_speed_is_about_the_destination() -> None:
    one = health()
    for _ in range(THROTTLED_RUN_MAX - 1):
        assert not one.refused(BUSY, 0)
    one.delivered()
    for _ in range(THROTTLED_RUN_MAX - 1):
        assert not one.refused(BUSY, 0)
    assert one.refused(BUSY, 7)
    assert one.record.not_before_unix_ms == 1007


def test_a_full_mailbox_shows_a_server_at_work() -> None:
    one = health(DestinationRecord(failures=3, since_unix_ms=5))
    assert not one.refused(GONE, 0)
    assert one.is_unreachable
    assert not one.refused(FULL, 0)
    assert not one.is_unreachable
    assert one.record.reply == FULL.reply


# The window.


def test_a_window_holds_what_flows_in_a_second_or_two() -> None:
    window = WindowSize()
    sizes = [window.next_size(n * 0.1, connections=2, is_crowded=False) for n in range(4)]
    assert sizes == [40, 100, 250, 256]
    slow = [window.next_size(1 + n * 5.0, connections=2, is_crowded=False) for n in range(8)]
    assert slow == [256, 128, 64, 32, 16, 8, 8, 8]
    assert window.low == 4
    assert window.next_size(41.0, connections=20, is_crowded=False) == 80
    fast = [window.next_size(42 + n * 0.1, connections=20, is_crowded=True) for n in range(3)]
    assert fast == [48, 48, 48]


def test_before_there_is_a_connection_nothing_is_learned() -> None:
    window = WindowSize()
    sizes = [window.next_size(n * 30.0, connections=0, is_crowded=False) for n in range(3)]
    assert sizes == [40, 40, 40]


# The meter.


def test_a_meter_follows_within_seconds() -> None:
    meter = Meter()
    for step in range(400):
        meter.count(step * 0.05)
    assert meter.rate_per_s(20.0) == pytest.approx(20.0, rel=0.05)
    assert meter.rate_per_s(22.5) == pytest.approx(10.0, rel=0.05)
    assert meter.rate_per_s(31.0) == 0.0


# The scheduler, with actors that only note when they were there.


class NotingActor:
    def __init__(self, name: str, log: list[str], look_unix_ms: int | None, stay_s: float) -> None:
        self._name, self._log = name, log
        self._look_unix_ms, self._stay_s = look_unix_ms, stay_s
        self.is_ending = False
        self._stopped = trio.Event()

    def wake(self, *, recall: bool = False) -> None:
        self._log.append(f"wake {self._name}")

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> int | None:
        self._log.append(self._name)
        with trio.move_on_after(self._stay_s):
            await self._stopped.wait()
        return self._look_unix_ms


async def test_each_due_destination_has_one_actor_and_is_told_of_more(
    autojump_clock: MockClock,
) -> None:
    world = World()
    await world.send(["r@a.test", "r@b.test"])
    log: list[str] = []
    scheduler = Scheduler(world.spool, world.clock, lambda name: NotingActor(name, log, None, 10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        await trio.sleep(1)
        assert sorted(log) == ["a.test", "b.test"]
        await world.send(["s@a.test", "r@c.test"])
        await trio.sleep(1)
        assert sorted(log[2:]) == ["c.test", "wake a.test"]
        assert sorted(scheduler.residents) == ["a.test", "b.test", "c.test"]
        scheduler.stop()
        await wait_all_tasks_blocked()
        assert not scheduler.residents


async def test_who_is_woken_while_he_ends_is_started_again(autojump_clock: MockClock) -> None:
    """By his site or a shared limit: the agenda says that he has time."""
    world = World()
    await world.send(["r@a.test"])
    log: list[str] = []
    actors: list[NotingActor] = []

    def actor(name: str) -> NotingActor:
        world.data.agenda.clear()
        actors.append(NotingActor(name, log, None, 10.0))
        return actors[-1]

    scheduler = Scheduler(world.spool, world.clock, actor)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        await trio.sleep(1)
        assert not scheduler.start_soon("a.test"), "it is at work"
        actors[0].is_ending = True
        assert scheduler.start_soon("a.test")
        assert scheduler.start_soon("a.test")
        await trio.sleep(10)
        assert log == ["a.test", "a.test"]
        await trio.sleep(100)
        assert log == ["a.test", "a.test"]
        scheduler.stop()


async def test_who_is_woken_while_all_places_are_taken_waits_for_one(
    autojump_clock: MockClock,
) -> None:
    world = World()
    await world.send(["r@a.test"])
    log: list[str] = []
    scheduler = Scheduler(
        world.spool,
        world.clock,
        lambda name: NotingActor(name, log, None, 10.0 if name == "a.test" else 1.0),
        residents_max=1,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        await trio.sleep(1)
        assert not scheduler.others_wait
        assert scheduler.start_soon("b.test")
        assert scheduler.start_soon("c.test")
        assert scheduler.others_wait
        await trio.sleep(8)
        assert log == ["a.test"]
        world.data.agenda.clear()
        await trio.sleep(4)
        assert log == ["a.test", "b.test", "c.test"]
        assert not scheduler.others_wait
        scheduler.stop()


async def test_a_destination_is_looked_at_when_it_asked_for_it(
    autojump_clock: MockClock,
) -> None:
    world = World()
    await world.send(["r@a.test"])
    log: list[str] = []
    times: list[float] = []

    def actor(name: str) -> NotingActor:
        times.append(trio.current_time())
        look = world.clock.now_unix_ms() + 7000 if len(times) < 4 else None
        # The row stays due, so what it asks for is what counts; a rest would move the row.
        world.data.agenda[name] = type(world.data.agenda[name])(look or 2**50, name, "")
        return NotingActor(name, log, look, 1.0)

    scheduler = Scheduler(world.spool, world.clock, actor)
    with trio.move_on_after(100):
        await scheduler.run()
    assert len(times) == 4
    assert times == pytest.approx([times[0] + 7 * n for n in range(4)], abs=0.1)


def test_connection_limits_are_asked_like_all_others() -> None:
    limit = ConnectionLimit("site", "mx", 1)
    assert limit.ready_at_unix_ms(5) == 5
    limit.open = 1
    assert limit.ready_at_unix_ms(5) == float("inf")


def test_virtual_time_is_wall_time_here() -> None:
    async def now() -> int:
        return VirtualClock(START_UNIX_MS).now_unix_ms()

    assert trio.run(now, clock=MockClock(autojump_threshold=0)) == START_UNIX_MS
