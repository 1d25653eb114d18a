"""Whose turn is it among the flows of one destination?

Pure decision over a view of the destination's queue rows, which are ordered by lane, flow, due
time and id. Flows take turns by deficit round-robin; since every envelope costs the same here, what
is left of a quantum is the whole deficit, and a flow that runs dry forfeits it. The next flow is
found by a skip-scan, so a turn does not cost more because a flow is long. Lane 0 passes lane 1,
but every eighth envelope is lane 1's if it has one.

Nothing here knows a database, an envelope's content or a limit on the path; time is an argument.
"""

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from engine.spool.hold_calls import NO_END_UNIX_MS
from engine.spool.interface import WindowPosition

# Transactional mail, then bulk mail.
LANES: Final = (0, 1)

# Long enough that mails of one content meet in one SMTP transaction, short enough that a small
# campaign behind a huge one moves within a second at a few dozen mails a second.
QUANTUM_ENVELOPES: Final = 32

# Lane 1 is guaranteed one envelope in eight: after this many of lane 0 it may go first.
LANE_0_RUN_MAX: Final = 7

# A destination can have thousands of flows that all wait for a retry. A window that has something
# to show looks into no more of them than this in a lane, which costs it about a quarter of a
# millisecond; the next window goes on where this one stopped.
FLOWS_VISITED_MAX: Final = 256

# Where single mails are held, a window looks into no more held ones than this (some five
# milliseconds) and shows what it has, if anything; the next window goes on where this one stopped.
HELD_ROWS_MAX: Final = 1000

BEFORE_ALL_ROWS: Final = (-1, -1)


