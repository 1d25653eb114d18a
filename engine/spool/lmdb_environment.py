"""The open environment: its flags, its identity, and the one place that commits.

Opened with the library's 0.9 format, full sync and a fixed sparse map; `writemap` never, because a
full disk would then kill the process. Nothing here decides what is written: a commit is handed a
list of functions over `Changes` and runs them in one transaction, in the thread that called it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb

from engine.spool.interface import SpoolError, SpoolFull, SpoolUnusable
from engine.spool.lmdb_changes import Caches, Changes
from engine.spool.lmdb_counters import add_campaign_days, add_destination_times
from engine.spool.lmdb_files import (
    Disk,
    check_data_file,
    lengthen_data_file,
    prepare_files,
    sync_directory,
)
from engine.spool.lmdb_holds import read_holds
from engine.spool.lmdb_layout import (
    FORMAT,
    META_ACTIVITY_FROM,
    META_CAMPAIGN_DAYS,
    META_DESTINATION_TIMES,
    META_FORMAT,
    META_MARKS,
    META_START_COUNT,
    META_STREAM_ID,
    Marks,
    Tables,
)
from protocols.records import DamagedRecord, Envelope, pack_record, unpack_record

# Sparse, so its size costs nothing; growing it later is not safe with readers about.
MAP_OCTETS: Final = 256 * 1024**3

# This part of the map is kept for results, expiry and deletions: they copy pages before they free
# any. The floor is what a commit of 500 results can copy.
HEADROOM_SHARE: Final = 32
HEADROOM_PAGES_MIN: Final = 256

# The threads of a pool that read at once, and a `doctor` or two besides.
READERS_MAX: Final = 126


@dataclass(frozen=True, slots=True)
class Work:
    """One operation of a commit. `apply` may refuse with SpoolError before it changes anything."""

    apply: Callable[[Changes], Any]
    is_intake: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit came to: an answer or refusal for each work, and what there is to tell."""

    answers: Sequence[Any]
    changes: Changes


