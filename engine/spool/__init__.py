"""Where mail is kept: the queue, the event log, the counters and the group commit.

`open_spool` picks the adapter by the URL's scheme; everybody else sees `engine.spool.interface`.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from engine.clock import Clock
from engine.spool.interface import Spool, SpoolSettings, SpoolUnusable
from engine.spool.memory import MemorySpool
from engine.spool.memory_data import data_named


class RunBlocking(Protocol):
    """How blocking work is waited for: in a thread, or in line in the simulation."""

    def __call__(self, function: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]: ...


@asynccontextmanager
async def open_spool(
    url: str,
    data_dir: Path,
    *,
    settings: SpoolSettings,
    clock: Clock,
    run_blocking: RunBlocking,
    random: random.Random,
) -> AsyncIterator[Spool]:
    """Open the spool at `url`, run its writer, and end it in order when the block is left.

    `lmdb:` keeps it below `data_dir`. `memory:` is empty and forgotten at the end;
    `memory:NAME` is found again under its name as long as the process lives, which is how a test
    restarts an engine. Raises SpoolUnusable, saying why and where.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        _make_directory(data_dir)
        model = MemorySpool(data_named(rest), settings=settings, clock=clock, random=random)
        await model.settle_doubts()
        yield model
    elif scheme == "lmdb":
        # Loaded only when asked for: the model and its tests need no database.
        from engine.spool.lmdb_spool import open_lmdb_spool

        async with open_lmdb_spool(
            data_dir,
            settings=settings,
            clock=clock,
            run_blocking=run_blocking,
            random=random,
        ) as spool:
            yield spool
    else:
        raise SpoolUnusable(f"spool.url: no adapter for {url!r}; known are lmdb: and memory:")


def is_there(url: str, data_dir: Path) -> bool:
    """Say whether a spool has been made at `url`; one in memory is there whenever it is opened."""
    return url.partition(":")[0] != "lmdb" or (data_dir / "spool" / "data.mdb").exists()


def _make_directory(data_dir: Path) -> None:
    """Make what holds the control socket too, whatever holds the mail."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpoolUnusable(f"data_dir: {data_dir}: {error.strerror}") from error
