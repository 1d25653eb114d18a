"""Connections in virtual time: a full pipe, every timeout, every way to end."""

import math

import pytest
import trio
from trio.testing import MockClock

from engine.delivery.connection import CONTENT_BLOCK_OCTETS
from engine.delivery.wire import Wire, WireBroken
from protocols.outcomes import Bounced, Deferred, Delivered, Unattempted
from protocols.records import Reason
from protocols.smtp_server import Answer, Message, Rcpt, ServerSettings
from protocols.smtp_states import Stage
from tests.delivery.peers import (
    Receiver,
    Work,
    connect_to,
    mail,
    opened,
    plays,
    refused,
)

GREETING = b"220 mx.example\r\n"
EHLO = b"250-mx.example\r\n250 PIPELINING\r\n"
ENVELOPE = b"250 Ok\r\n250 Ok\r\n354 go\r\n"
TAKEN = Delivered("250 2.0.0 ok", "2.0.0")


async def test_mail_arrives_as_it_was(nursery: trio.Nursery) -> None:
    receiver = Receiver()
    connection = await opened(connect_to(nursery, receiver))
    work = Work(mail(1), mail(2, "a@mx.example", "b@mx.example"))
    await connection.deliver(work.next, work.report)
    assert work.outcomes == {1: TAKEN, 2: TAKEN, 3: TAKEN}
    assert [message.recipients for message in receiver.messages] == [
        ["user1@mx.example"],
        ["a@mx.example", "b@mx.example"],
    ]
    assert {message.content for message in receiver.messages} == {mail(1).content}
    assert connection.is_open
    statistics = connection.statistics()
    assert (statistics.transactions, statistics.delivered, statistics.is_open) == (2, 3, True)
    await connection.quit()
    assert not connection.is_open


