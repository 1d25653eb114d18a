"""The engine with one promise broken: its commits are not flushed to the disk.

The control of the power cut. `python -m tests.scenarios.unsynced` takes the words of `eilpost`.
"""

from typing import Any

import lmdb

from engine.cli import main

open_synced = lmdb.open


def open_unsynced(*arguments: Any, **named: Any) -> Any:
    return open_synced(*arguments, **{**named, "sync": False, "metasync": False})


if __name__ == "__main__":
    setattr(lmdb, "open", open_unsynced)  # noqa: B010 - the fault that is rehearsed
    main()
