"""The book of incidents: kept in the spool's notes, a note for each entry and each update.

Owns what may be written and for how long it is kept. A change is in memory, and so on the page,
only when it is durable. Decides neither when an incident opens nor who is told.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final, TypeVar

import msgspec
import trio

from engine.spool.interface import Spool
from engine.watch.status.components import Component, Impact, Level
from engine.watch.status.records import ENDED, Entry, Incident, Kind, Stage, Update, Words
from protocols.records import DamagedRecord, pack_record, unpack_record

INCIDENT_PREFIX: Final = "status/incident/"
UPDATE_PREFIX: Final = "status/update/"
BEGUN_NOTE: Final = "status/begun"
DAY_MS: Final = 86_400_000
# The page shows ninety days, by whole days.
KEPT_MS: Final = 91 * DAY_MS
# Some megabytes at most, however a broken monitor or a busy hand fills the book.
ENTRIES_MAX: Final = 1_000
UPDATES_MAX: Final = 100
# An incident that comes back so soon is the same one, and its readers have its story.
REOPENED_MS: Final = 3_600_000
DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class BookRefused(Exception):
    """An entry cannot be written as asked; the text says why."""


class StatusBook:
    """All entries, newest first in `entries`. `load` comes before everything else."""

    def __init__(self, spool: Spool, now_unix_ms: Callable[[], int]) -> None:
        self._spool = spool
        self._now_unix_ms = now_unix_ms
        self._entries: dict[str, Entry] = {}
        self._writing = trio.Lock()
        self._is_loaded = False
        self._changed = trio.Event()
        self.version = 0
        # The time of the last update that can be seen here.
        self.newest_unix_ms = 0
        # When the book was begun; before its first run that is now.
        self.begun_unix_ms = now_unix_ms()

    async def begin(self) -> None:
        """Load, and remember when this book was begun."""
        await self.load()
        if not await self._spool.notes(BEGUN_NOTE):
            await self._spool.put_notes({BEGUN_NOTE: pack_record(self.begun_unix_ms)})

    async def load(self) -> None:
        """Read what is there, once. What was damaged on disk is left out."""
        if self._is_loaded:
            return
        async with self._writing:
            if self._is_loaded:
                return
            updates: dict[str, list[Update]] = {}
            for name, stored in await self._spool.notes(UPDATE_PREFIX):
                update = _read(stored, Update)
                if update is not None:
                    incident_id = name.removeprefix(UPDATE_PREFIX).partition("/")[0]
                    updates.setdefault(incident_id, []).append(update)
            for _, stored in await self._spool.notes(INCIDENT_PREFIX):
                incident = _read(stored, Incident)
                if incident is not None and incident.incident_id in updates:
                    told = sorted(updates[incident.incident_id], key=lambda each: each.number)
                    self._entries[incident.incident_id] = Entry(incident, tuple(told))
            for _, stored in await self._spool.notes(BEGUN_NOTE):
                self.begun_unix_ms = _read(stored, int) or self.begun_unix_ms
            self.newest_unix_ms = max(
                (entry.updates[-1].at_unix_ms for entry in self._entries.values()), default=0
            )
            self._is_loaded = True

    @property
    def entries(self) -> list[Entry]:
        """All entries, newest first."""
        return sorted(
            self._entries.values(),
            key=lambda entry: (entry.incident.created_unix_ms, entry.incident.incident_id),
            reverse=True,
        )

    def entry(self, incident_id: str) -> Entry | None:
        return self._entries.get(incident_id)

    def open_causes(self) -> dict[str, str]:
        """What the open incidents that opened by themselves are about, with their ids."""
        return {
            entry.incident.cause: entry.incident.incident_id
            for entry in self._entries.values()
            if entry.incident.is_open and entry.incident.cause
        }

    def times_back(self, incident_id: str) -> int:
        """How often an entry went on after it had been resolved."""
        stages = [update.stage for update in self._entries[incident_id].updates]
        return sum(before in ENDED and after not in ENDED for before, after in pairwise(stages))

    async def wait_for_change(self, version: int) -> None:
        """Wait until the book is no longer at `version`."""
        while self.version == version:
            await self._changed.wait()

    async def write(
        self,
        kind: Kind,
        title: Words,
        text: Words,
        *,
        stage: Stage,
        impact: Impact = Impact.NONE,
        components: Mapping[Component, Level] | None = None,
        cause: str = "",
        code: str = "",
        name: str = "",
        created_unix_ms: int = 0,
        from_unix_ms: int = 0,
        until_unix_ms: int = 0,
    ) -> Entry:
        """Write a new entry. `created_unix_ms` 0 is now. Raises BookRefused if the book is full."""
        async with self._writing:
            now_unix_ms = self._next_unix_ms()
            dropped = self._to_drop(now_unix_ms)
            if len(self._entries) - len(dropped) >= ENTRIES_MAX:
                raise BookRefused(f"there are {ENTRIES_MAX:,} entries already, none of them old")
            incident = Incident(
                self._free_id(now_unix_ms),
                kind,
                cause,
                title,
                impact.value,
                {each.value: level.value for each, level in (components or {}).items()},
                stage,
                created_unix_ms or now_unix_ms,
                now_unix_ms,
                resolved_unix_ms=now_unix_ms if stage in ENDED else 0,
                from_unix_ms=from_unix_ms,
                until_unix_ms=until_unix_ms,
                code=code,
                name=name,
            )
            entry = Entry(incident, (Update(0, stage, now_unix_ms, text),))
            await self._store(entry, entry.updates, dropped)
            return entry

    async def add(self, incident_id: str, stage: Stage, text: Words) -> Entry:
        """Say something of an entry. Raises BookRefused."""
        async with self._writing:
            entry = self._entries.get(incident_id)
            if entry is None:
                raise BookRefused(f"there is no entry {incident_id[:40]!a}")
            if len(entry.updates) >= UPDATES_MAX and stage not in ENDED:
                raise BookRefused(f"an entry has at most {UPDATES_MAX} updates: open another one")
            now_unix_ms = self._next_unix_ms()
            update = Update(entry.updates[-1].number + 1, stage, now_unix_ms, text)
            incident = msgspec.structs.replace(
                entry.incident,
                stage=stage,
                updated_unix_ms=now_unix_ms,
                monitoring_unix_ms=now_unix_ms
                if stage is Stage.MONITORING
                else entry.incident.monitoring_unix_ms,
                resolved_unix_ms=now_unix_ms if stage in ENDED else 0,
            )
            entry = Entry(incident, (*entry.updates, update))
            await self._store(entry, (update,), self._to_drop(now_unix_ms))
            return entry

    async def withdraw(self, incident_id: str) -> bool:
        """Remove an entry as if it had never been; say whether it was there."""
        async with self._writing:
            entry = self._entries.get(incident_id)
            if entry is None:
                return False
            await self._spool.put_notes(_removal(entry))
            self._changes([entry], None)
            return True

    def recent(self, cause: str, now_unix_ms: int) -> Entry | None:
        """The incident of this cause that was resolved within the last hour."""
        for entry in self.entries:
            incident = entry.incident
            if incident.cause == cause and incident.resolved_unix_ms:
                is_recent = now_unix_ms - incident.resolved_unix_ms < REOPENED_MS
                return entry if is_recent and len(entry.updates) < UPDATES_MAX - 2 else None
        return None

    def _next_unix_ms(self) -> int:
        """The time of the next update: no two have the same, so that one can say "up to here"."""
        return max(self._now_unix_ms(), self.newest_unix_ms + 1)

    def _to_drop(self, now_unix_ms: int) -> list[Entry]:
        """What is over for longer than anybody is shown."""
        return [
            entry
            for entry in self._entries.values()
            if 0 < entry.incident.resolved_unix_ms < now_unix_ms - KEPT_MS
            and entry.incident.until_unix_ms < now_unix_ms - KEPT_MS
        ]

    async def _store(self, entry: Entry, updates: tuple[Update, ...], dropped: list[Entry]) -> None:
        incident_id = entry.incident.incident_id
        notes: dict[str, bytes | None] = {}
        for old in dropped:
            notes.update(_removal(old))
        notes[INCIDENT_PREFIX + incident_id] = pack_record(entry.incident)
        for update in updates:
            notes[_update_name(incident_id, update)] = pack_record(update)
        await self._spool.put_notes(notes)
        self._changes(dropped, entry)

    def _changes(self, dropped: list[Entry], entry: Entry | None) -> None:
        for old in dropped:
            self._entries.pop(old.incident.incident_id, None)
        if entry is not None:
            self._entries[entry.incident.incident_id] = entry
            self.newest_unix_ms = max(self.newest_unix_ms, entry.updates[-1].at_unix_ms)
        self.version += 1
        self._changed.set()
        self._changed = trio.Event()

    def _free_id(self, now_unix_ms: int) -> str:
        """A short name that sorts by time and is given once."""
        while _id_text(now_unix_ms) in self._entries:
            now_unix_ms += 1
        return _id_text(now_unix_ms)


def _id_text(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text


def _update_name(incident_id: str, update: Update) -> str:
    return f"{UPDATE_PREFIX}{incident_id}/{update.number:04d}"


def _removal(entry: Entry) -> dict[str, bytes | None]:
    incident_id = entry.incident.incident_id
    names = [_update_name(incident_id, update) for update in entry.updates]
    return dict.fromkeys([INCIDENT_PREFIX + incident_id, *names])


T = TypeVar("T")


def _read(stored: bytes, kind: type[T]) -> T | None:
    try:
        return unpack_record(stored, kind)
    except DamagedRecord:
        return None
