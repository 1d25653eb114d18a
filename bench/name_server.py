"""The name server of a bench: `python -m bench.name_server`, in a process of its own.

Each destination `dN.<group>.bench.test` has an MX of its own, so that it is a site
of its own, on one of the group's consecutive loopback addresses. It prints its
port as JSON and ends when its standard input does.
"""

import argparse
import ipaddress
import json
import re
import sys

import trio

from engine.rehearsal.dns_server import DnsServer
from engine.rehearsal.zones import Records, Zones

ZONE = "bench.test"
_NAME = re.compile(r"(?P<mx>mx\.)?d(?P<number>\d+)\.(?P<group>[a-z]+)\.bench\.test")


def zones(groups: dict[str, tuple[str, int]]) -> Zones:
    """Return the names of `groups`: name -> (first address, how many addresses)."""

    def rule(name: str) -> Records | None:
        found = _NAME.fullmatch(name)
        if found is None or found["group"] not in groups:
            return None
        if not found["mx"]:
            return Records(mx=((10, f"mx.{name}"),))
        first, hosts = groups[found["group"]]
        return Records(a=(str(ipaddress.ip_address(first) + int(found["number"]) % hosts),))

    return Zones({}, {ZONE: rule})


async def serve(groups: dict[str, tuple[str, int]]) -> None:
    server = DnsServer(zones(groups))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve)
        print(json.dumps({"port": server.port}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.name_server")
    parser.add_argument("groups", nargs="+", help="NAME=FIRST_ADDRESS+HOSTS")
    groups: dict[str, tuple[str, int]] = {}
    for text in parser.parse_args().groups:
        name, _, addresses = text.partition("=")
        first, _, hosts = addresses.partition("+")
        groups[name] = (first, int(hosts))
    trio.run(serve, groups)


if __name__ == "__main__":
    main()
