"""How much mail an actor claims at once: about what flows within a second or two.

Too little costs a hop into the spool for a few mails; too much lets a mail that just came, and
would go first, wait behind all that was claimed. Pure arithmetic on trio's clock.
"""

from dataclasses import dataclass
from typing import Final

# Before anything has flowed: enough to see whether a second connection is worth it.
FIRST_ENVELOPES: Final = 40
# Enough for 20 connections with two transactions each in the pipe, several times over.
ENVELOPES_MAX: Final = 256
# Each connection has one transaction whose final dot is unanswered and one behind it; half of the
# window is fetched while the other half flows.
ENVELOPES_PER_CONNECTION_MIN: Final = 4
# For each actor when there are a thousand of them: 50 MB of envelopes in all.
ENVELOPES_CROWDED_MAX: Final = 48
# A window that flows faster than this grows, one that takes longer than that shrinks.
QUICK_S: Final = 0.5
SLOW_S: Final = 2.0


@dataclass(slots=True)
class WindowSize:
    """The size of the next window, learned from how long the last one took."""

    envelopes: int = FIRST_ENVELOPES
    _pulled_s: float | None = None

    @property
    def low(self) -> int:
        """So few left, and it is time for the next one."""
        return max(1, self.envelopes // 2)

    def next_size(self, now_s: float, *, connections: int, is_crowded: bool) -> int:
        """Return how much to claim now; called for each pull, `connections` being those in use."""
        if self._pulled_s is not None and connections:
            took_s = now_s - self._pulled_s
            if took_s < QUICK_S:
                self.envelopes = self.envelopes * 5 // 2
            elif took_s > SLOW_S:
                self.envelopes //= 2
        ceiling = ENVELOPES_CROWDED_MAX if is_crowded else ENVELOPES_MAX
        floor = ENVELOPES_PER_CONNECTION_MIN * max(1, connections)
        self.envelopes = min(max(self.envelopes, floor), ceiling)
        self._pulled_s = now_s
        return self.envelopes
