"""The calls about time in the `lmdb:` adapter; see `engine.spool.figure_calls`."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from engine.spool import lmdb_activity, lmdb_times
from engine.spool.figure_calls import SeriesPoint, TimesGroup, TimesRow


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

    async def delivery_times(
        self,
        group: TimesGroup,
        *,
        account_id: int | None = None,
        from_unix_ms: int | None = None,
        to_unix_ms: int | None = None,
        after: str | None = None,
        limit: int | None = None,
        names: Collection[str] | None = None,
    ) -> Sequence[TimesRow]:
        found: list[TimesRow] = await self._read(
            lmdb_times.read_times,
            group,
            account_id,
            from_unix_ms,
            to_unix_ms,
            after,
            limit,
            names,
        )
        return found
