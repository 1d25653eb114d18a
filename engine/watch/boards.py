"""Boards: totals and destinations as they stand, told as a snapshot and then as changes.

There is one board for each account that somebody watches, and one for operators; of destinations
one for each language.
All of its watchers share it: it is looked up at most ten times a second, and so
that a long list does not eat the engine, never for more than a twentieth of the time.
A list of ten thousand is looked up in pieces, between which deliveries go on, and told in pieces:
many clients take no message of more than a megabyte. What waits most comes first.
A watcher is a version number; it is told what has changed since, once, however
often it changed in between.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest
from operator import attrgetter
from typing import Any, Final, Literal

import trio

from engine.delivery.holding import waiting_in
from engine.spool.interface import CommitNotice, DestinationRow, Group, Spool
from engine.watch.destinations import DestinationView
from engine.watch.explain import Explainer
from engine.watch.releases import Releases
from protocols.languages import Language
from protocols.records import STATUSES, Account
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
# Rows that are looked at between two turns of other tasks: a millisecond or two.
ROWS_AT_ONCE: Final = 64
# A new board shows the fullest so many before it looks at the others: ten thousand take a second
# where little else goes on, and several while an engine that has just been started tries them all.
FIRST_ROWS: Final = 200
# A long board outlives its last watcher by this: whoever reloads a page, or loses a connection, is
# back by then, and it is no older than it may be for those who stay.
KEPT_S: Final = 10.0
# Some 300 kB.
ROWS_PER_FRAME: Final = 500
# A page holds so many with ease; `/v1/destinations` lists them all.
DESTINATIONS_MAX: Final = 10_000

Subject = Literal["destinations", "totals"]
SUBJECTS: Final[tuple[Subject, ...]] = ("destinations", "totals")


class _Frames:
    """What a watcher is told, in pieces that are encoded when the first one has come to them."""

    def __init__(self, pieces: Sequence[dict[str, Any]], encode: Callable[[Any], bytes]) -> None:
        self._pieces = pieces
        self._encode = encode
        self._encoded: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        for place, piece in enumerate(self._pieces):
            if place == len(self._encoded):
                self._encoded.append(self._encode(piece))
            yield self._encoded[place]


class Board:
    """One subject for one account (None: all), with the version at which each part changed."""

    def __init__(self, subject: Subject, account: Account | None, language: Language) -> None:
        self.subject: Final = subject
        self.account: Final = account
        self.language: Final = language
        self.watchers = 0
        # Without watchers it is kept until then.
        self.kept_until_s = 0.0
        self.version = 0
        # When it may be looked at again: if there is news beyond what it has seen, and if not.
        self.due_s = self.quiet_s = float("-inf")
        self.seen_news = 0
        self._changed = trio.Event()
        self._totals: dict[str, int] = {}
        self._rows: dict[str, tuple[int, DestinationView]] = {}
        self._frames: dict[tuple[int, bool], _Frames] = {}

    async def wait_beyond(self, version: int) -> None:
        while self.version <= version:
            await self._changed.wait()

    def frames_since(self, version: int, *, binary: bool) -> Iterable[bytes]:
        """The websocket frames for a watcher that knows `version`; 0 gives the snapshot."""
        key = (version, binary)
        frames = self._frames.get(key)
        if frames is None:
            form = MsgpackFrames() if binary else JsonFrames()
            frames = self._frames[key] = _Frames(
                self._pieces_since(version),
                lambda piece: websocket_frame(form.encode(piece), binary=binary),
            )
        return frames

    def take_totals(self, totals: dict[str, int]) -> None:
        if totals != self._totals or not self.version:
            self._totals = totals
            self._publish()

    def take_rows(self, views: Iterable[DestinationView]) -> None:
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

    @property
    def is_long(self) -> bool:
        return len(self._rows) > FIRST_ROWS

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

    def _pieces_since(self, version: int) -> list[dict[str, Any]]:
        if self.subject == "totals":
            return [totals_frame(self._totals, snapshot=version == 0)]
        rows = [view for changed, view in self._rows.values() if changed > version]
        if len(rows) > ROWS_PER_FRAME:
            rows.sort(key=lambda view: -(view.queued + view.deferred + view.paused))
        # What comes behind the first piece of a snapshot are changes of it.
        return [
            destinations_frame(
                rows[start : start + ROWS_PER_FRAME], snapshot=version == 0 and start == 0
            )
            for start in range(0, max(1, len(rows)), ROWS_PER_FRAME)
        ]


class Boards:
    """All boards that somebody watches. Runs while `run` runs."""

    def __init__(self, spool: Spool, explainer: Explainer) -> None:
        self._spool = spool
        self._explainer = explainer
        self._releases = Releases(spool)
        self._boards: dict[tuple[Subject, int | None, Language], Board] = {}
        self._news = 0
        self._is_seen = True  # Somebody has looked since `_news` was counted up.
        self._woken: dict[Subject, trio.Event] = {each: trio.Event() for each in SUBJECTS}
        spool.add_listener(self._committed)

    @property
    def count(self) -> int:
        """How many boards are kept current."""
        return sum(board.watchers > 0 for board in self._boards.values())

    @contextmanager
    def watched(
        self, subject: Subject, account: Account | None, language: Language
    ) -> Iterator[Board]:
        """Keep the board of `subject` current while the block runs."""
        if subject == "totals":
            language = "en"  # Numbers are the same in every language.
        key = (subject, None if account is None else account.account_id, language)
        board = self._boards.get(key)
        if board is None:
            board = self._boards[key] = Board(subject, account, language)
            self._woken[subject].set()
        board.watchers += 1
        try:
            yield board
        finally:
            board.watchers -= 1
            if not board.watchers:
                board.kept_until_s = trio.current_time() + (KEPT_S if board.is_long else 0.0)
                self._woken[subject].set()

    async def run(self) -> None:
        """Keep what is watched current. Runs until cancelled.

        Totals are cheap and do not wait until a long list has been gone through.
        """
        async with trio.open_nursery() as nursery:
            for subject in SUBJECTS:
                nursery.start_soon(self._keep, subject)

    async def _keep(self, subject: Subject) -> None:
        """Look at the boards of one subject, each at its own pace and a new one at once."""
        while True:
            now_s = trio.current_time()
            self._forget_unwatched(now_s)
            boards = [each for each in self._boards.values() if each.subject == subject]
            watched = [each for each in boards if each.watchers]
            due = [each for each in watched if self._due_s(each) <= now_s]
            if not due:
                ends = (each.kept_until_s for each in boards if not each.watchers)
                soonest_s = min((*map(self._due_s, watched), *ends), default=float("inf"))
                woken = self._woken[subject] = trio.Event()
                with trio.CancelScope(deadline=soonest_s):
                    await woken.wait()
                continue
            for board in due:
                began_s = trio.current_time()
                board.seen_news, self._is_seen = self._news, True
                await self._refresh(board)
                ended_s = trio.current_time()
                board.due_s = ended_s + max(PERIOD_S, (ended_s - began_s) * COST_SHARE)
                board.quiet_s = max(board.due_s, ended_s + QUIET_PERIOD_S)

    def _forget_unwatched(self, now_s: float) -> None:
        for key, board in list(self._boards.items()):
            if not board.watchers and board.kept_until_s <= now_s:
                del self._boards[key]

    def _due_s(self, board: Board) -> float:
        return board.quiet_s if board.seen_news == self._news else board.due_s

    def _committed(self, notice: CommitNotice) -> None:
        # What nobody has looked at yet is no less news for one commit more.
        if self._is_seen and (notice.events or notice.due_destinations):
            self._news += 1
            self._is_seen = False
            for woken in self._woken.values():
                woken.set()

    async def _refresh(self, board: Board) -> None:
        if board.subject == "totals":
            [total] = await self._spool.statistics(Group.TOTAL, account_id=_account_id_of(board))
            board.take_totals(dict(zip(map(str, STATUSES), total.counts, strict=True)))
            return
        rows = await self._rows(board)
        if not board.version and len(rows) > FIRST_ROWS:
            board.take_rows(await self._views(board, nlargest(FIRST_ROWS, rows, key=waiting_in)))
        board.take_rows(await self._views(board, rows))

    async def _views(self, board: Board, rows: Sequence[DestinationRow]) -> list[DestinationView]:
        views: list[DestinationView] = []
        for number, row in enumerate(rows):
            if number % ROWS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            views.append(self._explainer.view(row, board.language, board.account))
        return await self._releases.filled(views, _account_id_of(board))

    async def _rows(self, board: Board) -> list[DestinationRow]:
        """The destinations that are worth a place: those that were waited for and are told to be
        empty now, then the fullest.
        """
        rows: list[DestinationRow] = []
        after = ""
        while True:
            page = await self._spool.destinations(
                account_id=_account_id_of(board), after=after, limit=PAGE
            )
            rows += page
            if len(rows) > DESTINATIONS_MAX + PAGE or len(page) < PAGE:
                # Page by page, so that a hundred thousand of them are never here at once.
                rows = nlargest(DESTINATIONS_MAX, rows, key=board.worth)
            if len(page) < PAGE:
                return sorted(rows, key=attrgetter("destination"))
            after = page[-1].destination


def _account_id_of(board: Board) -> int | None:
    return None if board.account is None else board.account.account_id
