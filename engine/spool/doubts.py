"""What becomes of mail that the last process had with a server when it died.

Nobody heard the answer, as when a connection is lost behind the final dot, and it is told in the
same way: the attempt counts, its outcome is unknown, and the mail is due at once. If the server had
taken it, its recipient gets it twice; so these are the suspected duplicates.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from engine.spool.interface import AttemptResult, Spool, SpoolFull
from engine.spool.transitions import QUEUE_STATUSES
from protocols.outcomes import lost
from protocols.records import Envelope, Reason, Status
from protocols.smtp_states import Stage

SETTLED_AT_ONCE: Final = 500

log: Final = logging.getLogger("eilpost.spool")


def doubt_of(envelope: Envelope | None, attempt: int, now_unix_ms: int) -> AttemptResult | None:
    """Return what an attempt came to of which only its beginning is noted; None if that is known.

    It is if the envelope has its end, or has counted this attempt already: the process died after
    the commit, before it could forget its note.
    """
    if envelope is None or envelope.state.status not in QUEUE_STATUSES:
        return None
    if envelope.state.attempts >= attempt:
        return None
    reply = lost("we ended before the answer to the final dot", stage=Stage.DOT).reply
    return AttemptResult(
        envelope.fixed.envelope_id,
        attempt,
        Status.DEFERRED,
        now_unix_ms,
        now_unix_ms,
        reply,
        Reason.OUTCOME_UNKNOWN,
    )


async def settle_doubts(spool: Spool, noted: Mapping[int, int]) -> int:
    """Tell of what the last process had handed over, by attempt; return how much that is.

    On a full disk it is told of at the next start, unless it has its end by then.
    """
    found = []
    for envelope_id, attempt in noted.items():
        doubt = doubt_of(await spool.envelope(envelope_id), attempt, spool.now_unix_ms())
        if doubt is not None:
            found.append(doubt)
    with suppress(SpoolFull):
        for start in range(0, len(found), SETTLED_AT_ONCE):
            await spool.settle(found[start : start + SETTLED_AT_ONCE])
    if found:
        log.warning(
            "%d mails may arrive twice: the last process died before the answer to them was "
            "stored. They are listed by: eilpost events --reason outcome_unknown",
            len(found),
        )
    return len(found)
