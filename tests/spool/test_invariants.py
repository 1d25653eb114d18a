"""Each fault between the tables is found and named: the checks have teeth."""

import random
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
import trio
import trio.testing

from engine.spool import activity
from engine.spool.interface import AgendaRow, Quota, SpoolSettings
from engine.spool.invariants import faults_of
from engine.spool.memory import MemorySpool
from engine.spool.memory_data import MemoryData
from protocols.records import Status
from tests.spool import harness as h


async def _fill(data: MemoryData) -> None:
    spool = MemorySpool(
        data, settings=SpoolSettings(), clock=h.SettableClock(), random=random.Random(1)
    )
    account = await h.make_account(spool)
    await h.accept_many(spool, account, 6, campaign="spring", quota=Quota(per_day=4))
    await h.accept_many(spool, account, 2, at="two.test")
    await h.deliver(spool, (await h.claim(spool))[:1])


@pytest.fixture
def data() -> MemoryData:
    filled = MemoryData()
    trio.run(_fill, filled, clock=trio.testing.MockClock())
    assert faults_of(filled, h.START_UNIX_MS) == []
    return filled


def first_with(data: MemoryData, status: Status) -> int:
    return next(each for each, state in data.states.items() if state.status is status)


def lose_queue_row(data: MemoryData) -> None:
    data.queue["one.test"].pop()


def keep_row_of_a_delivered_one(data: MemoryData) -> None:
    fixed = data.fixed[first_with(data, Status.DELIVERED)]
    data.queue["one.test"].append((fixed.lane, fixed.flow, 0, fixed.envelope_id))


def lose_envelope(data: MemoryData) -> None:
    del data.states[first_with(data, Status.QUEUED)]


def move_due_of_the_state_only(data: MemoryData) -> None:
    envelope_id = first_with(data, Status.QUEUED)
    data.states[envelope_id] = msgspec.structs.replace(data.states[envelope_id], due_unix_ms=5)


def repeat_queue_row(data: MemoryData) -> None:
    lane, flow, due, envelope_id = data.queue["one.test"][0]
    data.queue["one.test"].insert(0, (lane, flow, due - 1, envelope_id))


def lose_paused_row(data: MemoryData) -> None:
    data.paused.pop()


def keep_paused_row(data: MemoryData) -> None:
    data.paused.add((1, 20000, first_with(data, Status.QUEUED)))


def lose_agenda_row(data: MemoryData) -> None:
    del data.agenda["two.test"]


def wake_too_late(data: MemoryData) -> None:
    data.agenda["one.test"] = replace(data.agenda["one.test"], wake_unix_ms=h.START_UNIX_MS + 1)


def wake_nobody(data: MemoryData) -> None:
    data.agenda["no.test"] = AgendaRow(1, "no.test", "")


def count_a_reference_too_many(data: MemoryData) -> None:
    data.references[1] += 1


def lose_content(data: MemoryData) -> None:
    del data.references[2]


def count_one_too_many(data: MemoryData) -> None:
    key = next(each for each in data.counters if each.destination == "two.test")
    data.counters[key] = (3, *data.counters[key][1:])


def count_a_final_one_too_many(data: MemoryData) -> None:
    key = next(each for each in data.counters if each.destination == "two.test")
    data.counters[key] = (*data.counters[key][:-1], 1)


def count_an_hour_too_many(data: MemoryData) -> None:
    key = next(each for each in data.activity if each.kind == activity.HOUR)
    data.activity[key] = (9, *data.activity[key][1:])


def lose_a_minute(data: MemoryData) -> None:
    del data.activity[next(each for each in data.activity if each.kind == activity.MINUTE)]


def lose_the_time_of_a_delivery(data: MemoryData) -> None:
    data.times.clear()


def tell_another_time(data: MemoryData) -> None:
    key = next(iter(data.times))
    data.times[key] = (data.times[key][0] + 1, *data.times[key][1:])


def lose_an_event(data: MemoryData) -> None:
    del data.events[3]


def tell_a_second_end(data: MemoryData) -> None:
    data.append_event(msgspec.structs.replace(data.events[data.head_seq], seq=data.head_seq + 1))


def tell_another_end(data: MemoryData) -> None:
    last = data.head_seq
    data.events[last] = msgspec.structs.replace(data.events[last], status=Status.SOFT_BOUNCED)


@pytest.mark.parametrize(
    ("break_it", "fault"),
    [
        (lose_queue_row, "queue: envelope"),
        (keep_row_of_a_delivered_one, "queue: envelope"),
        (lose_envelope, "which is not there"),
        (move_due_of_the_state_only, "queue: envelope"),
        (repeat_queue_row, "has two rows"),
        (lose_paused_row, "paused: envelope"),
        (keep_paused_row, "paused: envelope"),
        (lose_agenda_row, "agenda: two.test has mail in the queue but no row"),
        (wake_too_late, "agenda: one.test is woken 1 ms too late"),
        (wake_nobody, "agenda: no.test has a row but no mail"),
        (count_a_reference_too_many, "content_head: 1"),
        (lose_content, "content_head: 2 is needed"),
        (count_one_too_many, "counter: CounterKey(projection="),
        (count_a_final_one_too_many, "counter: the projections do not agree"),
        (count_an_hour_too_many, "activity: RowKey(kind=2"),
        (lose_a_minute, "activity: RowKey(kind=1"),
        (lose_the_time_of_a_delivery, "has 0 times to delivery"),
        (tell_another_time, "a rebuild from the log gives other times"),
        (lose_an_event, "event: the numbers have a hole"),
        (tell_a_second_end, "has 2 final events"),
        (tell_another_end, "tells another status"),
    ],
)
def test_a_fault_is_found_and_named(
    data: MemoryData, break_it: Callable[[MemoryData], None], fault: str
) -> None:
    break_it(data)
    found = faults_of(data, h.START_UNIX_MS)
    assert any(fault in each for each in found), found
