"""`suspend`, `resume`, `retry` and `cancel` with the real process, running and stopped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.rehearsal.engine_process import EngineFailed, EngineProcess, HttpClient

pytestmark = pytest.mark.slow

DEAD = '[[route]]\ndomain = "*.test"\nnext_hop = "127.0.0.1:1"'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path, DEAD)
    try:
        yield process
    finally:
        process.stop()


def asked(engine: EngineProcess, *arguments: str) -> Any:
    return json.loads(engine.run(*arguments, "--json"))


def send(client: HttpClient, domain: str, count: int, campaign: str) -> None:
    message = {
        "From": {"Email": "a@out.example"},
        "To": [{"Email": f"r{n}@{domain}"} for n in range(count)],
        "TextPart": "x",
        "CustomCampaign": campaign,
    }
    body = json.dumps({"Messages": [message]}).encode()
    status, answer = client.request("POST", "/v3.1/send", body)
    assert status == 200, answer


@pytest.mark.parametrize("running", [False, True])
def test_mail_is_held_resumed_retried_and_cancelled(engine: EngineProcess, running: bool) -> None:
    credentials = engine.create_account("shop")
    held = asked(engine, "suspend", "--destination", "held.test", "--for", "2h", "--reason", "why")
    assert held["hold"]["who"] == "operator"
    assert held["matched"] == {}
    engine.start()
    engine.wait_until_ready()
    client = HttpClient(engine.port, credentials)
    send(client, "held.test", 3, "spring")
    send(client, "dead.test", 2, "autumn")
    client.close()
    # It backs off before anything is retried; what is held is not even tried.
    while True:
        rows = [json.loads(line) for line in engine.run("queue", "--json").splitlines()]
        states = {row["destination"]: row["state"] for row in rows}
        if states["dead.test"] == "unreachable":
            break
        engine.check_alive()
    assert states["held.test"] == "held"
    if not running:
        engine.stop()
    counted = asked(engine, "suspend", "--campaign", "spring", "--dry-run")
    assert counted == {"hold": None, "matched": {"queued": 3}, "dry_run": True}
    retried = asked(engine, "retry", "--account", "shop", "--dry-run")
    assert retried["matched"] == {"queued": 5}
    done = asked(engine, "cancel", "--campaign", "spring", "--reason", "wrong link")
    assert done == {"matched": {"queued": 3}, "changed": 3, "in_flight": 0, "dry_run": False}
    text = engine.run("retry", "--destination", "dead.test")
    assert "Fitting: 2 queued." in text
    lifted = asked(engine, "resume", "--destination", "held.test")
    assert lifted == held["hold"]
    assert engine.run("resume").strip() == "No hold fits."
    with pytest.raises(EngineFailed, match="no such hold: 99"):
        engine.run("resume", "99")
    with pytest.raises(EngineFailed, match="no account"):
        engine.run("cancel", "--account", "nobody")


def test_wrong_usage_is_told(engine: EngineProcess) -> None:
    for command in ("suspend", "retry", "cancel"):
        with pytest.raises(EngineFailed, match="say which mail"):
            engine.run(command)
    with pytest.raises(EngineFailed, match="no time like"):
        engine.run("suspend", "--campaign", "x", "--for", "soon")


def test_a_hold_outlives_kill_9(engine: EngineProcess) -> None:
    engine.create_account("shop")
    engine.start()
    engine.wait_until_ready()
    assert engine.run("suspend", "--campaign", "spring").startswith("Hold 1 until it is resumed")
    engine.kill()
    assert engine.run("resume", "1").strip() == "Lifted hold 1: campaign spring"
