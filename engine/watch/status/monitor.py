"""Measures every few seconds, and opens and resolves incidents by what was measured.

Owns the rhythm, what is remembered between two looks, and the proof of life: a note with the time,
written now and then. It tells how long a durable write takes, and at the next start, since when
nobody was there. Words and thresholds are `judging`'s and `words`'.
"""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio

from engine.http_server import HttpStatistics
from engine.spool.interface import Spool, SpoolFull
from engine.watch.hub import EventHub
from engine.watch.status.book import BookRefused, StatusBook
from engine.watch.status.components import COMPONENTS, Component, Impact, Level
from engine.watch.status.judging import Condition, Facts, Steady, judge, levels_now
from engine.watch.status.records import Kind, Stage
from engine.watch.status.sites import NOTHING_SEEN, SiteWalk
from engine.watch.status.words import (
    INCIDENTS,
    MAINTENANCE_BEGINS,
    MAINTENANCE_ENDS,
    ending,
    filled,
)
from protocols.records import DamagedRecord, pack_record, unpack_record

EVERY_S: Final = 5.0
# A walk over the destinations may take long where there are many: never more than a fiftieth.
SITES_EVERY_S: Final = 20.0
COST_SHARE: Final = 50.0
# So many looks lie between two proofs of life: half a minute.
ALIVE_LOOKS: Final = 6
# What is shorter is a restart, which nobody's program notices but for one refused connection.
INTERRUPTION_MS: Final = 120_000
# Errors are counted over the last minute.
WINDOW_LOOKS: Final = 12
ALIVE_NOTE: Final = "status/alive"
DISMISSED_NOTE: Final = "status/dismissed"

logger = logging.getLogger(__name__)


class AnswerCounts(Protocol):
    """How many questions the name servers answered, and how many met silence."""

    @property
    def answered(self) -> int: ...
    @property
    def unanswered(self) -> int: ...


class NameServers(Protocol):
    """What the resolver says of those whom it asks."""

    @property
    def counts(self) -> AnswerCounts: ...

    async def is_answering(self) -> bool: ...


