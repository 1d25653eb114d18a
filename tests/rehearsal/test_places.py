"""The demo's world: sixty domains, their DNS, and a list of readers spread over them."""

from collections import Counter

import pytest

from engine.rehearsal.places import KINDS, places, recipients, zones_of
from engine.rehearsal.zones import NULL_MX, Records


def test_there_are_sixty_domains_each_at_its_own_address() -> None:
    found = places()
    assert len({place.domain for place in found}) == len({place.address for place in found}) == 60
    assert Counter(place.kind.name for place in found) == {kind.name: kind.count for kind in KINDS}


def test_every_domain_with_a_server_has_an_mx_of_its_own() -> None:
    found = places()
    zones = zones_of(found)
    hosts = set()
    for place in found:
        records = zones.look_up(place.domain)
        if place.kind.behaviour is None:
            assert records == (NULL_MX if place.kind.name == "nomail" else None)
            continue
        assert records is not None
        ((_, host),) = records.mx
        hosts.add(host)
        assert zones.look_up(host) == Records(a=(place.address,))
    assert len(hosts) == 58


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_readers_are_different_and_spread_by_weight(count: int) -> None:
    found = places()
    readers = list(recipients(found, count))
    assert len(set(readers)) == count
    got = Counter(reader.partition("@")[2] for reader in readers)
    total = sum(place.kind.weight for place in found)
    for place in found:
        assert abs(got[place.domain] - count * place.kind.weight / total) <= 2
