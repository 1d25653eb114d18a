"""The calls about time in the `memory:` adapter; see `engine.spool.figure_calls`."""

from collections.abc import Sequence

import trio

from engine.spool import activity
from engine.spool.activity import EVERYBODY, HOUR, HOUR_MS, MINUTE, MINUTE_MS
from engine.spool.figure_calls import SeriesPoint
from engine.spool.memory_data import MemoryData


class MemoryFigures:
    """A part of `MemorySpool`, which sets `_data`."""

    _data: MemoryData

    async def series(
        self, from_unix_ms: int, to_unix_ms: int, step_ms: int, *, account_id: int | None = None
    ) -> Sequence[SeriesPoint]:
        await trio.lowlevel.checkpoint()
        is_hourly = step_ms % HOUR_MS == 0 and from_unix_ms % HOUR_MS == 0
        kind = HOUR if is_hourly else MINUTE
        period_ms = HOUR_MS if is_hourly else MINUTE_MS
        points = []
        for start in range(from_unix_ms, to_unix_ms, step_ms):
            counts = activity.NO_ACTIVITY
            for key, row in self._data.activity.items():
                at = key.period * period_ms
                if (key.kind, key.account_id) == (
                    kind,
                    EVERYBODY if account_id is None else account_id,
                ) and start <= at < min(start + step_ms, to_unix_ms):
                    counts = activity.with_counts(counts, row)
            points.append(SeriesPoint(start, counts))
        return points
