"""The calls about time in the `lmdb:` adapter; see `engine.spool.figure_calls`."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from engine.spool import lmdb_activity
from engine.spool.figure_calls import SeriesPoint


class LmdbFigures:
    """A part of `LmdbSpool`, which sets `_read`."""

    _read: Callable[..., Awaitable[Any]]

    async def series(
        self, from_unix_ms: int, to_unix_ms: int, step_ms: int, *, account_id: int | None = None
    ) -> Sequence[SeriesPoint]:
        found: list[SeriesPoint] = await self._read(
            lmdb_activity.read_series, from_unix_ms, to_unix_ms, step_ms, account_id
        )
        return found
