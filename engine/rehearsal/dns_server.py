"""A small authoritative name server for the loopback interface, over UDP and TCP.

It owns the wire form of `zones`' answers. It refuses to recurse, and to be
fast at anything but the same question again: the answers to a question that was
asked before come from a bounded table of octets, because dnspython's codec costs
more than all the rest of a query.
"""

import struct
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio

from engine.rehearsal.zones import Fault, Records, Zones

# What a TCP client may ask before it is cut off; a real one asks a handful.
TCP_QUERIES_MAX = 1000
TCP_IDLE_S = 30.0
# Questions kept with their answers. A hundred thousand destinations are asked for
# once each, and keeping them would help nobody.
ANSWERS_KEPT_MAX = 4096
# How often a free pair of UDP and TCP ports is looked for: the kernel hands out a
# TCP port whose UDP twin may be somebody else's.
BIND_TRIES_MAX = 50
# Without EDNS a UDP answer has at most this many octets (RFC 1035 4.2.1).
UDP_BYTES_MAX = 512
NEGATIVE_TTL_S = 30


@dataclass(frozen=True, slots=True)
class DnsStatistics:
    """Queries answered over each transport, and those left without an answer."""

    udp: int
    tcp: int
    unanswered: int


class DnsServer:
    """Answers from `zones`; `serve` runs until it is cancelled.

    After `await nursery.start(server.serve)` the pair (`address`, `port`) says
    where it is. Raises OSError if no port is to be had.
    """

    def __init__(self, zones: Zones, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self.address = address
        self.port = port
        self._zones = zones
        self._udp = self._tcp = self._unanswered = 0
        self._answers: dict[tuple[bool, bytes], bytes] = {}
        self._answers_version = zones.version

    def statistics(self) -> DnsStatistics:
        return DnsStatistics(self._udp, self._tcp, self._unanswered)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        tcp, udp = await self._bind()
        with tcp, udp:
            self.port = tcp.getsockname()[1]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_udp, udp)
                nursery.start_soon(
                    trio.serve_listeners, self._serve_tcp, [trio.SocketListener(tcp)]
                )
                task_status.started()

    async def _bind(self) -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
        family = trio.socket.AF_INET6 if ":" in self.address else trio.socket.AF_INET
        for tries_left in reversed(range(BIND_TRIES_MAX)):
            tcp = trio.socket.socket(family, trio.socket.SOCK_STREAM)
            udp = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
            try:
                tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
                await tcp.bind((self.address, self.port))
                await udp.bind((self.address, tcp.getsockname()[1]))
                tcp.listen(128)
                return tcp, udp
            except OSError:
                tcp.close()
                udp.close()
                if self.port or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _serve_udp(self, udp: trio.socket.SocketType) -> None:
        while True:
            question, peer = await udp.recvfrom(4096)
            answer = self.answer(question, over_udp=True)
            if answer:
                self._udp += 1
                await udp.sendto(answer, peer)

    async def _serve_tcp(self, stream: trio.SocketStream) -> None:
        buffered = bytearray()
        async with stream:
            for _ in range(TCP_QUERIES_MAX):
                while len(buffered) < 2 or len(buffered) < 2 + _length(buffered):
                    with trio.move_on_after(TCP_IDLE_S):
                        try:
                            piece = await stream.receive_some(4096)
                        except trio.BrokenResourceError:
                            return
                        if piece:
                            buffered += piece
                            continue
                    return
                end = 2 + _length(buffered)
                answer = self.answer(bytes(buffered[2:end]), over_udp=False)
                del buffered[:end]
                if answer:
                    self._tcp += 1
                    try:
                        await stream.send_all(struct.pack("!H", len(answer)) + answer)
                    except trio.BrokenResourceError:
                        return

    def answer(self, question: bytes, *, over_udp: bool) -> bytes:
        """Return the answer's octets, or b"" where none is given."""
        if self._answers_version != self._zones.version:
            self._answers.clear()
            self._answers_version = self._zones.version
        # All but the query's number is the question, EDNS options included.
        key = (over_udp, question[2:])
        known = self._answers.get(key)
        if known is not None:
            return question[:2] + known
        answer = self._work_out(question, over_udp=over_udp)
        if not answer:
            self._unanswered += 1
        elif len(self._answers) < ANSWERS_KEPT_MAX:
            self._answers[key] = answer[2:]
        return answer

    def _work_out(self, question: bytes, *, over_udp: bool) -> bytes:
        try:
            query = dns.message.from_wire(question)
        except dns.exception.DNSException:
            return b""
        if len(query.question) != 1 or query.flags & dns.flags.QR:
            return b""
        name = query.question[0].name
        response = dns.message.make_response(query, our_payload=1232)
        response.flags |= dns.flags.AA
        passed, records = self._zones.follow(name.to_text())
        for alias, alias_records in passed:
            response.answer.append(
                dns.rrset.from_text(
                    alias + ".", alias_records.ttl_s, "IN", "CNAME", _absolute(alias_records.cname)
                )
            )
        if records is not None and records.fault is Fault.SILENCE:
            return b""
        if records is not None and records.fault is not None:
            response.answer.clear()
            servfail = records.fault is Fault.SERVFAIL
            response.set_rcode(dns.rcode.SERVFAIL if servfail else dns.rcode.REFUSED)
        else:
            end = _name_of_data(passed, name)
            _add_data(response, end, query.question[0].rdtype, records)
        if not over_udp:
            return response.to_wire(max_size=0xFFFF)
        bytes_max = max(UDP_BYTES_MAX, query.payload) if query.edns >= 0 else UDP_BYTES_MAX
        return response.to_wire(max_size=bytes_max, prefer_truncation=True)


