"""How many confirmations may be asked for: no form of ours fills a stranger's mailbox.

By mail address, because that is who suffers; by client, because that is who does it; and in all,
because a botnet has many clients. Kept in memory: a restart forgives, and nobody gains by it.
"""

import ipaddress
from bisect import bisect_right
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
# (within, at most): whoever has lost a mail asks again an hour later; nobody asks five times a day.
PER_ADDRESS: Final = ((HOUR_MS, 1), (DAY_MS, 4))
# A household or an office behind one address; IPv6 gives everybody a /64 to choose from.
PER_CLIENT: Final = ((HOUR_MS, 10), (DAY_MS, 40))
# A page that is in the news has some hundred new subscribers an hour.
IN_ALL: Final = ((HOUR_MS, 300), (DAY_MS, 3_000))


class Answer(Enum):
    SEND = "a confirmation may go"
    KEEP_QUIET = "one has gone to this address lately: say what is always said, and send nothing"
    REFUSE = "this client, or all together, ask for too much"


@dataclass(slots=True)
class _Window:
    """When something was done lately."""

    limits: tuple[tuple[int, int], ...]
    times: list[int] = field(default_factory=list)

    def is_full(self, now_unix_ms: int) -> bool:
        longest_ms = max(within_ms for within_ms, _ in self.limits)
        del self.times[: bisect_right(self.times, now_unix_ms - longest_ms)]
        # Times only grow, so that counting the late ones is a matter of where they begin.
        return any(
            len(self.times) - bisect_right(self.times, now_unix_ms - within_ms) >= most
            for within_ms, most in self.limits
        )


class AskingLimits:
    """Asked once for each confirmation that somebody wants."""

    def __init__(self, now_unix_ms: Callable[[], int]) -> None:
        self._now_unix_ms = now_unix_ms
        self._by_address: dict[Hashable, _Window] = {}
        self._by_client: dict[Hashable, _Window] = {}
        self._all = _Window(IN_ALL)

    def ask(self, address: str, peer: str) -> Answer:
        """Decide about one, and count it. `address` is in the form that is compared."""
        now_unix_ms = self._now_unix_ms()
        # As many of each are remembered as may be asked for in a day; all others are over.
        for windows in (self._by_address, self._by_client):
            if len(windows) > 2 * IN_ALL[-1][1]:
                for key in [k for k, window in windows.items() if _is_over(window, now_unix_ms)]:
                    del windows[key]
        client = self._by_client.setdefault(network_of(peer), _Window(PER_CLIENT))
        if self._all.is_full(now_unix_ms) or client.is_full(now_unix_ms):
            return Answer.REFUSE
        mailbox = self._by_address.setdefault(without_detail(address), _Window(PER_ADDRESS))
        # Counted either way: who tries out addresses is told nothing, and not for long.
        client.times.append(now_unix_ms)
        self._all.times.append(now_unix_ms)
        if mailbox.is_full(now_unix_ms):
            return Answer.KEEP_QUIET
        mailbox.times.append(now_unix_ms)
        return Answer.SEND

    def forgive(self, address: str) -> None:
        """The last one that might go to this mailbox did not: whoever asks again gets it."""
        mailbox = self._by_address.get(without_detail(address))
        if mailbox is not None and mailbox.times:
            mailbox.times.pop()


def without_detail(address: str) -> str:
    """Whose mailbox it is where "+" begins a detail (RFC 5233): one has no end of addresses."""
    local, at, domain = address.rpartition("@")
    return f"{local.partition('+')[0] or local}{at}{domain}"


def network_of(peer: str) -> str:
    """What one client can call its own: an IPv4 address, or the /64 that an IPv6 one is in."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def _is_over(window: _Window, now_unix_ms: int) -> bool:
    window.is_full(now_unix_ms)
    return not window.times
