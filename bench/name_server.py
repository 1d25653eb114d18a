"""The name server of a bench: `python -m bench.name_server`, in a process of its own.

Each destination `dN.<group>.bench.test` has an MX of its own, so that it is a site
of its own, on one of the group's consecutive loopback addresses; in a group with 0
addresses all have one MX, so that they are one site. Like the sink it
shares the machine with what is measured, so it writes its few kinds of answer by
hand: a tenth of what a codec that knows all of DNS would take. UDP is enough, as
no answer is long. It prints its port as JSON and ends when its standard input does.
"""

import argparse
import ipaddress
import json
import os
import re
import selectors
import socket
import struct
import sys

ZONE = "bench.test"
_NAME = re.compile(rb"(?P<mx>mx\.)?d(?P<number>\d+)\.(?P<group>[a-z]+)\.bench\.test")
_HEADER = struct.Struct("!6H")
A, MX = 1, 15
# Response, authoritative, recursion "available": then nobody asks further.
FLAGS, NXDOMAIN = 0x8480, 3
TTL_S = 3600
# RFC 1035 4.1.4: what stands behind the header, the question's name.
POINTER = b"\xc0\x0c"


class Answers:
    """Answers for `groups`: name -> (first address, how many addresses)."""

    def __init__(self, groups: dict[str, tuple[str, int]]) -> None:
        self._groups = {
            name.encode(): (int(ipaddress.IPv4Address(first)), hosts)
            for name, (first, hosts) in groups.items()
        }

    def answer(self, query: bytes) -> bytes:
        """Return the whole response; b"" for what is no ordinary query."""
        if len(query) < _HEADER.size + 5 or query[2] & 0x80 or query[4:6] != b"\x00\x01":
            return b""
        labels: list[bytes] = []
        at = _HEADER.size
        while query[at]:
            length = query[at]
            labels.append(query[at + 1 : at + 1 + length])
            at += 1 + length
            if length > 63 or at + 5 > len(query):
                return b""
        question = query[_HEADER.size : at + 5]
        kind = int.from_bytes(query[at + 1 : at + 3], "big")
        number = int.from_bytes(query[:2], "big")
        data = self._data(b".".join(labels).lower(), kind)
        if data is None:
            return _HEADER.pack(number, FLAGS | NXDOMAIN, 1, 0, 0, 0) + question
        if not data:
            return _HEADER.pack(number, FLAGS, 1, 0, 0, 0) + question
        record = POINTER + struct.pack("!HHIH", kind, 1, TTL_S, len(data)) + data
        return _HEADER.pack(number, FLAGS, 1, 1, 0, 0) + question + record

    def _data(self, name: bytes, kind: int) -> bytes | None:
        """Return the one record's data, b"" if there is none of this kind, None for NXDOMAIN."""
        found = _NAME.fullmatch(name)
        if found is None or found["group"] not in self._groups:
            return None
        first, hosts = self._groups[found["group"]]
        if kind == MX and not found["mx"]:
            if not hosts:
                # `mx.d0` and the rest of the question's name, from its second label on.
                rest = 0xC000 | (_HEADER.size + 1 + name.index(b"."))
                return b"\x00\x0a\x02mx\x02d0" + rest.to_bytes(2, "big")
            return b"\x00\x0a\x02mx" + POINTER
        if kind == A and found["mx"]:
            return (first + int(found["number"]) % max(1, hosts)).to_bytes(4, "big")
        return b""


def serve(groups: dict[str, tuple[str, int]]) -> None:
    answers = Answers(groups)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, selectors.EpollSelector() as wait:
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        print(json.dumps({"port": udp.getsockname()[1]}), flush=True)
        wait.register(udp, selectors.EVENT_READ)
        wait.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in wait.select():
                if key.fd != udp.fileno():
                    if not os.read(sys.stdin.fileno(), 4096):
                        return
                    continue
                try:
                    while True:
                        query, peer = udp.recvfrom(4096)
                        if answer := answers.answer(query):
                            udp.sendto(answer, peer)
                except BlockingIOError:
                    pass


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.name_server")
    parser.add_argument("groups", nargs="+", help="NAME=FIRST_ADDRESS+HOSTS")
    groups: dict[str, tuple[str, int]] = {}
    for text in parser.parse_args().groups:
        name, _, addresses = text.partition("=")
        first, _, hosts = addresses.partition("+")
        groups[name] = (first, int(hosts))
    serve(groups)


if __name__ == "__main__":
    main()
