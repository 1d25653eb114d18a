"""`eilpost doctor` as a whole: with an engine that runs, one that is stopped, and none."""

import json
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click.testing
import msgspec
import pytest
import trio

from engine.cli import main
from engine.cli.doctor_bundle import LEFT_OUT, without_secret_text, without_secrets
from engine.clock import SystemClock
from engine.http_server import Request, Response
from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.engine_process import EngineFailed, EngineProcess, HttpClient
from engine.rehearsal.zones import Records, Zones
from protocols.timestamps import time_text
from tests.cli.test_control import answering, engine_with

TABLE = {
    "out.test": Records(a=("192.0.2.1",), txt=("v=spf1 a -all",)),
    "_dmarc.out.test": Records(txt=("v=DMARC1; p=none",)),
    "1.2.0.192.in-addr.arpa": Records(ptr=("out.test",)),
}
SOUND = {
    "faults": [],
    "fault_count": 0,
    "quarantined": 0,
    "intake_open": True,
    "envelopes_open": 3,
    "mails": 4,
    "looked_at": 4,
    "is_complete": False,
}
STORY = {"message_id": 17, "destination": "x.test", "subject": "Hi", "event_payload": "private"}


def condition(**fields: Any) -> dict[str, Any]:
    return SOUND | {"now": time_text(SystemClock().now_unix_ms())} | fields


@pytest.fixture
async def servers(nursery: trio.Nursery) -> AsyncIterator[str]:
    """A name server, as the configuration has it."""
    server = DnsServer(Zones(TABLE))
    await nursery.start(server.serve)
    yield f'["{server.address}:{server.port}"]'
    nursery.cancel_scope.cancel()


async def doctor(data_dir: Path, servers: str, *arguments: str) -> click.testing.Result:
    file = data_dir.with_suffix(".toml")
    file.write_text(
        f'data_dir = "{data_dir.name}"\n[http]\nlisten = "127.0.0.1:0"\n'
        f'[delivery]\nehlo_name = "out.test"\n[resolver]\nservers = {servers}\n'
    )
    runner, words = click.testing.CliRunner(), ["doctor", *arguments, "--config", str(file)]
    return await trio.to_thread.run_sync(runner.invoke, main, words)


async def spool_findings(
    data_dir: Path, servers: str, **fields: Any
) -> tuple[int, dict[str, dict[str, str]]]:
    """Ask the doctor about an engine that says this of its spool."""
    async with engine_with(data_dir, **{"get_doctor/spool": answering(condition(**fields))}):
        said = await doctor(data_dir, servers, "--json")
        findings = [json.loads(line) for line in said.stdout.splitlines()]
        return said.exit_code, {each["check"]: each for each in findings}


async def test_what_the_engine_says_of_its_spool(tmp_path: Path, servers: str) -> None:
    status, found = await spool_findings(tmp_path / "data", servers)
    assert status == any(each["verdict"] == "fault" for each in found.values())
    assert found["spool"]["verdict"] == found["quarantine"]["verdict"] == "ok"
    assert found["spool"]["found"] == "all tables agree; mails not finished: 3"
    _, found = await spool_findings(tmp_path / "data", servers, mails=12_345)
    assert "4 of 12,345 mails looked at one by one: --full" in found["spool"]["found"]
    status, found = await spool_findings(
        tmp_path / "data", servers, faults=["queue: a", "agenda: b"], fault_count=7, quarantined=2
    )
    assert status == 1
    assert found["spool"]["verdict"] == "fault"
    assert "7 faults: queue: a; agenda: b" in found["spool"]["found"]
    assert "keep a copy" in found["spool"]["advice"]
    assert found["quarantine"]["verdict"] == "warning"
    _, found = await spool_findings(
        tmp_path / "data",
        servers,
        intake_open=False,
        now=time_text(SystemClock().now_unix_ms() + 3_600_000),
    )
    assert found["spool"]["found"] == "closed for new mail"
    assert found["spool's time"]["verdict"] == "warning"


async def test_a_broken_configuration_is_the_only_finding(tmp_path: Path) -> None:
    file = tmp_path / "eilpost.toml"
    file.write_text("[delivery]\nretry = 3\n")
    runner = click.testing.CliRunner()
    words = runner.invoke(main, ["doctor", "--config", str(file)])
    line = runner.invoke(main, ["doctor", "--json", "--config", str(file)])
    assert words.exit_code == line.exit_code == 1
    assert words.stdout.startswith("fault    configuration: ")
    assert "unknown key" in msgspec.json.decode(line.stdout)["found"]


