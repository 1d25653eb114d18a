"""The calls about holds in the `lmdb:` adapter; see `engine.spool.hold_calls`."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from engine.spool import lmdb_holds
from engine.spool.hold_calls import Hold
from engine.spool.holds import Holds
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_writer import Turn, Writer
from engine.spool.telling import Telling
from protocols.records import Envelope

# As everywhere: a commit is short, so that results of attempts never wait long for their turn.
NAMES_PER_COMMIT: Final = 500


class LmdbHoldCalls(Telling):
    """A part of `LmdbSpool`, which sets these."""

    writer: Writer
    _store: Store
    _claims: dict[int, tuple[Envelope, bytes]]
    _read: Callable[..., Awaitable[Any]]

    @property
    def _holds(self) -> Holds:
        """The holds as they were committed."""
        return self._store.caches.holds

    async def put_hold(self, hold: Hold) -> Hold:
        put: Hold = await self.writer.do(Turn.HOUSEKEEPING, partial(lmdb_holds.put, hold=hold))
        return put

    async def lift_holds(self, hold_ids: Sequence[int]) -> None:
        await self.writer.do(
            Turn.HOUSEKEEPING, partial(lmdb_holds.mark_lifted, hold_ids=list(hold_ids))
        )
        await self._finish_lifting()

    def holds(self) -> Sequence[Hold]:
        return self._holds.at(self.now_unix_ms())

    def hold_of_destination(self, destination: str, site: str) -> Hold | None:
        return self._holds.of_destination(destination, site, self.now_unix_ms())

    def hold_of(self, envelope: Envelope, site: str) -> Hold | None:
        return self._holds.of(envelope, site, self.now_unix_ms())

    def in_flight(self, envelope_ids: Iterable[int]) -> frozenset[int]:
        return frozenset(each for each in envelope_ids if each in self._claims)

    def next_hold_end_unix_ms(self) -> int | None:
        return self._holds.next_end_unix_ms(self.now_unix_ms())

    async def end_what_is_over(self) -> None:
        """Remove the holds whose end has come, and what a crash left of those that were lifted."""
        rows = self._holds.rows.values()
        over = self._holds.over_at(self.now_unix_ms())
        if over:
            await self.lift_holds([each.hold_id for each in over])
        elif any(row.is_lifted for row in rows):
            await self._finish_lifting()

    async def _finish_lifting(self) -> None:
        lifted = [row for row in self._holds.rows.values() if row.is_lifted]
        if not lifted:
            return
        names: list[str] = await self._read(lmdb_holds.read_names, lifted)
        for start in range(0, len(names), NAMES_PER_COMMIT):
            batch = names[start : start + NAMES_PER_COMMIT]
            await self.writer.do(
                Turn.HOUSEKEEPING,
                partial(lmdb_holds.reconsider, names=batch),
                items=len(batch),
            )
        await self.writer.do(
            Turn.HOUSEKEEPING,
            partial(lmdb_holds.forget, hold_ids=[each.hold_id for each in lifted]),
        )
