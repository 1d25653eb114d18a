"""The doctor's look at the DNS, as receivers will: our name, its reverse, the sender domains.

Asks the configured resolver, and connects to a host only if it is given one. SPF is RFC 7208,
DMARC RFC 7489; their records are looked for and not evaluated.
"""

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import trio

from engine.cli.findings import Finding, fault, ok, warning
from engine.config import Config
from engine.delivery.resolver import DnsResolver, Unresolved
from engine.delivery.service import resolver_for
from engine.delivery.wire import WireBroken, connect_tcp

PROBE_S_MAX: Final = 10.0
GREETING_BYTES_MAX: Final = 512


async def look_at_dns(config: Config, domains: Iterable[str], probe: str | None) -> list[Finding]:
    """Return what the configured resolver says of our name, these domains and, if given, a host."""
    resolver = resolver_for(config)
    findings = [await _check_resolver(resolver, config.delivery.ehlo_name)]
    findings += await _check_own_name(resolver, config.delivery.ehlo_name)
    for domain in domains:
        findings.append(await _check_spf(resolver, domain))
        findings.append(await _check_dmarc(resolver, domain))
    if probe is not None:
        findings.append(await _check_way_out(resolver, probe, config.delivery.port))
    return findings


async def _check_resolver(resolver: DnsResolver, own_name: str) -> Finding:
    name = "resolver"
    root = await resolver.texts(".")
    if not isinstance(root, Unresolved):
        return ok(name, "answers")
    # A server for some zones only may refuse the root and still be all that is needed.
    own = await resolver.addresses(own_name)
    if isinstance(own, Unresolved) and not own.permanent:
        return fault(
            name,
            _words(root),
            "Set [resolver] servers to one that answers, or repair the one in /etc/resolv.conf.",
        )
    return ok(name, f"answers for {own_name}")


async def _check_own_name(resolver: DnsResolver, own_name: str) -> list[Finding]:
    name = f"EHLO name {own_name}"
    if own_name.startswith("["):
        return [warning(name, "an address, no name", "Set [delivery] ehlo_name to a host name.")]
    if "." not in own_name.rstrip("."):
        return [
            fault(
                name,
                "no full host name",
                "Set [delivery] ehlo_name to the name that your address has in the DNS.",
            )
        ]
    addresses = await resolver.addresses(own_name.lower().rstrip("."))
    if isinstance(addresses, Unresolved):
        advice = (
            f"Give {own_name} an A or AAAA record, or set [delivery] ehlo_name to a name with one."
            if addresses.permanent
            else "Ask again; if it stays so, see to the name servers of that zone."
        )
        return [fault(name, _words(addresses), advice)]
    findings = [ok(name, ", ".join(addresses))]
    findings += [await _check_reverse(resolver, own_name, address) for address in addresses]
    return findings


async def _check_reverse(resolver: DnsResolver, own_name: str, address: str) -> Finding:
    """Large receivers refuse an address whose reverse name is missing or does not lead back."""
    name = f"reverse of {address}"
    names = await resolver.host_names(address)
    if isinstance(names, Unresolved):
        return fault(name, _words(names), "See to the reverse zone's name servers.")
    advice = f"Have whoever gave you {address} set its PTR record to {own_name}."
    if not names:
        return fault(name, "there is none", advice)
    if own_name.lower().rstrip(".") in names:
        return ok(name, ", ".join(names))
    for each in names:
        back = await resolver.addresses(each)
        if not isinstance(back, Unresolved) and _is_among(address, back):
            found = f"{each}, which leads back, but is not the EHLO name"
            return warning(name, found, f"{advice} Or set [delivery] ehlo_name to {each}.")
    return fault(name, f"{', '.join(names)}, which does not lead back", advice)


def _is_among(address: str, others: Iterable[str]) -> bool:
    # One IPv6 address has several forms.
    return ipaddress.ip_address(address) in map(ipaddress.ip_address, others)


