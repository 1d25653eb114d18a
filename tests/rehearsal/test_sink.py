"""The bench's sink: what it answers, however its input is cut, and what it counts."""

import json
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from engine.rehearsal.sink import CAPABILITIES, Counts, SinkSession

SESSION = (
    b"EHLO out.example\r\nMAIL FROM:<a@x.test> BODY=8BITMIME\r\nRCPT TO:<b@y.test>\r\n"
    b"RCPT TO:<c@y.test>\r\nDATA\r\nSubject: one\r\n\r\n..dotted\r\n.\r\n"
    b"mail FROM:<>\r\nRCPT TO:<d@y.test>\r\nDATA\r\n.\r\nQUIT\r\n"
)
OK = b"250 2.0.0 Ok\r\n"
REPLIES = CAPABILITIES + OK * 3 + b"354 Go on\r\n" + OK * 3 + b"354 Go on\r\n" + OK
REPLIES += b"221 2.0.0 Bye\r\n"


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 7, len(SESSION)])
def test_a_session_reads_the_same_however_it_is_cut(piece: int) -> None:
    counts = Counts()
    session = SinkSession(counts, "127.0.0.1", stamping=True)
    pieces = [SESSION[at : at + piece] for at in range(0, len(SESSION), piece)]
    assert b"".join(map(session.receive, pieces)) == REPLIES
    assert session.closed
    assert (counts.messages, counts.recipients, counts.octets) == (2, 3, len(SESSION))
    assert [recipient for recipient, _ in counts.stamps] == ["b@y.test", "c@y.test", "d@y.test"]
    assert counts.recipients_by_host == {"127.0.0.1": 3}
    assert 0 < counts.first_ns <= counts.last_ns


def test_data_without_a_recipient_is_refused_and_rset_forgets() -> None:
    session = SinkSession(Counts(), "h")
    assert session.receive(b"DATA\r\n").startswith(b"503 ")
    session.receive(b"MAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\nRSET\r\n")
    assert session.receive(b"DATA\r\n").startswith(b"503 ")


def test_an_endless_line_ends_the_session() -> None:
    session = SinkSession(Counts(), "h")
    session.receive(b"x" * 5000)
    assert session.closed


@pytest.fixture
def sink() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "engine.rehearsal.sink", "--hosts", "3", "--stamps"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
        assert process.wait(timeout=10) == 0


def ask(sink: subprocess.Popen[str], order: str) -> dict[str, object]:
    assert sink.stdin is not None
    sink.stdin.write(order + "\n")
    sink.stdin.flush()
    return said(sink)


def said(sink: subprocess.Popen[str]) -> dict[str, object]:
    assert sink.stdout is not None
    answer = json.loads(sink.stdout.readline())
    assert isinstance(answer, dict)
    return answer


@pytest.mark.slow
def test_the_process_listens_on_all_its_hosts_and_reports(sink: subprocess.Popen[str]) -> None:
    port = said(sink)["port"]
    assert isinstance(port, int)
    before_ns = time.monotonic_ns()
    for host in ("127.0.0.1", "127.0.0.3"):
        with smtplib.SMTP(host, port) as client:
            client.sendmail("a@x.test", ["b@y.test", "c@y.test"], b"Subject: x\n\nhello\n")
    report = ask(sink, "report")
    assert report["connections"] == report["messages"] == 2
    assert report["recipients_by_host"] == {"127.0.0.1": 2, "127.0.0.3": 2}
    assert len(ask(sink, "stamps")["stamps"]) == 4  # type: ignore[arg-type]  # a list
    assert ask(sink, "stamps") == {"stamps": []}
    arrivals = ask(sink, "arrivals")["arrivals"]
    assert len(arrivals) == 4  # type: ignore[arg-type]  # a list
    for begun_ns, ended_ns, seen_ns in arrivals:  # type: ignore[attr-defined]  # a list
        assert before_ns <= begun_ns <= ended_ns <= seen_ns
    assert ask(sink, "arrivals") == {"arrivals": []}
