"""What `eilpost top` knows: counts, rates, and the destinations with the most waiting mail.

Asks the running engine; draws nothing. Rates are differences between looks, so the first look has
none.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import Any, Final

from engine.cli.control import Asked, pages

WAITING: Final = ("queued", "deferred", "paused")
# Rates are over so long: shorter and they flicker, longer and a stop is seen late.
RATE_OVER_S: Final = 5.0
# A hundred thousand destinations are a hundred pages. Reading them may take this share of the time
# of a look at most; meanwhile those found last are shown.
LISTING_SHARE: Final = 20.0
# What one look counts of the log. More deferrals than that are told as at least so many.
PAGES_MAX: Final = 20
PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Mails a second: taken in, delivered, and put off to a later attempt."""

    accepted: float
    delivered: float
    deferred: float


@dataclass(frozen=True, slots=True)
class Look:
    """How things stand. `counts` has the eight statuses and `total`; `fullest` the rows of
    `/v1/destinations`, the fullest first; `waiting_at` is how many destinations have waiting mail.
    """

    counts: Mapping[str, int]
    rates: Rates | None
    fullest: list[dict[str, Any]]
    waiting_at: int


@dataclass(slots=True)
class _Mark:
    at_s: float
    total: int
    delivered: int
    deferrals: int


@dataclass(slots=True)
class Looker:
    """Looks at one engine again and again. `now_s` is a clock that does not jump."""

    rows_max: int
    now_s: Callable[[], float]
    _marks: deque[_Mark] = field(default_factory=deque)
    _cursor: str = "now"
    _deferrals: int = 0
    _fullest: list[dict[str, Any]] = field(default_factory=list)
    _waiting_at: int = 0
    _list_again_at_s: float = 0.0

    def look(self, asked: Asked) -> Look:
        """Ask for everything. Raises EngineStopped and EngineRefused."""
        self._count_deferrals(asked)
        [row] = asked.get("/v1/statistics")["rows"]
        counts = {name: count for name, count in row.items() if name != "key"}
        began_s = self.now_s()
        self._note(_Mark(began_s, counts["total"], counts["delivered"], self._deferrals))
        if began_s >= self._list_again_at_s:
            self._list(asked)
            ended_s = self.now_s()
            self._list_again_at_s = ended_s + (ended_s - began_s) * LISTING_SHARE
        return Look(counts, self._rates(), self._fullest, self._waiting_at)

    def start_over(self) -> None:
        """Forget what rates rest on: what happened meanwhile was not seen."""
        self._marks.clear()
        self._cursor = "now"

    def _count_deferrals(self, asked: Asked) -> None:
        # The count of deferred mail does not tell: it falls with each mail that is tried again.
        for _ in range(PAGES_MAX):
            batch = asked.get("/v1/events", after=self._cursor, status="deferred", limit=PAGE)
            is_head = batch["cursor"] == self._cursor or self._cursor == "now"
            self._cursor = batch["cursor"]
            self._deferrals += len(batch["events"])
            if is_head:
                return

    def _note(self, mark: _Mark) -> None:
        self._marks.append(mark)
        while len(self._marks) > 2 and mark.at_s - self._marks[1].at_s >= RATE_OVER_S:
            self._marks.popleft()

    def _rates(self) -> Rates | None:
        first, last = self._marks[0], self._marks[-1]
        seconds = last.at_s - first.at_s
        if seconds <= 0:
            return None
        # Retention takes finished mail out of the counts; that is no negative rate.
        return Rates(
            *(
                round(max(0, after - before) / seconds, 1)
                for before, after in (
                    (first.total, last.total),
                    (first.delivered, last.delivered),
                    (first.deferrals, last.deferrals),
                )
            )
        )

    def _list(self, asked: Asked) -> None:
        self._waiting_at = 0

        def rows() -> Any:
            for row in pages(asked, "/v1/destinations", "destinations", limit=PAGE):
                if waiting_of(row):
                    self._waiting_at += 1
                    yield row

        self._fullest = nsmallest(
            self.rows_max, rows(), key=lambda row: (-waiting_of(row), row["destination"])
        )


def waiting_of(row: Mapping[str, Any]) -> int:
    """How much mail waits at a destination."""
    return sum(row[status] for status in WAITING)
