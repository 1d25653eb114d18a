"""A subscriber that comes and goes, and resumes from its cursor over every death of the engine.

It speaks the real websocket over wires in memory and believes nothing: each batch has to begin
where the last one ended, and what it has seen is compared with the log in the end.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, HandshakeError, wrap_client_stream

from engine.compose import Engine
from engine.http_server import Identity, ReplayStream, Request
from protocols.stream_frames import SUBPROTOCOL_JSON, parse_cursor
from tests.simulation.lives import Life

PATH = "/v1/stream"
# A subscriber that stays for ever costs two pings a minute and resumes only at a crash.
STAY_S_MAX = 400.0


@dataclass(eq=False, slots=True)
class Follower:
    """Sees all accounts. `faults` are what no subscriber may ever see."""

    rand: random.Random
    away_s: float
    cursor: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    sessions: int = 0
    # Its last connection ends when it has seen this much.
    until_seq: float = float("inf")

    @property
    def seq(self) -> int:
        return parse_cursor(self.cursor)[1] if self.cursor else 0

    async def follow(self, living: Callable[[], tuple[Life, Engine] | None]) -> None:
        """Come and go until cancelled; `living` is the engine that can be connected to now."""
        while True:
            await trio.sleep(self.rand.choice((0.01, self.rand.uniform(0.0, self.away_s))))
            found = living()
            if found is not None:
                with trio.move_on_after(self.rand.uniform(0.0, STAY_S_MAX)):
                    await self.subscribe(*found)

    async def catch_up(self, life: Life, engine: Engine) -> None:
        """See all there is."""
        self.until_seq = engine.spool.head()
        if self.seq < self.until_seq:
            with trio.move_on_after(STAY_S_MAX):
                await self.subscribe(life, engine)

    async def subscribe(self, life: Life, engine: Engine) -> None:
        """Be one connection, until it ends."""
        self.sessions += 1
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, life, engine, theirs)
            try:
                websocket = await wrap_client_stream(
                    nursery,
                    ours,  # type: ignore[arg-type]  # any stream will do
                    "sim.test",
                    PATH,
                    subprotocols=[SUBPROTOCOL_JSON],
                )
                ask = {"subscribe": {"after": self.cursor or "start"}}
                await websocket.send_message(json.dumps(ask))
                while self.seq < self.until_seq:
                    self._take(json.loads(await websocket.get_message()))
            except (ConnectionClosed, HandshakeError):
                # The engine died, or is dead already: the next connection goes on from here.
                pass
            nursery.cancel_scope.cancel()

    async def _serve(
        self, life: Life, engine: Engine, stream: trio.StapledStream[Any, Any]
    ) -> None:
        route = next(each for each in engine.http.routes if each.pattern == PATH)
        assert route.websocket is not None
        request = Request("GET", PATH, "", [], identity=Identity(operator=True))
        try:
            await life.visit(route.websocket.run, request, ReplayStream(stream, b""))
        finally:
            # The kernel closes what a dead process had open.
            stream.send_stream.close()
            stream.receive_stream.close()

    def _take(self, frame: dict[str, Any]) -> None:
        if "gap" in frame or "error" in frame:
            self.faults.append(f"the subscriber at {self.cursor} is told {frame}")
            return
        if self.cursor and frame["after"] != self.cursor:
            self.faults.append(f"a batch begins at {frame['after']}, the last ended {self.cursor}")
        for event in frame["events"]:
            seq = parse_cursor(event["cursor"])[1]
            if seq != self.seq + 1:
                self.faults.append(f"event {seq} follows {self.seq}")
            self.cursor = event["cursor"]
            self.seen.append(event)
        if parse_cursor(frame["cursor"])[1] < self.seq:
            self.faults.append(f"a batch with event {self.seq} ends before it, {frame['cursor']}")
        self.cursor = frame["cursor"]
