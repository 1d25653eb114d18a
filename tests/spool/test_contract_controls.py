"""Controls: an adapter that breaks one rule must fail the random programs.

Without these, a suite that compares nothing would pass as well.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings

from engine.spool import RunBlocking
from engine.spool.holds import Holds
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    AttemptResult,
    Decision,
    Quota,
    Rest,
    Spool,
    SpoolError,
    Window,
    WindowPosition,
)
from engine.spool.memory import MemorySpool
from engine.spool.memory_data import MemoryData
from tests.spool.harness import Harness, run_inline
from tests.spool.program_steps import SETTINGS, Step, programs
from tests.spool.test_contract_programs import run_program


class ForgetsRepeats(MemorySpool):
    """Accepts a repeated request again."""

    async def accept(self, requests: Sequence[AcceptRequest]) -> list[Accepted | SpoolError]:
        return await super().accept([replace(each, digest=None) for each in requests])


class ForgetsClaims(MemorySpool):
    """Hands out what is in flight already."""

    async def window(
        self, destination: str, position: WindowPosition, limit: int, now_unix_ms: int
    ) -> Window:
        window = await super().window(destination, position, limit, now_unix_ms)
        self.give_back([each.fixed.envelope_id for each in window.envelopes])
        return window


class CountsResultsTwice(MemorySpool):
    """Applies a repeated result as if it were a new one."""

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None:
        late = [msgspec.structs.replace(each, attempt=99) for each in results]
        await super().settle(late, decisions)


class LosesTheLastResult(MemorySpool):
    """Says that it settled what it did not."""

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None:
        await super().settle(results[:-1], decisions)


class RestsTooLong(MemorySpool):
    """Wakes a destination a millisecond late."""

    async def settle(
        self, results: Sequence[AttemptResult], decisions: Sequence[Decision] = ()
    ) -> None:
        await super().settle(results, decisions)
        agenda = self._data.agenda
        for each in decisions:
            if isinstance(each, Rest) and each.destination in agenda:
                row = agenda[each.destination]
                agenda[each.destination] = replace(row, wake_unix_ms=row.wake_unix_ms + 1)


class ReleasesNothing(MemorySpool):
    """Leaves paused mail where it is."""

    async def release(self, until_unix_ms: int) -> int:
        return await super().release(0)


class ExpiresNothing(MemorySpool):
    """Keeps mail for ever."""

    async def sweep(self, now_unix_ms: int, rows_max: int) -> bool:
        return await super().sweep(0, rows_max)


class TellsNobody(MemorySpool):
    """Commits without a word to its listeners."""

    def add_listener(self, listener: Any) -> None:
        super().add_listener(lambda notice: None)


class PullsWhatIsHeld(MemorySpool):
    """Knows its holds, and hands out their mail all the same."""

    async def window(
        self, destination: str, position: WindowPosition, limit: int, now_unix_ms: int
    ) -> Window:
        holds, self._data.holds = self._data.holds, Holds()
        try:
            return await super().window(destination, position, limit, now_unix_ms)
        finally:
            self._data.holds = holds


class LiftsInSilence(MemorySpool):
    """Lets destinations sleep on that were held."""

    async def lift_holds(self, hold_ids: Sequence[int]) -> None:
        for each in hold_ids:
            self._data.holds = self._data.holds.without(each)


class LosesWhatWasLast(MemorySpool):
    """Comes back from a crash without the last events: an acknowledgement before the commit."""

    def __init__(self, data: MemoryData, **arguments: Any) -> None:
        if data.start_count and data.head_seq:
            data.events.pop(data.head_seq)
            data.head_seq -= 1
        super().__init__(data, **arguments)


class WritesToTheGone(MemorySpool):
    """Queues mail for addresses that are suppressed."""

    async def accept(self, requests: Sequence[AcceptRequest]) -> list[Accepted | SpoolError]:
        kept = dict(self._data.suppressions)
        self._data.suppressions.clear()
        answers = await super().accept(requests)
        self._data.suppressions.update(kept)
        return answers


class KeepsOldPlaces(MemorySpool):
    """Moves paused mail to an earlier day and keeps its place on the later one."""

    async def rebook(self, account_id: int, quota: Quota) -> int:
        usage = dict(self._data.usage)
        moved = await super().rebook(account_id, quota)
        self._data.usage.update(usage)
        return moved


BROKEN = (
    ForgetsRepeats,
    ForgetsClaims,
    CountsResultsTwice,
    LosesTheLastResult,
    RestsTooLong,
    ReleasesNothing,
    ExpiresNothing,
    TellsNobody,
    LosesWhatWasLast,
    WritesToTheGone,
    KeepsOldPlaces,
    PullsWhatIsHeld,
    LiftsInSilence,
)


class BrokenHarness(Harness):
    """Opens a broken adapter on data of its own."""

    def __init__(self, adapter: type[MemorySpool], data_dir: Path) -> None:
        super().__init__("memory", data_dir, SETTINGS)
        self._adapter = adapter
        self._data = MemoryData()

    @asynccontextmanager
    async def open(self, run_blocking: RunBlocking = run_inline) -> AsyncIterator[Spool]:
        yield self._adapter(
            self._data, settings=self.settings, clock=self.clock, random=random.Random(1)
        )


@pytest.mark.slow
@pytest.mark.parametrize("adapter", BROKEN)
def test_a_broken_adapter_is_caught(adapter: type[MemorySpool]) -> None:
    def make(directory: Path) -> Harness:
        return BrokenHarness(adapter, directory)

    @settings(
        # It ends with the first that fails; some faults show in one of hundreds only.
        max_examples=1500,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # one failure is enough; nobody reads the smallest
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(programs)
    def check(program: list[Step]) -> None:
        trio.run(run_program, make, program, clock=trio.testing.MockClock())

    with pytest.raises(AssertionError):
        check()
