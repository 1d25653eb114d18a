"""The bench's helper processes against peers that are not ours, or nearly so."""

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus

import pytest
import trio
import trio_websocket

from bench.children import Child, Loader, NameServer, Sink, Subscribers
from engine.rehearsal.engine_process import EngineFailed

pytestmark = pytest.mark.slow


class Intake(http.server.BaseHTTPRequestHandler):
    """Takes batches as the engine would; keeps the addresses."""

    protocol_version = "HTTP/1.1"

    def __init__(self, taken: list[str], *rest: object) -> None:
        self.taken = taken
        super().__init__(*rest)  # type: ignore[arg-type]  # what the server passes on

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = self.headers["Authorization"] != "Basic good"
        if not refused:
            self.taken += [message["To"][0]["Email"] for message in body["Messages"]]
        answer = b"{}"
        self.send_response(HTTPStatus.UNAUTHORIZED if refused else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def intake() -> Iterator[tuple[int, list[str]]]:
    taken: list[str] = []
    handler = partial(Intake, taken)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port, taken
        server.shutdown()


def test_the_loader_hands_in_each_message_once(intake: tuple[int, list[str]]) -> None:
    port, taken = intake
    sizes = {"messages": 103, "destinations": 10, "octets": 2000, "batch": 20, "first": 5}
    with Loader(port, "Basic good", **sizes) as loader:
        done = loader.go()
    assert done["accepted"] == 103
    assert done["faults"] == []
    assert sorted(taken) == sorted(f"r{5 + i}@d{i % 10}.good.bench.test" for i in range(103))


def test_the_loader_tells_of_refusals(intake: tuple[int, list[str]]) -> None:
    with Loader(intake[0], "Basic bad", messages=5, destinations=1, octets=500) as loader:
        done = loader.go()
    assert done["accepted"] == 0
    assert "401" in done["faults"][0]


def test_the_name_server_and_the_sink_start_and_end() -> None:
    with Sink(hosts=2) as sink, NameServer({"good": (sink.address, 2)}) as name_server:
        assert sink.port
        assert name_server.port
        assert sink.report()["messages"] == 0


def test_a_helper_that_cannot_start_ends_the_bench() -> None:
    with pytest.raises(EngineFailed, match="a helper ended"):
        Child("bench.no_such_module")


async def test_subscribers_count_events_and_notice_a_hole() -> None:
    asked: list[object] = []

    async def tell(request: trio_websocket.WebSocketRequest) -> None:
        websocket = await request.accept(subprotocol="eilpost.v1+json")
        asked.append(json.loads(await websocket.get_message()))
        event = {"address": "r1@x.test", "status": "delivered"}
        for after, cursor in (("0", "1"), ("1", "2"), ("3", "4")):
            # Longer than 125 and than 65,535 octets: both wider forms of a frame's length.
            padding = "x" * (200 if cursor == "1" else 70_000)
            batch = {"after": after, "events": [event], "cursor": cursor, "padding": padding}
            await websocket.send_message(json.dumps(batch))
        await websocket.ping()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        serve = partial(trio_websocket.serve_websocket, tell, "127.0.0.1", 0, None)
        server = await nursery.start(serve)

        def watch() -> dict[str, object]:
            with Subscribers(server.port, "Basic good", 3, after="start") as subscribers:
                while (report := subscribers.report())["events"] < 9:
                    pass
                return report

        report = await trio.to_thread.run_sync(watch)
        nursery.cancel_scope.cancel()
    assert asked == [{"subscribe": {"after": "start", "filter": {}}}] * 3
    assert report["events"] == 9
    assert report["by_status"] == {"delivered": 9}
    assert report["holes"] == 3
