"""Which mail is held, and until when? The pure judgement of holds, the same for every adapter.

Holds of an account or a campaign skip whole flows, those of a destination or site all of it: they
cost nothing for each mail. Only a reply, an age or an address makes a window look into its
envelopes. Values in, values out: rows, flows and envelopes are asked for through functions.
"""

from collections.abc import Callable, Iterable
from typing import Final

from engine.spool.agenda import HOLD_CAUSE, WAIT_CAUSE
from engine.spool.fair_turns import BEFORE_ALL_ROWS, LANES, QueueRows
from engine.spool.hold_calls import Hold
from engine.spool.interface import PassedOver, SpoolError
from protocols.records import Envelope, FlowWait

# Every window looks through them all, when one concerns its destination.
HOLDS_MAX: Final = 1000
# One account leaves room for others. The last hundred are for operators, and for campaigns that are
# cancelled.
HOLDS_OF_ACCOUNT_MAX: Final = 200
HOLDS_FOR_ACCOUNTS: Final = 900

# So many held mails of a flow are looked into when a destination goes to rest. If there are more,
# it is looked at again after a while: too early for those, and at most so much too late for one
# that came behind them in the moment of the rest.
ROWS_AT_REST_MAX: Final = 1000
LOOK_AGAIN_MS: Final = 30_000


class Holds:
    """The holds of a spool at one moment, by id. Never changed: a change makes another one."""

    def __init__(self, rows: Iterable[Hold] = ()) -> None:
        self.rows: Final = {row.hold_id: row for row in sorted(rows, key=lambda row: row.hold_id)}

    def check_room(self, owner_id: int) -> None:
        """Raises SpoolError if this owner (0: an operator) has, or all have, as many as may be."""
        owners = [row.owner_id for row in self.rows.values()]
        if owner_id and owners.count(owner_id) >= HOLDS_OF_ACCOUNT_MAX:
            text = f"this account has {HOLDS_OF_ACCOUNT_MAX} holds already: lift some of them"
            raise SpoolError(text)
        most = HOLDS_FOR_ACCOUNTS if owner_id else HOLDS_MAX
        if len(owners) >= most:
            raise SpoolError(f"there are {len(owners):,} holds already: some have to be lifted")

    def with_row(self, hold: Hold) -> "Holds":
        return Holds([*(self.rows | {hold.hold_id: hold}).values()])

    def without(self, hold_id: int) -> "Holds":
        return Holds([row for row in self.rows.values() if row.hold_id != hold_id])

    def at(self, now_unix_ms: int) -> list[Hold]:
        """Return those that hold at a time, oldest first."""
        return [row for row in self.rows.values() if row.holds_at(now_unix_ms)]

    def over_at(self, now_unix_ms: int) -> list[Hold]:
        """Return those that have come to their end by themselves."""
        return [
            row for row in self.rows.values() if not row.is_lifted and not row.holds_at(now_unix_ms)
        ]

    def of_destination(self, destination: str, site: str, now_unix_ms: int) -> Hold | None:
        """Return what holds all mail of a destination."""
        return _last(
            row
            for row in self.at(now_unix_ms)
            if row.wanted.is_of_destination and row.wanted.fits_place(destination, site)
        )

    def of_flow(
        self, destination: str, site: str, account_id: int, campaign: str | None, now_unix_ms: int
    ) -> Hold | None:
        """Return what holds all mail of a flow at a destination."""
        return _last(
            row
            for row in self.at(now_unix_ms)
            if row.wanted.is_of_flow
            and row.wanted.fits_place(destination, site)
            and row.wanted.fits_flow(account_id, campaign)
        )

    def of(self, envelope: Envelope, site: str, now_unix_ms: int) -> Hold | None:
        """Return what holds one mail."""
        return _last(
            row for row in self.at(now_unix_ms) if row.wanted.fits(envelope, site, now_unix_ms)
        )

    def longest_unix_ms(self, envelope: Envelope, site: str, now_unix_ms: int) -> int:
        """Return the latest end of those that held a mail, also of those that are over; else 0.

        So long its destination may be at rest, until the row of the hold is gone.
        """
        return max(
            (
                row.end_unix_ms
                for row in self.rows.values()
                if row.wanted.fits(envelope, site, now_unix_ms)
            ),
            default=0,
        )

    def next_end_unix_ms(self, now_unix_ms: int) -> int | None:
        ends = (row.until_unix_ms for row in self.at(now_unix_ms))
        return min((end for end in ends if end is not None), default=None)

    def here(
        self,
        destination: str,
        site: str,
        now_unix_ms: int,
        flow_of: Callable[[int], tuple[int, str | None] | None],
        envelope_of: Callable[[int], Envelope | None],
        waits: PassedOver | None = None,
    ) -> "HeldHere | None":
        """Return how the mail of a destination is held; None if no hold or wait concerns it."""
        here = [row for row in self.at(now_unix_ms) if row.wanted.fits_place(destination, site)]
        if not here and waits is None:
            return None
        return HeldHere(here, now_unix_ms, flow_of, envelope_of, waits)


def recorded_waits(waits: Iterable[FlowWait], now_unix_ms: int) -> PassedOver | None:
    """Return whom a record's waits pass over; None if none of them lasts."""
    lasting = [wait for wait in waits if wait.until_unix_ms > now_unix_ms]
    return _RecordedWaits(lasting) if lasting else None


