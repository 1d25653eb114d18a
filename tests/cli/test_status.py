"""`eilpost status` with the real process, running and stopped."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.rehearsal.engine_process import EngineFailed, EngineProcess

pytestmark = pytest.mark.slow

TEXTS = (
    "--title-de",
    "Störung",
    "--title-en",
    "Trouble",
    "--de",
    "Wir schauen.",
    "--en",
    "We look.",
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path, '[status]\nname = "Post & Co"')
    try:
        yield process
    finally:
        process.stop()


def asked(engine: EngineProcess, *arguments: str) -> Any:
    return json.loads(engine.run("status", *arguments, "--json"))


def fetched(engine: EngineProcess, path: str, *more: str) -> str:
    """What curl gets, a client without any knowledge of us."""
    done = subprocess.run(
        ["curl", "-sS", "--fail", *more, engine.url + path], capture_output=True, check=True
    )
    return done.stdout.decode()


def test_written_while_stopped_and_while_running(engine: EngineProcess) -> None:
    opened = asked(engine, "open", *TEXTS, "--impact", "major", "--component", "delivery")
    assert opened["components"] == {"delivery": "partial_outage"}
    assert "major_outage" in engine.run("status")
    engine.start()
    engine.wait_until_ready()
    page = fetched(engine, "/status", "-H", "Accept-Language: de")
    assert "<h3>Störung</h3>" in page
    assert "Post &amp; Co: Status" in page
    engine.run("status", "update", opened["id"], "--en", "Found it.", "--stage", "identified")
    said = engine.run("status", "resolve", opened["id"])
    assert said == f"{opened['id']}: Trouble, resolved\n"
    planned = asked(
        engine,
        *("plan", *TEXTS, "--from", "2027-01-01T00:00:00Z"),
        *("--until", "2027-01-01T02:00:00Z", "--component", "disk"),
    )
    announced = asked(engine, "announce", *TEXTS)
    summary = json.loads(fetched(engine, "/api/v2/summary.json"))
    assert summary["status"]["indicator"] == "none"
    assert [each["id"] for each in summary["scheduled_maintenances"]] == [planned["id"]]
    status = asked(engine)
    assert [each["id"] for each in status["announcements"]] == [announced["id"]]
    listed = [json.loads(line) for line in engine.run("status", "list", "--json").splitlines()]
    assert [each["kind"] for each in listed] == ["announcement", "maintenance", "incident"]
    assert len(engine.run("status", "list").splitlines()) == 4
    engine.run("status", "complete", planned["id"], "--en", "Not needed.")
    assert engine.run("status", "withdraw", announced["id"]) == f"{announced['id']} is gone.\n"
    engine.stop()
    kinds = [each["stage"] for each in asked(engine)["history"]]
    assert kinds == ["completed", "resolved"]
    with pytest.raises(EngineFailed, match="There is no entry"):
        engine.run("status", "resolve", "nothing")
    with pytest.raises(EngineFailed, match="is no id"):
        engine.run("status", "resolve", "../accounts")
    with pytest.raises(EngineFailed, match="title: there is no text"):
        engine.run("status", "announce", "--en", "Only a text.")
