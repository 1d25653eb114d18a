"""Boards: totals and destinations as they stand, told as a snapshot and then as changes.

There is one board for each account that somebody watches, and one for operators.
All of its watchers share it: it is looked up at most ten times a second, and so
that a long list does not eat the engine, never for more than a twentieth of the time.
A watcher is a version number; it is told what has changed since, once, however
often it changed in between.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import nlargest
from operator import attrgetter
from typing import Any, Final, Literal

import trio

from engine.delivery.holding import waiting_in
from engine.spool.interface import CommitNotice, DestinationRow, Group, Spool
from engine.watch.destinations import (
    DestinationView,
    LiveDestinations,
    destination_view,
    hold_of_row,
)
from protocols.records import STATUSES
from protocols.stream_frames import (
    JsonFrames,
    MsgpackFrames,
    destinations_frame,
    totals_frame,
    websocket_frame,
)

PERIOD_S: Final = 0.1
COST_SHARE: Final = 20.0
# Connections and rates change without a commit; once a second is enough to see them move.
QUIET_PERIOD_S: Final = 1.0
PAGE: Final = 1_000
# A page cannot show more, and a browser cannot hold it; `/v1/destinations` lists them all.
DESTINATIONS_MAX: Final = 5_000

Subject = Literal["destinations", "totals"]


class Board:
    """One subject for one account (None: all), with the version at which each part changed."""

    def __init__(self, subject: Subject, account_id: int | None) -> None:
        self.subject: Final = subject
        self.account_id: Final = account_id
        self.watchers = 0
        self.version = 0
        self._changed = trio.Event()
        self._totals: dict[str, int] = {}
        self._rows: dict[str, tuple[int, DestinationView]] = {}
        self._frames: dict[tuple[int, bool], bytes] = {}

    async def wait_beyond(self, version: int) -> None:
        while self.version <= version:
            await self._changed.wait()

    def frame_since(self, version: int, *, binary: bool) -> bytes:
        """The websocket frame for a watcher that knows `version`; 0 gives the snapshot."""
        key = (version, binary)
        frame = self._frames.get(key)
        if frame is None:
            frames = MsgpackFrames() if binary else JsonFrames()
            payload = frames.encode(self._value_since(version))
            frame = self._frames[key] = websocket_frame(payload, binary=binary)
        return frame

    def take_totals(self, totals: dict[str, int]) -> None:
        if totals != self._totals or not self.version:
            self._totals = totals
            self._publish()

    def take_rows(self, views: Iterator[DestinationView]) -> None:
        version, before = self.version + 1, self._rows
        after: dict[str, tuple[int, DestinationView]] = {}
        for view in views:
            known = before.get(view.destination)
            same = known is not None and known[1] == view
            after[view.destination] = known if same and known else (version, view)
        has_changed = any(each[0] == version for each in after.values())
        if has_changed or not self.version:
            self._rows = after
            self._publish()

    def worth(self, row: DestinationRow) -> int:
        """How much a destination's row matters to those who watch."""
        waiting = waiting_in(row)
        known = self._rows.get(row.destination)
        if known is None:
            return 2 * waiting
        was_waiting = known[1].queued or known[1].deferred or known[1].paused
        return sys.maxsize if was_waiting and not waiting else 2 * waiting + 1

    def _publish(self) -> None:
        self.version += 1
        self._frames.clear()
        self._changed.set()
        self._changed = trio.Event()

    def _value_since(self, version: int) -> dict[str, Any]:
        if self.subject == "totals":
            return totals_frame(self._totals, snapshot=version == 0)
        rows = [view for changed, view in self._rows.values() if changed > version]
        return destinations_frame(rows, snapshot=version == 0)


class Boards:
    """All boards that somebody watches. Runs while `run` runs."""

    def __init__(
        self, spool: Spool, live: LiveDestinations, *, now_unix_ms: Callable[[], int]
    ) -> None:
        self._spool = spool
        self._live = live
        self._now_unix_ms = now_unix_ms
        self._boards: dict[tuple[Subject, int | None], Board] = {}
        self._news = trio.Event()
        self._watched = trio.Event()
        spool.add_listener(self._committed)

    @property
    def count(self) -> int:
        """How many boards are kept current."""
        return len(self._boards)

    @contextmanager
    def watched(self, subject: Subject, account_id: int | None) -> Iterator[Board]:
        """Keep the board of `subject` current while the block runs."""
        key = (subject, account_id)
        board = self._boards.get(key)
        if board is None:
            board = self._boards[key] = Board(subject, account_id)
        board.watchers += 1
        self._watched.set()
        self._news.set()
        try:
            yield board
        finally:
            board.watchers -= 1
            if not board.watchers:
                del self._boards[key]

    async def run(self) -> None:
        """Keep what is watched current. Runs until cancelled."""
        while True:
            if not self._boards:
                self._watched = trio.Event()
                await self._watched.wait()
            self._news = trio.Event()
            began = trio.current_time()
            for board in list(self._boards.values()):
                await self._refresh(board)
            cost_s = trio.current_time() - began
            await trio.sleep(max(PERIOD_S, cost_s * COST_SHARE))
            with trio.move_on_after(QUIET_PERIOD_S):
                await self._news.wait()

    def _committed(self, notice: CommitNotice) -> None:
        if notice.events or notice.due_destinations:
            self._news.set()

    async def _refresh(self, board: Board) -> None:
        account_id = board.account_id
        if board.subject == "totals":
            [row] = await self._spool.statistics(Group.TOTAL, account_id=account_id)
            board.take_totals(dict(zip(map(str, STATUSES), row.counts, strict=True)))
            return
        rows = await self._rows(board)
        live, now_unix_ms = self._live(), self._now_unix_ms()
        is_operator = account_id is None
        board.take_rows(
            destination_view(
                row,
                live.get(row.destination),
                now_unix_ms,
                hold=hold_of_row(self._spool, row),
                is_operator=is_operator,
            )
            for row in rows
        )

    async def _rows(self, board: Board) -> list[DestinationRow]:
        """The destinations that are worth a place: those that were waited for and are told to be
        empty now, then the fullest.
        """
        rows: list[DestinationRow] = []
        after = ""
        while True:
            page = await self._spool.destinations(
                account_id=board.account_id, after=after, limit=PAGE
            )
            rows += page
            if len(rows) > DESTINATIONS_MAX + PAGE or len(page) < PAGE:
                # Page by page, so that a hundred thousand of them are never here at once.
                rows = nlargest(DESTINATIONS_MAX, rows, key=board.worth)
            if len(page) < PAGE:
                return sorted(rows, key=attrgetter("destination"))
            after = page[-1].destination
