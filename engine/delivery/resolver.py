"""Where does a domain's mail go? MX and address look-ups, remembered for a while.

Owns the `Resolver` seam, its implementation on dnspython, the cache, and the line
between "never" and "not now": a domain that is known not to take mail is a value
with `permanent` set, and everything doubtful (SERVFAIL, timeouts, loops, nonsense)
is a value without it. Connects to no mail server and decides no retry; preference
order is `protocols.mx`, and which addresses are fair game is `routes`. `texts` and
`host_names` are no part of the seam: no mail waits for them, only `eilpost doctor`.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Final, Generic, Protocol, TypeVar

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.reversename
import trio

from protocols.mx import ADDRESSES_MAX, MxHost, NoMx, mail_hosts, site_name
from protocols.records import Reason, Status

# A time to live of 0 would ask for every message, and one of 2^31 would never ask again.
TTL_S_MIN: Final = 30.0
TTL_S_MAX: Final = 3600.0
# Before anything was found out.
NEVER_S: Final = float("-inf")
# That a domain does not exist is believed for less long: people repair it and try again at once.
ABSENCE_TTL_S_MAX: Final = 300.0
# A failing name server is asked twice a minute about one name, however many mails wait for it.
FAILURE_TTL_S: Final = 30.0
# Some 2 kB each: enough for the busy part of a large address list in 20 MB a cache.
CACHE_ENTRIES_MAX: Final = 10_000
# RFC 1034 wants no limit but no loop; resolvers in use stop between 8 and 16 aliases.
ALIASES_MAX: Final = 8
# Each query is a socket; a restart with 100,000 domains must not open them all at once.
QUERIES_AT_ONCE_MAX: Final = 100
# One try at one server, and all of them together. Longer than dnspython's five seconds, because
# a slow answer costs nobody else anything here and a missing one a whole retry.
TRY_TIMEOUT_S: Final = 2.5
LIFETIME_S: Final = 10.0
# The size that crosses every path without fragments (DNS flag day 2020).
EDNS_PAYLOAD_BYTES: Final = 1232


@dataclass(frozen=True, slots=True)
class MailHost:
    """A host that takes mail: its name and what it resolved to, IPv6 and IPv4 in turns."""

    preference: int
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MailHosts:
    """Where a domain's mail goes, by preference; hosts that did not resolve are left out.

    `some_failed` says that one of those may well be there: its look-up failed just now.
    """

    hosts: tuple[MailHost, ...]
    site: str
    some_failed: bool = False


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A domain (or host) that cannot be reached by name, for ever or just now.

    `text` is one line in the form of a reply, "550 5.1.2 ...".
    """

    permanent: bool
    reason: Reason
    text: str

    @property
    def status(self) -> Status:
        """The status its mail ends in if `permanent`: only what does not exist is a hard bounce."""
        if self.reason in (Reason.NO_SUCH_DOMAIN, Reason.NULL_MX):
            return Status.HARD_BOUNCED
        return Status.BLOCKED if self.reason is Reason.POLICY else Status.SOFT_BOUNCED


class Resolver(Protocol):
    """The seam: names in, values out. It never raises for what the network says.

    What was found out before `since_s` (trio's clock) is asked again.
    """

    async def mail_hosts(
        self, domain: str, *, since_s: float = NEVER_S
    ) -> MailHosts | Unresolved: ...

    async def addresses(
        self, host: str, *, since_s: float = NEVER_S
    ) -> tuple[str, ...] | Unresolved: ...