def _name_of_data(passed: list[tuple[str, Records]], asked: dns.name.Name) -> dns.name.Name:
    """Return the name that the data belongs to: the last alias's target, or what was asked."""
    if not passed:
        return asked
    return dns.name.from_text(_absolute(passed[-1][1].cname))


def _add_data(
    response: dns.message.Message,
    name: dns.name.Name,
    rdtype: dns.rdatatype.RdataType,
    records: Records | None,
) -> None:
    texts: list[str] = []
    if records is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif rdtype == dns.rdatatype.MX:
        texts = [f"{preference} {_absolute(host)}" for preference, host in records.mx]
    elif rdtype == dns.rdatatype.A:
        texts = list(records.a)
    elif rdtype == dns.rdatatype.AAAA:
        texts = list(records.aaaa)
    elif rdtype == dns.rdatatype.TXT:
        texts = [_quoted(text) for text in records.txt]
    elif rdtype == dns.rdatatype.PTR:
        texts = [_absolute(host) for host in records.ptr]
    if records is not None and texts:
        rrset = dns.rrset.from_text_list(name, records.ttl_s, dns.rdataclass.IN, rdtype, texts)
        response.answer.append(rrset)
        return
    # RFC 2308 3: the SOA tells how long the absence may be remembered. It stands
    # at the top because the rehearsal's names belong to no zone cut of their own.
    soa = f"ns.rehearsal.invalid. hostmaster.rehearsal.invalid. 1 3600 600 86400 {NEGATIVE_TTL_S}"
    response.authority.append(dns.rrset.from_text(".", NEGATIVE_TTL_S, "IN", "SOA", soa))


def _quoted(text: str) -> str:
    """Write one TXT record in a zone file's form, in strings of 255 octets (RFC 1035 3.3.14)."""
    pieces = [text[at : at + 255] for at in range(0, len(text), 255)] or [""]
    escaped = (piece.replace("\\", "\\\\").replace('"', '\\"') for piece in pieces)
    return " ".join(f'"{piece}"' for piece in escaped)


def _absolute(name: str) -> str:
    return name if name.endswith(".") else name + "."


def _length(buffered: bytearray) -> int:
    return int.from_bytes(buffered[:2], "big")
