"""Clients that send by the octet, never read, or never say anything, while others hand in mail.

The limits that end them have tests of their own, in virtual time. Here they hold what they can
hold, and the others must not notice.
"""

import base64
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.scenarios.scene import Scene, scene

pytestmark = pytest.mark.slow

SLOW_EACH = 100
MAILS = 1000
DRIP_S = 0.05
# A slow client may hold a connection and what it has sent so far, no more.
MEMORY_MAX_EACH = 100_000


@contextmanager
def slow_clients(door: Scene) -> Iterator[None]:
    """Keep clients of each kind connected; each of them sends another octet now and then."""
    authorization = f"Authorization: {door.credentials.authorization}\r\n"
    begun = {
        "silent": "",
        "in the head": f"POST /v3.1/send HTTP/1.1\r\n{authorization}X-Drip: ",
        "in the body": f"POST /v3.1/send HTTP/1.1\r\nHost: x\r\n{authorization}"
        'Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"Messages":[',
    }
    over = threading.Event()
    with ExitStack() as held:
        sockets = [
            (held.enter_context(socket.create_connection(("127.0.0.1", door.engine.port))), text)
            for text in begun.values()
            for _ in range(SLOW_EACH)
        ]
        for each, text in sockets:
            each.sendall(text.encode())

        def drip() -> None:
            while not over.wait(DRIP_S):
                for each, text in sockets:
                    # One that the engine has cut off meanwhile is what it deserves to be.
                    if text:
                        try:
                            each.send(b" ")
                        except OSError:
                            continue

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            yield
        finally:
            over.set()
            dripping.join()


@contextmanager
def deaf_subscribers(door: Scene) -> Iterator[None]:
    """Keep subscribers connected that ask for everything and read nothing."""
    key = base64.b64encode(os.urandom(16)).decode()
    asked = json.dumps({"subscribe": {"after": "start", "filter": {}}}).encode()
    # A client's frame, masked with zeros (RFC 6455 5.3).
    frame = bytes((0x81, 0x80 | len(asked), 0, 0, 0, 0)) + asked
    with ExitStack() as held:
        for _ in range(SLOW_EACH):
            each = held.enter_context(socket.socket())
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            each.connect(("127.0.0.1", door.engine.port))
            each.sendall(
                f"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1:{door.engine.port}\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: eilpost.v1+json\r\n"
                f"Authorization: {door.credentials.authorization}\r\n\r\n".encode()
            )
            assert each.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 101"
            each.sendall(frame)
        yield


def test_others_hand_in_and_get_through(tmp_path: Path) -> None:
    with scene(tmp_path) as door:
        before = door.engine.private_bytes()
        with slow_clients(door), deaf_subscribers(door):
            ids = door.send([f"to{number}@d{number % 9}.fast.test" for number in range(MAILS)])
            assert door.wait_until_final() == {"delivered": MAILS}
            assert sorted(door.delivered()) == sorted(ids)
            assert door.engine.private_bytes() - before < 4 * SLOW_EACH * MEMORY_MAX_EACH
        # Nothing that they began was taken for a request.
        assert sum(door.counts().values()) == MAILS