@dataclass(slots=True)
class AnswerCounts:
    """How many questions were answered, whatever the answer said, and how many met silence."""

    answered: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class _Records:
    """One answer: its data, whether the name exists at all, and seconds to live."""

    data: tuple[Any, ...]
    exists: bool
    ttl_s: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why there is no data. `was_answered`: a name server said something, if nothing of use."""

    text: str
    was_answered: bool = True


V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[V]):
    """What is remembered, when it was found out, and until when it holds."""

    found_s: float
    until_s: float
    value: V


@dataclass(slots=True)
class Memory(Generic[V]):
    """A bounded cache with one look-up in flight per name. Times are trio's clock."""

    entries_max: int
    _kept: OrderedDict[str, _Kept[V]] = field(default_factory=OrderedDict)
    _in_flight: dict[str, trio.Event] = field(default_factory=dict)

    async def get(
        self,
        name: str,
        look_up: Callable[[str], Awaitable[tuple[V, float]]],
        since_s: float = NEVER_S,
    ) -> V:
        """Return what is remembered of `name`, else what `look_up` returns with its seconds.

        What was found out before `since_s` is not remembered.
        """
        while True:
            kept = self._kept.get(name)
            now_s = trio.current_time()
            if kept is not None and kept.until_s > now_s and kept.found_s >= since_s:
                self._kept.move_to_end(name)
                return kept.value
            running = self._in_flight.get(name)
            if running is None:
                break
            # If the one who asks is cancelled, nothing is kept and one of us asks instead.
            await running.wait()
        done = self._in_flight[name] = trio.Event()
        try:
            value, ttl_s = await look_up(name)
            now_s = trio.current_time()
            self._kept[name] = _Kept(now_s, now_s + ttl_s, value)
            self._kept.move_to_end(name)
            if len(self._kept) > self.entries_max:
                self._kept.popitem(last=False)
            return value
        finally:
            del self._in_flight[name]
            done.set()

    def __len__(self) -> int:
        return len(self._kept)


