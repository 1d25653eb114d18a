"""What all actors share, and what each of them tells. Values only; decides nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.clock import Clock
from engine.config import DestinationLimits
from engine.delivery.disposition import Disposition
from engine.delivery.mail import ContentBudget
from engine.delivery.pool import Pool
from engine.delivery.routes import Router
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

    `connections_max` is the ceiling for a destination without a rule, `backoff_ms` gives
    the n-th wait of an unreachable destination.
    """

    spool: Spool
    clock: Clock
    router: Router
    pool: Pool
    disposition: Disposition
    budget: ContentBudget
    connections_max: int
    limits_for: Callable[[str], DestinationLimits]
    backoff_ms: Callable[[int], int]
    others_wait: Callable[[], bool]
    is_crowded: Callable[[], bool]
    started_unix_ms: int
