"""The commands against the real HTTP server on a control socket, with routes from a table."""

import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import click.testing
import pytest
import trio

from engine.cli import main
from engine.http_server import (
    Access,
    HttpError,
    HttpServer,
    HttpSettings,
    OperatorSessions,
    Request,
    Response,
    Route,
)
from protocols.records import Account

Handler = Callable[[Request], Awaitable[Response]]


async def nobody(api_key: str, secret: str) -> Account | None:
    return None


@asynccontextmanager
async def engine_with(data_dir: Path, **handlers: Handler) -> AsyncIterator[None]:
    """Serve `get_events=...` as GET /v1/events, and so on, to the operator."""
    routes = [
        Route(method.upper(), f"/v1/{name}", handler, Access.OPERATOR)
        for key, handler in handlers.items()
        for method, name in [key.split("_", 1)]
    ]
    async with control_socket_with(data_dir, routes):
        yield


@asynccontextmanager
async def control_socket_with(data_dir: Path, routes: Sequence[Route]) -> AsyncIterator[None]:
    """Serve routes where commands look for a running engine."""
    data_dir.mkdir(parents=True, exist_ok=True)
    server = HttpServer(
        HttpSettings(listen=(), control_socket=data_dir / "control.sock"),
        routes,
        authenticate=nobody,
        operators=OperatorSessions(
            now_unix_ms=lambda: 0, secret_text=lambda: "secret", signing_key=bytes(32)
        ),
        now_unix_ms=lambda: 0,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        yield
        server.stop()


async def eilpost(data_dir: Path, *arguments: str) -> click.testing.Result:
    """Run a command in a thread, as it would run in a process of its own."""
    file = data_dir.with_suffix(".toml")
    file.write_text(f'data_dir = "{data_dir.name}"\n')
    runner = click.testing.CliRunner()
    return await trio.to_thread.run_sync(runner.invoke, main, [*arguments, "--config", str(file)])


def answering(value: Any) -> Handler:
    async def handle(request: Request) -> Response:
        return Response.json(value)

    return handle


def destination(name: str, **fields: object) -> dict[str, object]:
    base: dict[str, object] = dict.fromkeys(("since", "next_attempt_at", "last_reply"))
    counts = {"queued": 0, "deferred": 0, "paused": 0}
    held = {"held": 0, "holds": []}
    return {"destination": name, "state": "idle", **base, **counts, **held, **fields}


DESTINATIONS = [
    destination("idle.example"),
    destination("down.example", deferred=7, state="unreachable", last_reply="421 \x1b[31mno"),
    destination("full.example", queued=12, state="flowing"),
]


async def test_queue_lists_what_waits_the_fullest_first(tmp_path: Path) -> None:
    listing = answering({"destinations": DESTINATIONS, "after": None})
    async with engine_with(tmp_path / "data", get_destinations=listing):
        done = await eilpost(tmp_path / "data", "queue")
        as_json = await eilpost(tmp_path / "data", "queue", "--json")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "destination",
        "full.example",
        "down.example",
    ]
    assert "421 \\x1b[31mno" in done.stdout
    assert [json.loads(line) for line in as_json.stdout.splitlines()] == DESTINATIONS[2:0:-1]


async def test_queue_says_what_is_held_by_which_hold(tmp_path: Path) -> None:
    names = ("account", "destination", "site", "reply", "older_s", "address")
    hold: dict[str, object] = dict.fromkeys(names)
    hold |= {"hold_id": 4, "campaign": "spring", "since": "", "until": None, "who": "shop"}
    rows = [
        destination("a.example", queued=9, held=3, holds=[hold | {"mails": 3, "reason": ""}]),
        destination("b.example", queued=2, held=2, holds=[hold | {"mails": 2, "reason": ""}]),
        destination("c.example", queued=1),
    ]
    listing = answering({"destinations": rows, "after": None})
    async with engine_with(tmp_path / "data", get_destinations=listing):
        done = await eilpost(tmp_path / "data", "queue")
    head, *lines = done.stdout.splitlines()
    assert head.split()[:5] == ["destination", "queued", "deferred", "paused", "held"]
    assert [line.split()[4] for line in lines[:3]] == ["3", "2", "0"]
    assert lines[3:] == ["Held: 5 by hold 4 (campaign spring; by shop until it is resumed)."]


async def test_listings_are_read_to_their_last_page(tmp_path: Path) -> None:
    async def page(request: Request) -> Response:
        after = int(dict(request.query).get("after", "0"))
        rows = [destination(f"d{after}.example", queued=1)]
        return Response.json({"destinations": rows, "after": str(after + 1) if after < 3 else None})

    async with engine_with(tmp_path / "data", get_destinations=page):
        done = await eilpost(tmp_path / "data", "queue", "--json")
    assert len(done.stdout.splitlines()) == 4


