"""One SMTP session with one MX address under one TLS policy.

Owns the life of a connection: open, keep the pipe full, quit; and the timeouts.
It asks for work through `next_transaction`, which must not wait, and tells what
came of each envelope through `report`. Whatever goes wrong with the peer or the
network comes out as outcomes; only cancellation and our own mistakes raise.
Which address to try, how many connections there may be, and when to try again
are not decided here.

    connection = await Connection.open(target, tls_contexts=contexts)
    if isinstance(connection, Deferred): ...   # could not open; its `stage` says where
    await connection.deliver(next_transaction, report)
    await connection.quit()
"""

import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import trio

from engine.delivery.target import Target, TlsContexts
from engine.delivery.wire import Connect, TlsWire, Wire, WireBroken, connect_tcp
from protocols.capabilities import Capabilities
from protocols.outcomes import Deferred, Delivered, lost
from protocols.records import Reason
from protocols.smtp_client import SmtpClient
from protocols.smtp_pipe import PIPELINE_DEPTH_MAX
from protocols.smtp_states import Stage
from protocols.transactions import (
    Closed,
    EnvelopeOutcome,
    Result,
    SessionReady,
    Transaction,
)

# RFC 5321 4.5.3.2. It gives none for connecting, where half a minute is what a
# kernel's first retries take, and none for EHLO, which is slow for the same
# reasons as the banner. The final dot must never be cut short: the server may
# have taken the mail already, and a second copy would follow.
TIMEOUT_S: Final = MappingProxyType(
    {
        Stage.CONNECT: 30.0,
        Stage.BANNER: 300.0,
        Stage.EHLO: 300.0,
        Stage.STARTTLS: 120.0,
        Stage.TLS: 60.0,
        Stage.MAIL: 300.0,
        Stage.RCPT: 300.0,
        Stage.DATA: 120.0,
        Stage.DOT: 600.0,
        Stage.RSET: 120.0,
        # Nothing depends on the reply to QUIT.
        Stage.QUIT: 2.0,
    }
)
CONTENT_BLOCK_TIMEOUT_S: Final = 180.0
# Contents up to this size are one block; the socket takes most of them at once.
CONTENT_BLOCK_OCTETS: Final = 65536
# A deadline is moved when it is off by more than this, so that a connection at
# full speed touches trio's timers once in ten seconds and not for each mail.
DEADLINE_SLACK_S: Final = 10.0

