"""`eilpost top`: what it counts, and what it shows of a real engine, in a terminal and without."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.cli.looking import RATE_OVER_S, Looker, Rates
from engine.rehearsal.engine_process import COMMAND, EngineProcess
from protocols.records import Status
from tests.scenarios.scene import Scene, scene

# Nobody listens on port 1 of loopback.
DEAD = '[[route]]\ndomain = "*.dead.test"\nnext_hop = "127.0.0.1:1"'
STATUSES = [*map(str, Status)]


class Engine:
    """Answers like an engine with these books."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(STATUSES, 0)
        self.deferrals = 0
        self.waiting: dict[str, int] = {}
        self.listings = 0

    def get(self, route: str, **query: Any) -> Any:
        if route == "/v1/statistics":
            row = {"key": "total", **self.counts, "total": sum(self.counts.values())}
            return {"rows": [row]}
        if route == "/v1/destinations":
            self.listings += 1
            rows = [
                {"destination": name, "queued": count, "deferred": 0, "paused": 0}
                for name, count in self.waiting.items()
            ]
            return {"destinations": rows, "after": None}
        assert (route, query["status"]) == ("/v1/events", "deferred")
        after = self.deferrals if query["after"] == "now" else int(query["after"])
        upto = min(self.deferrals, after + query["limit"])
        return {"events": [{}] * (upto - after), "cursor": str(upto)}

    def post(self, route: str, body: object) -> Any:
        raise AssertionError("looking changes nothing")

    def delete(self, route: str, **query: object) -> Any:
        raise AssertionError("looking changes nothing")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_rates_are_over_the_last_seconds() -> None:
    engine, clock = Engine(), Clock()
    engine.deferrals = 7
    looker = Looker(3, clock)
    look = looker.look(engine)
    assert look.rates is None
    for _ in range(int(RATE_OVER_S) + 3):
        clock.now_s += 1.0
        engine.counts["queued"] += 20
        engine.counts["delivered"] += 10
        engine.deferrals += 5000
        look = looker.look(engine)
    assert look.rates == Rates(30.0, 10.0, 5000.0)
    for _ in range(int(RATE_OVER_S) + 1):
        clock.now_s += 1.0
        look = looker.look(engine)
    assert look.rates == Rates(0.0, 0.0, 0.0)


def test_mail_that_retention_removes_is_no_negative_rate() -> None:
    engine, clock = Engine(), Clock()
    engine.counts["delivered"] = 50
    looker = Looker(3, clock)
    looker.look(engine)
    clock.now_s += 1.0
    engine.counts["delivered"] = 0
    assert looker.look(engine).rates == Rates(0.0, 0.0, 0.0)


def test_after_a_break_rates_begin_anew() -> None:
    engine, clock = Engine(), Clock()
    looker = Looker(3, clock)
    looker.look(engine)
    looker.start_over()
    clock.now_s += 1.0
    engine.deferrals += 9
    assert looker.look(engine).rates is None


def test_the_fullest_are_shown_and_all_are_counted() -> None:
    engine = Engine()
    engine.waiting = {"a.test": 1, "b.test": 0, "c.test": 7, "d.test": 7, "e.test": 9}
    look = Looker(3, Clock()).look(engine)
    assert [row["destination"] for row in look.fullest] == ["e.test", "c.test", "d.test"]
    assert look.waiting_at == 4


def test_a_listing_that_takes_long_is_asked_for_rarely() -> None:
    class Slow(Engine):
        def get(self, route: str, **query: Any) -> Any:
            clock.now_s += 0.5 if route == "/v1/destinations" else 0.0
            return super().get(route, **query)

    engine, clock = Slow(), Clock()
    looker = Looker(3, clock)
    for _ in range(30):
        looker.look(engine)
        clock.now_s += 1.0
    assert engine.listings in (2, 3, 4)


# With a real engine.


def top(engine: EngineProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "top", *arguments, "--config", str(engine.config_path)],
        capture_output=True,
        text=True,
        check=False,
    )


