"""A receiver that takes everything and costs next to nothing: `python -m engine.rehearsal.sink`.

The bench measures the engine on a machine that the sink shares, so what the sink
saves the engine gets. It therefore looks for the final dot with one search and
reads only what stands between two messages; it checks nothing, refuses nothing
and keeps nothing but counts. Receivers with manners, good and bad, are in
`receivers`.

With stamps it also notes when octets arrived, by the kernel's time of it: a process that shares
two cores comes to them tens of milliseconds late, and a limit that is measured would be blamed.

It prints one JSON object when it listens, answers each line "report", "stamps" or "arrivals"
on its standard input with another, and ends when that input does.
"""

import argparse
import errno
import gc
import heapq
import ipaddress
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

CAPABILITIES = (
    b"250-sink.rehearsal.invalid\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n"
)
BANNER = b"220 sink.rehearsal.invalid ESMTP\r\n"
GO_ON = b"354 Go on\r\n"
OK = b"250 2.0.0 Ok\r\n"
END_OF_DATA = b"\r\n.\r\n"
# Enough for what a loopback socket holds, so that a 100 kB message takes few calls.
RECEIVE_BYTES = 262_144
# Lines between messages are short; a peer that sends this much without one is not speaking SMTP.
LINE_BYTES_MAX = 4096
BACKLOG = 1024
# Linux' number of SO_TIMESTAMPNS and of its control message, which Python has no name for.
SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@qq")
ANCILLARY_BYTES = socket.CMSG_SPACE(TIMESPEC.size)


@dataclass(slots=True)
class Counts:
    """What was accepted so far; times are the monotonic clock's, shared by all processes."""

    connections: int = 0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    first_ns: int = 0
    last_ns: int = 0
    recipients_by_host: dict[str, int] = field(default_factory=dict)
    # Recipient and the moment its 250 was written: (text, ns).
    stamps: list[tuple[str, int]] = field(default_factory=list)
    # Of each message when its MAIL and when the end of its data arrived, and when this process
    # came to it, in ns.
    arrivals: list[tuple[int, int, int]] = field(default_factory=list)


class SinkSession:
    """The receiving end of one connection: octets in, replies out, no socket."""

    __slots__ = (
        "_arrived_ns",
        "_begun_ns",
        "_counts",
        "_host",
        "_in_data",
        "_recipients",
        "_stamping",
        "_tail",
        "closed",
    )

    def __init__(self, counts: Counts, host: str, *, stamping: bool = False) -> None:
        self._counts = counts
        self._host = host
        self._stamping = stamping
        self._in_data = False
        self._tail = b""
        self._recipients: list[bytes] = []
        self._arrived_ns = self._begun_ns = 0
        self.closed = False

    def receive(self, chunk: bytes, arrived_ns: int = 0) -> bytes:
        """Return the replies to what `chunk` completes; sets `closed` after QUIT or nonsense.

        `arrived_ns` is when it came in, if anybody knows.
        """
        self._arrived_ns = arrived_ns
        buffered = self._tail + chunk if self._tail else chunk
        replies: list[bytes] = []
        position = 0
        while not self.closed:
            if self._in_data:
                end = buffered.find(END_OF_DATA, position)
                if end < 0:
                    # The mark may be cut anywhere, so its length less one is kept.
                    position = max(position, len(buffered) - 4)
                    break
                position = end + 5
                self._in_data = False
                self._accept()
                replies.append(OK)
                continue
            end = buffered.find(b"\r\n", position)
            if end < 0:
                self.closed = len(buffered) - position > LINE_BYTES_MAX
                break
            reply = self._command(buffered[position:end])
            replies.append(reply)
            # The line's own CRLF is the first half of the mark of an empty message.
            position = end if reply is GO_ON else end + 2
        self._tail = buffered[position:]
        self._counts.octets += len(chunk)
        return b"".join(replies)

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._recipients.append(line[9:-1] if self._stamping else b"")
        elif verb == b"DATA":
            if not self._recipients:
                return b"503 5.5.1 No recipients\r\n"
            self._in_data = True
            return GO_ON
        elif verb == b"EHLO":
            return CAPABILITIES
        elif verb == b"MAIL" or verb == b"RSET":
            self._begun_ns = self._arrived_ns
            self._recipients.clear()
        elif verb == b"QUIT":
            self.closed = True
            return b"221 2.0.0 Bye\r\n"
        return OK

    def _accept(self) -> None:
        counts = self._counts
        taken = len(self._recipients)
        now_ns = time.monotonic_ns()
        counts.first_ns = counts.first_ns or now_ns
        counts.last_ns = now_ns
        counts.messages += 1
        counts.recipients += taken
        by_host = counts.recipients_by_host
        by_host[self._host] = by_host.get(self._host, 0) + taken
        if self._stamping:
            for recipient in self._recipients:
                counts.stamps.append((recipient.decode("ascii", "replace"), now_ns))
                counts.arrivals.append((self._begun_ns, self._arrived_ns, now_ns))
        self._recipients.clear()


