"""Restarts and crashes never break a rate: of a destination, of a site, of an account."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import Rule
from engine.config_values import DomainPattern, NamePattern, Rate
from engine.rehearsal.receiver import Receiver
from tests.delivery.rates import assert_within, receivers_of, restarted
from tests.delivery.world import World, config

MAILS = 150


@pytest.mark.slow
@settings(max_examples=24, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["destination", "site", "account"]),
    st.sampled_from(["5/s", "2/s, burst 7", "30/min, burst 3", "100/s, burst 40"]),
    st.lists(st.floats(0.1, 20.0), max_size=5),
    st.integers(1, 60),
)
def test_restarts_never_break_a_rate(
    kind: str, rate: str, lives_s: list[float], together: int
) -> None:
    """`together` mails share a content; what a crash repeats counts, too."""
    parsed = Rate.parse(rate)
    rules = {
        "destination": Rule(destination=DomainPattern.parse("*.test"), rate=parsed),
        "site": Rule(site=DomainPattern.parse("*.big.test"), rate=parsed),
        "account": Rule(account=NamePattern.parse("shop"), rate=parsed),
    }
    domains = ["d0.test"] if kind == "destination" else [f"d{number}.test" for number in range(5)]

    def make() -> tuple[World, list[Receiver]]:
        world = World(config=config([rules[kind]]))
        return world, receivers_of(world, domains, mx="mx.big.test" if kind == "site" else "")

    batches = [
        [
            f"r{number}@{domains[number % len(domains)]}"
            for number in range(start, min(start + together, MAILS))
        ]
        for start in range(0, MAILS, together)
    ]
    times = restarted(make, batches, lives_s)
    # A crash between the final dot and its commit sends a mail again, within the rate.
    assert len(times) >= MAILS
    assert_within(times, parsed)
