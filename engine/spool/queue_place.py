"""How many mails go before one? Counted by the turns that a window takes, so that both agree.

Pure: rows, position and time are arguments, and nothing is moved or claimed. Beyond what is worth
looking at, an adapter estimates from its counters with `estimated`.
"""

from collections.abc import Collection, Iterable

from engine.spool.fair_turns import LANE_0_RUN_MAX, Held, QueueRows, take_turns
from engine.spool.interface import Ahead, WindowPosition
from protocols.records import Envelope


def counted(
    rows: QueueRows,
    envelope: Envelope,
    position: WindowPosition,
    looked_at_max: int,
    now_unix_ms: int,
    claimed: Collection[int],
    held: Held | None = None,
) -> Ahead:
    """Return how many go before an envelope; not exact if it is not among the next so many.

    What is held goes before nobody; an envelope that is held itself has all others before it.
    """
    at_unix_ms = max(now_unix_ms, envelope.state.due_unix_ms)
    turns = take_turns(rows, position.copied(), looked_at_max, at_unix_ms, claimed, held)
    envelope_id = envelope.fixed.envelope_id
    if envelope_id in turns.envelope_ids:
        return Ahead(turns.envelope_ids.index(envelope_id), True)
    return Ahead(len(turns.envelope_ids), is_exact=not turns.more)


def estimated(own_before: float, own_lane: int, others: Iterable[tuple[int, int]]) -> int:
    """Return about how many go before a mail that is deep in its flow.

    `own_before` is its place in its own flow, `others` are lane and length of the other flows at
    the destination: each has as many turns as its own flow, until it is empty.
    """
    ahead = own_before
    other_lane = 0
    for lane, length in others:
        if lane == own_lane:
            ahead += min(length, own_before)
        else:
            other_lane += length
    # Of eight turns lane 0 has seven and lane 1 one, while both have mail.
    share = LANE_0_RUN_MAX if own_lane == 1 else 1 / LANE_0_RUN_MAX
    return round(ahead + min(other_lane, ahead * share))
