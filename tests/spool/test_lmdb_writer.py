"""The one writer: shared commits, results first, races with reads, and the end after a failure."""

import errno
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest
import trio

from engine.spool import lmdb_settle
from engine.spool.interface import (
    Accepted,
    CommitNotice,
    EventFilter,
    Finish,
    RetryAt,
    SpoolFailed,
    SpoolFull,
    SpoolSettings,
    WindowPosition,
)
from engine.spool.lmdb_environment import Store
from engine.spool.lmdb_files import BALLAST_OCTETS, Disk
from engine.spool.lmdb_spool import LmdbSpool, open_lmdb_spool
from engine.spool.lmdb_writer import COMMIT_ITEMS_MAX, Turn
from protocols.records import Reason, Status
from tests.spool import harness as h


class Gate:
    """Runs blocking work in line; `hold(name)` makes one function wait until it is let go."""

    def __init__(self) -> None:
        self.held: dict[str, trio.Event] = {}
        self.reached: dict[str, trio.Event] = {}
        self.before: bool = True

    def hold(self, name: str, *, before: bool) -> None:
        self.held[name] = trio.Event()
        self.reached[name] = trio.Event()
        self.before = before

    async def run(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        name = getattr(function, "__name__", "")
        if name == "_do_all":
            # Reads that share a hop: held for the first one's sake.
            name = arguments[0][0].func.__name__
        held = self.held.pop(name, None)
        if held is None:
            return function(*arguments)
        answer = None if self.before else function(*arguments)
        self.reached[name].set()
        with trio.CancelScope(shield=True):
            await held.wait()
        return function(*arguments) if self.before else answer


@asynccontextmanager
async def opened(
    tmp_path: Path, gate: Gate | None = None, *, map_octets: int = 1 << 30, **fields: Any
) -> AsyncIterator[LmdbSpool]:
    async with open_lmdb_spool(
        tmp_path / "data",
        settings=SpoolSettings(disk_free_bytes_min=fields.pop("disk_free_bytes_min", 0), **fields),
        clock=h.SettableClock(),
        run_blocking=gate.run if gate is not None else h.run_inline,
        random=random.Random(1),
        map_octets=map_octets,
    ) as spool:
        yield spool


async def test_what_waits_together_is_committed_together(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        account = await h.make_account(spool)
        before = spool.spool_statistics().commits
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(h.accept, spool, account, h.message(f"u{number}@one.test"))
        assert spool.spool_statistics().commits == before + 1
        await h.accept_many(spool, account, COMMIT_ITEMS_MAX + 1)
        assert spool.spool_statistics().commits == before + 2, "a request is never cut"


async def test_results_go_before_new_mail(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path, gate) as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 2)
        claimed = await h.claim(spool)
        big = h.message(*(f"u{number}@two.test" for number in range(COMMIT_ITEMS_MAX)))
        async with trio.open_nursery() as nursery:
            gate.hold("commit", before=True)
            reached, held = gate.reached["commit"], gate.held["commit"]
            nursery.start_soon(h.accept, spool, account, big)
            await reached.wait()
            nursery.start_soon(h.accept, spool, account, big)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(h.deliver, spool, claimed)
            await trio.testing.wait_all_tasks_blocked()
            held.set()
        statuses = [event.status for event in await h.all_events(spool)]
        assert statuses[2 + COMMIT_ITEMS_MAX :][:2] == [Status.DELIVERED] * 2


async def test_a_stream_of_results_keeps_neither_mail_nor_the_sweeper_out(tmp_path: Path) -> None:
    async with opened(tmp_path, max_age_ms=1000) as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 1)
        [envelope] = await h.claim(spool)
        attempts = itertools.count(1)
        commits = []

        def settle_again(notice: CommitNotice) -> None:
            # In the same step as the commit: so every commit finds a result that waits.
            commits.append(len(notice.events))
            if len(commits) < 50:
                result = h.result_of(
                    spool, envelope, Status.DEFERRED, attempt=next(attempts), due_unix_ms=2**60
                )
                work = partial(lmdb_settle.settle, results=[result], decisions=[], claimed=())
                spool.writer.submit(Turn.RESULTS, work)

        spool.add_listener(settle_again)
        await spool.settle([h.result_of(spool, envelope, Status.DEFERRED, attempt=next(attempts))])
        await h.accept_many(spool, account, COMMIT_ITEMS_MAX, at="two.test")
        before = len(commits)
        assert before < 10, "the request waited for the results to end"
        await spool.sweep(spool.now_unix_ms() + 5000, 1000)
        await spool.release(spool.now_unix_ms())
        assert len(commits) < 20, "the sweeper waited for the results to end"
        assert await h.claim(spool, "two.test") == []


