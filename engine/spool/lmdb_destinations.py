"""The agenda and what is remembered of destinations, as one commit changes them.

Gathers what came into and went out of the queues; at the end each destination has the one agenda
row that `engine.spool.agenda` says it has to have. The destination's own row says where that is.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.spool import agenda
from engine.spool.holds import Holds, earliest_wake, recorded_waits
from engine.spool.interface import AgendaRow
from engine.spool.lmdb_holds import held_here
from engine.spool.lmdb_layout import StoredDestination, Tables, agenda_key
from engine.spool.lmdb_queue import QueueCursor
from protocols.records import DamagedRecord, DestinationRecord, pack_record, unpack_record

if TYPE_CHECKING:
    import lmdb


class DestinationChanges:
    """One commit's part about destinations. `fresh` are the rows as they are after it."""

    def __init__(
        self,
        txn: "lmdb.Transaction[bytes]",
        tables: Tables,
        cached: dict[str, StoredDestination],
        note_damage: Callable[[str, bytes, bytes], None],
        *,
        holds: Callable[[], Holds],
        now_unix_ms: int,
    ) -> None:
        self._txn = txn
        self._tables = tables
        self._cached = cached
        self._note_damage = note_damage
        self._holds = holds
        self._now_unix_ms = now_unix_ms
        self._arrivals: dict[str, tuple[int, bool]] = {}
        self._departures: dict[str, None] = {}
        self._rests: dict[str, DestinationRecord] = {}
        self._reconsidered: dict[str, None] = {}
        # Those of the reconsidered that have something to do now.
        self.due_again: list[str] = []
        self.fresh: dict[str, StoredDestination] = {}

    def arrive(self, name: str, wake_unix_ms: int, *, is_held: bool = False) -> None:
        """Note that a queue row was put; of mail that `is_held` with the end of its hold."""
        earliest = self._arrivals.get(name)
        if earliest is None or wake_unix_ms < earliest[0]:
            self._arrivals[name] = (wake_unix_ms, is_held)

    def depart(self, name: str) -> None:
        """Note that a queue row was removed."""
        self._departures[name] = None

    def rest(self, name: str, record: DestinationRecord) -> None:
        """Note that an actor has nothing to do now, and what it leaves."""
        self._rests[name] = record

    def try_now(self, name: str) -> None:
        """Note that a destination is not to wait for the end of its back-off."""
        record = agenda.tried_now(self.record(name), self._now_unix_ms)
        if record is not None:
            self.rest(name, record)
            self.reconsider(name)

    def reconsider(self, name: str) -> None:
        """Note that a destination has to have the row that is true now."""
        self._reconsidered[name] = None

    def record(self, name: str) -> DestinationRecord | None:
        return self._rests.get(name) or self._stored(name).record

    def forget_row(self, name: str) -> None:
        """Make the agenda row of a destination anew: its own row cannot say where it was.

        A scan of the whole agenda, for what was damaged.
        """
        tail = name.encode("ascii")
        with self._txn.cursor(self._tables.agenda) as cursor:
            rows = [key for key in cursor.iternext(keys=True, values=False) if key[8:] == tail]
        for key in rows:
            self._txn.delete(key, db=self._tables.agenda)
        self.fresh[name] = StoredDestination(record=self._stored(name).record)
        earliest = self._queue_of(name).earliest_due_unix_ms()
        if earliest is not None:
            self.arrive(name, earliest)

    def flush(self) -> None:
        """Give each destination with a changed queue the row it has to have, and no other."""
        # In order: neighbours share a page, and two runs of a simulation do the same.
        changed = self._rests.keys() | self._departures.keys() | self._arrivals.keys()
        for name in sorted(changed | self._reconsidered.keys()):
            stored = self._stored(name)
            row = (
                AgendaRow(stored.wake_unix_ms, name, stored.cause)
                if stored.wake_unix_ms is not None
                else None
            )
            record = self._rests.get(name)
            wanted: AgendaRow | None
            if record is not None or name in self._reconsidered:
                record = stored.record if record is None else record
                wanted = self._true_row(name, record or DestinationRecord())
                if name in self._reconsidered and (
                    wanted is not None and wanted.wake_unix_ms <= self._now_unix_ms
                ):
                    self.due_again.append(name)
            else:
                record = stored.record
                if name in self._arrivals:
                    wake_unix_ms, is_held = self._arrivals[name]
                    wanted = agenda.row_after_arrival(
                        name, wake_unix_ms, row, record, is_held=is_held
                    )
                else:
                    wanted = row if self._queue_of(name).has_rows() else None
            if wanted != row or record is not stored.record:
                self._write(name, row, wanted, record)

    def _true_row(self, name: str, record: DestinationRecord) -> AgendaRow | None:
        queue = self._queue_of(name)
        held = held_here(
            self._txn,
            self._tables,
            self._holds(),
            name,
            record.site,
            self._now_unix_ms,
            recorded_waits(record.waits, self._now_unix_ms),
        )
        if held is None:
            return agenda.row_at_rest(name, queue.earliest_due_unix_ms(), record)
        earliest, cause = earliest_wake(queue, held, self._now_unix_ms)
        return agenda.row_at_rest(name, earliest, record, cause=cause)

    def _write(
        self,
        name: str,
        row: AgendaRow | None,
        wanted: AgendaRow | None,
        record: DestinationRecord | None,
    ) -> None:
        txn, tables = self._txn, self._tables
        if row is not None and wanted != row:
            txn.delete(agenda_key(row.wake_unix_ms, name), db=tables.agenda)
        if wanted is not None and wanted != row:
            txn.put(agenda_key(wanted.wake_unix_ms, name), wanted.cause.encode(), db=tables.agenda)
        fresh = StoredDestination(
            wanted.wake_unix_ms if wanted is not None else None,
            wanted.cause if wanted is not None else "",
            record,
        )
        self.fresh[name] = fresh
        key = name.encode("ascii")
        if wanted is None and record is None:
            txn.delete(key, db=tables.destination)
        else:
            txn.put(key, pack_record(fresh), db=tables.destination)

    def _queue_of(self, name: str) -> QueueCursor:
        return QueueCursor(self._txn, self._tables.queue, name)

    def _stored(self, name: str) -> StoredDestination:
        found = self.fresh.get(name) or self._cached.get(name)
        if found is None:
            found = StoredDestination()
            key = name.encode("ascii")
            stored = self._txn.get(key, db=self._tables.destination)
            if stored is not None:
                try:
                    found = unpack_record(stored, StoredDestination)
                except DamagedRecord:
                    self._note_damage("destination", key, stored)
            self.fresh[name] = found
        return found
