"""What explanations and forecasts ask of delivery, and the answers while nothing is delivered."""

from collections.abc import Sequence
from typing import Protocol

from engine.delivery.holding import Outlook
from engine.delivery.limits import Limit
from engine.shaping.book import FlowRate
from protocols.records import DestinationRecord, EnvelopeFixed, FlowWait


class Delivering(Protocol):
    """What delivery says for explanations; see `engine.delivery.service.Delivery`."""

    def outlook(
        self, destination: str, mail: EnvelopeFixed | None, account_id: int | None = None
    ) -> Outlook | None: ...

    def limits_at_rest(self, destination: str, record: DestinationRecord) -> Sequence[Limit]: ...

    def flow_limits_at_rest(
        self, destination: str, record: DestinationRecord, wait: FlowWait
    ) -> tuple[Limit, ...]: ...

    def flow_rates(
        self, destination: str, record: DestinationRecord, account: str, campaign: str | None
    ) -> Sequence[FlowRate]: ...

    @property
    def spool_refuses_since_unix_ms(self) -> int | None: ...


class NothingDelivered:
    """In place of delivery while the engine is stopped."""

    spool_refuses_since_unix_ms = None

    def outlook(
        self, destination: str, mail: EnvelopeFixed | None, account_id: int | None = None
    ) -> None:
        return None

    def limits_at_rest(self, destination: str, record: DestinationRecord) -> Sequence[Limit]:
        return ()

    def flow_limits_at_rest(
        self, destination: str, record: DestinationRecord, wait: FlowWait
    ) -> tuple[Limit, ...]:
        return ()

    def flow_rates(
        self, destination: str, record: DestinationRecord, account: str, campaign: str | None
    ) -> Sequence[FlowRate]:
        return ()