class DnsResolver:
    """The `Resolver` that asks name servers.

    `servers` are "IP:port" or "[IPv6]:port"; without any, the system's from
    /etc/resolv.conf. `own_names` are our host names, in lower case.
    """

    def __init__(
        self,
        servers: Sequence[str] = (),
        *,
        own_names: Sequence[str] = (),
        try_s: float = TRY_TIMEOUT_S,
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        self._dns = _configured(servers)
        self._dns.timeout, self._dns.lifetime = try_s, lifetime_s
        self._own_names = frozenset(own_names)
        self.counts: Final = AnswerCounts()
        self._queries = trio.CapacityLimiter(QUERIES_AT_ONCE_MAX)
        self._domains: Memory[MailHosts | Unresolved] = Memory(CACHE_ENTRIES_MAX)
        self._hosts: Memory[tuple[tuple[str, ...] | Unresolved, float]] = Memory(CACHE_ENTRIES_MAX)

    async def mail_hosts(self, domain: str, *, since_s: float = NEVER_S) -> MailHosts | Unresolved:
        """Return the hosts for mail to `domain` (A-labels), or why there are none."""
        return await self._domains.get(
            domain, partial(self._look_up_domain, since_s=since_s), since_s
        )

    async def addresses(
        self, host: str, *, since_s: float = NEVER_S
    ) -> tuple[str, ...] | Unresolved:
        """Return the addresses of `host`, at most eight, or why there are none."""
        found, _ = await self._hosts.get(host, self._look_up_host, since_s)
        return found

    async def texts(self, name: str) -> tuple[str, ...] | Unresolved:
        """Return the TXT records of `name`, each put together; none if there is no such name.

        Nothing is remembered: whoever asks has just changed them.
        """
        answer = await self._ask(name, dns.rdatatype.TXT)
        if isinstance(answer, _Failure):
            return _not_now(name, answer)
        # RFC 7208 3.3: the strings of a record belong together, without anything in between.
        return tuple(b"".join(each.strings).decode("utf-8", "replace") for each in answer.data)

    async def host_names(self, address: str) -> tuple[str, ...] | Unresolved:
        """Return the names that the reverse zone gives an IP address, in lower case."""
        name = dns.reversename.from_address(address).to_text()
        answer = await self._ask(name, dns.rdatatype.PTR)
        if isinstance(answer, _Failure):
            return _not_now(name, answer)
        return tuple(each.target.to_text(omit_final_dot=True).lower() for each in answer.data)

    async def is_answering(self) -> bool:
        """Ask for the root's name servers, which is nobody's fault but the resolver's.

        A refusal is an answer; only silence is none.
        """
        answer = await self._ask(".", dns.rdatatype.NS)
        return answer.was_answered if isinstance(answer, _Failure) else True

    async def _look_up_domain(
        self, domain: str, since_s: float
    ) -> tuple[MailHosts | Unresolved, float]:
        answer = await self._ask(domain, dns.rdatatype.MX)
        if isinstance(answer, _Failure):
            return _not_now(domain, answer), FAILURE_TTL_S
        absence_ttl_s = min(answer.ttl_s, ABSENCE_TTL_S_MAX)
        if not answer.exists:
            text = f"550 5.1.2 domain {domain} does not exist"
            return Unresolved(True, Reason.NO_SUCH_DOMAIN, text), absence_ttl_s
        records = [(record.preference, record.exchange.to_text()) for record in answer.data]
        hosts = mail_hosts(domain, records, own_names=self._own_names)
        if hosts is NoMx.NULL_MX:
            text = f"556 5.1.10 domain {domain} takes no mail (null MX)"
            return Unresolved(True, Reason.NULL_MX, text), absence_ttl_s
        if hosts is NoMx.OURSELVES:
            text = f"550 5.4.6 mail for {domain} would come back to this system"
            return Unresolved(True, Reason.DNS, text), absence_ttl_s
        return await self._resolve_hosts(domain, hosts, answer, since_s, implicit=not records)

    async def _resolve_hosts(
        self,
        domain: str,
        hosts: Sequence[MxHost],
        answer: _Records,
        since_s: float,
        *,
        implicit: bool,
    ) -> tuple[MailHosts | Unresolved, float]:
        found: dict[str, tuple[tuple[str, ...] | Unresolved, float]] = {}

        async def resolve(name: str) -> None:
            found[name] = await self._hosts.get(name, self._look_up_host, since_s)

        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(resolve, host.name)
        usable = tuple(
            MailHost(host.preference, host.name, addresses)
            for host in hosts
            if isinstance(addresses := found[host.name][0], tuple)
        )
        missing = [reached for reached, _ in found.values() if isinstance(reached, Unresolved)]
        if usable:
            ttl_s = min(answer.ttl_s, *(ttl_s for _, ttl_s in found.values()))
            some_failed = any(not failure.permanent for failure in missing)
            return MailHosts(usable, site_name(hosts), some_failed), max(ttl_s, TTL_S_MIN)
        for failure in missing:
            if not failure.permanent:
                return failure, FAILURE_TTL_S
        if implicit:
            text = f"550 5.1.2 domain {domain} has neither MX nor address"
            reason = Reason.NO_SUCH_DOMAIN
        else:
            # RFC 5321 5.1: MX records of which none is usable are an error to be reported, and the
            # domain's own address is no way round. The domain exists, so this is no hard bounce.
            text = f"550 5.4.4 no MX host of {domain} has an address"
            reason = Reason.DNS
        return Unresolved(True, reason, text), min(answer.ttl_s, ABSENCE_TTL_S_MAX)

    async def _look_up_host(
        self, host: str
    ) -> tuple[tuple[tuple[str, ...] | Unresolved, float], float]:
        answers: dict[dns.rdatatype.RdataType, _Records | _Failure] = {}

        async def ask(kind: dns.rdatatype.RdataType) -> None:
            answers[kind] = await self._ask(host, kind)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, dns.rdatatype.AAAA)
            nursery.start_soon(ask, dns.rdatatype.A)
        of_kind = [
            [record.address for record in answer.data] if isinstance(answer, _Records) else []
            for answer in (answers[dns.rdatatype.AAAA], answers[dns.rdatatype.A])
        ]
        # In turns, so that a machine without IPv6 is at the second address soon, not at the ninth.
        mixed = [address for address in chain(*zip_longest(*of_kind)) if address is not None]
        ttl_s = TTL_S_MAX
        for answer in answers.values():
            if isinstance(answer, _Failure):
                # One kind failed: what the other kind said is used, but not for long.
                ttl_s = FAILURE_TTL_S
                if not mixed:
                    return (_not_now(host, answer), ttl_s), ttl_s
            elif answer.data or not mixed:
                ttl_s = min(ttl_s, answer.ttl_s)
        if mixed:
            return (tuple(mixed[:ADDRESSES_MAX]), ttl_s), ttl_s
        ttl_s = min(ttl_s, ABSENCE_TTL_S_MAX)
        text = f"550 5.4.4 host {host} has no address"
        return (Unresolved(True, Reason.DNS, text), ttl_s), ttl_s

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> _Records | _Failure:
        """Ask for one kind of record and count whether anybody answered."""
        answer = await self._ask_along(name, kind)
        if isinstance(answer, _Failure) and not answer.was_answered:
            self.counts.unanswered += 1
        else:
            self.counts.answered += 1
        return answer

    async def _ask_along(self, name: str, kind: dns.rdatatype.RdataType) -> _Records | _Failure:
        """Ask for one kind of record, following aliases that the server left unresolved."""
        try:
            asked = dns.name.from_text(name, origin=dns.name.root)
        except dns.exception.DNSException:
            # A name that cannot be asked for cannot exist (an MX record may hold any octets).
            return _Records((), exists=False, ttl_s=TTL_S_MAX)
        ttl_s = TTL_S_MAX
        for _ in range(ALIASES_MAX):
            try:
                async with self._queries:
                    answer = await self._dns.resolve(
                        asked, kind, raise_on_no_answer=False, search=False, backend=_BACKEND
                    )
            except dns.resolver.NXDOMAIN:
                return _Records((), exists=False, ttl_s=ABSENCE_TTL_S_MAX)
            except dns.resolver.LifetimeTimeout as error:
                return _Failure("no name server answered in time", _has_answer(error))
            except dns.resolver.NoNameservers as error:
                return _Failure(_first_fault(error), _has_answer(error))
            except dns.exception.DNSException as error:
                return _Failure(type(error).__name__)
            except OSError as error:
                return _Failure(type(error).__name__, was_answered=False)
            ttl_s = min(max(answer.chaining_result.minimum_ttl, TTL_S_MIN), ttl_s)
            if answer.rrset is not None:
                return _Records(tuple(answer.rrset), exists=True, ttl_s=ttl_s)
            if answer.canonical_name == asked:
                return _Records((), exists=True, ttl_s=ttl_s)
            asked = answer.canonical_name
        return _Failure("too many aliases, or a loop of them")