async def test_a_waiter_that_is_cancelled_does_not_cancel_the_commit(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path, gate) as spool:
        account = await h.make_account(spool)
        gate.hold("commit", before=True)
        reached, held = gate.reached["commit"], gate.held["commit"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(h.accept_many, spool, account, 3)
            await reached.wait()
            nursery.cancel_scope.cancel()
        assert spool.spool_statistics().envelopes_open == 0
        held.set()
        await spool.settle([])
        assert spool.spool_statistics().envelopes_open == 3


@pytest.mark.parametrize("what", ["cancel", "retry"])
@pytest.mark.parametrize("window_reads_first", [True, False])
async def test_a_window_hands_out_nothing_that_is_being_changed(
    tmp_path: Path, what: str, window_reads_first: bool
) -> None:
    gate = Gate()
    async with opened(tmp_path, gate) as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 2)
        now = spool.now_unix_ms()
        decision = (
            Finish(ids[0], Status.CANCELLED, now, None)
            if what == "cancel"
            else RetryAt(ids[0], now + h.HOUR_MS)
        )
        windows: list[list[int]] = []

        async def look() -> None:
            window = await spool.window("one.test", WindowPosition(), 10, now)
            windows.append([each.fixed.envelope_id for each in window.envelopes])
            if ids[0] not in windows[-1] and window_reads_first:
                assert window.more, "what was taken out may be there again"

        async with trio.open_nursery() as nursery:
            if window_reads_first:
                # The window has read both; the change commits before the window answers.
                gate.hold("read_window", before=False)
                reached, held = gate.reached["read_window"], gate.held["read_window"]
                nursery.start_soon(look)
                await reached.wait()
                await spool.settle([], [decision])
                held.set()
            else:
                # The change is on its way when the window looks, and sees both.
                gate.hold("commit", before=True)
                reached, held = gate.reached["commit"], gate.held["commit"]
                nursery.start_soon(spool.settle, [], [decision])
                await reached.wait()
                await look()
                held.set()
        assert windows == [[ids[1]]]
        assert spool.spool_statistics().in_flight == 1
        assert await spool.check_invariants() == []


async def test_two_windows_at_once_share_nothing(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path, gate) as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 10)
        gate.hold("read_window", before=False)
        held = gate.held["read_window"]
        found: list[int] = []

        async def look() -> None:
            window = await spool.window("one.test", WindowPosition(), 6, spool.now_unix_ms())
            found.extend(each.fixed.envelope_id for each in window.envelopes)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            held.set()
        assert sorted(found) == ids


def _failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def commit(self: Store, *arguments: Any) -> None:
        raise error

    monkeypatch.setattr(Store, "commit", commit)


