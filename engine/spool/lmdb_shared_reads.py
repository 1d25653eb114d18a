"""Small reads that wait at the same time share one hop to a thread.

A hop costs more than looking up a few envelopes, and a thousand actors each make one for their
window and one for their contents: alone, the hops would be most of the spool's work. Two readers
take turns, so that one cold page does not hold everybody up. A long read has a hop of its own and
does not come here.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import trio

from engine.spool import RunBlocking
from engine.spool.interface import SpoolFailed

READERS: Final = 2

# About a millisecond of work; more of it would keep the first waiter waiting for the last one.
SHARED_MAX: Final = 16

T = TypeVar("T")


class _Waiting:
    __slots__ = ("_task", "answer", "begin", "error", "finish", "is_gone")

    def __init__(
        self, begin: Callable[[], Callable[[], Any]], finish: Callable[[Any], Any]
    ) -> None:
        self.begin = begin
        self.finish = finish
        self.answer: Any = None
        self.error: Exception | None = None
        self.is_gone = False
        self._task = trio.lowlevel.current_task()

    async def wait(self) -> None:
        """Wait for `be_done`. Whoever is cancelled is gone from that moment on.

        An event would tell us only when our task runs again, and what `finish` did between the
        two, nobody would undo.
        """

        def leave(raise_cancel: object) -> trio.lowlevel.Abort:
            self.is_gone = True
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def be_done(self) -> None:
        """Wake who waits, once; it can be cancelled no more before it has the answer."""
        if not self.is_gone:
            trio.lowlevel.reschedule(self._task)


class SharedReads:
    """Run `run` in a nursery, `READERS` times."""

    def __init__(self, run_blocking: RunBlocking) -> None:
        self._run_blocking = run_blocking
        self._queue: deque[_Waiting] = deque()
        self._wake = trio.Event()
        self._is_closed = False

    async def do(self, begin: Callable[[], Callable[[], Any]], finish: Callable[[Any], T]) -> T:
        """Return what `finish` makes of a read.

        `begin` is called in the loop when the read's turn has come, and returns what the thread is
        to do; `finish` is called in the loop with the answer as soon as that is there, with no
        other task in between; not at all for a caller that has been cancelled.
        """
        if self._is_closed:
            raise SpoolFailed("the spool is closed")
        waiting = _Waiting(begin, finish)
        self._queue.append(waiting)
        self._wake.set()
        await waiting.wait()
        if waiting.error is not None:
            raise waiting.error
        answer: T = waiting.answer
        return answer

    def close(self) -> None:
        """Let the readers end; what still waits is told so."""
        self._is_closed = True
        self._wake.set()

    async def run(self) -> None:
        """Read for whoever waits, until closed."""
        try:
            while not self._is_closed:
                batch = self._next_batch()
                if batch:
                    await self._read(batch)
                else:
                    if self._wake.is_set():
                        # The other reader may wait for one that is not set yet: share it.
                        self._wake = trio.Event()
                    await self._wake.wait()
        finally:
            self._is_closed = True
            while self._queue:
                waiting = self._queue.popleft()
                waiting.error = SpoolFailed("the spool is closed")
                waiting.be_done()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < SHARED_MAX:
            waiting = self._queue.popleft()
            if not waiting.is_gone:
                batch.append(waiting)
        return batch

    async def _read(self, batch: list[_Waiting]) -> None:
        try:
            answers = await self._run_blocking(_do_all, [each.begin() for each in batch])
        except BaseException:
            for each in batch:
                each.error = SpoolFailed("the read was broken off")
                each.be_done()
            raise
        for each, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                each.error = answer
            elif not each.is_gone:
                each.answer = each.finish(answer)
            each.be_done()


def _do_all(reads: Sequence[Callable[[], Any]]) -> list[Any]:
    answers: list[Any] = []
    for read in reads:
        try:
            answers.append(read())
        except Exception as error:  # noqa: BLE001  # it is raised again where it was asked for
            answers.append(error)
    return answers
