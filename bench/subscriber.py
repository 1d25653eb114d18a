"""Subscribers to the event stream, as many as asked for: `python -m bench.subscriber`.

A hundred of them must not cost more than the engine they watch, so this reads
websocket frames by their length alone and decodes a payload once, however many
subscribers received the same. It checks that each batch goes on where the one
before ended. It prints one JSON line when all are connected, answers each line on
its standard input with another, and ends when that input does.
"""

import argparse
import base64
import json
import os
import selectors
import socket
import sys
import time
from array import array
from collections import OrderedDict, deque
from pathlib import Path

import msgspec

# Opcodes of RFC 6455 5.2 that a server sends.
TEXT, CLOSE, PING = 1, 8, 9
# Batches are at most 25 ms apart, so the same one reaches all subscribers well
# before this many others exist.
PAYLOADS_REMEMBERED = 256


class Event(msgspec.Struct):
    address: str
    status: str


class Batch(msgspec.Struct):
    events: list[Event] = []
    after: str = ""
    cursor: str = ""
    gap: dict[str, str] | None = None


class Payloads:
    """Batches by their octets, decoded once; each has a number of its own."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Batch)
        self._recent: OrderedDict[bytes, tuple[int, Batch]] = OrderedDict()
        self.delivered: list[list[str]] = []

    def read(self, payload: bytes) -> tuple[int, Batch]:
        known = self._recent.get(payload)
        if known is None:
            batch = self._decoder.decode(payload)
            self.delivered.append([e.address for e in batch.events if e.status == "delivered"])
            known = self._recent[payload] = (len(self.delivered) - 1, batch)
            if len(self._recent) > PAYLOADS_REMEMBERED:
                self._recent.popitem(last=False)
        return known


class Subscriber:
    """One connection: frames in, counts and arrival times out."""

    def __init__(self, port: int, authorization: str, payloads: Payloads, after: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.events = self.holes = 0
        self.by_status: dict[str, int] = {}
        # Pairs of payload number and arrival, flat.
        self.arrivals = array("q")
        self._payloads = payloads
        self._buffered = bytearray()
        self._fragments: list[bytes] = []
        self._cursor: str | None = None
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            (
                f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
                f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                f"Sec-WebSocket-Protocol: eilpost.v1+json\r\nAuthorization: {authorization}\r\n\r\n"
            ).encode()
        )
        while b"\r\n\r\n" not in self._buffered:
            received = self.socket.recv(4096)
            if not received:
                raise SystemExit("the stream was refused: " + self._buffered.decode("latin-1"))
            self._buffered += received
        head, _, rest = bytes(self._buffered).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise SystemExit("the stream was refused: " + head.decode("latin-1"))
        self._buffered = bytearray(rest)
        self._send(TEXT, json.dumps({"subscribe": {"after": after, "filter": {}}}).encode())

    def receive(self) -> bool:
        """Read what is there; return whether the stream goes on."""
        received = self.socket.recv(1 << 20)
        self._buffered += received
        now_ns = time.monotonic_ns()
        while (frame := self._next_frame()) is not None:
            opcode, final, payload = frame
            if opcode == PING:
                self._send(10, payload)
            elif opcode == CLOSE:
                return False
            elif not final:
                self._fragments.append(payload)
            else:
                self._take(b"".join([*self._fragments, payload]), now_ns)
                self._fragments.clear()
        return bool(received)

    def _take(self, payload: bytes, now_ns: int) -> None:
        number, batch = self._payloads.read(payload)
        if batch.gap is not None or (self._cursor not in (None, batch.after)):
            self.holes += 1
        self._cursor = batch.cursor
        self.events += len(batch.events)
        for event in batch.events:
            self.by_status[event.status] = self.by_status.get(event.status, 0) + 1
        self.arrivals.extend((number, now_ns))

    def _next_frame(self) -> tuple[int, bool, bytes] | None:
        buffered = self._buffered
        if len(buffered) < 2:
            return None
        length, start = buffered[1] & 127, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(buffered[2:start], "big")
        if len(buffered) < start + length:
            return None
        payload = bytes(buffered[start : start + length])
        opcode, final = buffered[0] & 15, bool(buffered[0] & 128)
        del buffered[: start + length]
        return opcode, final, payload

    def _send(self, opcode: int, payload: bytes) -> None:
        # A client has to mask (RFC 6455 5.3); a mask of zeros leaves the payload as it is.
        length = len(payload)
        head = bytes((128 | opcode, 128 | length)) if length < 126 else b""
        self.socket.sendall(
            (head or bytes((128 | opcode, 254)) + length.to_bytes(2, "big")) + bytes(4) + payload
        )


def latencies_ms(
    stamps: dict[str, int], payloads: Payloads, subscribers: list[Subscriber]
) -> list[float]:
    """Return, sorted, the times from a receiver's 250 to each subscriber's event."""
    found: list[float] = []
    for subscriber in subscribers:
        pairs = iter(subscriber.arrivals)
        for number, arrived_ns in zip(pairs, pairs, strict=True):
            found.extend(
                (arrived_ns - stamps[address]) / 1e6
                for address in payloads.delivered[number]
                if address in stamps
            )
    found.sort()
    return found


def report(subscribers: list[Subscriber]) -> dict[str, object]:
    by_status: dict[str, int] = {}
    for subscriber in subscribers:
        for status, count in subscriber.by_status.items():
            by_status[status] = by_status.get(status, 0) + count
    return {
        "events": sum(subscriber.events for subscriber in subscribers),
        "holes": sum(subscriber.holes for subscriber in subscribers),
        "by_status": by_status,
        "cpu_s": time.process_time(),
    }


def obey(order: str, payloads: Payloads, subscribers: list[Subscriber]) -> dict[str, object]:
    """Answer "report" or "latency FILE", a file of [recipient, ns] pairs from the sink."""
    verb, _, path = order.partition(" ")
    if verb != "latency":
        return report(subscribers)
    stamps = dict(json.loads(Path(path).read_text(encoding="utf-8")))
    found = latencies_ms(stamps, payloads, subscribers)
    quantile = {name: found[int(len(found) * q)] for name, q in (("p50", 0.5), ("p99", 0.99))}
    return {"samples": len(found), **quantile}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.subscriber")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--authorization", required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--after", default="now")
    options = parser.parse_args()
    payloads = Payloads()
    subscribers = [
        Subscriber(options.port, options.authorization, payloads, options.after)
        for _ in range(options.count)
    ]
    selector = selectors.DefaultSelector()
    for subscriber in subscribers:
        selector.register(subscriber.socket, selectors.EVENT_READ, subscriber)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    print(json.dumps({"connected": len(subscribers)}), flush=True)
    orders: deque[str] = deque()
    while True:
        for key, _ in selector.select():
            if isinstance(key.data, Subscriber):
                if not key.data.receive():
                    selector.unregister(key.data.socket)
                continue
            text = os.read(sys.stdin.fileno(), 4096).decode()
            if not text:
                return
            orders.extend(text.splitlines())
        while orders:
            print(json.dumps(obey(orders.popleft(), payloads, subscribers)), flush=True)


if __name__ == "__main__":
    main()
