"""The doctor's look at the machine: each check with what it is for, and with what is sound."""

import os
import resource
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
import trustme

from engine.cli import doctor_machine as machine
from engine.cli.findings import Finding, Verdict
from engine.config import Config, Http, ShapingTable, load_config
from engine.config_values import ListenAddress
from tests.spool.harness import Harness
from tests.watch.looking import looking


def listening_at(port: int) -> Config:
    return Config(http=Http(listen=ListenAddress("127.0.0.1", port)))


@pytest.mark.parametrize(
    ("mode", "verdict"), [(0o700, Verdict.OK), (0o755, Verdict.WARNING), (0o770, Verdict.FAULT)]
)
def test_the_data_directory_is_closed_to_others(
    tmp_path: Path, mode: int, verdict: Verdict
) -> None:
    tmp_path.chmod(mode)
    found = machine.check_data_dir(tmp_path)
    tmp_path.chmod(0o700)
    assert found.verdict is verdict, found
    assert found.advice == ("" if verdict is Verdict.OK else f"chmod 700 {tmp_path}")


def test_a_key_that_others_can_read_is_a_fault(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "operator.key").touch(0o600)
    assert machine.check_data_dir(tmp_path).verdict is Verdict.OK
    (tmp_path / "operator.key").chmod(0o640)
    found = machine.check_data_dir(tmp_path)
    assert (found.verdict, found.advice) == (
        Verdict.FAULT,
        f"chmod 600 {tmp_path / 'operator.key'}",
    )


def test_a_data_directory_that_is_missing_a_file_or_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.check_data_dir(tmp_path / "none").verdict is Verdict.WARNING
    (tmp_path / "file").touch()
    assert machine.check_data_dir(tmp_path / "file").verdict is Verdict.FAULT
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    found = machine.check_data_dir(tmp_path)
    assert found.verdict is Verdict.FAULT
    assert "belongs to" in found.found


def test_the_disk_is_compared_with_the_mark_even_before_there_is_a_directory(
    tmp_path: Path,
) -> None:
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    place = tmp_path / "not" / "yet"
    assert machine.check_disk(place, free // 4).verdict is Verdict.OK
    assert machine.check_disk(place, free * 3 // 4).verdict is Verdict.WARNING
    assert machine.check_disk(place, free * 2).verdict is Verdict.FAULT


def test_the_clock() -> None:
    assert machine.clock_state() in range(-1, 6), "what adjtimex(2) can return"
    assert machine.check_clock(0).verdict is Verdict.OK
    assert machine.check_clock(machine.TIME_ERROR).verdict is Verdict.WARNING
    assert machine.check_clock(-1).verdict is Verdict.WARNING
    assert machine.check_stamp(-5).verdict is Verdict.OK
    assert "3,600 s ahead" in machine.check_stamp(3_600_000).found


def test_descriptors_of_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert machine.descriptors_max(None) == hard
    (tmp_path / "lock").write_text(f"{os.getpid()}\n")
    assert machine.descriptors_max(tmp_path / "lock") == hard
    assert machine.descriptors_max(tmp_path / "none") == hard
    assert machine.check_descriptors(resource.RLIM_INFINITY).verdict is Verdict.OK
    assert machine.check_descriptors(machine.DESCRIPTORS_WANTED).verdict is Verdict.OK
    assert machine.check_descriptors(machine.DESCRIPTORS_WANTED - 1).verdict is Verdict.WARNING
    assert machine.check_descriptors(256).verdict is Verdict.FAULT


def test_a_port_that_another_program_has_is_a_fault() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = listening_at(other.getsockname()[1])
        taken = machine.check_port(config, is_running=False)
        assert taken.verdict is Verdict.FAULT
        assert "in use" in taken.found
    assert machine.check_port(config, is_running=False).verdict is Verdict.OK
    dead = machine.check_port(config, is_running=True)
    assert dead.verdict is Verdict.FAULT
    assert "refused" in dead.found


def test_rules_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert machine.check_configuration(Config()).verdict is Verdict.OK
    (tmp_path / "rules.toml").write_text("[[rule]]\nrat = 3\n")
    config = Config(shaping=ShapingTable(files=(tmp_path / "rules.toml",)))
    found = machine.check_configuration(config)
    assert found.verdict is Verdict.FAULT
    assert f"{tmp_path / 'rules.toml'}:2" in found.found


def test_routes_that_no_mail_takes_are_named_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "eilpost.toml"
    assert machine.check_routes(Config()).found == "none"
    file.write_text('[[route]]\ndomain = "*.test"\nnext_hop = "127.0.0.1:25"\n')
    assert machine.check_routes(load_config(file)).verdict is Verdict.OK
    with file.open("a") as more:
        more.write('[[route]]\ndomain = "a.test"\nnext_hop = "127.0.0.1:26"\n')
    found = machine.check_routes(load_config(file))
    assert found.verdict is Verdict.WARNING
    assert found.found.startswith(f"{file}:4: no mail takes the route a.test: the route *.test")


async def test_the_port_of_a_running_engine_is_asked_also_over_tls(tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    certificate = trustme.CA().issue_cert("public.test")
    certificate.private_key_and_cert_chain_pem.write_to_path(chain)
    for tls in (None, chain):
        async with looking(Harness("memory", tmp_path), certificate=tls) as look:
            listen = ListenAddress("127.0.0.1", look.port)
            config = Config(http=Http(listen=listen, tls_certificate=tls))

            async def ask(config: Config = config) -> Finding:
                check = partial(machine.check_port, config, is_running=True)
                return await trio.to_thread.run_sync(check)

            starting = await ask()
            assert starting.verdict is Verdict.FAULT
            assert "not ready: the engine is starting" in starting.found
            look.watch.is_ready = True
            assert (await ask()).verdict is Verdict.OK


async def test_somebody_else_at_the_port_is_not_taken_for_the_engine() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        config = listening_at(listener.socket.getsockname()[1])
        check = partial(machine.check_port, config, is_running=True)
        found = await trio.to_thread.run_sync(check)
        nursery.cancel_scope.cancel()
    assert found.verdict is Verdict.FAULT
    assert "somebody else" in found.found
