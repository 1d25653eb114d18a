"""The queue rows of one destination, as `engine.spool.fair_turns` asks for them.

A view over cursors of the caller's transaction; it lives no longer than that.
"""

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Final

from engine.spool.fair_turns import earliest_due_unix_ms
from engine.spool.lmdb_layout import QUEUE_TAIL, U64_U64, queue_prefix

if TYPE_CHECKING:
    import lmdb

LANE_FLOW: Final = Struct(">BI")
FLOW_MAX: Final = 2**32 - 1
# Behind every due time and id.
LAST_TAIL: Final = b"\xff" * 16


class QueueCursor:
    """One destination's rows in one transaction. `table` is the handle of `queue`."""

    def __init__(
        self, txn: "lmdb.Transaction[bytes]", table: "lmdb._Database", destination: str
    ) -> None:
        self._txn = txn
        self._table = table
        self._cursor = txn.cursor(table)
        self._prefix = queue_prefix(destination)

    def has_rows(self) -> bool:
        return self._cursor.set_range(self._prefix) and self._cursor.key().startswith(self._prefix)

    def earliest_due_unix_ms(self) -> int | None:
        return earliest_due_unix_ms(self)

    def first_flow(self, lane: int, flow_min: int) -> int | None:
        """Return the lowest flow of `lane` that is at least `flow_min` and has a row."""
        if flow_min > FLOW_MAX:
            return None
        prefix, cursor = self._prefix, self._cursor
        if not cursor.set_range(prefix + LANE_FLOW.pack(lane, flow_min)):
            return None
        key = cursor.key()
        if not key.startswith(prefix) or key[len(prefix)] != lane:
            return None
        return QUEUE_TAIL.unpack_from(key, len(prefix))[1]  # type: ignore[no-any-return]  # struct

    def flow_rows(self, lane: int, flow: int, after: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Return the (due_unix_ms, envelope_id) of a flow in order, only those above `after`."""
        prefix = self._prefix + LANE_FLOW.pack(lane, flow)
        due_unix_ms, envelope_id = after
        start = prefix if due_unix_ms < 0 else prefix + U64_U64.pack(due_unix_ms, envelope_id + 1)
        # A cursor of its own: the rows of both lanes are walked in turn.
        with self._txn.cursor(self._table) as cursor:
            if not cursor.set_range(start):
                return
            for key in cursor.iternext(keys=True, values=False):
                if not key.startswith(prefix):
                    return
                due_unix_ms, envelope_id = U64_U64.unpack_from(key, len(prefix))
                yield due_unix_ms, envelope_id

    def flow_rows_from_behind(self, lane: int, flow: int) -> Iterator[int]:
        """Return the envelope ids of a flow, those that are due last first."""
        prefix = self._prefix + LANE_FLOW.pack(lane, flow)
        # A cursor of its own: the rows of several flows are walked in turn.
        with self._txn.cursor(self._table) as cursor:
            is_there = cursor.set_range(prefix + LAST_TAIL)
            is_there = cursor.prev() if is_there else cursor.last()
            while is_there and cursor.key().startswith(prefix):
                yield U64_U64.unpack_from(cursor.key(), len(prefix))[1]
                is_there = cursor.prev()

    def last_row(self, lane: int, flow: int) -> tuple[int, int] | None:
        """Return the (due_unix_ms, envelope_id) of the last row of a flow."""
        prefix, cursor = self._prefix + LANE_FLOW.pack(lane, flow), self._cursor
        is_there = cursor.set_range(prefix + LAST_TAIL)
        is_there = cursor.prev() if is_there else cursor.last()
        if not is_there or not cursor.key().startswith(prefix):
            return None
        due_unix_ms, envelope_id = U64_U64.unpack_from(cursor.key(), len(prefix))
        return due_unix_ms, envelope_id