class QueueRows(Protocol):
    """The queue rows of one destination, as one moment shows them."""

    def first_flow(self, lane: int, flow_min: int) -> int | None:
        """Return the lowest flow of `lane` that is at least `flow_min` and has a row."""
        ...

    def flow_rows(self, lane: int, flow: int, after: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Return the (due_unix_ms, envelope_id) of a flow in order, only those above `after`."""
        ...


class Held(Protocol):
    """The holds that concern one destination; times are wall milliseconds, 0 is "not held"."""

    @property
    def key(self) -> tuple[int, ...]:
        """Which holds these are: what was found held under others has to be looked at again."""
        ...

    def flow_until_unix_ms(self, flow: int) -> int:
        """Return until when a whole flow is held."""
        ...

    def looks_into(self, flow: int) -> bool:
        """Say whether single mails of a flow may be held."""
        ...

    def row_until_unix_ms(self, flow: int, envelope_id: int) -> int:
        """Return until when a single mail is held."""
        ...


@dataclass(frozen=True, slots=True)
class Turns:
    """What a window may take, in fair order, and what is known of the rest.

    `more` says that others are due now, or that not everything was looked into; else
    `next_due_unix_ms` is the earliest time at which a row that is not claimed is due and not held,
    as far as time alone can tell: None without one.
    """

    envelope_ids: list[int]
    more: bool
    next_due_unix_ms: int | None


def take_turns(
    rows: QueueRows,
    position: WindowPosition,
    limit: int,
    now_unix_ms: int,
    claimed: Collection[int],
    held: Held | None = None,
) -> Turns:
    """Return up to `limit` ids (at least 1) that may go: due, not `claimed` and not `held`.

    Moves `position` on.
    """
    key = () if held is None else held.key
    if position.passed_key != key:
        position.look_again()
        position.passed_key = key
    look = _Look(rows, position, now_unix_ms, claimed, held, flows_max=FLOWS_VISITED_MAX)
    turns = _take(look, limit)
    if turns.envelope_ids or not look.cut_short or look.held_rows >= HELD_ROWS_MAX:
        return turns
    # An empty window has to be the truth, whatever it costs: the actor will rest on it.
    return _take(_Look(rows, position, now_unix_ms, claimed, held, flows_max=None), limit)


def earliest_due_unix_ms(rows: QueueRows) -> int | None:
    """Return the true minimum of the due times, claimed rows included; None without a row."""
    earliest: int | None = None
    for lane in LANES:
        flow = rows.first_flow(lane, 0)
        while flow is not None:
            due_unix_ms, _ = next(rows.flow_rows(lane, flow, BEFORE_ALL_ROWS))
            if earliest is None or due_unix_ms < earliest:
                earliest = due_unix_ms
            flow = rows.first_flow(lane, flow + 1)
    return earliest


def _take(look: "_Look", limit: int) -> Turns:
    position = look.position
    streams = [look.ids(lane) for lane in LANES]
    taken: list[int] = []
    while True:
        lane = 1 if position.lane_0_run >= LANE_0_RUN_MAX else 0
        envelope_id = next(streams[lane], None)
        if envelope_id is None:
            lane = 1 - lane
            envelope_id = next(streams[lane], None)
        if envelope_id is None:
            next_due = None if look.cut_short else look.next_due_unix_ms
            return Turns(taken, more=look.cut_short, next_due_unix_ms=next_due)
        if len(taken) == limit:
            # This one was only looked at, to know that there is more.
            return Turns(taken, more=True, next_due_unix_ms=None)
        taken.append(envelope_id)
        position.turn_taken[lane] += 1
        position.lane_0_run = position.lane_0_run + 1 if lane == 0 else 0


class _Look:
    """One look at the rows. Whoever takes an id counts it in `position.turn_taken`."""

    __slots__ = (
        "_claimed",
        "_flows_max",
        "_held",
        "_now_unix_ms",
        "_rows",
        "cut_short",
        "held_rows",
        "next_due_unix_ms",
        "position",
    )

    def __init__(
        self,
        rows: QueueRows,
        position: WindowPosition,
        now_unix_ms: int,
        claimed: Collection[int],
        held: Held | None,
        *,
        flows_max: int | None,
    ) -> None:
        self._rows = rows
        self.position = position
        self._now_unix_ms = now_unix_ms
        self._claimed = claimed
        self._held = held
        self._flows_max = flows_max
        self.held_rows = 0
        self.cut_short = False
        self.next_due_unix_ms: int | None = None

    def ids(self, lane: int) -> Iterator[int]:
        """Yield the ids of one lane that may go now, in the order of its turns."""
        position, claimed = self.position, self._claimed
        if position.turn_taken[lane] >= QUANTUM_ENVELOPES:
            self._end_turn(lane, position.flow[lane])
        fresh = self._flows_in_turn(lane)
        seen: deque[int] = deque()  # flows of this window that may have more, in turn
        reached: dict[int, tuple[int, int]] = {}
        lively = position.lively[lane]
        while True:
            flow = next(fresh, None)
            is_fresh = flow is not None
            if flow is None:
                if seen:
                    flow = seen.popleft()
                elif self.cut_short and lively is not None:
                    # Nothing among so many: to look on for another flow with mail would cost each
                    # window a walk over all that sleep, and last time this one had some.
                    flow, lively = lively, None
                else:
                    return
            if flow != position.flow[lane]:
                position.turn_taken[lane] = 0
                # After a cut the position stays where the next window has to go on looking.
                if is_fresh or not self.cut_short:
                    position.flow[lane] = flow
            for row in self._rows_to_look_at(lane, flow, reached.get(flow, BEFORE_ALL_ROWS)):
                if row[1] in claimed:
                    continue
                if row[0] > self._now_unix_ms:
                    self._note_due(row[0])
                    break
                reached[flow] = row
                yield row[1]
                position.lively[lane] = flow
                if position.turn_taken[lane] >= QUANTUM_ENVELOPES:
                    seen.append(flow)
                    break
            if self.held_rows >= HELD_ROWS_MAX:
                # Here the next window goes on.
                return
            if is_fresh or not self.cut_short:
                self._end_turn(lane, flow)

    def _rows_to_look_at(
        self, lane: int, flow: int, after: tuple[int, int]
    ) -> Iterator[tuple[int, int]]:
        """Return a flow's rows without those that are held."""
        held = self._held
        if held is None:
            return self._rows.flow_rows(lane, flow, after)
        until_unix_ms = held.flow_until_unix_ms(flow)
        if until_unix_ms:
            for row in self._rows.flow_rows(lane, flow, after):
                if row[1] not in self._claimed:
                    self._note_due(max(row[0], until_unix_ms))
                    break
            return iter(())
        if not held.looks_into(flow):
            return self._rows.flow_rows(lane, flow, after)
        return self._rows_looked_into(lane, flow, after, held)

    def _rows_looked_into(
        self, lane: int, flow: int, after: tuple[int, int], held: Held
    ) -> Iterator[tuple[int, int]]:
        passed = self.position.passed
        after = max(after, passed.get((lane, flow), BEFORE_ALL_ROWS))
        for row in self._rows.flow_rows(lane, flow, after):
            if row[1] in self._claimed:
                continue
            if row[0] <= self._now_unix_ms:
                until_unix_ms = held.row_until_unix_ms(flow, row[1])
                if until_unix_ms:
                    self._note_due(until_unix_ms)
                    passed[lane, flow] = row
                    self.held_rows += 1
                    if self.held_rows >= HELD_ROWS_MAX:
                        self.cut_short = True
                        return
                    continue
            yield row

    def _flows_in_turn(self, lane: int) -> Iterator[int]:
        """Yield each flow of the lane once, from the position on and round the end."""
        start = self.position.flow[lane]
        visited = 0
        for flow_min, flow_end in ((start, None), (0, start)):
            flow = self._rows.first_flow(lane, flow_min)
            while flow is not None and (flow_end is None or flow < flow_end):
                if visited == self._flows_max:
                    self.cut_short = True
                    return
                visited += 1
                yield flow
                flow = self._rows.first_flow(lane, flow + 1)

    def _end_turn(self, lane: int, flow: int) -> None:
        self.position.flow[lane] = flow + 1
        self.position.turn_taken[lane] = 0

    def _note_due(self, due_unix_ms: int) -> None:
        if due_unix_ms >= NO_END_UNIX_MS:
            return
        if self.next_due_unix_ms is None or due_unix_ms < self.next_due_unix_ms:
            self.next_due_unix_ms = due_unix_ms
