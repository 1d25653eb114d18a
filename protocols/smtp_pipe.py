"""A transaction that a session is in the middle of, and what a session's end makes of it.

`smtp_client` keeps these in the order of their commands and changes them, alone. Where a session
ends, each envelope in the pipe gets an outcome here: was it attempted, and may it have arrived?
"""

from typing import Final

from protocols.outcomes import Deferred, Outcome, Unattempted
from protocols.records import Reason
from protocols.smtp_states import (
    TRANSACTION_TRANSITIONS,
    Stage,
    TransactionEvent,
    TransactionState,
)
from protocols.transactions import Transaction

# Two transactions can be under way: the one whose final dot is unanswered, and
# the envelope behind it. One means no overlap, for servers that stumble.
PIPELINE_DEPTH_MAX: Final = 2


class InPipe:
    """One transaction under way."""

    __slots__ = ("accepted", "answered", "replied", "state", "transaction")

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.state = TransactionState.ENVELOPE
        self.accepted: list[int] = []  # envelopes whose RCPT got 2yz and that have no outcome
        self.answered = 0  # RCPT replies counted
        self.replied = False  # MAIL was answered: the attempt has begun

    def step(self, event: TransactionEvent) -> None:
        self.state = TRANSACTION_TRANSITIONS[self.state][event]

    def unsettled(self) -> list[int]:
        """Return the envelopes without an outcome."""
        if self.state in (TransactionState.FAILED, TransactionState.DONE):
            return []
        rest = self.transaction.recipients[self.answered :]
        return [*self.accepted, *(envelope_id for envelope_id, _ in rest)]

    def outcome_of_farewell(self, cause: Deferred, stage: Stage, *, is_first: bool) -> Outcome:
        """Return what its envelopes come to when a 421 to one of its commands ends the session.

        `is_first`: nothing was completed in this session before.
        """
        if stage is Stage.MAIL and cause.reason is Reason.CONNECTION and not is_first:
            # An idle connection timed out while our MAIL was on its way. What was delivered before
            # shows that trying again is no endless loop.
            return Unattempted(cause.reply, cause.reason)
        return cause

    def outcome_at_end(self, cause: Deferred, *, is_first: bool, dot_may_be_there: bool) -> Outcome:
        """Return what its envelopes come to when the session ends by anything else.

        A content that may have arrived is `outcome_unknown`. The first transaction of a session
        counts as attempted even if the server left before its first reply, or a server that always
        does so would be tried for ever; later ones have an attempt only once MAIL was answered.
        """
        if self.state is TransactionState.CONTENT:
            if dot_may_be_there:
                return Deferred("4.4.2", cause.reply, Reason.OUTCOME_UNKNOWN, Stage.DOT)
        elif not self.replied and not is_first:
            return Unattempted(cause.reply, cause.reason)
        return cause
