"""Connections to servers that others wrote: aiosmtpd, and smtp-sink with its faults."""

import os
import pwd
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from aiosmtpd.controller import Controller

from engine.delivery.connection import Connection
from engine.delivery.target import Target, TlsContexts
from protocols.outcomes import Bounced, Deferred, Delivered, Outcome, Unattempted
from protocols.records import Reason
from protocols.smtp_client import Transaction
from protocols.smtp_states import Stage
from protocols.transactions import TlsPolicy
from tests.delivery.peers import CONTENT, Work, mail

SINK = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


async def open_at(port: int, tls: TlsPolicy = TlsPolicy.NONE) -> Connection:
    place = Target("mx.example", "127.0.0.1", port, "out.example", tls=tls)
    connection = await Connection.open(place, tls_contexts=TlsContexts())
    assert isinstance(connection, Connection), connection
    return connection


async def delivered(connection: Connection, *transactions: Transaction) -> dict[int, Outcome]:
    work = Work(*transactions)
    with trio.fail_after(20):
        await connection.deliver(work.next, work.report)
    return work.outcomes


class Mailbox:
    """What an aiosmtpd controller was given."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(  # the name that aiosmtpd calls
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(  # the name that aiosmtpd calls
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        self.messages.append((envelope.mail_from, list(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 taken"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


def running(mailbox: Mailbox, context: ssl.SSLContext | None = None) -> Controller:
    return Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        enable_SMTPUTF8=True,
        tls_context=context,
        require_starttls=context is not None,
    )


@pytest.mark.slow
async def test_aiosmtpd(mailbox: Mailbox) -> None:
    controller = running(mailbox)
    controller.start()
    try:
        connection = await open_at(controller.port)
        outcomes = await delivered(
            connection,
            mail(1, "ann@mx.example", "nobody@mx.example", "bob@mx.example"),
            mail(4, content=b".\r\n..\r\n.a\r\nlast"),
            mail(5, content=b""),
        )
        await connection.quit()
    finally:
        controller.stop()
    assert [type(outcomes[number]) for number in range(1, 6)] == [
        Delivered,
        Bounced,
        Delivered,
        Delivered,
        Delivered,
    ]
    assert [message[1:] for message in mailbox.messages] == [
        (["ann@mx.example", "bob@mx.example"], CONTENT),
        (["user4@mx.example"], b".\r\n..\r\n.a\r\nlast\r\n"),
        (["user5@mx.example"], b""),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("policy", [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED])
async def test_aiosmtpd_with_starttls(mailbox: Mailbox, policy: TlsPolicy) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.example").configure_cert(context)
    controller = running(mailbox, context)
    controller.start()
    try:
        connection = await open_at(controller.port, policy)
        assert connection.tls.startswith("TLSv1.3")
        utf8 = Transaction("", [(1, "jörg@mx.example")], "ü\r\n".encode(), True, True)
        outcomes = await delivered(connection, utf8)
        await connection.quit()
    finally:
        controller.stop()
    assert isinstance(outcomes[1], Delivered)
    assert mailbox.messages == [("<>", ["jörg@mx.example"], "ü\r\n".encode())]


SinkRun = Callable[..., int]


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[SinkRun]:
    if not os.access(SINK, os.X_OK):
        pytest.skip("needs Debian package postfix (smtp-sink)")
    running_sinks: list[subprocess.Popen[bytes]] = []

    def run(*options: str) -> int:
        port = free_port()
        # Root has to say whom it wants to be; nobody else may.
        user = ["-u", pwd.getpwuid(os.getuid()).pw_name] if os.getuid() == 0 else []
        command = [SINK, *user, *options, f"127.0.0.1:{port}", "100"]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE)
        running_sinks.append(process)
        wait_for_listener(port, process)
        return port

    yield run
    for process in running_sinks:
        process.kill()
        process.communicate()


def wait_for_listener(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            assert process.poll() is None, process.communicate()
        else:
            return


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-p"], ["-e"]], ids=["pipelined", "one by one", "HELO"])
async def test_sink(sink: SinkRun, options: list[str]) -> None:
    connection = await open_at(sink(*options))
    assert connection.capabilities.pipelining == (not options)
    assert connection.capabilities.extended == ("-e" not in options)
    large = b"x" * 3_000_000 + b"\r\n"
    outcomes = await delivered(
        connection, *(mail(number) for number in range(50)), mail(50, content=large)
    )
    assert len(outcomes) == 51
    assert all(isinstance(outcome, Delivered) for outcome in outcomes.values())
    await connection.quit()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kind", "stage"),
    [
        (["-f", "MAIL"], Bounced, Stage.MAIL),
        (["-f", "RCPT"], Bounced, Stage.RCPT),
        (["-f", "DATA"], Bounced, Stage.DATA),
        (["-f", "."], Bounced, Stage.DOT),
        (["-r", "MAIL"], Deferred, Stage.MAIL),
        (["-r", "RCPT"], Deferred, Stage.RCPT),
        (["-r", "DATA"], Deferred, Stage.DATA),
        (["-r", "."], Deferred, Stage.DOT),
    ],
)
async def test_sink_that_refuses(
    sink: SinkRun, options: list[str], kind: type[Outcome], stage: Stage
) -> None:
    connection = await open_at(sink(*options))
    outcomes = await delivered(
        connection, mail(1), mail(2), mail(3, "a@mx.example", "b@mx.example")
    )
    assert set(outcomes) == {1, 2, 3, 4}
    for outcome in outcomes.values():
        assert isinstance(outcome, kind)
        assert isinstance(outcome, Bounced | Deferred)
        assert outcome.stage is stage
        assert not (isinstance(outcome, Bounced) and outcome.is_hard)
    assert connection.is_open
    await connection.quit()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "command", "reason"),
    [
        ("-q", "MAIL", Reason.CONNECTION),
        ("-q", "RCPT", Reason.CONNECTION),
        ("-q", "DATA", Reason.CONNECTION),
        ("-q", ".", Reason.OUTCOME_UNKNOWN),
        ("-Q", "MAIL", None),
        ("-Q", "RCPT", None),
        ("-Q", "DATA", None),
        ("-Q", ".", None),
    ],
)
async def test_sink_that_leaves(
    sink: SinkRun, option: str, command: str, reason: Reason | None
) -> None:
    connection = await open_at(sink(option, command))
    outcomes = await delivered(connection, mail(1), mail(2))
    assert not connection.is_open
    outcome = outcomes.pop(1)
    assert isinstance(outcome, Deferred)
    if reason is None:
        assert outcome.reply.startswith("421 ")
    else:
        assert outcome.reason is reason
    # The second mail was not attempted, if it was pulled at all.
    assert all(isinstance(other, Unattempted) for other in outcomes.values())


@pytest.mark.slow
async def test_sink_that_aborts_inside_the_content(sink: SinkRun) -> None:
    connection = await open_at(sink("-A", "1"))
    outcomes = await delivered(connection, mail(1, content=b"x" * 20_000_000 + b"\r\n"))
    assert not isinstance(outcomes[1], Delivered)
    assert not connection.is_open