@pytest.mark.parametrize(
    "error",
    [
        lmdb.DiskError("mdb_txn_commit", errno.EIO),
        lmdb.PanicError("mdb_txn_commit", -30795),
        lmdb.CorruptedError("mdb_put", -30796),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_commit_that_fails_is_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    answers: list[Any] = []

    async def live() -> None:
        async with opened(tmp_path) as spool:
            account = await h.make_account(spool)
            _failing(monkeypatch, error)

            async def hand_in(number: int) -> None:
                answers.extend(
                    await spool.accept([h.request_of(account, h.message(f"u{number}@one.test"))])
                )

            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for number in range(5):
                        nursery.start_soon(hand_in, number)
                monkeypatch.undo()
                # The disk would take it now, but nobody knows what it has of what was before.
                await hand_in(5)
                with pytest.raises(SpoolFailed):
                    await spool.settle([])
                with pytest.raises(SpoolFailed):
                    await h.claim(spool)
            await trio.sleep_forever()

    with pytest.raises(SpoolFailed, match="could not commit"):
        await live()
    assert [type(each) for each in answers] == [SpoolFailed] * 6
    async with opened(tmp_path) as spool:
        assert spool.spool_statistics().envelopes_open == 0


async def test_a_fault_of_ours_in_a_commit_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def live() -> None:
        async with opened(tmp_path) as spool:
            _failing(monkeypatch, ZeroDivisionError())
            with trio.CancelScope(shield=True), pytest.raises(SpoolFailed):
                await spool.settle([])
            await trio.sleep_forever()

    with pytest.raises(ZeroDivisionError):
        await live()


async def test_the_ballast_is_given_up_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = tmp_path / "data" / "spool" / "ballast"

    async def live() -> None:
        async with opened(tmp_path) as spool:
            assert ballast.stat().st_size == BALLAST_OCTETS
            monkeypatch.setattr(Disk, "free_octets", lambda self: 4096)
            _failing(monkeypatch, lmdb.Error("mdb_txn_commit", errno.ENOSPC))
            with trio.CancelScope(shield=True), pytest.raises(SpoolFailed):
                await spool.settle([])
            assert not ballast.exists()
            await trio.sleep_forever()

    with pytest.raises(SpoolFailed, match="could not commit"):
        await live()
    monkeypatch.undo()
    async with opened(tmp_path):
        assert ballast.stat().st_size == BALLAST_OCTETS, "and laid on again when there is room"


@pytest.mark.slow
async def test_a_full_map_refuses_mail_and_takes_results(tmp_path: Path) -> None:
    async with opened(tmp_path, map_octets=8 << 20) as spool:
        account = await h.make_account(spool)
        accepted = 0
        while True:
            [answer] = await spool.accept(
                [h.request_of(account, h.message(f"u{accepted}@one.test", content=bytes(30_000)))]
            )
            if not isinstance(answer, Accepted):
                break
            accepted += 1
        assert isinstance(answer, SpoolFull), answer
        assert accepted > 50
        assert not spool.spool_statistics().intake_open
        assert spool.spool_statistics().envelopes_open == accepted
        claimed = await h.claim(spool)
        assert len(claimed) == accepted
        for start in range(0, accepted, 20):
            await h.deliver(spool, claimed[start : start + 20])
        await h.sweep_all(spool)
        assert await spool.check_invariants() == []
        # What was deleted made room, though the file is as long as before.
        again = await h.accept_many(spool, account, 10, content=bytes(30_000))
        assert len(again) == 10
        assert spool.spool_statistics().intake_open


async def test_mail_that_finds_the_map_full_in_the_commit_is_refused_and_results_are_kept(
    tmp_path: Path,
) -> None:
    gate = Gate()
    async with opened(tmp_path, gate, map_octets=8 << 20) as spool:
        account = await h.make_account(spool)
        await h.accept_many(spool, account, 10)
        claimed = await h.claim(spool)
        gate.hold("commit", before=True)
        reached, held = gate.reached["commit"], gate.held["commit"]
        answers: list[Any] = []

        async def hand_in() -> None:
            # More than the whole map: what there is room for is found out in the commit.
            large = h.message("u@one.test", content=bytes(9 << 20))
            answers.extend(await spool.accept([h.request_of(account, large)]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.release, 0)
            await reached.wait()
            nursery.start_soon(hand_in)
            nursery.start_soon(h.deliver, spool, claimed)
            await trio.testing.wait_all_tasks_blocked()
            held.set()
        assert [type(each) for each in answers] == [SpoolFull]
        assert spool.spool_statistics().envelopes_open == 0
        assert await spool.check_invariants() == []
        page = await spool.events(0, EventFilter(), 100)
        assert [event.seq for event in page.events] == list(range(1, 21)), "no number is lost"


async def test_expiry_spares_what_is_claimed_while_it_looks(tmp_path: Path) -> None:
    gate = Gate()
    async with opened(tmp_path, gate, max_age_ms=1000) as spool:
        account = await h.make_account(spool)
        ids = await h.accept_many(spool, account, 2)
        late = spool.now_unix_ms() + 5000
        gate.hold("read_overdue", before=False)
        reached, held = gate.reached["read_overdue"], gate.held["read_overdue"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.sweep, late, 1000)
            await reached.wait()
            [claimed] = await h.claim(spool, limit=1)
            held.set()
        assert claimed.fixed.envelope_id == ids[0]
        states = {each: (await h.state_of(spool, each)).state for each in ids}
        assert states[ids[0]].status is Status.QUEUED
        assert states[ids[1]].status is Status.SOFT_BOUNCED
        assert states[ids[1]].reason is Reason.EXPIRED
        assert await spool.check_invariants() == []
