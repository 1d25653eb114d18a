"""What all actors share, and what each of them tells. Values only; decides nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.clock import Clock
from engine.delivery.content_room import ContentBudget
from engine.delivery.disposition import Disposition
from engine.delivery.pool import Pool
from engine.delivery.routes import Router
from engine.delivery.throttles import Throttles
from engine.shaping.book import Effective, PlacedRule
from engine.spool.interface import Spool


@dataclass(frozen=True, slots=True)
class DestinationStatistics:
    """What a resident actor is doing. `state` is idle, flowing, throttled or unreachable."""

    state: str
    site: str
    connections: int
    in_flight: int
    ready: int
    rate_per_s: float
    concurrency: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all actors share.

    `effective_for` says what holds for a destination whose site has these MX hosts, and
    `flow_rules_for` which rules hold there for single accounts and campaigns;
    `backoff_ms` gives the n-th wait of an unreachable destination.
    """

    spool: Spool
    clock: Clock
    router: Router
    pool: Pool
    disposition: Disposition
    budget: ContentBudget
    connections_max: int
    throttles: Throttles
    effective_for: Callable[[str, Sequence[str]], Effective]
    flow_rules_for: Callable[[str, Sequence[str]], Sequence[PlacedRule]]
    backoff_ms: Callable[[int], int]
    others_wait: Callable[[], bool]
    is_crowded: Callable[[], bool]
    started_unix_ms: int
