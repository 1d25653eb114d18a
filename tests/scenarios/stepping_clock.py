"""The engine with a wall clock that is off by as many milliseconds as a file says, at any moment.

`python -m tests.scenarios.stepping_clock FILE` takes the words of `eilpost` after it.
"""

import sys
from pathlib import Path

from engine.cli import main
from engine.clock import SystemClock

right_time = SystemClock.now_unix_ms


class SteppingClock:
    """The clock of one engine, as the test sets it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.step(0)

    def step(self, off_ms: int) -> None:
        # Whole or not at all: the engine reads it whenever it wants to know the time.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(off_ms))
        fresh.replace(self._file)

    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.scenarios.stepping_clock", str(self._file))


if __name__ == "__main__":
    offset = Path(sys.argv.pop(1))

    def wrong_time(clock: SystemClock) -> int:
        return right_time(clock) + int(offset.read_text())

    setattr(SystemClock, "now_unix_ms", wrong_time)  # noqa: B010 - the fault that is rehearsed
    main()