class _RecordedWaits:
    def __init__(self, waits: Iterable[FlowWait]) -> None:
        self._until: dict[tuple[int, str | None], int] = {}
        for wait in waits:
            key = (wait.account_id, wait.campaign)
            self._until[key] = max(wait.until_unix_ms, self._until.get(key, 0))

    def until_unix_ms(self, account_id: int, campaign: str | None) -> int:
        until = self._until
        return max(until.get((account_id, None), 0), until.get((account_id, campaign), 0))


class HeldHere:
    """The holds that concern one destination, and the flows that are passed over meanwhile.

    `flow_of` and `envelope_of` look things up by id. What they cannot find is not held: damage is
    others' to see to.
    """

    def __init__(
        self,
        here: list[Hold],
        now_unix_ms: int,
        flow_of: Callable[[int], tuple[int, str | None] | None],
        envelope_of: Callable[[int], Envelope | None],
        waits: PassedOver | None,
    ) -> None:
        self.key: Final = tuple(row.hold_id for row in here)
        self._here = here
        self._now_unix_ms = now_unix_ms
        self._flow_of = flow_of
        self._envelope_of = envelope_of
        self._waits = waits
        self._flows: dict[int, tuple[int, list[Hold]]] = {}

    def flow_until_unix_ms(self, flow: int) -> int:
        """Return until when a whole flow is held or passed over, 0 if it is not."""
        return self._of_flow(flow)[0]

    def only_waits(self, flow: int) -> bool:
        """Say whether it is no hold that decides about a flow, but a wait."""
        return self._of_flow(flow)[0] == self._wait_of(flow) > 0

    def _wait_of(self, flow: int) -> int:
        if self._waits is None:
            return 0
        named = self._flow_of(flow)
        until_unix_ms = self._waits.until_unix_ms(*named) if named is not None else 0
        return until_unix_ms if until_unix_ms > self._now_unix_ms else 0

    def looks_into(self, flow: int) -> bool:
        """Say whether single mails of a flow may be held."""
        return bool(self._of_flow(flow)[1])

    def row_until_unix_ms(self, flow: int, envelope_id: int) -> int:
        """Return until when one mail is held by what it looks like, 0 if it is not."""
        envelope = self._envelope_of(envelope_id)
        if envelope is None:
            return 0
        found = _last(
            row
            for row in self._of_flow(flow)[1]
            if row.wanted.fits_state(envelope, self._now_unix_ms)
        )
        return 0 if found is None else found.end_unix_ms

    def _of_flow(self, flow: int) -> tuple[int, list[Hold]]:
        known = self._flows.get(flow)
        if known is None:
            named = self._flow_of(flow)
            fitting = [row for row in self._here if named and row.wanted.fits_flow(*named)]
            whole = _last(row for row in fitting if row.wanted.is_of_flow)
            single = [row for row in fitting if not row.wanted.is_of_flow]
            until_unix_ms = max(0 if whole is None else whole.end_unix_ms, self._wait_of(flow))
            known = self._flows[flow] = (until_unix_ms, single)
        return known


def earliest_wake(rows: QueueRows, held: HeldHere, now_unix_ms: int) -> tuple[int | None, str]:
    """Return when the first mail may go, claimed ones included, and what decides that, if anything.

    None without a row. Too early for some destinations with very many held mails, see the module.
    """
    earliest: int | None = None
    cause = ""
    for lane in LANES:
        flow = rows.first_flow(lane, 0)
        while flow is not None:
            wake_unix_ms, is_held = _flow_wake(rows, held, lane, flow, now_unix_ms)
            if earliest is None or wake_unix_ms < earliest:
                earliest, cause = wake_unix_ms, HOLD_CAUSE if is_held else ""
                if is_held and held.only_waits(flow):
                    cause = WAIT_CAUSE
            flow = rows.first_flow(lane, flow + 1)
    return earliest, cause


def _flow_wake(
    rows: QueueRows, held: HeldHere, lane: int, flow: int, now_unix_ms: int
) -> tuple[int, bool]:
    first_unix_ms, _ = next(rows.flow_rows(lane, flow, BEFORE_ALL_ROWS))
    until_unix_ms = held.flow_until_unix_ms(flow)
    if until_unix_ms > first_unix_ms:
        return until_unix_ms, True
    if not held.looks_into(flow):
        return first_unix_ms, False
    wake_unix_ms: int | None = None
    for place, (due_unix_ms, envelope_id) in enumerate(rows.flow_rows(lane, flow, BEFORE_ALL_ROWS)):
        if wake_unix_ms is not None and due_unix_ms >= wake_unix_ms:
            break
        if place == ROWS_AT_REST_MAX:
            again_unix_ms = max(due_unix_ms, now_unix_ms + LOOK_AGAIN_MS)
            return min(wake_unix_ms or again_unix_ms, again_unix_ms), True
        row_unix_ms = max(due_unix_ms, held.row_until_unix_ms(flow, envelope_id))
        if row_unix_ms == due_unix_ms and wake_unix_ms is None:
            return due_unix_ms, place > 0
        wake_unix_ms = min(row_unix_ms, wake_unix_ms or row_unix_ms)
    assert wake_unix_ms is not None, "a flow has a row"
    return wake_unix_ms, True


def _last(rows: Iterable[Hold]) -> Hold | None:
    """Return the one that ends last, of equals the oldest: lifting any other moves nothing."""
    return max(rows, key=lambda row: row.end_unix_ms, default=None)
