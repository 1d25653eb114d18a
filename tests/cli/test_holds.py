"""`suspend`, `resume`, `retry` and `cancel` with the real process, running and stopped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.rehearsal.engine_process import EngineFailed, EngineProcess, HttpClient

pytestmark = pytest.mark.slow

NO_END = ["-", "operator", "wrong", "link"]
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
    assert "Tried now, though out of reach so far: dead.test." in text
    lifted = asked(engine, "resume", "--destination", "held.test")
    assert lifted == held["hold"]
    assert engine.run("resume", "--all") == "No hold fits.\n"
    assert engine.run("holds") == "No mail is held.\n"
    with pytest.raises(EngineFailed, match=r"or --all\. No mail is held now\."):
        engine.run("resume")
    with pytest.raises(EngineFailed, match=r"There is no such hold: 99\."):
        engine.run("resume", "99")
    with pytest.raises(EngineFailed, match="no account"):
        engine.run("cancel", "--account", "nobody")


def test_wrong_usage_is_told(engine: EngineProcess) -> None:
    for command in ("suspend", "retry", "cancel"):
        with pytest.raises(EngineFailed, match="Say which mail"):
            engine.run(command)
        with pytest.raises(EngineFailed, match="is an address: give its domain"):
            engine.run(command, "--destination", "ann@x.test")
        with pytest.raises(EngineFailed, match="two dots in a row"):
            engine.run(command, "--destination", "x..test")
    with pytest.raises(EngineFailed, match="no time like"):
        engine.run("suspend", "--campaign", "x", "--for", "soon")


def test_holds_are_listed_and_lifted_by_name_and_not_by_accident(engine: EngineProcess) -> None:
    engine.create_account("shop")
    engine.run("suspend", "--campaign", "spring", "--reason", "wrong link")
    engine.run("suspend", "--destination", "MÜLLER.test", "--older", "90min", "--for", "2h")
    engine.run("suspend", "--account", "shop")
    spring, old, shop = (json.loads(line) for line in engine.run("holds", "--json").splitlines())
    assert (spring["campaign"], spring["reason"], spring["until"]) == ("spring", "wrong link", None)
    assert (old["destination"], old["older_s"]) == ("xn--mller-kva.test", 5400)
    assert shop["account"] == "shop"
    head, *rows = engine.run("holds").splitlines()
    assert head.split() == ["hold", "mail", "of", "since", "until", "by", "reason"]
    assert rows[0].split() == ["1", "campaign", "spring", spring["since"], *NO_END]
    assert "  destination xn--mller-kva.test, older 90 min  " in rows[1]
    # Bare, it says what there is and lifts nothing.
    with pytest.raises(EngineFailed) as refused:
        engine.run("resume")
    for told in (
        "Say which holds: their numbers",
        "  hold 1 (campaign spring; by operator until it is resumed, reason: wrong link)",
        "  hold 2 (destination xn--mller-kva.test, older 90 min; by operator until 20",
        "  hold 3 (account shop; by operator until it is resumed)",
    ):
        assert told in str(refused.value)
    with pytest.raises(EngineFailed, match="no number and no filter"):
        engine.run("resume", "--all", "--campaign", "spring")
    with pytest.raises(EngineFailed, match=r"There is no such hold that fits: 1\."):
        engine.run("resume", "1", "--account", "shop")
    assert len(engine.run("holds", "--json").splitlines()) == 3
    assert "Would lift hold 2 (" in engine.run(
        "resume", "--destination", "müller.test", "--dry-run"
    )
    assert engine.run("resume", "3").startswith("Lifted hold 3 (account shop; by operator")
    lifted = engine.run("resume", "--all", "--json").splitlines()
    assert [json.loads(line) for line in lifted] == [spring, old]
    assert engine.run("holds", "--json") == ""


def test_a_hold_outlives_kill_9(engine: EngineProcess) -> None:
    engine.create_account("shop")
    engine.start()
    engine.wait_until_ready()
    assert engine.run("suspend", "--campaign", "spring") == (
        "Held back: none, by hold 1 (campaign spring; by operator until it is resumed).\n"
    )
    engine.kill()
    assert engine.run("resume", "1") == (
        "Lifted hold 1 (campaign spring; by operator until it is resumed).\n"
    )
