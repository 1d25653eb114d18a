"""A network without sockets: wires in memory between the engine and receivers.

It stands behind the engine's `connect` seam in the simulation, where time is
trio's mock clock. Connections take a round trip, can be refused, and can be cut
in the middle of anything, as by a power failure.
"""

from collections.abc import Mapping

import trio

from engine.delivery.wire import MemoryWire, memory_wire_pair
from engine.rehearsal.receiver import Receiver

# A connection waits here only until the task that serves it has been started.
UNSERVED_MAX = 10_000


class MemoryNetwork:
    """Receivers by address; `connect` is the engine's seam, `serve` runs the other ends."""

    def __init__(self, receivers: Mapping[str, Receiver], *, connect_s: float = 0.0) -> None:
        self._receivers = receivers
        self._connect_s = connect_s
        self._to_serve, self._opened = trio.open_memory_channel[tuple[Receiver, MemoryWire, str]](
            UNSERVED_MAX
        )
        # In the order of their making, so that a cut is the same in each run of a seed.
        self._open: dict[MemoryWire, None] = {}

    async def connect(self, address: str, port: int, source: str | None) -> MemoryWire:
        """Raises ConnectionRefusedError where nobody listens or the receiver is down."""
        await trio.sleep(self._connect_s)
        receiver = self._receivers.get(address)
        if receiver is None or receiver.is_down():
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = memory_wire_pair()
        self._open[theirs] = None
        await self._to_serve.send((receiver, theirs, source or "127.0.0.1"))
        return ours

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the receivers' sessions until cancelled."""
        async with trio.open_nursery() as sessions:
            task_status.started()
            async for receiver, wire, client in self._opened:
                sessions.start_soon(self._serve_one, receiver, wire, client)

    async def _serve_one(self, receiver: Receiver, wire: MemoryWire, client: str) -> None:
        await receiver.serve_wire(wire, client)
        self._open.pop(wire, None)

    def cut_all(self) -> None:
        """Break every connection at once, as when one side loses its power."""
        for wire in self._open:
            wire.reset()
        self._open.clear()
