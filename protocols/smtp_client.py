"""Our end of an SMTP session: transactions in, octets and outcomes out (RFC 5321, 2920, 3207).

Owns the order of commands, the counting of replies and what each reply means
for which envelope. It has no socket and no clock: whoever drives it writes
`data_to_send()`, hands in what was read, and says when the connection is lost.

The wire is kept full. Where the server pipelines, the content of one mail, its
final dot and MAIL, RCPT and DATA of the next travel together, so that a mail
costs one round trip. More is not possible without CHUNKING: nothing may follow
DATA before its 354.

    client.receive(b"250 mx.example\\r\\n")    -> [SessionReady(capabilities)]
    client.send(Transaction("a@out.example", [(17, "b@mx.example")], content))
    client.data_to_send()                      -> [b"MAIL FROM:...", b"RCPT TO:...", b"DATA"]
"""

from collections import deque
from collections.abc import Sequence

import msgspec

from protocols import commands
from protocols.capabilities import NO_CAPABILITIES, parse_capabilities
from protocols.content import FINAL_DOT, to_wire
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.outcomes import (
    Deferred,
    Outcome,
    Unattempted,
    is_too_many_recipients,
    lost,
    outcome_of,
    refused_locally,
)
from protocols.records import Reason
from protocols.replies import Reply, ReplyParser
from protocols.smtp_pipe import PIPELINE_DEPTH_MAX, InPipe
from protocols.smtp_states import (
    CLIENT_TRANSITIONS,
    LEGAL_REPLIES,
    ClientEvent,
    ClientState,
    Stage,
    TransactionEvent,
    TransactionState,
    Verdict,
)
from protocols.transactions import (
    Closed,
    EnvelopeOutcome,
    Result,
    SessionReady,
    StartTls,
    TlsPolicy,
    Transaction,
    envelope_commands,
    recipients_fit_for_wire,
    refusal_known_beforehand,
)

__all__ = ["Closed", "EnvelopeOutcome", "Result", "SessionReady", "SmtpClient", "Transaction"]