class Sink:
    """The sockets of all sessions, on epoll alone: a loop of its own is what keeps it cheap."""

    def __init__(self, listeners: list[socket.socket], *, round_trip_s: float, stamping: bool):
        self.counts = Counts()
        self._round_trip_s = round_trip_s
        self._stamping = stamping
        self._epoll = select.epoll()
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._sessions: dict[int, tuple[socket.socket, SinkSession]] = {}
        # Replies on their way through a simulated network: (due, order, socket, octets).
        self._travelling: list[tuple[float, int, socket.socket, bytes]] = []
        self._order = 0
        for number in self._listeners:
            self._epoll.register(number, select.EPOLLIN)

    def run(self, control: int) -> None:
        """Serve until the file `control` ends."""
        self._epoll.register(control, select.EPOLLIN | select.EPOLLHUP)
        while True:
            wait_s = -1.0
            if self._travelling:
                wait_s = max(0.0, self._travelling[0][0] - time.monotonic())
            for number, _ in self._epoll.poll(wait_s):
                if number in self._sessions:
                    self._receive(number)
                elif number in self._listeners:
                    self._accept_connections(self._listeners[number])
                elif not self._obey(os.read(control, 4096)):
                    return
            while self._travelling and self._travelling[0][0] <= time.monotonic():
                _, _, connection, replies = heapq.heappop(self._travelling)
                self._send_now(connection, replies)

    def _accept_connections(self, listener: socket.socket) -> None:
        host = listener.getsockname()[0]
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._stamping:
                connection.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            session = SinkSession(self.counts, host, stamping=self._stamping)
            self._sessions[connection.fileno()] = (connection, session)
            self._epoll.register(connection.fileno(), select.EPOLLIN)
            self.counts.connections += 1
            self._send(connection, BANNER)

    def _receive(self, number: int) -> None:
        connection, session = self._sessions[number]
        arrived_ns = 0
        try:
            if self._stamping:
                chunk, ancillary, _, _ = connection.recvmsg(RECEIVE_BYTES, ANCILLARY_BYTES)
                arrived_ns = _arrived_ns(ancillary)
            else:
                chunk = connection.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        replies = session.receive(chunk, arrived_ns) if chunk else b""
        if replies:
            self._send(connection, replies)
        if session.closed or not chunk:
            self._close(number)

    def _send(self, connection: socket.socket, replies: bytes) -> None:
        if not self._round_trip_s:
            self._send_now(connection, replies)
            return
        self._order += 1
        due = time.monotonic() + self._round_trip_s
        heapq.heappush(self._travelling, (due, self._order, connection, replies))

    def _send_now(self, connection: socket.socket, replies: bytes) -> None:
        try:
            sent = connection.send(replies)
        except OSError:
            sent = -1
        # Replies are so short that they only fail to fit when nobody reads them,
        # and then the session is over.
        if sent != len(replies) and connection.fileno() in self._sessions:
            self._close(connection.fileno())

    def _close(self, number: int) -> None:
        connection, _ = self._sessions.pop(number)
        self._epoll.unregister(number)
        connection.close()

    def _obey(self, orders: bytes) -> bool:
        for order in orders.split():
            if order == b"report":
                _say(report(self.counts))
            elif order == b"stamps":
                _say({"stamps": self.counts.stamps})
                self.counts.stamps = []
            elif order == b"arrivals":
                _say({"arrivals": self.counts.arrivals})
                self.counts.arrivals = []
        return bool(orders)


def _arrived_ns(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """Return the kernel's time of the newest octets, on the clock of all other stamps."""
    now_ns = time.monotonic_ns()
    for level, kind, octets in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack_from(octets)
            # The kernel tells it in wall time, which may be set; its age is what counts.
            age_ns: int = time.time_ns() - (seconds * 1_000_000_000 + nanoseconds)
            return now_ns - age_ns
    return now_ns


def report(counts: Counts) -> dict[str, object]:
    """Return what was accepted and what it cost this process, ready for JSON."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "connections": counts.connections,
        "messages": counts.messages,
        "recipients": counts.recipients,
        "octets": counts.octets,
        "first_ns": counts.first_ns,
        "last_ns": counts.last_ns,
        "recipients_by_host": counts.recipients_by_host,
        "cpu_s": used.ru_utime + used.ru_stime,
    }


def listen_on_consecutive(first: str, hosts: int, port: int) -> list[socket.socket]:
    """Listen on `hosts` addresses from `first` upwards, all on one port (0: any).

    Raises OSError if the port is taken on one of them.
    """
    listeners: list[socket.socket] = []
    start = ipaddress.ip_address(first)
    try:
        for index in range(hosts):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind((str(start + index), port))
            listener.listen(BACKLOG)
            port = port or listener.getsockname()[1]
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def listen_somewhere(first: str, hosts: int, port: int) -> list[socket.socket]:
    """As above; with port 0, try again when a port is free on the first address only."""
    for _ in range(50):
        try:
            return listen_on_consecutive(first, hosts, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return listen_on_consecutive(first, hosts, port)


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m engine.rehearsal.sink", description="Accept all mail, count it, forget it."
    )
    parser.add_argument("--address", default="127.0.0.1", help="the first address to listen on")
    parser.add_argument("--hosts", type=int, default=1, help="how many addresses from there on")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--round-trip-ms", type=float, default=0.0, help="delay of each reply")
    parser.add_argument("--stamps", action="store_true", help="keep recipient and time of each")
    options = parser.parse_args()
    try:
        listeners = listen_somewhere(options.address, options.hosts, options.port)
    except OSError as error:
        raise SystemExit(f"cannot listen on {options.address}: {error.strerror}") from error
    # No cycles are made here, and a collection would be a stall that the engine pays for.
    gc.disable()
    sink = Sink(listeners, round_trip_s=options.round_trip_ms / 1000, stamping=options.stamps)
    _say({"address": options.address, "port": listeners[0].getsockname()[1], "pid": os.getpid()})
    sink.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