async def test_an_account_is_made_with_its_plan(tmp_path: Path) -> None:
    asked: list[Any] = []

    async def make(request: Request) -> Response:
        asked.append(json.loads(request.body))
        return Response.json({"account": "shop", "api_key": "k", "secret_key": "s"})

    async with engine_with(tmp_path / "data", post_accounts=make):
        done = await eilpost(
            tmp_path / "data", "account", "create", "shop", "--plan", "free", "--json"
        )
        words = await eilpost(tmp_path / "data", "account", "create", "shop")
    assert json.loads(done.stdout) == {"account": "shop", "api_key": "k", "secret_key": "s"}
    assert asked == [
        {"account": "shop", "plan": plan, "time_zone": "UTC"} for plan in ("free", None)
    ]
    assert "secret key: s\n" in words.stdout


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (HttpError(409, "taken", "there is an account 'shop'"), "there is an account 'shop'"),
        (HttpError(503, "full", "the spool is full"), "the spool is full"),
    ],
)
async def test_a_refusal_is_shown_with_its_reason(
    error: HttpError, text: str, tmp_path: Path
) -> None:
    async def refuse(request: Request) -> Response:
        raise error

    async with engine_with(tmp_path / "data", post_accounts=refuse):
        done = await eilpost(tmp_path / "data", "account", "create", "shop")
    assert (done.exit_code, done.stderr) == (1, f"Error: {text}\n")


async def test_a_socket_below_a_long_path_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / "data"
    async with engine_with(deep, get_destinations=answering({"destinations": [], "after": None})):
        done = await eilpost(deep, "queue")
    assert (done.exit_code, done.stdout) == (0, "No mail is waiting.\n")


def event(number: int) -> dict[str, object]:
    return {
        "cursor": f"s-{number}",
        "at": f"2026-11-24T00:00:0{number}.000Z",
        "status": "delivered",
        "address": "ann@example.test",
        "reply": "250 2.0.0 OK",
        "reason": None,
    }


def log_of(*numbers: int, grows: trio.Event | None = None) -> Handler:
    """A log with these events, two a batch; who waits for more gets nothing once it "grows"."""

    async def read(request: Request) -> Response:
        query = dict(request.query)
        after = int(query["after"].removeprefix("s-").replace("start", "0"))
        events = [event(number) for number in numbers if number > after][:2]
        cursor = events[-1]["cursor"] if events else query["after"]
        if not events and query["wait_s"] != "0" and grows is not None:
            await grows.wait()
        return Response.json({"after": query["after"], "events": events, "cursor": cursor})

    return read


async def test_events_reads_to_the_head_and_ends(tmp_path: Path) -> None:
    async with engine_with(tmp_path / "data", get_events=log_of(1, 2, 3)):
        done = await eilpost(tmp_path / "data", "events")
        later = await eilpost(tmp_path / "data", "events", "--after", "s-2", "--json")
    assert done.stdout.splitlines() == [
        f"2026-11-24T00:00:0{number}.000Z  delivered     ann@example.test  250 2.0.0 OK"
        for number in (1, 2, 3)
    ]
    assert [json.loads(line) for line in later.stdout.splitlines()] == [event(3)]


async def test_filters_travel_as_repeated_parameters(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def read(request: Request) -> Response:
        seen.extend(request.query)
        return Response.json({"after": "start", "events": [], "cursor": "start"})

    async with engine_with(tmp_path / "data", get_events=read):
        wanted = ("--status=delivered", "--status=deferred", "--message-id=7")
        await eilpost(tmp_path / "data", "events", *wanted)
    assert {("status", "delivered"), ("status", "deferred"), ("message_id", "7")} <= set(seen)


@pytest.mark.slow
async def test_follow_goes_on_from_its_cursor_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "data.toml"
    file.write_text('data_dir = "data"')
    program = (
        "from engine.cli import main\n"
        f"main(['events', '--follow', '--json', '--config', {str(file)!r}])"
    )
    ended, interrupted = trio.Event(), trio.Event()
    with trio.fail_after(30):
        async with engine_with(tmp_path / "data", get_events=log_of(1, 2, 3, grows=ended)):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-u", "-c", program], stdout=PIPE
            )
            assert process.stdout is not None
            lines = Lines(process.stdout)
            assert [await lines.next() for _ in range(3)] == [event(1), event(2), event(3)]
            ended.set()
        async with engine_with(
            tmp_path / "data", get_events=log_of(1, 2, 3, 4, 5, grows=interrupted)
        ):
            assert [await lines.next() for _ in range(2)] == [event(4), event(5)]
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            interrupted.set()


class Lines:
    """The JSON lines that a process prints, one by one."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def next(self) -> Any:
        while b"\n" not in self._buffer:
            octets = await self._stream.receive_some()
            assert octets, "the process ended"
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)
