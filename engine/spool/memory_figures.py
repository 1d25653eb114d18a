"""The calls about time in the `memory:` adapter; see `engine.spool.figure_calls`."""

from collections.abc import Collection, Sequence

import trio

from engine.spool import activity, projections
from engine.spool.activity import DAY_MS, EVERYBODY, HOUR, HOUR_MS, MINUTE, MINUTE_MS
from engine.spool.figure_calls import SeriesPoint, TimesGroup, TimesRow
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
        await trio.lowlevel.checkpoint()
        rows: dict[str, list[tuple[int, ...]]] = {}
        for (account, day, name), times in self._data.times.items():
            if account_id in (None, account) and projections.overlaps(
                day * DAY_MS, DAY_MS, from_unix_ms, to_unix_ms
            ):
                key = {
                    TimesGroup.TOTAL: "total",
                    TimesGroup.DESTINATION: name,
                    TimesGroup.ACCOUNT: self._data.account_name(account),
                    TimesGroup.DAY: projections.day_text(day),
                }[group]
                rows.setdefault(key, []).append(times)
        keys = sorted(key for key in rows if after is None or key > after)
        if names is not None and group is TimesGroup.DESTINATION:
            keys = [key for key in keys if key in names]
        return [TimesRow(key, activity.sum_of_times(rows[key])) for key in keys[:limit]]
