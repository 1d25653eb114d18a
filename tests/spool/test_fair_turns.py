"""Turns among flows and lanes, over rows that are a plain sorted list."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.spool.fair_turns import (
    FLOWS_VISITED_MAX,
    QUANTUM_ENVELOPES,
    earliest_due_unix_ms,
    take_turns,
)
from engine.spool.interface import WindowPosition
from engine.spool.memory_data import MemoryRows, QueueRow

NOW = 1000


class CountedRows:
    """Rows that count how often a flow is looked for."""

    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows
        self.seeks = 0

    def first_flow(self, lane: int, flow_min: int) -> int | None:
        self.seeks += 1
        return self._rows.first_flow(lane, flow_min)

    def flow_rows(self, lane: int, flow: int, after: tuple[int, int]) -> Iterator[tuple[int, int]]:
        return self._rows.flow_rows(lane, flow, after)


def rows_of(*flows: tuple[int, int, int]) -> MemoryRows:
    """Rows of flows, each given as (lane, flow, how many); all due, ids tell the flow."""
    rows = [
        (lane, flow, 0, flow * 100_000 + number)
        for lane, flow, count in flows
        for number in range(count)
    ]
    return MemoryRows(sorted(rows))


def flows_of(ids: list[int]) -> list[int]:
    return [each // 100_000 for each in ids]


def test_flows_take_turns_of_a_quantum() -> None:
    rows = rows_of((1, 1, 1000), (1, 2, 1000), (1, 3, 10))
    turns = take_turns(rows, WindowPosition(), 3 * QUANTUM_ENVELOPES + 10, NOW, set())
    expected = [1] * QUANTUM_ENVELOPES + [2] * QUANTUM_ENVELOPES + [3] * 10
    assert flows_of(turns.envelope_ids) == [*expected, *[1] * QUANTUM_ENVELOPES]
    assert turns.more
    assert turns.envelope_ids[-1] == 100_000 + 2 * QUANTUM_ENVELOPES - 1


def test_a_turn_goes_on_in_the_next_window() -> None:
    rows = rows_of((1, 1, 1000), (1, 2, 1000))
    position = WindowPosition()
    claimed: set[int] = set()
    order: list[int] = []
    for _ in range(40):
        turns = take_turns(rows, position, 5, NOW, claimed)
        claimed.update(turns.envelope_ids)
        order += flows_of(turns.envelope_ids)
    starts = [i for i in range(1, len(order)) if order[i] != order[i - 1]]
    assert starts == list(range(QUANTUM_ENVELOPES, len(order), QUANTUM_ENVELOPES))


def test_a_small_flow_waits_one_turn_of_the_others_and_no_more() -> None:
    rows = rows_of((1, 1, 50_000), (1, 2, 1))
    turns = take_turns(rows, WindowPosition(), 50, NOW, set())
    assert flows_of(turns.envelope_ids).index(2) == QUANTUM_ENVELOPES


def test_lane_0_passes_and_lane_1_keeps_one_in_eight() -> None:
    rows = rows_of((0, 1, 1000), (1, 2, 1000))
    position = WindowPosition()
    claimed: set[int] = set()
    order: list[int] = []
    for limit in (3, 50, 1, 90, 16):
        turns = take_turns(rows, position, limit, NOW, claimed)
        claimed.update(turns.envelope_ids)
        order += flows_of(turns.envelope_ids)
    assert order == [1, 1, 1, 1, 1, 1, 1, 2] * 20


def test_an_idle_lane_leaves_its_share_to_the_other() -> None:
    assert (
        flows_of(take_turns(rows_of((1, 2, 9)), WindowPosition(), 9, NOW, set()).envelope_ids)
        == [2] * 9
    )
    assert (
        flows_of(take_turns(rows_of((0, 1, 9)), WindowPosition(), 9, NOW, set()).envelope_ids)
        == [1] * 9
    )


def test_thousands_of_sleeping_flows_do_not_cost_each_window_a_walk() -> None:
    sleeping: list[QueueRow] = [(1, flow, NOW + 5, flow) for flow in range(2, 5000)]
    active: list[QueueRow] = [(1, 1, 0, 10_000 + number) for number in range(1000)]
    rows = CountedRows(MemoryRows(sorted(sleeping + active)))
    position = WindowPosition()
    claimed: set[int] = set()
    for _ in range(20):
        turns = take_turns(rows, position, 50, NOW, claimed)
        assert turns.envelope_ids
        claimed.update(turns.envelope_ids)
    assert len(claimed) == 1000
    # Each window may look into so many; and once in a while one walks round to the active flow.
    assert rows.seeks < 20 * FLOWS_VISITED_MAX + 2 * 5000


def test_an_empty_window_is_the_truth_even_among_thousands_of_flows() -> None:
    rows: list[QueueRow] = [(1, flow, NOW + 2000 - flow % 1500, flow) for flow in range(1, 3000)]
    turns = take_turns(MemoryRows(rows), WindowPosition(), 50, NOW, set())
    assert turns.envelope_ids == []
    assert not turns.more
    assert turns.next_due_unix_ms == min(row[2] for row in rows)


@pytest.mark.parametrize("flow", [1, FLOWS_VISITED_MAX + 40, 2999])
def test_the_one_flow_with_due_mail_is_found_wherever_it_is(flow: int) -> None:
    rows: list[QueueRow] = [(0, each, NOW + 1, each) for each in range(1, 3000)]
    rows[flow - 1] = (0, flow, NOW, flow)
    turns = take_turns(MemoryRows(sorted(rows)), WindowPosition(), 50, NOW, set())
    assert turns.envelope_ids == [flow]


queues = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 5), st.integers(0, 4).map(lambda n: n * 400)),
    max_size=120,
).map(lambda rows: sorted((*row, number) for number, row in enumerate(rows, 1)))


@given(queues, st.lists(st.integers(1, 70), min_size=1, max_size=6), st.sets(st.integers(1, 120)))
def test_what_is_due_goes_exactly_once_and_the_rest_is_told_truly(
    rows: list[QueueRow], limits: list[int], claimed_first: set[int]
) -> None:
    position = WindowPosition()
    claimed = set(claimed_first)
    due = {row[3] for row in rows if row[2] <= NOW} - claimed_first
    for limit in limits:
        turns = take_turns(MemoryRows(rows), position, limit, NOW, claimed)
        ids = turns.envelope_ids
        assert len(ids) == len(set(ids)) == min(limit, len(due))
        assert set(ids) <= due
        due -= set(ids)
        claimed |= set(ids)
        assert turns.more == bool(due)
        if not due:
            later = [row[2] for row in rows if row[3] not in claimed and row[2] > NOW]
            assert turns.next_due_unix_ms == min(later, default=None)


@given(st.lists(st.integers(40, 400), min_size=2, max_size=6), st.integers(1, 60))
def test_flows_that_have_enough_get_the_same(counts: list[int], limit: int) -> None:
    rows = rows_of(*((1, flow, count) for flow, count in enumerate(counts, 1)))
    position = WindowPosition()
    claimed: set[int] = set()
    got: Counter[int] = Counter()
    # As long as no flow has run dry, nobody is more than one quantum ahead of anybody.
    while max(got.values(), default=0) + QUANTUM_ENVELOPES + limit < min(counts):
        turns = take_turns(rows, position, limit, NOW, claimed)
        claimed.update(turns.envelope_ids)
        got.update(flows_of(turns.envelope_ids))
        had = [got[flow] for flow in range(1, len(counts) + 1)]
        assert max(had) - min(had) <= QUANTUM_ENVELOPES


@given(queues)
def test_the_earliest_due_time_is_the_minimum_over_all_rows(rows: list[QueueRow]) -> None:
    assert earliest_due_unix_ms(MemoryRows(rows)) == min((row[2] for row in rows), default=None)