class Store:
    """An open spool environment. Made by `open_store`; `close` it in the end."""

    def __init__(self, environment: lmdb.Environment, disk: Disk, path: Path) -> None:
        self.environment = environment
        self.disk = disk
        self.path = path
        self.tables = Tables(environment)
        self.caches = Caches()
        self.marks = Marks()
        self.stream_id = ""
        self.start_count = 0
        self._page_octets = environment.stat()["psize"]

    def begin_life(self, fresh_stream_id: str) -> None:
        """Read who this spool is and count this start, durably. Raises SpoolUnusable."""
        table = self.tables.meta
        with self.environment.begin(write=True) as txn:
            try:
                stored = txn.get(META_FORMAT, db=table)
                if stored is None:
                    txn.put(META_FORMAT, pack_record(FORMAT), db=table)
                    txn.put(META_STREAM_ID, pack_record(fresh_stream_id), db=table)
                    txn.put(META_START_COUNT, pack_record(0), db=table)
                    txn.put(META_MARKS, pack_record(Marks()), db=table)
                elif (found := unpack_record(stored, int)) != FORMAT:
                    raise SpoolUnusable(
                        f"{self.path} has format {found}, this program knows format {FORMAT}"
                    )
                self.stream_id = unpack_record(txn.get(META_STREAM_ID, b"", db=table), str)
                self.start_count = unpack_record(txn.get(META_START_COUNT, b"", db=table), int) + 1
                self.marks = unpack_record(txn.get(META_MARKS, b"", db=table), Marks)
                self.caches.holds = read_holds(txn, self.tables)
                if txn.get(META_CAMPAIGN_DAYS, db=table) is None:
                    is_whole = add_campaign_days(txn, self.tables) == self.marks.counts
                    txn.put(META_CAMPAIGN_DAYS, pack_record(is_whole), db=table)
                if txn.get(META_DESTINATION_TIMES, db=table) is None:
                    add_destination_times(txn, self.tables)
                    txn.put(META_DESTINATION_TIMES, pack_record(True), db=table)
                if txn.get(META_ACTIVITY_FROM, db=table) is None:
                    # New, or from a time when no activity was counted.
                    first = pack_record(self.marks.head_seq + 1)
                    txn.put(META_ACTIVITY_FROM, first, db=table)
            except DamagedRecord as error:
                raise SpoolUnusable(f"{self.path}: the table meta is damaged: {error}") from error
            txn.put(META_START_COUNT, pack_record(self.start_count), db=table)

    def commit(
        self,
        works: Sequence[Work],
        claims: Mapping[int, tuple[Envelope, bytes]],
        now_unix_ms: int,
    ) -> Committed:
        """Do all works in one durable transaction. Blocks; called in one thread at a time.

        A refused work leaves no trace and its SpoolError is its answer. Raises lmdb.Error if
        nothing was stored (a full map) or if nobody knows what was (everything else).
        """
        is_open = not any(work.is_intake for work in works) or self.has_room_for_intake()
        answers: list[Any] = []
        with self.environment.begin(write=True) as txn:
            changes = Changes(
                txn,
                self.tables,
                self.marks,
                self.caches,
                claims,
                now_unix_ms=now_unix_ms,
                start_count=self.start_count,
            )
            for work in works:
                if work.is_intake and not is_open:
                    answers.append(SpoolFull("the spool's disk or map is almost full"))
                    continue
                try:
                    answers.append(work.apply(changes))
                except SpoolError as refusal:
                    # Its traceback would keep the whole commit in memory.
                    answers.append(refusal.with_traceback(None))
            changes.flush()
        # A file that is shorter than its meta page says would be taken for one that was cut.
        last_page: int = self.environment.info()["last_pgno"]
        lengthen_data_file(self.path / "data.mdb", (last_page + 1) * self._page_octets)
        return Committed(answers, changes)

    def adopt(self, changes: Changes) -> None:
        """After a commit: make its sums and rows those that the next one starts from."""
        self.marks = changes.marks
        changes.keep_caches()

    def has_room_for_intake(self) -> bool:
        return self.disk.has_room_for_intake() and self._has_room_in_map()

    def _has_room_in_map(self) -> bool:
        found = self.environment.info()
        pages = found["map_size"] // self._page_octets
        wanted = max(pages // HEADROOM_SHARE, HEADROOM_PAGES_MIN)
        if pages - found["last_pgno"] > wanted:
            return True
        # Pages below the last one may be free again: only the tables' own sums tell.
        with self.environment.begin() as txn:
            used = 0
            for name in Tables.NAMES:
                sizes = txn.stat(getattr(self.tables, name))
                used += sizes["branch_pages"] + sizes["leaf_pages"] + sizes["overflow_pages"]
        return pages - used > wanted

    def close(self) -> None:
        self.environment.close()


def open_store(path: Path, *, free_octets_min: int, map_octets: int = MAP_OCTETS) -> Store:
    """Open the environment in `path`, whose lock the caller holds. Raises SpoolUnusable."""
    prepare_files(path)
    check_data_file(path / "data.mdb")
    try:
        environment = lmdb.open(
            str(path),
            map_size=map_octets,
            # 0o600: the library's own default lets everybody read the mail.
            mode=0o600,
            max_dbs=len(Tables.NAMES) + 8,
            max_readers=READERS_MAX,
            # Pages are found by key, not one after the other.
            readahead=False,
            # Pages are written whole; what a process had in memory before need not be wiped twice.
            meminit=False,
            lib_version=0,
        )
    except (lmdb.Error, OSError) as error:
        raise SpoolUnusable(f"{path} cannot be opened: {error}") from error
    try:
        prepare_files(path)
        sync_directory(path)
        environment.reader_check()
        store = Store(environment, Disk(path, free_octets_min=free_octets_min), path)
    except (lmdb.Error, OSError) as error:
        environment.close()
        raise SpoolUnusable(f"{path} cannot be opened: {error}") from error
    except BaseException:
        environment.close()
        raise
    return store