async def _check_spf(resolver: DnsResolver, domain: str) -> Finding:
    name = f"SPF of {domain}"
    texts = await resolver.texts(domain)
    if isinstance(texts, Unresolved):
        return fault(name, _words(texts), "See to the name servers of that zone.")
    # RFC 7208 4.5: the version is the whole first word, in any case.
    found = [text for text in texts if text.lower().split(" ")[0] == "v=spf1"]
    if not found:
        advice = f'Publish a TXT record at {domain}, like "v=spf1 a:<EHLO name> -all".'
        return fault(name, "no record", advice)
    if len(found) > 1:
        return fault(name, f"{len(found)} records, which counts as an error", "Make them one.")
    if any(word.lower() in ("+all", "all") for word in found[0].split()):
        return warning(name, found[0], "This lets everybody send as you: end it with -all.")
    return ok(name, found[0])


async def _check_dmarc(resolver: DnsResolver, domain: str) -> Finding:
    """Look at the domain itself, then above it: a record there speaks for it, too."""
    name = f"DMARC of {domain}"
    labels = domain.rstrip(".").split(".")
    for start in range(max(1, len(labels) - 1)):
        place = ".".join(["_dmarc", *labels[start:]])
        texts = await resolver.texts(place)
        if isinstance(texts, Unresolved):
            return fault(name, _words(texts), "See to the name servers of that zone.")
        found = [text for text in texts if text.split(";")[0].strip() == "v=DMARC1"]
        if len(found) > 1:
            return fault(name, f"{len(found)} records at {place}, so none counts", "Keep one.")
        if found:
            return ok(name, f"{found[0]} (at {place})" if start else found[0])
    advice = f'Publish a TXT record at _dmarc.{domain}, like "v=DMARC1; p=none; rua=mailto:...".'
    return warning(name, "no record; large receivers want one of who sends much", advice)


async def _check_way_out(resolver: DnsResolver, host: str, port: int) -> Finding:
    """Connect to `host` as a delivery would, hear its greeting, and leave."""
    name = f"way out to {host} port {port}"
    addresses: tuple[str, ...] | Unresolved
    try:
        addresses = (str(ipaddress.ip_address(host)),)
    except ValueError:
        addresses = await resolver.addresses(host.lower().rstrip("."))
    if isinstance(addresses, Unresolved):
        return fault(name, _words(addresses), "Give a host that takes mail, like an MX host.")
    refusals = []
    for address in addresses:
        try:
            greeting = await _greeting_of(address, port)
        except trio.TooSlowError:
            refusals.append(f"{address}: no connection or no greeting in {PROBE_S_MAX:.0f} s")
        except OSError as error:
            refusals.append(f"{address}: {error.strerror}")
        except WireBroken as error:
            refusals.append(f"{address}: {error}")
        else:
            if greeting.startswith("220"):
                return ok(name, f"{address}: {greeting}")
            refusals.append(f"{address}: {greeting or 'closed without a greeting'}")
    return fault(
        name,
        "; ".join(refusals),
        "Try another host; if all are silent, your provider or a firewall blocks this port: "
        "have it opened, or send through a relay with [[route]].",
    )


async def _greeting_of(address: str, port: int) -> str:
    """Return the first line that the server says, "" if it closes before one."""
    heard = b""
    with trio.fail_after(PROBE_S_MAX):
        wire = await connect_tcp(address, port, None)
        try:
            while b"\n" not in heard and len(heard) < GREETING_BYTES_MAX:
                piece = await wire.receive()
                if not piece:
                    break
                heard += piece
            with suppress(WireBroken):
                await wire.send(b"QUIT\r\n")
        finally:
            wire.close()
    return heard.decode("latin-1").partition("\n")[0].strip()


def _words(unresolved: Unresolved) -> str:
    """Return the text without the codes in front, which are for receivers' replies."""
    return unresolved.text.split(" ", 2)[2]
