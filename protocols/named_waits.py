"""Replies that name a time: "try again in 5 minutes". Plain words in, milliseconds out."""

import re
from typing import Final

# Longer than a day is no throttle, and a number of a stranger's choosing must not hold mail longer.
WAIT_MS_MAX: Final = 86_400_000
# A reason stands at a reply's beginning; what follows are links and addresses.
CHARACTERS_MAX: Final = 1024

_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000}
_NAMED: Final = re.compile(
    r"\b(?:in|after|for|wait|within|every) (?:about |at least )?(\d{1,6}) ?"
    r"(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b"
)


def named_wait_ms(reply: str) -> int | None:
    """Return the wait that a reply asks for, at most a day; None if it names none."""
    found = _NAMED.search(reply[:CHARACTERS_MAX].lower())
    if found is None or int(found[1]) == 0:
        return None
    return min(int(found[1]) * _UNIT_MS[found[2][0]], WAIT_MS_MAX)
