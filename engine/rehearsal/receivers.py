"""Where simulated receivers listen: loopback addresses, all on one port.

Owns sockets and being down. What a receiver takes and how it answers is `receiver`.
`python -m engine.rehearsal.receivers` runs a single one as a process.
"""

import argparse
import json
import math
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict

import trio

from engine.delivery.wire import SocketWire
from engine.rehearsal.behaviour import Behaviour
from engine.rehearsal.receiver import Receiver

# How often a port is looked for that is free on all addresses.
BIND_TRIES_MAX = 50
BACKLOG = 256


async def serve_receivers(
    receivers: Mapping[str, Receiver],
    port: int = 0,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve each receiver at its address, all on one port, which `start` returns.

    Raises OSError if the port, or with 0 any port, is not free on all addresses.
    """
    sockets = _bind_all(list(receivers), port)
    async with trio.open_nursery() as nursery:
        for receiver, listener in zip(receivers.values(), sockets, strict=True):
            # Before anybody is told the port: who is up can be connected to from then on.
            if not receiver.is_down():
                listener.listen(BACKLOG)
            nursery.start_soon(serve_socket, receiver, listener)
        task_status.started(sockets[0].getsockname()[1])


async def serve_socket(receiver: Receiver, listener: socket.socket) -> None:
    """Serve a bound socket; while down it does not listen, so connections are refused.

    A socket that stopped listening stays bound, so nobody takes the port meanwhile.
    """
    address = listener.getsockname()
    while True:
        with listener:
            await trio.sleep(_seconds_until(receiver, down=False))
            listener.listen(BACKLOG)
            with trio.move_on_after(_seconds_until(receiver, down=True)):
                await _accept_connections(receiver, listener)
        listener = _bound(*address[:2])


async def _accept_connections(receiver: Receiver, listener: socket.socket) -> None:
    # Being down ends the sessions too, as a crash of the receiver would.
    async with trio.open_nursery() as sessions:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                connection, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            sessions.start_soon(receiver.serve_wire, SocketWire(connection), peer[0])


def _seconds_until(receiver: Receiver, *, down: bool) -> float:
    """Return how long it is until the receiver is down, or no longer is; 0 if already so."""
    now_s = receiver.now_s()
    if receiver.behaviour.is_down(now_s) is down:
        return 0.0
    edges = [edge for period in receiver.behaviour.down_s for edge in period if edge > now_s]
    return min((edge - now_s for edge in edges), default=math.inf)


def _bind_all(addresses: list[str], port: int) -> list[socket.socket]:
    for tries_left in reversed(range(1 if port else BIND_TRIES_MAX)):
        chosen = port
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                sockets.append(_bound(address, chosen))
                chosen = sockets[-1].getsockname()[1]
            return sockets
        except OSError:
            for each in sockets:
                each.close()
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


async def _run_one(address: str, port: int, behaviour: Behaviour) -> None:
    receiver = Receiver(address, behaviour)
    async with trio.open_nursery() as nursery:
        taken: int = await nursery.start(serve_receivers, {address: receiver}, port)
        _say({"address": address, "port": taken})
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            _say(asdict(receiver.statistics()))
        nursery.cancel_scope.cancel()


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m engine.rehearsal.receivers",
        description="One receiver; a line on standard input asks for its counts.",
    )
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--reply-delay-s", type=float, default=0.0)
    parser.add_argument("--rate-per-s", type=float)
    parser.add_argument("--greylist-s", type=float)
    parser.add_argument("--unknown-share", type=float, default=0.0)
    parser.add_argument("--full-share", type=float, default=0.0)
    options = vars(parser.parse_args())
    trio.run(_run_one, options.pop("address"), options.pop("port"), Behaviour(**options))


if __name__ == "__main__":
    main()
