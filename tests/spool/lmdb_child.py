"""A process that keeps mail in a spool and says what it was promised, for tests that kill it.

    python -m tests.spool.lmdb_child DATA_DIR ROUNDS [early]

Each round hands in one request with three recipients and delivers one envelope. A line on standard
output is an acknowledgement: "kept N" for the request of round N, "delivered ID" for an envelope.
With `early` it says so before the commit: the control that the tests have to catch.
"""

import os
import random
import sys
from pathlib import Path

import trio

from engine.spool.interface import Accepted, SpoolFailed, SpoolSettings
from engine.spool.lmdb_spool import open_lmdb_spool
from protocols.records import Status
from tests.spool import harness as h


def say(line: str) -> None:
    # Unbuffered and in one write: what was said before a kill was said.
    os.write(1, line.encode() + b"\n")


async def live(data_dir: Path, rounds: int, *, is_early: bool) -> None:
    async with open_lmdb_spool(
        data_dir,
        settings=SpoolSettings(disk_free_bytes_min=0),
        clock=h.SettableClock(),
        run_blocking=h.run_inline,
        random=random.Random(1),
    ) as spool:
        account = await h.make_account(spool)
        say("open")
        for number in range(rounds):
            if is_early:
                say(f"kept {number}")
            addresses = [f"r{number}-{each}@one.test" for each in range(3)]
            message = h.message(*addresses, content=bytes(5000))
            [answer] = await spool.accept([h.request_of(account, message)])
            if not isinstance(answer, Accepted):
                raise answer
            if not is_early:
                say(f"kept {number}")
            [envelope] = await h.claim(spool, limit=1)
            result = h.result_of(spool, envelope, Status.DELIVERED)
            await spool.settle([result])
            say(f"delivered {envelope.fixed.envelope_id}")


if __name__ == "__main__":
    try:
        trio.run(
            lambda: live(Path(sys.argv[1]), int(sys.argv[2]), is_early="early" in sys.argv[3:])
        )
    except SpoolFailed as failure:
        sys.stderr.write(f"{failure}\n")
        sys.exit(3)
