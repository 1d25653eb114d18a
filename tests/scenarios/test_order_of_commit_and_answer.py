"""Under strace: every 200 leaves after the flush of the pages that hold its mail, never before."""

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.rehearsal.engine_process import (
    COMMAND,
    Credentials,
    EngineProcess,
    HttpClient,
    free_port,
)
from tests.scenarios.tracing import answered_too_early, read_trace, traced

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs Debian package strace"),
]

CLIENTS = 4
REQUESTS_EACH = 5
MESSAGES_EACH = 3


def hand_in(port: int, credentials: Credentials, tags: Sequence[str]) -> None:
    """Send one request with a message for each tag, in its id, its text and its address."""
    client = HttpClient(port, credentials)
    messages = [
        {
            "From": {"Email": "shop@sender.test"},
            "To": [{"Email": f"{tag}@down.test"}],
            "TextPart": f"about {tag}",
            "CustomID": tag,
        }
        for tag in tags
    ]
    status, answer = client.request(
        "POST", "/v3.1/send", json.dumps({"Messages": messages}).encode()
    )
    client.close()
    assert status == 200, answer


def early_ones(tmp_path: Path, command: Sequence[str]) -> tuple[list[str], int]:
    """Run an engine under strace; return what was answered too early, and of how many answers."""
    trace = tmp_path / "trace"
    engine = EngineProcess(
        tmp_path,
        f'[[route]]\ndomain = "*"\nnext_hop = "127.0.0.1:{free_port()}"\n',
        command=traced(trace, command),
    )
    credentials = engine.create_account("shop")
    tags = [
        [f"tag-{client}-{request}-{number}-" for number in range(MESSAGES_EACH)]
        for client in range(CLIENTS)
        for request in range(REQUESTS_EACH)
    ]
    engine.start()
    pid = engine.pid
    try:
        engine.wait_until_ready()
        # Together, so that commits have several waiters and answers run beside the next commit.
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(lambda each: hand_in(engine.port, credentials, each), tags))
    finally:
        status = engine.stop()
    assert status == 0
    every_tag = [tag for each in tags for tag in each]
    return answered_too_early(read_trace(trace, pid), every_tag), len(every_tag)


def test_each_answer_follows_the_flush_of_its_mail(tmp_path: Path) -> None:
    early, answers = early_ones(tmp_path, COMMAND)
    assert answers == CLIENTS * REQUESTS_EACH * MESSAGES_EACH
    assert early == []


def test_control_an_answer_before_the_commit_is_seen(tmp_path: Path) -> None:
    early, answers = early_ones(tmp_path, (sys.executable, "-m", "tests.scenarios.early_answer"))
    assert len(early) > answers // 2, early
    assert all("before it was" in each for each in early)