@pytest.mark.parametrize(
    "arguments",
    [("--bundle", "17"), ("--output", "x.tar.gz"), ("--domain", "no domain"), ("--bundle", "0")],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert click.testing.CliRunner().invoke(main, ["doctor", *arguments]).exit_code == 2


async def test_a_bundle_explains_a_message_and_holds_no_secret(
    tmp_path: Path, servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "bin" / "journalctl"
    journal.parent.mkdir()
    journal.write_text("#!/bin/sh\necho 'link: http://127.0.0.1:8620/#token=hush one'\n")
    journal.chmod(0o755)
    monkeypatch.setenv("PATH", f"{journal.parent}:{os.environ['PATH']}")
    asked = answering({"held_by": None})

    async def refuse(request: Request) -> Response:
        return Response.json({"error": {"code": "x", "message": "not now", "where": ""}}, 503)

    output = tmp_path / "bundle.tar.gz"
    bundle = ("--bundle", "17", "--output", str(output))
    async with engine_with(
        tmp_path / "data",
        **{
            "get_messages/17": answering(STORY),
            "get_messages/17/explain": asked,
            "get_destinations/x.test/explain": refuse,
            "get_statistics": answering({"rows": []}),
            "get_doctor/spool": answering(condition()),
        },
    ):
        said = await doctor(tmp_path / "data", servers, *bundle)
        assert said.exit_code == 0, said.output
        again = await doctor(tmp_path / "data", servers, *bundle)
        assert again.exit_code == 1
        assert "is there already" in again.stderr
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    files = unpacked(output)
    assert json.loads(files["message.json"]) == STORY | {"event_payload": LEFT_OUT}
    assert json.loads(files["explain.json"]) == {"held_by": None}
    assert json.loads(files["destination.json"]) == {"refused": "not now"}
    assert json.loads(files["configuration.json"])["data_dir"].endswith("data")
    assert {each["check"] for each in json.loads(files["doctor.json"])} >= {"spool", "clock"}
    assert files["log.txt"] == f"link: http://127.0.0.1:8620/#token={LEFT_OUT} one\n"
    assert "Message 17" in files["about.txt"]


def unpacked(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        return {
            Path(member.name).name: extracted.read().decode()
            for member in archive
            if (extracted := archive.extractfile(member)) is not None
        }


def test_secrets_are_left_out_wherever_they_stand() -> None:
    value = {
        "url": "https://ann:pass@relay.example/x",
        "plain": "https://relay.example/@x",
        "list": [{"api_secret": "x", "secret_none": None}],
        "number": 3,
    }
    assert without_secrets(value) == {
        "url": f"https://{LEFT_OUT}@relay.example/x",
        "plain": "https://relay.example/@x",
        "list": [{"api_secret": LEFT_OUT, "secret_none": None}],
        "number": 3,
    }
    assert without_secret_text("GET /v1/stream?ticket=abc&x=1") == (
        f"GET /v1/stream?ticket={LEFT_OUT}&x=1"
    )


@pytest.fixture
async def engine(tmp_path: Path, servers: str) -> AsyncIterator[EngineProcess]:
    process = EngineProcess(
        tmp_path,
        '[delivery]\nehlo_name = "out.test"\n[[route]]\ndomain = "*"\nnext_hop = "127.0.0.1:1"\n'
        f"[resolver]\nservers = {servers}",
    )
    try:
        yield process
    finally:
        await trio.to_thread.run_sync(process.stop)


@pytest.mark.slow
async def test_a_sound_engine_is_sound_before_its_first_start_running_and_stopped(
    engine: EngineProcess,
) -> None:
    async def look(*arguments: str) -> dict[str, dict[str, str]]:
        said = await trio.to_thread.run_sync(engine.run, "doctor", "--json", *arguments)
        findings = [json.loads(line) for line in said.splitlines()]
        assert all(each["verdict"] != "fault" for each in findings), findings
        return {each["check"]: each for each in findings}

    before = await look("--domain", "out.test")
    assert not (engine.directory / "data").exists(), "it leaves nothing behind"
    assert before["data directory"]["verdict"] == "warning"
    assert before["SPF of out.test"]["found"] == "v=spf1 a -all"
    credentials = await trio.to_thread.run_sync(engine.create_account, "shop")
    engine.start()
    await trio.to_thread.run_sync(engine.wait_until_ready)
    client = HttpClient(engine.port, credentials)
    message = {
        "From": {"Email": "a@out.test"},
        "To": [{"Email": "b@dead.test"}],
        "Subject": "Order",
        "TextPart": "the content",
    }
    body = json.dumps({"Messages": [message]}).encode()
    _, answer = await trio.to_thread.run_sync(client.request, "POST", "/v3.1/send", body)
    client.close()
    running = await look()
    assert "alive and ready" in running["HTTP port"]["found"]
    assert "finished: 1" in running["spool"]["found"]
    assert isinstance(answer, dict)
    message_id = str(answer["Messages"][0]["To"][0]["MessageID"])
    output = engine.directory / "bundle.tar.gz"
    bundle = ("doctor", "--bundle", message_id, "--output", str(output))
    await trio.to_thread.run_sync(engine.run, *bundle)
    files = unpacked(output)
    assert json.loads(files["message.json"])["subject"] == "Order"
    assert json.loads(files["explain.json"])["status"] in ("queued", "deferred")
    for secret in (credentials.secret_key, "the content"):
        assert all(secret not in text for text in files.values())
    await trio.to_thread.run_sync(engine.stop)
    stopped = await look()
    assert "is free" in stopped["HTTP port"]["found"]
    assert stopped["spool"] == running["spool"]
    missing = ("doctor", "--bundle", "99", "--output", str(engine.directory / "none"))
    with pytest.raises(EngineFailed, match="no message"):
        await trio.to_thread.run_sync(engine.run, *missing)
    assert not (engine.directory / "none").exists()
