"""What is the same in every adapter: the time it has, and who hears of its commits."""

from collections.abc import Callable

from engine.clock import Stamp
from engine.spool.interface import CommitNotice


class Telling:
    """A part of each spool, which sets these."""

    _stamp: Stamp
    _listeners: list[Callable[[CommitNotice], None]]

    def now_unix_ms(self) -> int:
        """Return wall time as ids and due times have it: never before what was given out."""
        return self._stamp.now_unix_ms()

    def add_listener(self, listener: Callable[[CommitNotice], None]) -> None:
        """Have `listener` told of each commit, in the loop, before its waiters are answered."""
        self._listeners.append(listener)

    def _tell(self, notice: CommitNotice) -> None:
        for listener in self._listeners:
            listener(notice)