async def test_a_mail_costs_one_round_trip(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    receiver = Receiver(round_trip_s=1.0)
    connection = await opened(connect_to(nursery, receiver))
    begin_s = trio.current_time()
    work = Work(*(mail(number) for number in range(100)))
    await connection.deliver(work.next, work.report)
    # One for the first envelope, then one for each mail.
    assert trio.current_time() - begin_s == pytest.approx(101.0)
    assert len(work.outcomes) == 100
    await connection.quit()


async def test_a_kept_connection_delivers_again(nursery: trio.Nursery) -> None:
    receiver = Receiver()
    connection = await opened(connect_to(nursery, receiver))
    for number in range(3):
        work = Work(mail(number))
        await connection.deliver(work.next, work.report)
        assert work.outcomes == {number: TAKEN}
    empty = Work()
    await connection.deliver(empty.next, empty.report)
    assert empty.batches == []
    assert connection.transactions_completed == 3
    await connection.quit()


async def test_refusals_are_outcomes_and_the_connection_goes_on(nursery: trio.Nursery) -> None:
    def answers(request: object) -> Answer | None:
        if isinstance(request, Rcpt) and request.address.startswith("nobody"):
            return Answer(550, "5.1.1 no such user")
        if isinstance(request, Message) and b"spam" in request.content:
            return Answer(554, "5.7.1 spam")
        return None

    connection = await opened(connect_to(nursery, Receiver(answers=answers)))
    work = Work(
        mail(1, "nobody@mx.example"),
        mail(2, content=b"spam\r\n"),
        mail(3),
    )
    await connection.deliver(work.next, work.report)
    unknown = "550 5.1.1 no such user"
    assert work.outcomes == {
        1: Bounced("5.1.1", unknown, Reason.UNKNOWN_USER, Stage.RCPT, is_hard=True),
        2: Bounced("5.7.1", "554 5.7.1 spam", Reason.SPAM, Stage.DOT),
        3: TAKEN,
    }
    assert connection.is_open
    await connection.quit()


async def test_too_large_leaves_the_connection_to_others(nursery: trio.Nursery) -> None:
    receiver = Receiver(ServerSettings(size_max=100))
    connection = await opened(connect_to(nursery, receiver))
    work = Work(mail(1, content=b"x" * 200 + b"\r\n"), mail(2))
    await connection.deliver(work.next, work.report)
    outcome = work.outcomes[1]
    assert isinstance(outcome, Bounced)
    assert outcome.stage is Stage.LOCAL
    assert work.outcomes[2] == TAKEN
    await connection.quit()


@pytest.mark.parametrize(
    ("steps", "stage", "reason", "words"),
    [
        ((math.inf,), Stage.BANNER, Reason.CONNECTION, "no banner within 300 s"),
        ((), Stage.BANNER, Reason.CONNECTION, "the server closed the connection"),
        ((GREETING, None, math.inf), Stage.EHLO, Reason.CONNECTION, "no reply to EHLO"),
        ((GREETING, None), Stage.EHLO, Reason.CONNECTION, "the server closed the connection"),
        ((b"rubbish\r\n", math.inf), Stage.BANNER, Reason.PROTOCOL, "not an SMTP reply"),
        ((b"x" * 10_000, math.inf), Stage.BANNER, Reason.PROTOCOL, "4096 octets"),
        ((GREETING, None, b"250-x\r\n" * 20_000, math.inf), Stage.EHLO, Reason.PROTOCOL, "65536"),
        ((b"554 go away\r\n",), Stage.BANNER, Reason.CONNECTION, "554 go away"),
        ((GREETING, None, EHLO + b"421 4.3.2 no\r\n"), Stage.EHLO, Reason.OTHER, "421 4.3.2 no"),
        ((b"421 4.3.2 too busy\r\n",), Stage.BANNER, Reason.THROTTLED, "too busy"),
    ],
)
async def test_sessions_that_do_not_begin(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    steps: tuple[bytes | float | None, ...],
    stage: Stage,
    reason: Reason,
    words: str,
) -> None:
    failure = await refused(connect_to(nursery, plays(*steps)))
    assert (failure.stage, failure.reason) == (stage, reason)
    assert words in failure.reply
    nursery.cancel_scope.cancel()


async def test_a_banner_that_drips_has_one_time_limit(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    drip = [step for _ in range(1000) for step in (b"2", 1.0)]
    failure = await refused(connect_to(nursery, plays(*drip)))
    assert trio.current_time() == pytest.approx(300.0)
    assert failure.stage is Stage.BANNER
    nursery.cancel_scope.cancel()


async def test_connect_failures(autojump_clock: MockClock) -> None:
    async def never(address: str, port: int, source: str | None) -> Wire:
        await trio.sleep_forever()

    async def unreachable(address: str, port: int, source: str | None) -> Wire:
        raise OSError(113, "No route to host")

    failure = await refused(never)
    assert trio.current_time() == pytest.approx(30.0)
    assert failure.reply == "451 4.4.1 (mx.example [192.0.2.1]: no connection within 30 s)"
    assert failure.stage is Stage.CONNECT
    failure = await refused(unreachable)
    assert failure.reply == "451 4.4.1 (mx.example [192.0.2.1]: no route to host)"


@pytest.mark.parametrize(
    ("before", "limit_s", "stage", "reason"),
    [
        ([], 300.0, Stage.MAIL, Reason.CONNECTION),
        ([b"250 Ok\r\n"], 300.0, Stage.RCPT, Reason.CONNECTION),
        ([b"250 Ok\r\n250 Ok\r\n"], 120.0, Stage.DATA, Reason.CONNECTION),
        ([ENVELOPE, None], 600.0, Stage.DOT, Reason.OUTCOME_UNKNOWN),
    ],
)
async def test_each_command_has_its_own_time_limit(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    before: list[bytes | None],
    limit_s: float,
    stage: Stage,
    reason: Reason,
) -> None:
    script = plays(GREETING, None, EHLO, None, *before, math.inf)
    connection = await opened(connect_to(nursery, script))
    begin_s = trio.current_time()
    work = Work(mail(1), mail(2))
    await connection.deliver(work.next, work.report)
    # At least what RFC 5321 4.5.3.2 says, and not much more.
    assert limit_s <= trio.current_time() - begin_s <= limit_s + 15
    outcome = work.outcomes.pop(1)
    assert isinstance(outcome, Deferred)
    assert (outcome.stage, outcome.reason) == (stage, reason)
    assert outcome.reply == f"451 4.4.2 (no reply to {stage} within {limit_s:.0f} s)"
    if stage is Stage.DOT:
        assert isinstance(work.outcomes.pop(2), Unattempted)
    assert work.outcomes == {}
    assert not connection.is_open
    nursery.cancel_scope.cancel()


async def test_a_reply_that_drips_moves_no_limit(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    drip = [step for _ in range(1000) for step in (b"2", 1.0)]
    connection = await opened(
        connect_to(nursery, plays(GREETING, None, EHLO, None, b"250 Ok\r\n250-", *drip))
    )
    begin_s = trio.current_time()
    work = Work(mail(1))
    await connection.deliver(work.next, work.report)
    assert trio.current_time() - begin_s <= 315
    assert isinstance(work.outcomes[1], Deferred)
    nursery.cancel_scope.cancel()


class StuckWire:
    """Takes `octets_max` octets, then nothing more."""

    def __init__(self, wire: Wire, octets_max: int) -> None:
        self._wire = wire
        self._left = octets_max
        self.octets_unsent = 0

    async def send(self, data: bytes | memoryview) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.octets_unsent = min(len(data), -self._left)
            await trio.sleep_forever()
        await self._wire.send(data)

    async def receive(self) -> bytes:
        return await self._wire.receive()

    def receive_nowait(self) -> bytes | None:
        return self._wire.receive_nowait()

    def close(self) -> None:
        self._wire.close()


async def test_a_content_that_nobody_takes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    connect = connect_to(nursery, Receiver())

    async def connect_stuck(address: str, port: int, source: str | None) -> Wire:
        return StuckWire(await connect(address, port, source), 2 * CONTENT_BLOCK_OCTETS)

    connection = await opened(connect_stuck)
    begin_s = trio.current_time()
    work = Work(mail(1, content=b"x" * 10 * CONTENT_BLOCK_OCTETS + b"\r\n"))
    await connection.deliver(work.next, work.report)
    assert 180 <= trio.current_time() - begin_s <= 195
    # The final dot lies far behind what was taken: this mail was not delivered for sure.
    assert work.outcomes == {
        1: Deferred(
            "4.4.2", "451 4.4.2 (the server took nothing for 180 s)", Reason.CONNECTION, Stage.DOT
        )
    }
    nursery.cancel_scope.cancel()


async def test_a_small_content_has_its_own_time_limit(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The server took almost two minutes to ask for it, and then takes nothing."""
    script = plays(
        GREETING, None, EHLO, None, b"250 Ok\r\n250 Ok\r\n", 115.0, b"354 go\r\n", math.inf
    )
    connect = connect_to(nursery, script)

    async def connect_stuck(address: str, port: int, source: str | None) -> Wire:
        return StuckWire(await connect(address, port, source), 1000)

    connection = await opened(connect_stuck)
    begin_s = trio.current_time()
    work = Work(mail(1, content=b"x" * 30_000 + b"\r\n"))
    await connection.deliver(work.next, work.report)
    assert 115 + 180 <= trio.current_time() - begin_s <= 115 + 195
    outcome = work.outcomes[1]
    assert isinstance(outcome, Deferred)
    # Not `outcome_unknown`: the final dot is still here.
    assert (outcome.stage, outcome.reason) == (Stage.DOT, Reason.CONNECTION)
    nursery.cancel_scope.cancel()


async def test_an_idle_connection_that_was_closed_takes_no_mail(nursery: trio.Nursery) -> None:
    connection = await opened(connect_to(nursery, plays(GREETING, None, EHLO)))
    await trio.testing.wait_all_tasks_blocked()
    work = Work(mail(1))
    await connection.deliver(work.next, work.report)
    assert work.outcomes == {}
    assert len(work.waiting) == 1
    assert not connection.is_open
    assert connection.cause is not None
    assert "idle" in connection.cause.reply
    assert connection.cause.stage is Stage.EHLO


async def test_leaving_after_a_mail_is_no_failure(nursery: trio.Nursery) -> None:
    script = plays(GREETING, None, EHLO, None, ENVELOPE, None, b"250 2.0.0 ok\r\n")
    connection = await opened(connect_to(nursery, script))
    work = Work(mail(1))
    await connection.deliver(work.next, work.report)
    await trio.testing.wait_all_tasks_blocked()
    late = Work(mail(2))
    await connection.deliver(late.next, late.report)
    assert work.outcomes == {1: TAKEN}
    assert len(late.waiting) == 1
    assert connection.cause is not None
    assert connection.cause.stage is Stage.QUIT


async def test_closing_ourselves_is_no_failure(nursery: trio.Nursery) -> None:
    connection = await opened(connect_to(nursery, Receiver()))
    connection.close()
    assert connection.cause is not None
    assert connection.cause.stage is Stage.QUIT


async def test_an_idle_connection_that_timed_out_takes_no_mail(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    script = plays(GREETING, None, EHLO, 1.0, b"421 4.4.2 idle too long\r\n")
    connection = await opened(connect_to(nursery, script))
    await trio.sleep(2)
    work = Work(mail(1))
    await connection.deliver(work.next, work.report)
    assert len(work.waiting) == 1
    assert connection.cause is not None
    assert connection.cause.reply == "421 4.4.2 idle too long"


async def test_the_server_leaves_after_the_dot(nursery: trio.Nursery) -> None:
    script = plays(GREETING, None, EHLO, None, ENVELOPE, None)
    connection = await opened(connect_to(nursery, script))
    work = Work(mail(1), mail(2))
    await connection.deliver(work.next, work.report)
    reply = "451 4.4.2 (the server closed the connection)"
    assert work.outcomes == {
        1: Deferred("4.4.2", reply, Reason.OUTCOME_UNKNOWN, Stage.DOT),
        2: Unattempted(reply, Reason.CONNECTION),
    }


async def test_cancelling_reports_what_was_under_way(nursery: trio.Nursery) -> None:
    script = plays(GREETING, None, EHLO, None, ENVELOPE, None, math.inf)
    connection = await opened(connect_to(nursery, script))
    work = Work(mail(1), mail(2), mail(3))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(connection.deliver, work.next, work.report)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    outcome = work.outcomes[1]
    assert isinstance(outcome, Deferred)
    assert outcome.reason is Reason.OUTCOME_UNKNOWN
    assert isinstance(work.outcomes[2], Unattempted)
    assert len(work.waiting) == 1
    assert not connection.is_open
    nursery.cancel_scope.cancel()


async def test_cancelling_the_opening_closes_the_wire(nursery: trio.Nursery) -> None:
    closed = trio.Event()

    async def script(wire: Wire) -> None:
        try:
            while await wire.receive():
                pass
        except WireBroken:
            pass
        closed.set()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(refused, connect_to(nursery, script))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await closed.wait()


async def test_quit_waits_for_nobody(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    connection = await opened(connect_to(nursery, plays(GREETING, None, EHLO, None, math.inf)))
    await connection.quit()
    assert trio.current_time() == pytest.approx(2.0)
    assert not connection.is_open
    await connection.quit()
    connection.close()
    nursery.cancel_scope.cancel()


async def test_pulling_goes_on_when_mail_comes_later(nursery: trio.Nursery) -> None:
    receiver = Receiver()
    connection = await opened(connect_to(nursery, receiver))
    asked = 0

    def next_transaction() -> object:
        nonlocal asked
        asked += 1
        # Nothing to pull while the first one is in the pipe, then another.
        return {1: mail(1), 3: mail(2)}.get(asked)

    work = Work()
    await connection.deliver(next_transaction, work.report)  # type: ignore[arg-type]  # it returns transactions or None
    assert work.outcomes == {1: TAKEN, 2: TAKEN}
    await connection.quit()


async def test_server_that_takes_ten_thousand_recipients_in_hundreds(
    nursery: trio.Nursery,
) -> None:
    receiver = Receiver(ServerSettings(recipients_max=100))
    connection = await opened(connect_to(nursery, receiver))
    work = Work(mail(0, *(f"u{number}@mx.example" for number in range(250))))
    await connection.deliver(work.next, work.report)
    taken = [one for one in work.outcomes.values() if isinstance(one, Delivered)]
    behind = [one for one in work.outcomes.values() if isinstance(one, Unattempted)]
    assert (len(taken), len(behind)) == (100, 150)
    assert connection.recipients_max == 100
    await connection.quit()


async def test_statistics_name_what_is_waited_for(nursery: trio.Nursery) -> None:
    script = plays(GREETING, None, EHLO, None, ENVELOPE, None, math.inf)
    connection = await opened(connect_to(nursery, script))
    work = Work(mail(1))
    async with trio.open_nursery() as inner:
        inner.start_soon(connection.deliver, work.next, work.report)
        await trio.testing.wait_all_tasks_blocked()
        assert connection.statistics().waiting_for is Stage.DOT
        assert connection.statistics().pipelining
        inner.cancel_scope.cancel()
    nursery.cancel_scope.cancel()