_BACKEND: Final = dns.asyncbackend.get_backend("trio")


def _configured(servers: Sequence[str]) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    if servers:
        resolver.nameservers = [_name_server(server) for server in servers]
    else:
        try:
            resolver.read_resolv_conf("/etc/resolv.conf")
        except (OSError, dns.resolver.NoResolverConfiguration):
            # What the C library does without the file (resolv.conf(5)).
            resolver.nameservers = ["127.0.0.1"]
    resolver.use_edns(0, 0, EDNS_PAYLOAD_BYTES)
    return resolver


def _name_server(text: str) -> dns.nameserver.Nameserver:
    host, _, port = text.rpartition(":")
    return dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))


def _first_fault(error: dns.resolver.NoNameservers) -> str:
    """Return what went wrong at the first server, without its address and our query's."""
    faults = error.kwargs.get("errors") or []
    if not faults:
        return "all name servers failed"
    # Each is (server, over TCP, port, what happened, response); what happened is a text for a
    # response code, else an exception, which may have no text of its own.
    happened = faults[0][3]
    return str(happened) or type(happened).__name__


def _has_answer(error: dns.resolver.LifetimeTimeout | dns.resolver.NoNameservers) -> bool:
    """Say whether any of the servers that were asked said anything at all."""
    faults = error.kwargs.get("errors") or []
    return any(fault[4] is not None for fault in faults)


def _not_now(name: str, failure: _Failure) -> Unresolved:
    return Unresolved(
        False, Reason.DNS, f"451 4.4.3 DNS look-up of {name} failed: {failure.text}"[:500]
    )
