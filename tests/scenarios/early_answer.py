"""The engine with one promise broken: it answers a sender before the commit.

The control of every test that looks for lost mail. `python -m tests.scenarios.early_answer` takes
the words of `eilpost`.
"""

from collections.abc import Sequence
from contextlib import suppress

import trio

from engine.cli import main
from engine.spool.interface import (
    Accepted,
    AcceptedEnvelope,
    AcceptRequest,
    SpoolError,
)
from engine.spool.lmdb_spool import LmdbSpool
from protocols.records import Status

commit_first = LmdbSpool.accept

# With several senders at work, something was always answered within this time before a kill.
LATE_S = 0.2


async def answer_first(
    spool: LmdbSpool, requests: Sequence[AcceptRequest]
) -> list[Accepted | SpoolError]:
    """Promise everything; the ids are invented, since the commit would choose them."""

    async def commit_later() -> None:
        # On a quick disk nearly every commit would be in time, and a few kills would prove nothing.
        await trio.sleep(LATE_S)
        with suppress(SpoolError):
            await commit_first(spool, requests)

    trio.lowlevel.spawn_system_task(commit_later)
    now_unix_ms = spool.now_unix_ms()
    return [
        Accepted(
            [
                AcceptedEnvelope(number, recipient.uuid, Status.QUEUED, now_unix_ms)
                for message in request.messages
                for number, recipient in enumerate(message.recipients, 1)
            ]
        )
        for request in requests
    ]


if __name__ == "__main__":
    setattr(LmdbSpool, "accept", answer_first)  # noqa: B010 - the fault that is rehearsed
    main()
