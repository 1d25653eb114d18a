"""What the spool does by the clock: release what was paused, expire what is too old, sweep.

Owns the rhythm only; what is released, expired, checked or purged is the spool's to know.
"""

from typing import Final

import trio

from engine.clock import Clock
from engine.spool.interface import Spool, SpoolFull

# Expiry is promised within five seconds, a release at its second.
EVERY_S: Final = 1.0
# A step of the sweep keeps the writer from deliveries for as long as a small settle does.
ROWS_PER_STEP: Final = 500
# Between two steps of a sweep that has more to do, deliveries have the writer to themselves.
BETWEEN_STEPS_S: Final = 0.1
RELEASES_PER_COMMIT: Final = 500


async def run_housekeeping(spool: Spool, clock: Clock) -> None:
    """Keep house until cancelled. SpoolFailed ends it, and with it the process."""
    while True:
        more = False
        try:
            while await spool.release(clock.now_unix_ms()) == RELEASES_PER_COMMIT:
                await trio.lowlevel.checkpoint()
            more = await spool.sweep(clock.now_unix_ms(), ROWS_PER_STEP)
        except SpoolFull:
            # Deletions make the room that is missing; they are tried again with the next round.
            more = False
        await trio.sleep(BETWEEN_STEPS_S if more else EVERY_S)
