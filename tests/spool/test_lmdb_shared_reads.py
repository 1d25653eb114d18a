"""Reads that wait together share a hop, and nothing else: no error, no fate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.spool.interface import SpoolFailed
from engine.spool.lmdb_shared_reads import READERS, SHARED_MAX, SharedReads
from tests.spool import harness as h
from tests.spool.test_lmdb_writer import Gate, opened


class Hops:
    """Counts hops; each takes a turn of the loop."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        self.count += 1
        await trio.testing.wait_all_tasks_blocked()
        return function(*arguments)


async def test_what_waits_together_is_read_in_few_hops() -> None:
    hops = Hops()
    reads = SharedReads(hops.run)
    answers: list[int] = []

    async def ask(number: int) -> None:
        answers.append(await reads.do(lambda: lambda: number * 2, lambda answer: answer + 1))

    async with trio.open_nursery() as nursery:
        for _ in range(READERS):
            nursery.start_soon(reads.run)
        async with trio.open_nursery() as asking:
            for number in range(10 * SHARED_MAX):
                asking.start_soon(ask, number)
        reads.close()
    assert sorted(answers) == [2 * number + 1 for number in range(10 * SHARED_MAX)]
    assert 10 <= hops.count <= 10 + READERS


async def test_one_that_fails_does_not_fail_its_neighbours() -> None:
    reads = SharedReads(h.run_inline)
    answers: dict[int, Any] = {}

    def read(number: int) -> float:
        return 12 / number

    async def ask(number: int) -> None:
        try:
            answers[number] = await reads.do(lambda: lambda: read(number), lambda answer: answer)
        except ZeroDivisionError as error:
            answers[number] = type(error)

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as asking:
            for number in range(3):
                asking.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(reads.run)
        reads.close()
    assert answers == {0: ZeroDivisionError, 1: 12.0, 2: 6.0}


async def test_who_waits_when_it_is_closed_is_told() -> None:
    reads = SharedReads(h.run_inline)

    async def ask() -> None:
        with pytest.raises(SpoolFailed, match="closed"):
            await reads.do(lambda: lambda: 1, lambda answer: answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        reads.close()
        await reads.run()
    await ask()


async def test_a_window_that_nobody_waits_for_claims_nothing(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path, gate) as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 3)
        gate.hold("read_window", before=False)
        reached, held = gate.reached["read_window"], gate.held["read_window"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(h.claim, spool)
            await reached.wait()
            nursery.cancel_scope.cancel()
        held.set()
        await trio.testing.wait_all_tasks_blocked()
        assert spool.spool_statistics().in_flight == 0
        assert [each.fixed.envelope_id for each in await h.claim(spool)] == ids


async def test_a_thousand_actors_begin_in_few_hops(tmp_path: Path) -> None:
    """Each reads what its last life left; a listing that is asked for meanwhile is not behind."""
    gate = Counting()
    async with opened(tmp_path, gate) as spool:
        gate.count = 0
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(spool.destination, f"d{number}.test")
        assert 1000 / SHARED_MAX <= gate.count <= 1000 / SHARED_MAX + READERS


class Counting(Gate):
    """Counts hops."""

    count = 0

    async def run(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        self.count += 1
        return await super().run(function, *arguments)


async def test_a_window_whose_caller_goes_as_it_comes_claims_nothing(tmp_path: Path) -> None:
    """Cancelled in the moment in which the thread is through: nobody would give that claim back."""
    going = trio.CancelScope()

    async def cancelling(function: Callable[..., Any], /, *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        answer = function(*arguments)
        if function.__name__ == "_do_all":
            going.cancel()
        return answer

    harness = h.Harness("lmdb", tmp_path)
    async with harness.open(cancelling) as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 3)
        with going:
            await h.claim(spool)
        assert going.cancelled_caught
        assert spool.spool_statistics().in_flight == 0
        assert [each.fixed.envelope_id for each in await h.claim(spool)] == ids