def some_mail(world: Scene) -> None:
    """Two mails delivered, three that wait for a receiver that is not there."""
    world.send(["ann@x.fast.test", "bob@x.fast.test"])
    world.send([f"{name}@x.dead.test" for name in ("eve", "tom", "ulf")])

    def stands() -> bool:
        [row] = world.get("/v1/destinations?destination=x.dead.test")["destinations"]
        return row["state"] == "unreachable" and world.counts().get("delivered") == 2

    world.wait_for("two delivered and a dead receiver", stands)


@pytest.mark.slow
def test_once_shows_counts_rates_and_what_holds_the_fullest(tmp_path: Path) -> None:
    with scene(tmp_path, DEAD) as world:
        some_mail(world)
        said = top(world.engine, "--once", "--every", "0.1s")
        told = json.loads(top(world.engine, "--once", "--json").stdout)
    assert said.returncode == 0, said.stderr
    assert "accepted 0.0/s, delivered 0.0/s, deferred 0.0/s" in said.stdout
    assert "Mail waits for 1 destinations." in said.stdout
    [line] = [line for line in said.stdout.splitlines() if line.startswith("x.dead.test")]
    assert line.split()[1:4] == ["3", "unreachable", "in"]
    [row] = told["fullest"]
    assert row["held_by"]["text"]
    assert row["held_by"]["text"] in line
    assert told["counts"] == {
        **dict.fromkeys(STATUSES, 0),
        "queued": 3,
        "delivered": 2,
        "total": 5,
    }
    assert told["rates"] == {"accepted": 0.0, "delivered": 0.0, "deferred": 0.0}


def test_a_stopped_engine_is_named(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, "")
    for arguments in (["--once"], [], ["--json"]):
        said = top(engine, *arguments)
        assert (said.returncode, said.stdout) == (1, "")
        assert said.stderr.startswith("Error: the engine is not running: nobody at ")


@pytest.mark.slow
def test_without_a_terminal_there_is_a_line_a_look_also_over_a_restart(tmp_path: Path) -> None:
    with scene(tmp_path, DEAD) as world:
        some_mail(world)
        command = [*COMMAND, "top", "--every", "0.1s", "--config", str(world.engine.config_path)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = process.stdout.readline()
            world.engine.kill()
            trouble = process.stderr.readline()
            world.engine.start()
            world.engine.wait_until_ready()
            ready_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            while (last := process.stdout.readline()) < ready_at:
                assert last, "it ended"
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        assert (process.returncode, rest) == (0, "")
    for line in (first, last):
        assert "3 queued, 2 delivered, 5 total  fullest: x.dead.test 3 unreachable" in line
    assert "waiting for it to come back" in trouble


@contextmanager
def in_a_terminal(engine: EngineProcess) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Run `top` on a terminal of its own; gives its process and the terminal's two ends."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    command = [*COMMAND, "top", "--every", "0.1s", "--config", str(engine.config_path)]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment) as process:
        try:
            yield process, ours, its
        finally:
            process.kill()
            os.close(its)
            os.close(ours)


def read_until(terminal: int, *words: bytes) -> bytes:
    seen = b""
    while not all(word in seen for word in words):
        assert select.select([terminal], [], [], 30)[0], seen
        seen += os.read(terminal, 65_536)
    return seen


@pytest.mark.slow
def test_a_terminal_gets_a_picture_and_q_ends_it(tmp_path: Path) -> None:
    with scene(tmp_path, DEAD) as world:
        some_mail(world)
        with in_a_terminal(world.engine) as (process, terminal, its):
            before = termios.tcgetattr(its)
            read_until(terminal, b"q ends it", b"x.dead.test", b"unreachable", b"accepted 0.0/s")
            world.engine.kill()
            read_until(terminal, b"waiting for it to come back")
            world.engine.start()
            world.engine.wait_until_ready()
            read_until(terminal, b"deferred 0.0/s")
            os.write(terminal, b"xq")
            read_until(terminal, b"\x1b[?1049l")
            assert process.wait(30) == 0
            assert termios.tcgetattr(its) == before
