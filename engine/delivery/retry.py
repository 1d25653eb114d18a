"""The retry schedule: when is a deferred envelope, or an unreachable destination, tried again?

Pure arithmetic. Time and chance come in as arguments, so that tests can walk through
days in a millisecond. Nothing here knows what failed; `protocols.outcomes` does.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# A campaign's deferrals come in bulk; without jitter they would come back in bulk, too.
JITTER: Final = 0.2


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Waits in seconds after the first, second, ... failure; the last one repeats.

    Greylisting has a schedule of its own, which ends after a known time: its waits apply
    while they are the shorter ones, so it never makes a mail later than `retry_s` would.
    """

    retry_s: Sequence[float]
    greylist_retry_s: Sequence[float]

    def wait_ms(self, failures: int, rand: random.Random, *, greylisted: bool = False) -> int:
        """Return the wait after the given number of failures (from 1), with ±20 % jitter."""
        assert failures >= 1, failures
        wait_s = _at(self.retry_s, failures)
        if greylisted and self.greylist_retry_s:
            wait_s = min(wait_s, _at(self.greylist_retry_s, failures))
        return round(wait_s * 1000.0 * rand.uniform(1.0 - JITTER, 1.0 + JITTER))


def _at(waits_s: Sequence[float], failures: int) -> float:
    return waits_s[min(failures, len(waits_s)) - 1]
