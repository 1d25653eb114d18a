"""The commands with a real engine, running and stopped, and its refusals to start."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.rehearsal.engine_process import (
    COMMAND,
    Credentials,
    EngineFailed,
    EngineProcess,
    HttpClient,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path, "")
    try:
        yield process
    finally:
        process.stop()


def refusal(engine: EngineProcess) -> str:
    """Start an engine that must not come up; return what it says."""
    command = [sys.executable, "-c", "from engine.cli import main; main()", "serve"]
    done = subprocess.run(
        [*command, "--config", str(engine.config_path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_sigterm_ends_serve_with_0(engine: EngineProcess) -> None:
    engine.start()
    engine.wait_until_ready()
    assert engine.stop() == 0
    assert not (engine.directory / "data" / "control.sock").exists()


def test_sighup_while_it_comes_up_ends_nothing(engine: EngineProcess) -> None:
    engine.start()
    status = Path(f"/proc/{engine.pid}/status")
    # proc(5): signals that are ignored, as a mask. Before that it is an interpreter, no engine yet.
    while not int(status.read_text().partition("SigIgn:")[2].split()[0], 16) & 1:
        engine.check_alive()
    os.kill(engine.pid, signal.SIGHUP)
    engine.wait_until_ready()


def test_sigterm_ends_serve_with_0_while_mail_waits_for_a_dead_receiver(tmp_path: Path) -> None:
    dead = '[[route]]\ndomain = "*.test"\nnext_hop = "127.0.0.1:1"'
    engine = EngineProcess(tmp_path, dead)
    credentials = engine.create_account("shop")
    engine.start()
    engine.wait_until_ready()
    client = HttpClient(engine.port, credentials)
    message = {
        "From": {"Email": "a@out.example"},
        "To": [{"Email": "b@dead.test"}],
        "TextPart": "x",
    }
    body = json.dumps({"Messages": [message]}).encode()
    assert client.request("POST", "/v3.1/send", body)[0] == 200
    while '"unreachable"' not in engine.run("queue", "--json"):
        engine.check_alive()
    client.close()
    assert engine.stop() == 0
    waiting = json.loads(engine.run("queue", "--json"))
    assert (waiting["destination"], waiting["queued"]) == ("dead.test", 1)


def test_sigterm_right_after_the_start_ends_it_with_0(engine: EngineProcess) -> None:
    engine.start()
    caught = Path(f"/proc/{engine.pid}/status")
    # From the first moment on that the program listens for the signal at all.
    while not int(caught.read_text().split("SigCgt:")[1].split()[0], 16) & 1 << signal.SIGTERM - 1:
        time.sleep(0.001)
    assert engine.stop() == 0


def test_accounts_are_made_with_the_engine_stopped_and_running(engine: EngineProcess) -> None:
    before = engine.create_account("before")
    engine.start()
    engine.wait_until_ready()
    while_running = engine.create_account("while running")
    assert before.api_key != while_running.api_key
    listed = engine.run("account", "list", "--json")
    engine.stop()
    assert listed == engine.run("account", "list", "--json")
    names = [json.loads(line)["account"] for line in listed.splitlines()]
    assert names == ["before", "while running"]


@pytest.mark.parametrize("running", [False, True])
def test_an_account_is_changed(engine: EngineProcess, running: bool) -> None:
    old = engine.create_account("a/b ☀")
    if running:
        engine.start()
        engine.wait_until_ready()

    def account(*arguments: str) -> Any:
        return json.loads(engine.run("account", *arguments, "--json"))

    assert account("plan", "a/b ☀", "free")["plan"] == "free"
    assert account("disable", "a/b ☀")["disabled"] is True
    assert account("enable", "a/b ☀")["disabled"] is False
    new = account("rotate", "a/b ☀", "--keep-old-for", "12h")
    listed = account("list")
    assert listed["api_keys"] == [old.api_key, new["api_key"]]
    assert (listed["plan"], listed["time_zone"]) == ("free", "UTC")
    last = account("rotate", "a/b ☀")
    assert account("list")["api_keys"] == [last["api_key"]]
    assert account("plan", "a/b ☀", "none")["plan"] is None
    with pytest.raises(EngineFailed, match="nobody"):
        engine.run("account", "disable", "nobody")
    made = account("create", "berlin", "--time-zone", "Europe/Berlin")
    assert made["time_zone"] == "Europe/Berlin"
    assert last["api_key"] in engine.run("account", "list")
    assert engine.run("account", "suppressions", "berlin", "--json") == ""
    with pytest.raises(EngineFailed, match="not suppressed"):
        engine.run("account", "suppressions", "berlin", "--lift", "ann@one.test")


@pytest.mark.parametrize("running", [False, True])
def test_a_name_that_is_taken_is_refused(engine: EngineProcess, running: bool) -> None:
    engine.create_account("shop")
    if running:
        engine.start()
        engine.wait_until_ready()
    with pytest.raises(EngineFailed, match=r"Error: .*shop"):
        engine.create_account("shop")


@pytest.mark.parametrize("running", [False, True])
def test_listings_of_an_empty_engine(engine: EngineProcess, running: bool) -> None:
    if running:
        engine.start()
        engine.wait_until_ready()
    assert engine.run("queue") == "No mail is waiting.\n"
    assert engine.run("queue", "--json") == ""
    assert engine.run("events") == ""


def test_a_question_where_no_engine_has_run_makes_no_spool(tmp_path: Path) -> None:
    command = [*COMMAND, "queue"]
    for is_new in (True, False):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "No mail is waiting.\n"
        assert ("No engine has run here: there is no spool below data." in done.stderr) == is_new
        assert (tmp_path / "data").exists() != is_new
        making = [*COMMAND, "account", "create", "shop"]
        if is_new:
            subprocess.run(making, cwd=tmp_path, capture_output=True, check=True)


def test_another_link_signs_an_operator_in_once(engine: EngineProcess) -> None:
    with pytest.raises(EngineFailed, match="not running"):
        engine.run("link")
    engine.start()
    engine.wait_until_ready()
    url = json.loads(engine.run("link", "--json"))["url"]
    assert url != engine.run("link").strip()
    page, _, token = url.partition("#token=")
    assert page == f"{engine.url}/"
    client = HttpClient(engine.port)
    body = json.dumps({"token": token}).encode()
    status, session = client.request("POST", "/v1/operator/sessions", body)
    assert status == 200
    assert isinstance(session, dict)
    assert client.request("POST", "/v1/operator/sessions", body)[0] == 403
    client.close()
    keys = Credentials("", session["api_key"], session["secret_key"])
    operator = HttpClient(engine.port, keys)
    assert operator.request("GET", "/v1/accounts")[0] == 200
    operator.close()


def test_a_port_in_use_is_named(engine: EngineProcess) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        engine.config_path.write_text(f'data_dir = "data"\n[http]\nlisten = "127.0.0.1:{port}"\n')
        assert f"127.0.0.1:{port}" in (said := refusal(engine))
        assert "in use" in said


def test_a_second_engine_on_the_same_data_is_refused(engine: EngineProcess, tmp_path: Path) -> None:
    engine.start()
    engine.wait_until_ready()
    (tmp_path / "second").mkdir()
    second = EngineProcess(tmp_path / "second", "")
    text = second.config_path.read_text().replace('"data"', '"../data"')
    second.config_path.write_text(text)
    assert "data" in refusal(second)
    engine.check_alive()


def test_a_directory_that_cannot_be_written_is_named(engine: EngineProcess) -> None:
    # A file in its place: root may write everywhere, but not below a file.
    (engine.directory / "data").write_text("")
    assert f"{engine.directory}/data" in refusal(engine)


def test_a_damaged_spool_is_named(engine: EngineProcess) -> None:
    engine.create_account("shop")
    for file in (engine.directory / "data").rglob("data.mdb"):
        os.truncate(file, 5_000)
    assert "data.mdb" in refusal(engine)
