"""Is it alive, is it ready, and the figures that Prometheus collects.

The number of series does not depend on who sends or receives: no label has a
domain, an account or a campaign in it. Those are questions for `/v1/statistics`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.http_server import Access, HttpStatistics, Request, Response, Route
from engine.spool.interface import Group, Spool, SpoolStatistics
from engine.watch.destinations import LiveDestinations
from engine.watch.hub import EventHub, HubStatistics
from engine.watch.messages import account_id_of
from protocols.records import STATUSES

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Why the engine is not ready, as texts; empty when it accepts and delivers.
Readiness = Callable[[], Sequence[str]]


def routes(
    spool: Spool,
    hub: EventHub,
    live: LiveDestinations,
    *,
    readiness: Readiness,
    http_statistics: Callable[[], HttpStatistics | None],
) -> list[Route]:
    """The three routes that machines ask."""

    async def health(request: Request) -> Response:
        return Response.json({"status": "ok"})

    async def ready(request: Request) -> Response:
        missing = [*readiness()]
        return Response.json({"ready": not missing, "missing": missing}, 503 if missing else 200)

    async def metrics(request: Request) -> Response:
        account_id = account_id_of(request.identity)
        [total] = await spool.statistics(Group.TOTAL, account_id=account_id)
        families = [_messages(total.counts), *_http(http_statistics()), *_stream(hub.statistics())]
        if account_id is None:
            families += _spool(spool.spool_statistics())
            connections = sum(each.connections for each in live().values())
            families += [
                GaugeMetricFamily(
                    "eilpost_destinations_active",
                    "Destinations that are being delivered to.",
                    len(live()),
                ),
                GaugeMetricFamily(
                    "eilpost_smtp_connections", "Open connections to receivers.", connections
                ),
            ]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(families))
        return Response(200, generate_latest(registry), METRICS_TYPE)

    return [
        Route("GET", "/healthz", health, Access.OPEN),
        Route("GET", "/readyz", ready, Access.OPEN),
        Route("GET", "/metrics", metrics, Access.ACCOUNT),
    ]


class _Collected(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families

    def describe(self) -> Iterable[Metric]:
        return ()


def _messages(counts: Sequence[int]) -> Metric:
    # A gauge: mails leave "queued", and finished ones are purged after their retention.
    family = GaugeMetricFamily("eilpost_messages", "Mails by status.", labels=["status"])
    for status, count in zip(STATUSES, counts, strict=True):
        family.add_metric([str(status)], count)
    return family


def _http(statistics: HttpStatistics | None) -> Iterator[Metric]:
    if statistics is None:
        return  # Asked over something else than our port, as tests do.
    yield GaugeMetricFamily(
        "eilpost_http_connections", "Open HTTP connections.", statistics.connections
    )
    family = CounterMetricFamily("eilpost_http_responses", "Responses by class.", labels=["class"])
    for status_class, count in sorted(statistics.responses_by_class.items()):
        family.add_metric([f"{status_class}xx"], count)
    yield family
    yield CounterMetricFamily(
        "eilpost_http_timeouts", "Requests that came too slowly.", statistics.timeouts
    )


def _stream(statistics: HubStatistics) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "eilpost_stream_subscribers", "Open event streams.", statistics.subscribers
    )
    yield CounterMetricFamily(
        "eilpost_stream_log_reads", "Batches that had to be read from disk.", statistics.log_reads
    )


def _spool(statistics: SpoolStatistics) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "eilpost_spool_open", "Mails that are not finished.", statistics.envelopes_open
    )
    yield GaugeMetricFamily(
        "eilpost_spool_in_flight", "Mails that a connection has.", statistics.in_flight
    )
    yield CounterMetricFamily("eilpost_spool_commits", "Commits.", statistics.commits)
    yield CounterMetricFamily(
        "eilpost_spool_committed_items", "Mails and results committed.", statistics.items_committed
    )
    yield GaugeMetricFamily(
        "eilpost_spool_waiting", "Items waiting for a commit.", statistics.waiting_for_commit
    )
    yield CounterMetricFamily("eilpost_events", "Events in the log so far.", statistics.head_seq)
    yield GaugeMetricFamily(
        "eilpost_start_count", "How often this spool was opened.", statistics.start_count
    )
    yield GaugeMetricFamily(
        "eilpost_suspected_duplicates",
        "Mails that the last process had with a server when it died; they are tried again.",
        statistics.doubts_at_start,
    )
    yield GaugeMetricFamily(
        "eilpost_spool_quarantined", "Damaged records set aside.", statistics.quarantined
    )
    yield GaugeMetricFamily(
        "eilpost_spool_intake_open", "1 while mail is accepted.", int(statistics.intake_open)
    )