class Monitor:
    """`run` keeps `book` true. `refuses_results` says that delivery cannot store what it did."""

    def __init__(
        self,
        spool: Spool,
        book: StatusBook,
        hub: EventHub,
        walk: SiteWalk,
        *,
        now_unix_ms: Callable[[], int],
        is_running: Callable[[], bool],
        refuses_results: Callable[[], bool],
        http_statistics: Callable[[], HttpStatistics | None],
        name_servers: NameServers | None,
        site_messages_min: int,
    ) -> None:
        self._spool = spool
        self._book = book
        self._hub = hub
        self._walk = walk
        self._now_unix_ms = now_unix_ms
        self._is_running = is_running
        self._refuses_results = refuses_results
        self._http_statistics = http_statistics
        self._name_servers = name_servers
        self._site_messages_min = site_messages_min
        self._steady = Steady()
        self._looks = 0
        self._responses: deque[tuple[int, int]] = deque(maxlen=WINDOW_LOOKS)
        self._commit_s = 0.0
        self._told_s = trio.current_time()
        self._told_seq = 0
        self._has_dns: bool | None = None
        self._asked = (0, 0)
        self._sites = NOTHING_SEEN
        self._next_walk_s = 0.0
        self._dismissed: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look until cancelled. SpoolFailed ends it, and with it the process."""
        await self._book.begin()
        await self._note_interruption()
        await self._recall_dismissed()
        while True:
            await trio.sleep(EVERY_S)
            try:
                await self.look()
            except (SpoolFull, BookRefused) as error:
                # The page shows what is measured all the same; the book has room later.
                logger.warning("status: %s", error)

    async def look(self) -> None:
        """Measure once, and write down what has begun or ended."""
        self._looks += 1
        if self._looks % ALIVE_LOOKS == 0:
            began_s = trio.current_time()
            await self._spool.put_notes({ALIVE_NOTE: pack_record(self._now_unix_ms())})
            self._commit_s = trio.current_time() - began_s
        self._responses.append(self._answers_so_far())
        await self._look_at_name_servers()
        await self._look_at_sites()
        facts = self._facts()
        await self._advance_maintenances()
        await self._follow({each.key: each for each in judge(facts).conditions})
        if self._steady.dismissed != self._dismissed:
            dismissed = self._steady.dismissed
            await self._spool.put_notes({DISMISSED_NOTE: pack_record(sorted(dismissed))})
            self._dismissed = dismissed

    def levels(self) -> dict[Component, Level]:
        """How well everything works at this moment, with what open incidents say."""
        lowered = [each.incident.components for each in self._book.entries if each.incident.is_open]
        return levels_now(judge(self._facts()).levels, lowered)

    def dismiss(self, cause: str) -> None:
        """A person has resolved what opened by itself."""
        self._steady.dismiss(cause, self._now_unix_ms())

    def _facts(self) -> Facts:
        statistics = self._spool.spool_statistics()
        answers, errors = self._last_answers()
        return Facts(
            is_running=self._is_running(),
            is_intake_open=statistics.intake_open,
            answers=answers,
            errors=errors,
            commit_s=self._commit_s,
            behind_s=self._behind_s(statistics.head_seq),
            has_dns=self._has_dns,
            disk=self._spool.disk_room(),
            refuses_results=self._refuses_results(),
            sites=self._sites,
        )

    def _last_answers(self) -> tuple[int, int]:
        """How many answers the port gave in the last minute, and how many said that we failed."""
        answers, errors = self._answers_so_far()
        before = self._responses[0] if self._responses else (answers, errors)
        return answers - before[0], errors - before[1]

    def _answers_so_far(self) -> tuple[int, int]:
        statistics = self._http_statistics()
        if statistics is None:
            return 0, 0
        return sum(statistics.responses_by_class.values()), statistics.failures

    def _behind_s(self, head_seq: int) -> float:
        """For how long the hub has not told what was the newest then."""
        now_s = trio.current_time()
        if self._hub.head_seq >= self._told_seq:
            self._told_seq, self._told_s = head_seq, now_s
        return now_s - self._told_s

    async def _look_at_name_servers(self) -> None:
        """Silence is believed when nobody got an answer and we get none either."""
        servers = self._name_servers
        if servers is None:
            return
        answered, unanswered = servers.counts.answered, servers.counts.unanswered
        if answered > self._asked[0]:
            self._has_dns = True
        elif unanswered > self._asked[1] or self._has_dns is False:
            self._has_dns = await servers.is_answering()
        self._asked = servers.counts.answered, servers.counts.unanswered

    async def _look_at_sites(self) -> None:
        now_s = trio.current_time()
        if now_s < self._next_walk_s:
            return
        if self._spool.spool_statistics().envelopes_open < self._site_messages_min:
            self._sites = NOTHING_SEEN
            return
        self._sites = await self._walk.look()
        cost_s = trio.current_time() - now_s
        self._next_walk_s = now_s + max(SITES_EVERY_S, cost_s * COST_SHARE)

    async def _follow(self, conditions: dict[str, Condition]) -> None:
        now_unix_ms = self._now_unix_ms()
        open_causes = self._book.open_causes()
        times_back = {cause: self._book.times_back(each) for cause, each in open_causes.items()}
        to_open, to_resolve = self._steady.look(now_unix_ms, conditions, times_back)
        for key in to_open:
            await self._open(conditions[key], now_unix_ms)
        for key in to_resolve:
            entry = self._book.entry(open_causes[key])
            if entry is None:
                continue  # Somebody has withdrawn it meanwhile.
            text = ending(entry.incident.code, entry.incident.name)
            await self._book.add(open_causes[key], Stage.RESOLVED, text)

    async def _open(self, condition: Condition, now_unix_ms: int) -> None:
        title, text, _ = (filled(each, condition.name) for each in INCIDENTS[condition.code])
        recent = self._book.recent(condition.key, now_unix_ms)
        if recent is not None:
            await self._book.add(recent.incident.incident_id, Stage.INVESTIGATING, text)
            return
        await self._book.write(
            Kind.INCIDENT,
            title,
            text,
            stage=Stage.INVESTIGATING,
            impact=condition.impact,
            components=condition.components,
            cause=condition.key,
            code=condition.code,
            name=condition.name,
            created_unix_ms=self._steady.since_unix_ms(condition.key),
        )

    async def _advance_maintenances(self) -> None:
        """Planned work begins and ends at its times."""
        now_unix_ms = self._now_unix_ms()
        for entry in self._book.entries:
            incident = entry.incident
            if incident.kind is not Kind.MAINTENANCE:
                continue
            if incident.stage is Stage.SCHEDULED and incident.from_unix_ms <= now_unix_ms:
                await self._book.add(incident.incident_id, Stage.IN_PROGRESS, MAINTENANCE_BEGINS)
            elif incident.stage is Stage.IN_PROGRESS and incident.until_unix_ms <= now_unix_ms:
                await self._book.add(incident.incident_id, Stage.COMPLETED, MAINTENANCE_ENDS)

    async def _note_interruption(self) -> None:
        """Write down that nobody was there, if it was for long and no work was planned."""
        now_unix_ms = self._now_unix_ms()
        alive_unix_ms = await self._last_alive_unix_ms()
        await self._spool.put_notes({ALIVE_NOTE: pack_record(now_unix_ms)})
        if not alive_unix_ms or now_unix_ms - alive_unix_ms < INTERRUPTION_MS:
            return
        for entry in self._book.entries:
            incident = entry.incident
            if (
                incident.kind is Kind.MAINTENANCE
                and incident.from_unix_ms <= alive_unix_ms + INTERRUPTION_MS
                and incident.until_unix_ms >= now_unix_ms - INTERRUPTION_MS
            ):
                return
        title, text, end = INCIDENTS["interruption"]
        parts = dict.fromkeys(COMPONENTS[:3], Level.MAJOR)
        entry = await self._book.write(
            Kind.INCIDENT,
            title,
            text,
            stage=Stage.INVESTIGATING,
            impact=Impact.CRITICAL,
            components=parts,
            cause="interruption",
            code="interruption",
            created_unix_ms=alive_unix_ms,
        )
        await self._book.add(entry.incident.incident_id, Stage.RESOLVED, end)

    async def _recall_dismissed(self) -> None:
        """What a person has resolved stays so over a restart: its readers would get mail again."""
        keys: list[str] = []
        for _, stored in await self._spool.notes(DISMISSED_NOTE):
            with suppress(DamagedRecord):
                keys = unpack_record(stored, list[str])
        for key in keys:
            self.dismiss(key)
        self._dismissed = frozenset(keys)

    async def _last_alive_unix_ms(self) -> int:
        for name, stored in await self._spool.notes(ALIVE_NOTE):
            if name == ALIVE_NOTE:
                try:
                    return unpack_record(stored, int)
                except DamagedRecord:
                    return 0
        return 0
