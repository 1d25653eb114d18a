"""Can a destination be reached? What its failures add up to, and when it is tried again.

Owns the destination's record as far as it tells of reachability: a destination that cannot
be reached backs off as a whole, with the waits of the retry schedule, and uses up no attempt
of the mails behind it. Pure decisions; time is an argument. Connects to nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protocols.outcomes import Bounced, Deferred, Delivered, Unattempted
from protocols.records import DestinationRecord, Reason
from protocols.smtp_states import Stage

# So many refusals in a row for going too fast are about the destination, not about the mails.
THROTTLED_RUN_MAX: Final = 20
# A session that ends before the server did any work may be chance; two of them are not.
BAD_SESSIONS_MIN: Final = 2
# A destination that gave up its place in front of a full site is woken by the site; this is only
# for the case that it is not.
PARKED_MS: Final = 30_000
PARKED_CAUSE: Final = "connection_limit"
# Causes that the limits themselves are asked about again: what they said then is out of date.
_ASKED_AGAIN: Final = frozenset({PARKED_CAUSE, "rate_limit"})

# Deferrals that say nothing about whether the server does its work.
_SILENT_REASONS: Final = frozenset(
    {Reason.CONNECTION, Reason.OUTCOME_UNKNOWN, Reason.THROTTLED, Reason.TLS, Reason.PROTOCOL}
)


@dataclass(slots=True)
class Health:
    """What one actor has learned about its destination. `backoff_ms` gives the n-th wait.

    The methods that return bool say whether the destination has to rest now; its record then
    has the cause and the time.
    """

    record: DestinationRecord
    backoff_ms: Callable[[int], int]
    failed_openings: int = 0
    bad_sessions: int = 0
    throttled_run: int = 0

    def take_up(self, stored: DestinationRecord) -> None:
        """Go on from what the last actor left."""
        self.record = stored
        # A place at the site may be free at any time, and a rate may have changed.
        if stored.cause in _ASKED_AGAIN:
            stored.not_before_unix_ms = 0

    @property
    def is_unreachable(self) -> bool:
        return self.record.failures > 0

    def heard_since_s(self, began_s: float) -> float:
        """Return from when on it counts what others heard, of an actor that began at `began_s`.

        Who was asked to try before his time asks for himself.
        """
        return began_s if self.record.scheduled_unix_ms else -math.inf

    def name_failed(self, reason: Reason, text: str, now_unix_ms: int) -> None:
        """Its name did not resolve, for now."""
        self._back_off("dns_failure", reason, text, now_unix_ms)

    def opening_failed(self, failure: Deferred, *, others: int, now_unix_ms: int) -> bool:
        """No host took a connection; `others` of ours are open or being opened."""
        self.failed_openings += 1
        if others:
            return False
        self._back_off("destination_unreachable", failure.reason, failure.reply, now_unix_ms)
        return True

    def opened(self) -> None:
        self.failed_openings = 0

    def session_ended(
        self, cause: Deferred, *, was_good: bool, others: int, now_unix_ms: int
    ) -> bool:
        """A session ended that we did not end; `was_good` if the server did any work in it."""
        self.bad_sessions = 0 if was_good else self.bad_sessions + 1
        # A 421 to the first command of each session is a server that is there and will not work.
        if others or self.bad_sessions < BAD_SESSIONS_MIN:
            return False
        self._back_off("destination_unreachable", cause.reason, cause.reply, now_unix_ms)
        return True

    @property
    def is_doubtful(self) -> bool:
        """Whether one connection at a time should show first that there is somebody at work."""
        return self.failed_openings > 0 or self.bad_sessions > 0

    def delivered(self) -> None:
        self.throttled_run = self.bad_sessions = 0
        record = self.record
        if record.reply or record.failures:
            self._reached()
            record.reply, record.reason = "", None

    def refused(self, outcome: Deferred | Bounced, now_unix_ms: int) -> bool:
        """One mail was deferred or bounced."""
        record = self.record
        is_throttled = outcome.reason is Reason.THROTTLED
        self.throttled_run = self.throttled_run + 1 if is_throttled else 0
        if self.throttled_run >= THROTTLED_RUN_MAX:
            self.throttled_run = 0
            self._back_off("destination_unreachable", outcome.reason, outcome.reply, now_unix_ms)
            return True
        if is_work(outcome):
            self.bad_sessions = 0
            if record.failures:
                self._reached()
        record.reply, record.reason = outcome.reply, outcome.reason
        return False

    def hold_until(self, unix_ms: int, cause: str, now_unix_ms: int) -> None:
        """Nothing can go before `unix_ms`, for a reason that is ours."""
        record = self.record
        if record.cause != cause:
            record.cause, record.since_unix_ms = cause, now_unix_ms
        record.not_before_unix_ms = unix_ms

    def park(self, now_unix_ms: int) -> None:
        """Its site is full, and wakes it when it has a place."""
        self.hold_until(now_unix_ms + PARKED_MS, PARKED_CAUSE, now_unix_ms)

    def _reached(self) -> None:
        record = self.record
        record.failures, record.cause, record.since_unix_ms = 0, "", 0
        record.scheduled_unix_ms = 0

    def _back_off(self, cause: str, reason: Reason, reply: str, now_unix_ms: int) -> None:
        record = self.record
        if record.failures and record.scheduled_unix_ms > now_unix_ms:
            # Somebody had it tried before its time: that is no step of the schedule.
            record.not_before_unix_ms = record.scheduled_unix_ms
        else:
            record.failures += 1
            record.not_before_unix_ms = now_unix_ms + self.backoff_ms(record.failures)
            if record.failures == 1:
                record.since_unix_ms = 0
        record.scheduled_unix_ms = 0
        record.since_unix_ms = record.since_unix_ms or now_unix_ms
        record.cause, record.reason, record.reply = cause, reason, reply


def is_work(outcome: Delivered | Deferred | Bounced | Unattempted) -> bool:
    """Say whether an outcome shows a server that does its work, whatever it thinks of the mail."""
    if isinstance(outcome, Deferred):
        return outcome.reason not in _SILENT_REASONS
    if isinstance(outcome, Bounced):
        return outcome.stage is not Stage.LOCAL
    return isinstance(outcome, Delivered)
