"""The room's one entry: everything that delivers, connected and stopped in order.

Owns the making of the parts, the tasks they run in, and the order of the end: no more mail
is pulled, transactions in flight come to their end within a limit, what they came to is
settled, connections take their leave. Decides nothing about mail.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from engine.clock import Clock
from engine.config import Config
from engine.delivery.connection import Connection
from engine.delivery.content_room import ContentBudget
from engine.delivery.destination import Destination
from engine.delivery.disposition import SETTLERS, Disposition
from engine.delivery.flows import FlowLimits
from engine.delivery.holding import Outlook
from engine.delivery.limits import Limit, TokenBucket, restored_bucket
from engine.delivery.pool import Pool
from engine.delivery.resolver import DnsResolver, Resolver
from engine.delivery.retry import RetrySchedule
from engine.delivery.routes import Router
from engine.delivery.scheduler import RESIDENT_ACTORS_MAX, Scheduler
from engine.delivery.shaping_memory import ShapingMemory
from engine.delivery.slots import CONNECTIONS_MAX
from engine.delivery.surroundings import DestinationStatistics, Surroundings
from engine.delivery.target import TlsContexts
from engine.delivery.throttles import Throttles
from engine.delivery.wire import Connect, connect_tcp
from engine.shaping.book import Effective, FlowRate, PlacedRule, RuleBook, flow_rates
from engine.shaping.book import Way as ShapedWay
from engine.shaping.loading import load_book, reload_book
from engine.spool.interface import Spool
from protocols.records import DestinationRecord, EnvelopeFixed, FlowWait

# Most transactions end within seconds. One that takes longer is cut off: its server may have
# taken the mail, and that is told as `outcome_unknown`.
STOP_S: Final = 10.0
# Later than any wake on the agenda.
EVER_UNIX_MS: Final = 2**62


class LiveDestinations(Mapping[str, DestinationStatistics]):
    """The destinations that have an actor, each looked at when it is asked for.

    There can be thousands, and whoever asks mostly wants one of them or a page.
    """

    def __init__(self, actors: Mapping[str, Destination]) -> None:
        self._actors = actors

    def __getitem__(self, name: str) -> DestinationStatistics:
        return self._actors[name].statistics()

    def __iter__(self) -> Iterator[str]:
        return iter(self._actors)

    def __len__(self) -> int:
        return len(self._actors)


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """What delivery is doing. `destinations` has those with an actor only, as they are now."""

    destinations: Mapping[str, DestinationStatistics]
    connections: int
    connections_idle: int
    unsettled: int
    content_bytes: int


def resolver_for(config: Config) -> DnsResolver:
    """Return the resolver that the configuration asks for."""
    return DnsResolver(
        [str(server) for server in config.resolver.servers],
        own_names=[config.delivery.ehlo_name.lower().rstrip(".")],
    )


class Delivery:
    """Delivers what is in the spool while `run` runs.

    `stop` ends it in order. A cancellation ends it as a crash does: what was reported and
    is not settled yet is forgotten, and delivered again.
    """

    def __init__(
        self,
        spool: Spool,
        config: Config,
        clock: Clock,
        rand: random.Random,
        resolver: Resolver,
        connect: Connect = connect_tcp,
        *,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        settings = config.delivery
        self._spool = spool
        self._config = config
        self._book = load_book(config)
        self._egress = settings.ehlo_name.lower()
        schedule = RetrySchedule(settings.retry_s, settings.greylist_retry_s)
        self._pool = Pool(
            partial(Connection.open, tls_contexts=TlsContexts(), connect=connect),
            rand,
            connections_max=connections_max,
            ehlo_name=settings.ehlo_name,
            on_room=lambda name: self._scheduler.start_soon(name),
            learned_ceiling=self._learned_ceiling,
        )
        self._disposition = Disposition(spool, clock, rand, schedule)
        self._budget = ContentBudget()
        self._scheduler = Scheduler(spool, clock, self._actor_for)
        self._shaping_memory = ShapingMemory(spool, clock, self._live_site)
        self._throttles = Throttles(
            clock,
            wake=lambda name: self._scheduler.start_soon(name),
            changed=self._shaping_memory.changed,
        )
        self._shaping_memory.attach(self._throttles)
        self._acting = trio.CancelScope()
        self._around = Surroundings(
            spool=spool,
            clock=clock,
            router=Router(
                resolver,
                next_hop=config.next_hop,
                port=settings.port,
                private_targets=settings.private_targets,
            ),
            pool=self._pool,
            disposition=self._disposition,
            budget=self._budget,
            connections_max=settings.connections_per_destination_max,
            throttles=self._throttles,
            effective_for=self._effective_for,
            flow_rules_for=self._flow_rules_for,
            backoff_ms=lambda failures: schedule.wait_ms(failures, rand),
            others_wait=lambda: self._scheduler.others_wait,
            is_crowded=lambda: self._scheduler.is_crowded,
            started_unix_ms=clock.now_unix_ms(),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver until `stop` was called and everything is settled. SpoolFailed ends it."""
        await self._shaping_memory.load()
        async with trio.open_nursery() as helpers:
            helpers.start_soon(self._pool.run)
            for _ in range(SETTLERS):
                helpers.start_soon(self._disposition.run)
            helpers.start_soon(self._throttles.run)
            helpers.start_soon(self._shaping_memory.run)
            task_status.started()
            with self._acting:
                await self._scheduler.run()
            await self._disposition.wait_until_settled()
            await self._shaping_memory.save()
            await self._pool.close_idle()
            helpers.cancel_scope.cancel()

    def stop(self) -> None:
        """Pull no more mail; `run` returns when what is in flight is done, or cut off."""
        self._scheduler.stop()
        self._acting.deadline = trio.current_time() + STOP_S

    def statistics(self) -> DeliveryStatistics:
        return DeliveryStatistics(
            LiveDestinations(self._scheduler.residents),
            self._pool.slots.open,
            self._pool.idle,
            self._disposition.unsettled,
            self._budget.used,
        )

    def outlook(
        self, destination: str, mail: EnvelopeFixed | None, account_id: int | None = None
    ) -> Outlook | None:
        """Say how a destination's actor stands towards one of its mails, or all; None: no actor.

        Of accounts' limits only those of `account_id` are told, if it is given.
        """
        actor = self._scheduler.residents.get(destination)
        return None if actor is None else actor.outlook(mail, account_id)

    def limits_at_rest(self, destination: str, record: DestinationRecord) -> tuple[Limit, ...]:
        """Return copies of the limits that a destination's actor would find if it began now."""
        now_unix_ms = self._around.clock.now_unix_ms()
        hosts = self._hosts_of(destination, record)
        rate = self._around.effective_for(destination, hosts).rate.value
        path: list[Limit] = []
        if rate is not None:
            path.append(
                restored_bucket(
                    destination,
                    rate,
                    record,
                    started_unix_ms=self._around.started_unix_ms,
                    now_unix_ms=now_unix_ms,
                )
            )
        site = self._throttles.known(self._throttled_as(destination, record))
        for shared in (site, self._throttles.egress):
            path += shared.limits(now_unix_ms) if shared else ()
        return tuple(replace(each) if isinstance(each, TokenBucket) else each for each in path)

    def flow_limits_at_rest(
        self, destination: str, record: DestinationRecord, wait: FlowWait
    ) -> tuple[Limit, ...]:
        """Return copies of the limits that mail waits for, which an actor passes over."""
        rules = self._flow_rules_for(destination, self._hosts_of(destination, record))
        flows = FlowLimits(destination, record.site, rules, self._throttles)
        now_unix_ms = self._around.clock.now_unix_ms()
        limits = flows.limits(wait.account_id, wait.account, wait.campaign, now_unix_ms)
        flows.leave()
        return limits

    def flow_rates(
        self, destination: str, record: DestinationRecord, account: str, campaign: str | None
    ) -> Sequence[FlowRate]:
        """Return what the rules let an account or campaign send on its way to a destination."""
        rules = self._flow_rules_for(destination, self._hosts_of(destination, record))
        return flow_rates(rules, account, campaign)

    def _hosts_of(self, destination: str, record: DestinationRecord) -> Sequence[str]:
        """Return the hosts that rules about sites are matched with, as far as they are known."""
        next_hop = self._config.next_hop(destination)
        if next_hop is not None:
            return (next_hop.host,)
        return record.site.split(",") if record.site else ()

    def _throttled_as(self, destination: str, record: DestinationRecord) -> str:
        """Return the name of the throttle that a destination's mail is held to; see `Allowance`."""
        if self._config.next_hop(destination) is None:
            return record.site
        hosts = self._hosts_of(destination, record)
        has_rule = self._effective_for(destination, hosts).site_rate.value is not None
        return record.site if has_rule else destination

    @property
    def spool_refuses_since_unix_ms(self) -> int | None:
        """Since when results cannot be stored because the spool is full; None if they can."""
        return self._disposition.refused_since_unix_ms

    @property
    def shaping_memory(self) -> ShapingMemory:
        """What replies have taught, and what an operator may do about it."""
        return self._shaping_memory

    async def reload_rules(self) -> RuleBook:
        """Let the rules hold that stand in the files now; what was learned from replies stays.

        Raises ConfigError, with file and line, and then the old ones hold.
        """
        self._book = book = reload_book(self._config)
        await self.apply_rules()
        return book

    async def apply_rules(self) -> None:
        """Have all actors, and those that rest for a limit, go by the rules that hold now."""
        for actor in self._scheduler.residents.values():
            actor.rules_changed()
        # Who rests for a limit of the old rules asks the new ones.
        for row in await self._spool.due_destinations(EVER_UNIX_MS, RESIDENT_ACTORS_MAX):
            if row.cause == "rate_limit":
                self._scheduler.start_soon(row.destination)

    def _effective_for(self, name: str, hosts: Sequence[str]) -> Effective:
        return self._book.effective(ShapedWay(name, hosts, self._egress))

    def _flow_rules_for(self, name: str, hosts: Sequence[str]) -> Sequence[PlacedRule]:
        return self._book.flow_rules(ShapedWay(name, hosts, self._egress))

    def _live_site(self, name: str) -> str:
        actor = self._scheduler.residents.get(name)
        return "" if actor is None else actor.statistics().site

    def _learned_ceiling(self, site: str) -> int | None:
        throttle = self._throttles.known(site)
        return (
            None
            if throttle is None
            else throttle.learned.connections_at(self._around.clock.now_unix_ms())
        )

    def _actor_for(self, name: str) -> Destination:
        return Destination(name, self._around)