class SmtpClient:
    """One session, from the banner to QUIT. Not to be used again after `Closed`."""

    def __init__(
        self,
        ehlo_name: str,
        *,
        tls: TlsPolicy = TlsPolicy.NONE,
        pipeline_depth: int = PIPELINE_DEPTH_MAX,
    ) -> None:
        """Raises LocalProtocolError when `ehlo_name` is no host name."""
        assert 1 <= pipeline_depth <= PIPELINE_DEPTH_MAX, pipeline_depth
        self._ehlo = commands.ehlo(ehlo_name)
        self._helo = commands.helo(ehlo_name)
        self._tls_policy = tls
        self._depth = pipeline_depth
        self._state = ClientState.BANNER
        self._parser = ReplyParser()
        # What each reply to come answers, oldest first: replies are counted, and
        # never recognised by their text (RFC 2920 3.1).
        self._expected: deque[tuple[Stage, InPipe | None]] = deque([(Stage.BANNER, None)])
        # How many of these were given out for sending: the others can have no reply yet.
        self._awaited = 1
        self._out: list[bytes] = []
        self._octets_after_dot: int | None = None  # None when no final dot is unanswered
        self._dot_given_out = False
        self._handing_over: list[int] = []
        self._pipe: deque[InPipe] = deque()
        self._reset_due = False
        self._results: list[Result] = []
        self.capabilities = NO_CAPABILITIES
        self.tls_active = False
        self.transactions_completed = 0
        self.replies_counted = 0
        self.recipients_max: int | None = None  # learned from "too many recipients"

    # What a driver asks.

    @property
    def is_closed(self) -> bool:
        """Whether `Closed` was given: nothing more will come of this session."""
        return self._state is ClientState.CLOSED

    @property
    def is_idle(self) -> bool:  # no reply is outstanding
        return not self._expected

    @property
    def waiting_for(self) -> Stage | None:
        """What the next reply will answer: its timeout is the one that runs."""
        if self._state is ClientState.HANDSHAKE:
            return Stage.TLS
        return self._expected[0][0] if self._expected else None

    @property
    def wants_transaction(self) -> bool:
        """Whether `send` may be called now, so that what it says can go out at once."""
        if self._state is not ClientState.READY:
            return False
        pipe = self._pipe
        if not pipe:
            return not self._expected
        return (
            len(pipe) < self._depth
            and self.capabilities.pipelining
            and pipe[-1].state in (TransactionState.CONTENT, TransactionState.EMPTY)
        )

    @property
    def _stage_of_end(self) -> Stage:
        # An idle session may end, but one that ends before its first mail did not begin.
        return self.waiting_for or (Stage.QUIT if self.transactions_completed else Stage.EHLO)

    # What a driver tells.

    def send(self, transaction: Transaction) -> list[Result]:
        """Put a transaction into the pipe.

        Returns outcomes at once for what this server is known not to take (too
        large, 8-bit or UTF-8 not supported) and for addresses that cannot stand
        in a command; nothing is sent for these. Raises LocalProtocolError when
        `wants_transaction` is False or there is no recipient.
        """
        if not self.wants_transaction or not transaction.recipients:
            raise LocalProtocolError("no transaction can be sent now")
        refused = refusal_known_beforehand(transaction, self.capabilities)
        if refused is not None:
            return [
                EnvelopeOutcome(envelope_id, refused) for envelope_id, _ in transaction.recipients
            ]
        try:
            lines = envelope_commands(transaction, self.capabilities)
        except LocalProtocolError as error:
            return self._send_what_is_fit(transaction, str(error))
        pipe = InPipe(transaction)
        self._pipe.append(pipe)
        if not self.capabilities.pipelining:
            self._say(lines[0], Stage.MAIL, pipe)
            return []
        expected = self._expected
        if self._reset_due:
            self._reset_due = False
            self._say(commands.RSET, Stage.RSET, None)
        expected.append((Stage.MAIL, pipe))
        for _ in transaction.recipients:
            expected.append((Stage.RCPT, pipe))
        expected.append((Stage.DATA, pipe))
        self._out += lines
        self._out.append(commands.DATA)
        if self._octets_after_dot is not None:
            self._octets_after_dot += sum(map(len, lines)) + len(commands.DATA)
        return []

    def data_to_send(self) -> list[bytes]:
        """Return the octets to be written now, in order; the caller must write them all."""
        out = self._out
        self._out = []
        self._awaited = len(self._expected)
        self._dot_given_out = self._octets_after_dot is not None
        return out

    def handing_over(self) -> list[int]:
        """Return, once, the envelopes whose final dot the next `data_to_send()` has."""
        found, self._handing_over = self._handing_over, []
        return found

    def receive(self, data: bytes) -> list[Result]:
        """Take what was read, in pieces of any size, and return what it amounts to."""
        if self.is_closed:
            return []
        results = self._results = []
        try:
            for reply in self._parser.receive(data):
                self._take(reply)
                if self._state is ClientState.CLOSED:
                    return results
            if self._state is ClientState.HANDSHAKE and self._parser.holds_octets:
                raise RemoteProtocolError("octets behind the reply to STARTTLS")
        except RemoteProtocolError as error:
            self._end_broken(str(error))
        return results

    def tls_started(self) -> None:
        """The handshake is done: everything learned before it is forgotten (RFC 3207 4.2)."""
        self._step(ClientEvent.SECURED)
        self.tls_active = True
        self.capabilities = NO_CAPABILITIES
        self._parser = ReplyParser()
        self._say(self._ehlo, Stage.EHLO, None)

    def quit(self) -> None:
        """Say QUIT. The session must be idle."""
        if self._expected:
            raise LocalProtocolError("QUIT with replies outstanding")
        self._step(ClientEvent.QUIT)
        self._say(commands.QUIT, Stage.QUIT, None)

    def connection_lost(
        self,
        what: str,
        *,
        reason: Reason = Reason.CONNECTION,
        octets_unsent: int = 0,
        last_words: bytes = b"",
    ) -> list[Result]:
        """The connection ended, by whomever; `what` is for the reply text.

        `octets_unsent` is how many of the last `data_to_send()` certainly did not
        leave: if the final dot is among them, the mail was not delivered for
        sure; else nobody knows (`outcome_unknown`). `last_words` were read after
        the end was noticed.
        """
        told: list[Result] = []
        if last_words:
            dot_unsent = self._octets_after_dot is not None and not self.dot_left(octets_unsent)
            told = self._last_words(last_words) if dot_unsent else self.receive(last_words)
        if self.is_closed:
            return told
        results = self._results = told
        stage = self._stage_of_end
        self._end(lost(what, stage=stage, reason=reason), octets_unsent=octets_unsent)
        return results

    def _last_words(self, data: bytes) -> list[Result]:
        """Read a refusal that came before the end of the content; a yes would be a lie."""
        results = self._results = []
        try:
            reply = next(self._parser.receive(data), None)
        except RemoteProtocolError:
            return results
        if reply is not None and reply.code >= 400:
            pipe = self._pipe[0]
            outcome = outcome_of(reply, stage=Stage.DOT, recipients=len(pipe.accepted))
            self._settle(pipe.accepted, outcome)
            pipe.accepted = []
        return results

    def dot_left(self, octets_unsent: int) -> bool:
        """Whether the final dot under way may have reached the server."""
        return self._dot_given_out and octets_unsent <= (self._octets_after_dot or 0)

    # Replies.

    def _take(self, reply: Reply) -> None:
        """Count one reply and act on it. Raises RemoteProtocolError when it cannot be right."""
        if self._state is ClientState.HANDSHAKE:
            raise RemoteProtocolError("a reply behind the reply to STARTTLS")
        if not self._awaited:
            if reply.code == 421:  # RFC 5321 3.8: may come at any time
                self._end_by_reply(reply, self._stage_of_end, None)
                return
            raise RemoteProtocolError(f"reply to no command: {reply.on_one_line}")
        self._awaited -= 1
        self.replies_counted += 1
        stage, pipe = self._expected.popleft()
        if reply.code == 421:
            self._end_by_reply(reply, stage, pipe)
            return
        verdict = LEGAL_REPLIES[stage].get(reply.code // 100)
        if verdict is None:
            self._expected.appendleft((stage, pipe))
            raise RemoteProtocolError(f"impossible reply to {stage}: {reply.on_one_line}")
        if pipe is None:
            self._take_in_session(stage, verdict, reply)
        elif stage is Stage.RCPT:
            self._take_rcpt(pipe, verdict, reply)
        elif stage is Stage.MAIL:
            self._take_mail(pipe, verdict, reply)
        elif stage is Stage.DATA:
            self._take_data(pipe, verdict, reply)
        else:
            self._take_dot(pipe, reply)

    def _take_in_session(self, stage: Stage, verdict: Verdict, reply: Reply) -> None:
        is_accepted = verdict is Verdict.ACCEPTED
        if stage is Stage.BANNER and is_accepted:
            self._step(ClientEvent.GREETED)
            self._say(self._ehlo, Stage.EHLO, None)
        elif stage is Stage.EHLO:
            self._take_ehlo(is_accepted, reply)
        elif stage is Stage.STARTTLS:
            self._take_starttls(is_accepted, reply)
        elif stage is Stage.RSET:
            pass
        else:
            self._end_by_reply(reply, stage, None)

    def _take_ehlo(self, is_accepted: bool, reply: Reply) -> None:
        if not is_accepted:
            may_fall_back = (
                reply.code >= 500
                and self._state is ClientState.EHLO
                and (self.tls_active or self._tls_policy is not TlsPolicy.REQUIRED)
            )
            if may_fall_back:
                self._step(ClientEvent.REFUSED)
                self._say(self._helo, Stage.EHLO, None)
            else:
                self._end_by_reply(reply, Stage.EHLO, None)
            return
        if self._state is ClientState.EHLO:
            self.capabilities = parse_capabilities(reply.lines)
        wants_tls = self._tls_policy is not TlsPolicy.NONE and not self.tls_active
        if wants_tls and self.capabilities.starttls:
            self._step(ClientEvent.OFFERS_TLS)
            self._say(commands.STARTTLS, Stage.STARTTLS, None)
        elif wants_tls and self._tls_policy is TlsPolicy.REQUIRED:
            what = "TLS is required and the server does not offer it"
            self._end(lost(what, stage=Stage.STARTTLS, reason=Reason.TLS))
        else:
            self._step(ClientEvent.ACCEPTED)
            self._results.append(SessionReady(self.capabilities))

    def _take_starttls(self, is_accepted: bool, reply: Reply) -> None:
        if is_accepted:
            self._step(ClientEvent.ACCEPTED)
            self._results.append(StartTls())
        elif self._tls_policy is TlsPolicy.REQUIRED:
            self._end_by_reply(reply, Stage.STARTTLS, None)
        else:
            self._step(ClientEvent.REFUSED)
            self._results.append(SessionReady(self.capabilities))

    def _take_mail(self, pipe: InPipe, verdict: Verdict, reply: Reply) -> None:
        pipe.replied = True
        if verdict is Verdict.REFUSED:
            self._settle(pipe.unsettled(), outcome_of(reply, stage=Stage.MAIL))
            pipe.step(TransactionEvent.SENDER_REFUSED)
            if not self.capabilities.pipelining:
                pipe.step(TransactionEvent.REFUSED)
                self._pipe.popleft()
        elif not self.capabilities.pipelining:
            self._say_next_rcpt(pipe)

    def _take_rcpt(self, pipe: InPipe, verdict: Verdict, reply: Reply) -> None:
        envelope_id, _ = pipe.transaction.recipients[pipe.answered]
        if pipe.state is TransactionState.ENVELOPE:
            if verdict is Verdict.ACCEPTED:
                pipe.accepted.append(envelope_id)
            elif is_too_many_recipients(reply, accepted=len(pipe.accepted)):
                self.recipients_max = len(pipe.accepted)
                self._settle([envelope_id], Unattempted(reply.on_one_line, Reason.THROTTLED))
            else:
                self._settle([envelope_id], outcome_of(reply, stage=Stage.RCPT))
        pipe.answered += 1
        if self.capabilities.pipelining:
            return
        if pipe.answered < len(pipe.transaction.recipients):
            self._say_next_rcpt(pipe)
        elif pipe.accepted:
            self._say(commands.DATA, Stage.DATA, pipe)
        else:
            self._finish_envelope(pipe)

    def _take_data(self, pipe: InPipe, verdict: Verdict, reply: Reply) -> None:
        if verdict is Verdict.GO_AHEAD:
            if pipe.accepted:
                pipe.step(TransactionEvent.GO_AHEAD)
                self._handing_over = list(pipe.accepted)
                content = to_wire(pipe.transaction.content)
                if content:
                    self._out.append(content)
            else:
                # RFC 2920 3.1: the server may take DATA though it took no recipient.
                pipe.step(TransactionEvent.GO_AHEAD_FOR_NOBODY)
            self._say(FINAL_DOT, Stage.DOT, pipe)
            self._octets_after_dot = 0
            self._dot_given_out = False
            return
        if pipe.accepted:
            outcome = outcome_of(reply, stage=Stage.DATA, recipients=len(pipe.accepted))
            self._settle(pipe.accepted, outcome)
        self._finish_envelope(pipe)

    def _take_dot(self, pipe: InPipe, reply: Reply) -> None:
        if pipe.state is TransactionState.CONTENT:
            outcome = outcome_of(reply, stage=Stage.DOT, recipients=len(pipe.accepted))
            self._settle(pipe.accepted, outcome)
        pipe.step(TransactionEvent.ANSWERED)
        self._pipe.popleft()
        self._octets_after_dot = None
        self._dot_given_out = False
        self.transactions_completed += 1

    # Commands.

    def _say(self, octets: bytes, stage: Stage, pipe: InPipe | None) -> None:
        self._out.append(octets)
        self._expected.append((stage, pipe))

    def _say_next_rcpt(self, pipe: InPipe) -> None:
        transaction = pipe.transaction
        _, address = transaction.recipients[pipe.answered]
        self._say(commands.rcpt(address, utf8=transaction.needs_utf8), Stage.RCPT, pipe)

    def _finish_envelope(self, pipe: InPipe) -> None:
        """End a transaction whose DATA was refused or never sent."""
        is_open_at_server = pipe.state is TransactionState.ENVELOPE
        pipe.step(TransactionEvent.REFUSED)
        self._pipe.popleft()
        self.transactions_completed += 1
        if not is_open_at_server:
            return
        # The server still has our reverse path: a second MAIL would be nested.
        if self.capabilities.pipelining:
            self._reset_due = True
        else:
            self._say(commands.RSET, Stage.RSET, None)

    def _send_what_is_fit(self, transaction: Transaction, what: str) -> list[Result]:
        """Refuse the recipients whose address is unfit for the wire and send the others."""
        fit = recipients_fit_for_wire(transaction)
        refused = refused_locally(553, "5.1.3", f"not sent: {what}", Reason.PROTOCOL)
        unfit = [pair[0] for pair in transaction.recipients if pair not in fit]
        results: list[Result] = [EnvelopeOutcome(envelope_id, refused) for envelope_id in unfit]
        rest = msgspec.structs.replace(transaction, recipients=fit)
        return results + self.send(rest) if fit else results

    # The end.

    def _settle(self, envelope_ids: Sequence[int], outcome: Outcome) -> None:
        self._results += [EnvelopeOutcome(envelope_id, outcome) for envelope_id in envelope_ids]

    def _step(self, event: ClientEvent) -> None:
        following = CLIENT_TRANSITIONS[self._state].get(event)
        if following is None:
            raise LocalProtocolError(f"{event.value}: not while {self._state.value}")
        self._state = following

    def _end_by_reply(self, reply: Reply, stage: Stage, pipe: InPipe | None) -> None:
        """The server ends the session with a reply: a 421, or a refusal to begin one."""
        cause = outcome_of(reply, stage=stage)
        assert isinstance(cause, Deferred), reply  # 421, or a stage of the session
        if stage is Stage.STARTTLS:
            cause = msgspec.structs.replace(cause, reason=Reason.TLS)
        if pipe is not None:
            is_first = not self.transactions_completed
            outcome = pipe.outcome_of_farewell(cause, stage, is_first=is_first)
            self._settle(pipe.unsettled(), outcome)
            self._pipe.remove(pipe)
            self.transactions_completed += 1
        self._end(cause)

    def _end_broken(self, what: str) -> None:
        """The peer does not speak SMTP (any more)."""
        if self._state is ClientState.HANDSHAKE:
            # Whoever adds octets before the handshake wants us to read them
            # after it (CVE-2021-38371). The order to start TLS is withdrawn.
            self._results.clear()
            cause = lost(what, stage=Stage.STARTTLS, reason=Reason.TLS)
        else:
            cause = lost(what, stage=self._stage_of_end, reason=Reason.PROTOCOL)
        self._end(cause)

    def _end(self, cause: Deferred, *, octets_unsent: int = 0) -> None:
        """Give every envelope in the pipe its outcome and close."""
        for pipe in self._pipe:
            outcome = pipe.outcome_at_end(
                cause,
                is_first=not self.transactions_completed,
                dot_may_be_there=self.dot_left(octets_unsent),
            )
            self._settle(pipe.unsettled(), outcome)
            self.transactions_completed += 1
        self._pipe.clear()
        self._step(ClientEvent.CLOSE)
        self._expected.clear()
        self._out.clear()
        self._results.append(Closed(cause))