NextTransaction = Callable[[], Transaction | None]
Report = Callable[[Sequence[EnvelopeOutcome]], None]
HandingOver = Callable[[Sequence[int]], None]


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Counts since the connection was opened. `tls` is "" for plain text."""

    transactions: int
    delivered: int
    octets_sent: int
    tls: str
    tls_resumed: bool
    pipelining: bool
    recipients_max: int | None
    waiting_for: Stage | None
    is_open: bool


class Connection:
    """An open session. One task at a time uses it; obtained from `open`."""

    def __init__(self, target: Target, wire: Wire, client: SmtpClient) -> None:
        self.target: Final = target
        self._wire = wire
        self._client = client
        self._cause: Deferred | None = None
        self._delivered = 0
        self._octets_sent = 0
        # What lies behind the block that is being written; None when nothing is.
        self._octets_waiting: int | None = None
        self._tls = ""
        self._tls_resumed = False
        # While `deliver` runs: its limit, and when the server did something last (trio's clock).
        self._limits: trio.CancelScope | None = None
        self._stirred_s = 0.0
        self._abandoned = ""

    @classmethod
    async def open(
        cls,
        target: Target,
        *,
        tls_contexts: TlsContexts,
        connect: Connect = connect_tcp,
        pipeline_depth: int = PIPELINE_DEPTH_MAX,
    ) -> "Connection | Deferred":
        """Connect, read the banner, say EHLO, start TLS as the policy asks.

        Returns the open connection, or why there is none: `stage` is how far it
        came. When that is `Stage.TLS` and the policy opportunistic, the caller may
        try again with `TlsPolicy.NONE`; any other failure is no reason to.
        """
        wire: Wire | None = None
        with trio.move_on_after(TIMEOUT_S[Stage.CONNECT]):
            try:
                wire = await connect(target.address, target.port, target.source)
            except OSError as error:
                what = (error.strerror or str(error)).lower()
                return lost(f"{_place(target)}: {what}", stage=Stage.CONNECT)
        if wire is None:
            limit_s = TIMEOUT_S[Stage.CONNECT]
            what = f"{_place(target)}: no connection within {limit_s:.0f} s"
            return lost(what, stage=Stage.CONNECT)
        client = SmtpClient(target.ehlo_name, tls=target.tls, pipeline_depth=pipeline_depth)
        connection = cls(target, wire, client)
        try:
            await connection._begin(tls_contexts)
        except BaseException:
            connection._wire.close()
            raise
        return connection if connection._cause is None else connection._cause

    # What an actor asks.

    @property
    def is_open(self) -> bool:
        return self._cause is None

    @property
    def cause(self) -> Deferred | None:
        """Why the session ended; None while it is open. The reply may ask to slow down."""
        return self._cause

    @property
    def capabilities(self) -> Capabilities:
        return self._client.capabilities

    @property
    def tls(self) -> str:
        """Return "TLSv1.3 TLS_AES_256_GCM_SHA384" or the like, "" for plain text."""
        return self._tls

    @property
    def transactions_completed(self) -> int:
        return self._client.transactions_completed

    @property
    def recipients_max(self) -> int | None:
        """How many recipients a transaction may have, once the server has complained."""
        return self._client.recipients_max

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            transactions=self._client.transactions_completed,
            delivered=self._delivered,
            octets_sent=self._octets_sent,
            tls=self._tls,
            tls_resumed=self._tls_resumed,
            pipelining=self._client.capabilities.pipelining,
            recipients_max=self._client.recipients_max,
            waiting_for=self._client.waiting_for,
            is_open=self.is_open,
        )

    # What an actor does.

    async def deliver(
        self,
        next_transaction: NextTransaction,
        report: Report,
        handing_over: HandingOver = lambda envelope_ids: None,
    ) -> None:
        """Deliver until `next_transaction` returns None and every envelope has its outcome.

        `next_transaction` is called whenever the pipe has room and must not wait;
        after a None it is asked again when the next reply comes. `report` gets
        each envelope's outcome once, in batches as the replies come in;
        `handing_over` the ids whose final dot is sent next. The session may end
        meanwhile: see `is_open`. On cancellation the envelopes under way are
        reported (content that may have arrived as `outcome_unknown`) and the
        connection is closed.
        """
        client = self._client
        self._stirred_s = trio.current_time()
        with trio.CancelScope(deadline=self._stirred_s + TIMEOUT_S[Stage.DOT]) as scope:
            self._limits = scope
            try:
                self._look_before_use(report)
                replies_seen = client.replies_counted
                while self.is_open:
                    while client.wants_transaction:
                        transaction = next_transaction()
                        if transaction is None:
                            break
                        self._take(client.send(transaction), report)
                    if handed_over := client.handing_over():
                        handing_over(handed_over)
                    out = client.data_to_send()
                    if out:
                        await self._write(out, scope)
                    elif client.is_idle:
                        return
                    # A reply that drips in moves no deadline until it is whole.
                    if out or client.replies_counted != replies_seen:
                        replies_seen = client.replies_counted
                        self._limit(scope, TIMEOUT_S[client.waiting_for or Stage.DOT])
                    await self._read(report)
            except WireBroken as error:
                self._break(str(error), report, octets_unsent=error.octets_unsent)
            except trio.Cancelled:
                what = self._what_was_awaited() if scope.cancel_called else "interrupted"
                self._break(what, report, octets_unsent=self._octets_unsent())
                raise
            finally:
                self._limits = None

    def waited_s(self) -> tuple[float, float] | None:
        """Return how long the server has owed an answer, and how long it is waited for yet.

        None while it owes none. What it is sent and takes counts as an answer, too.
        """
        if self._limits is None or not self.is_open or self._client.is_idle:
            return None
        now_s = trio.current_time()
        return now_s - self._stirred_s, max(0.0, self._limits.deadline - now_s)

    def abandon(self, what: str) -> None:
        """Break off what `deliver` has under way, unless some of it may have arrived whole."""
        if self._limits is not None and not self._client.dot_left(self._octets_unsent()):
            self._abandoned = what
            self._limits.cancel()

    async def quit(self) -> None:
        """Say goodbye if the session is open and idle, and close."""
        if self.is_open and self._client.is_idle:
            self._client.quit()
            with trio.move_on_after(TIMEOUT_S[Stage.QUIT]):
                # If it is gone already, that is what we wanted.
                with contextlib.suppress(WireBroken):
                    await self._send_command()
                    await self._read(_report_nothing)
        self.close()

    def close(self) -> None:
        """Close without a word. Not while `deliver` runs: cancel that.

        After `deliver` was left by an exception of a callback, what was under way
        has no outcome; the process is about to end then.
        """
        if self.is_open and self._client.is_idle:
            self._client.quit()  # so that the cause says that it was us
        self._break("closed", _report_to_nobody)

    # The opening.

    async def _begin(self, tls_contexts: TlsContexts) -> None:
        """Bring the session to its first transaction, or end it."""
        is_ready = False
        while self.is_open and not is_ready:
            stage = self._client.waiting_for or Stage.BANNER
            limit_s = TIMEOUT_S[stage]
            with trio.move_on_after(limit_s) as scope:
                try:
                    is_ready = await self._one_stage(stage, tls_contexts)
                except WireBroken as error:
                    self._break(str(error), _report_nothing)
            if scope.cancelled_caught:
                what = f"no reply to {stage} within {limit_s:.0f} s"
                if stage in (Stage.BANNER, Stage.TLS):
                    what = f"no {stage} within {limit_s:.0f} s"
                self._break(what, _report_nothing)

    async def _one_stage(self, stage: Stage, tls_contexts: TlsContexts) -> bool:
        """Read until the stage is over and act on it; return whether transactions may start."""
        client = self._client
        if stage is Stage.TLS:
            await self._start_tls(tls_contexts)
            await self._send_command()
        is_ready = False
        while self.is_open and client.waiting_for is stage:
            for result in client.receive(await self._receive()):
                if isinstance(result, SessionReady):
                    is_ready = True
                elif isinstance(result, Closed):
                    self._end(result.cause)
            await self._send_command()
        if is_ready and isinstance(self._wire, TlsWire):
            tls_contexts.remember(self.target, self._wire.session)
        return is_ready

    async def _send_command(self) -> None:
        out = self._client.data_to_send()
        if out:
            await self._wire.send(b"".join(out))

    async def _start_tls(self, tls_contexts: TlsContexts) -> None:
        wire = tls_contexts.wrap(self._wire, self.target)
        try:
            await wire.handshake()
        except ssl.SSLError as error:
            what = f"TLS handshake: {(error.reason or str(error)).replace('_', ' ').lower()}"
            self._break(what, _report_nothing, reason=Reason.TLS)
            return
        self._wire = wire
        self._tls = wire.description
        self._tls_resumed = wire.session_reused
        self._client.tls_started()

    # The wire.

    async def _receive(self) -> bytes:
        data = await self._wire.receive()
        if not data:
            raise WireBroken("the server closed the connection")
        return data

    async def _read(self, report: Report) -> None:
        self._take(self._client.receive(await self._receive()), report)

    def _look_before_use(self, report: Report) -> None:
        """See whether the server has left while the connection was idle.

        Before anything is sent, so that no mail is charged with an attempt. Where
        it left before its first mail, `cause` has the stage EHLO.
        """
        data = self._wire.receive_nowait()
        if data == b"":
            raise WireBroken("the server closed the idle connection")
        if data:
            self._take(self._client.receive(data), report)

    async def _write(self, chunks: Sequence[bytes], scope: trio.CancelScope) -> None:
        data = b"".join(chunks)
        self._octets_waiting = 0
        if len(data) <= CONTENT_BLOCK_OCTETS:
            # A server slow to ask for the content has left little of its time. Where the limit
            # of an earlier reply is longer it stays: for each mail, timers would cost too much.
            least = trio.current_time() + CONTENT_BLOCK_TIMEOUT_S
            if scope.deadline < least:
                scope.deadline = least + DEADLINE_SLACK_S
            await self._wire.send(data)
        else:
            await self._write_blocks(memoryview(data), scope)
        self._octets_waiting = None
        self._octets_sent += len(data)

    async def _write_blocks(self, rest: memoryview, scope: trio.CancelScope) -> None:
        while rest:
            block, rest = rest[:CONTENT_BLOCK_OCTETS], rest[CONTENT_BLOCK_OCTETS:]
            self._octets_waiting = len(rest)
            self._limit(scope, CONTENT_BLOCK_TIMEOUT_S)
            try:
                await self._wire.send(block)
            except WireBroken as error:
                raise WireBroken(str(error), error.octets_unsent + len(rest)) from error

    def _octets_unsent(self) -> int:
        """Return how much of what is being written has certainly not left."""
        if self._octets_waiting is None:
            return 0
        return self._octets_waiting + self._wire.octets_unsent

    def _what_was_awaited(self) -> str:
        if self._abandoned:
            return self._abandoned
        if self._octets_waiting is not None:
            return f"the server took nothing for {CONTENT_BLOCK_TIMEOUT_S:.0f} s"
        stage = self._client.waiting_for or Stage.DOT
        return f"no reply to {stage} within {TIMEOUT_S[stage]:.0f} s"

    def _limit(self, scope: trio.CancelScope, limit_s: float) -> None:
        """Give the peer at least `limit_s` from now, and not much more."""
        self._stirred_s = trio.current_time()
        least = self._stirred_s + limit_s
        if not least <= scope.deadline <= least + DEADLINE_SLACK_S:
            scope.deadline = least + DEADLINE_SLACK_S

    # The end of things.

    def _take(self, results: Sequence[Result], report: Report) -> None:
        if not results:
            return
        outcomes = [result for result in results if isinstance(result, EnvelopeOutcome)]
        if outcomes:
            for one in outcomes:
                self._delivered += isinstance(one.outcome, Delivered)
            report(outcomes)
        if len(outcomes) < len(results):
            for result in results:
                if isinstance(result, Closed):
                    self._end(result.cause)

    def _break(
        self,
        what: str,
        report: Report,
        *,
        reason: Reason = Reason.CONNECTION,
        octets_unsent: int = 0,
    ) -> None:
        """The connection cannot be used any more: nobody waits for what was under way."""
        last_words = None
        if self._client.waiting_for is not Stage.TLS:
            # "552 too large", said before the end of a content that nobody reads.
            with contextlib.suppress(WireBroken):
                last_words = self._wire.receive_nowait()
        lost_with_it = self._client.connection_lost(
            what, reason=reason, octets_unsent=octets_unsent, last_words=last_words or b""
        )
        self._take(lost_with_it, report)
        self._wire.close()

    def _end(self, cause: Deferred) -> None:
        self._cause = cause
        self._wire.close()


def _place(target: Target) -> str:
    return target.address if target.host == target.address else f"{target.host} [{target.address}]"


def _report_to_nobody(outcomes: Sequence[EnvelopeOutcome]) -> None:
    """Let go of outcomes that nobody waits for any more."""


def _report_nothing(outcomes: Sequence[EnvelopeOutcome]) -> None:
    """Take the outcomes of a session that has no transaction under way: there are none."""
    assert not outcomes, outcomes
