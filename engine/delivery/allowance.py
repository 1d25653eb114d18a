"""What one destination may send now: its rules, its own bucket, and the limits that it shares.

One question and one charge for the actor: all limits on the path are asked, then all are charged,
with no wait in between. Owns the choice of rules for the way that was found, and passes on what a
reply says about them. Owns no wait, no mail and no connection.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from engine.delivery.flows import WAITS_MAX, FlowLimits
from engine.delivery.health import Health
from engine.delivery.limits import (
    RESIDENT_WAIT_MS,
    ConnectionLimit,
    Limit,
    Refusals,
    TokenBucket,
    binding_limit,
    restored_bucket,
)
from engine.delivery.pool import Wanted
from engine.delivery.routes import Way
from engine.delivery.surroundings import Surroundings
from engine.delivery.throttles import Throttle
from protocols.outcomes import Bounced, Deferred
from protocols.records import DestinationRecord, EnvelopeFixed, FlowWait
from protocols.transactions import TlsPolicy


class Allowance:
    """`limits` are those of the destination, `wanted` is what it can use; None before a way."""

    def __init__(self, name: str, around: Surroundings) -> None:
        self._name = name
        self._around = around
        self._effective = around.effective_for(name, ())
        # The throttles of the site and of all mail from here, once the site is known.
        self._shared: Sequence[Throttle] = ()
        # Those of them that let us have a place; the others keep enough actors busy without us.
        self._busy_at: set[Throttle] = set()
        self.limits = self._effective.of_destination()
        self.bucket: TokenBucket | None = None
        self.wanted: Wanted | None = None
        # The limits of single accounts and campaigns, if a rule has any for this way.
        self.flows: FlowLimits | None = None
        self.refusals = Refusals()

    def take_up(self, way: Way, waits: Sequence[FlowWait]) -> None:
        """Go by the rules for this way from now on; `set_rate` comes next.

        `waits` are those of the record: whose mail was passed over before.
        """
        around = self._around
        effective = around.effective_for(self._name, [host.name for host in way.hosts])
        self._effective, self.limits = effective, effective.of_destination()
        # A rule for one domain is no rule for all others at its site; one that allows more is.
        site_ceiling = effective.site_connections_max.value
        if site_ceiling is None:
            site_ceiling = max(self.limits.connections_max, around.connections_max)
        self.wanted = around.pool.wanted(way, TlsPolicy(self.limits.tls), site_ceiling)
        # A next hop stands for many receivers: what one of them says is not about the others.
        is_shared = not way.routed or effective.site_rate.value is not None
        site = around.throttles.site(way.site if is_shared else self._name)
        egress = around.throttles.egress
        site.rule, egress.rule = effective.site_rate.value, effective.egress_rate.value
        self._share((site, egress))
        rules = around.flow_rules_for(self._name, [host.name for host in way.hosts])
        self._leave_flows()
        if rules:
            self.flows = FlowLimits(self._name, way.site, rules, around.throttles)
            self.flows.meet(waits)

    def leave(self) -> None:
        """Let go of what is shared: the actor ends."""
        self._share(())
        self._leave_flows()

    def _leave_flows(self) -> None:
        if self.flows is not None:
            self.flows.leave()
            self.flows = None

    def _share(self, shared: Sequence[Throttle]) -> None:
        for each in shared:
            each.users += 1
            if each not in self._busy_at and self._around.throttles.has_place(each):
                self._busy_at.add(each)
                each.busy += 1
        for each in self._shared:
            each.users -= 1
        self._shared = shared
        for each in self._busy_at.difference(shared):
            self._busy_at.remove(each)
            each.busy -= 1

    def hear(self, outcome: Deferred | Bounced) -> bool:
        """Let the site's throttle learn from a reply that took no mail; say whether it did."""
        if not self._shared or self.wanted is None:
            return False
        pool, throttles = self._around.pool, self._around.throttles
        open_connections = pool.site_of(self.wanted).limit.open
        has_learned = throttles.heard(
            self._shared[0], self._effective, outcome, open_connections=open_connections
        )
        if has_learned:
            # Its ceiling may have come down for those who are there already.
            pool.site_of(self.wanted)
        return has_learned

    def connections_allowed(self, now_unix_ms: int) -> int:
        """Return how many connections the rules and the site's replies leave to it."""
        taught = self.taught_connections(now_unix_ms)
        return self.limits.connections_max if taught is None else taught.ceiling

    def taught_connections(self, now_unix_ms: int) -> ConnectionLimit | None:
        """Return how many connections the site's replies leave, and which reply; None: no limit."""
        taught = [
            ConnectionLimit(each.scope, each.key, ceiling, reply=each.learned.reply)
            for each in self._shared
            if (ceiling := each.learned.connections_at(now_unix_ms)) is not None
        ]
        return min(taught, key=attrgetter("ceiling"), default=None)

    def set_rate(self, record: DestinationRecord, now_unix_ms: int) -> bool:
        """Let the bucket have the destination's own rate from now on.

        Returns whether the record has to be stored before anything is sent: it has no stamp yet,
        and after a crash a bucket without one would be full.
        """
        rate = self.limits.rate
        if rate is None:
            self.bucket = None
            return False
        if self.bucket is not None:
            if (self.bucket.rate_per_s, self.bucket.burst) != (rate.per_s, rate.burst):
                self.bucket.change_rate(rate, now_unix_ms)
            return False
        self.bucket = restored_bucket(
            self._name,
            rate,
            record,
            started_unix_ms=self._around.started_unix_ms,
            now_unix_ms=now_unix_ms,
        )
        if record.bucket_unix_ms:
            return False
        record.bucket_level = self.bucket.level
        record.bucket_unix_ms = self.bucket.at_unix_ms
        return True

    def path(self, now_unix_ms: int) -> list[Limit]:
        """Return all limits that are asked before a mail goes."""
        path: list[Limit] = [] if self.bucket is None else [self.bucket]
        for each in self._shared:
            path += each.limits(now_unix_ms)
        return path

    def path_copied(self, now_unix_ms: int) -> list[Limit]:
        """Return the same as values that do not move on."""
        return [
            replace(limit) if isinstance(limit, TokenBucket) else limit
            for limit in self.path(now_unix_ms)
        ]

    def flow_path(
        self,
        mail: EnvelopeFixed | None,
        now_unix_ms: int,
        *,
        passing: int,
        account_id: int | None = None,
    ) -> tuple[Limit, ...]:
        """Return copies of the limits of a mail's account.

        Without a mail those that keep all back, so none while some are `passing`; only those of
        `account_id` if it is given.
        """
        if self.flows is None:
            return ()
        if mail is None:
            return () if passing else self.flows.refusing(now_unix_ms, account_id)
        return self.flows.limits(mail.account_id, mail.account, mail.campaign, now_unix_ms)

    def whole_at(self, now_unix_ms: int) -> int | None:
        """Return how many may pass now; None if there is no limit."""
        path = self.path(now_unix_ms)
        if not path:
            return None
        if binding_limit(path, now_unix_ms)[0] is not None:
            return 0
        return min(
            (limit.whole_at(now_unix_ms) for limit in path if isinstance(limit, TokenBucket)),
            default=None,
        )

    def holds_back(self, now_unix_ms: int) -> bool:
        """Say whether mail waits for a limit: now, or a moment ago, before the latest token."""
        return self.refusals.since(now_unix_ms) is not None or self.whole_at(now_unix_ms) == 0

    def charge(self, messages: int, now_unix_ms: int) -> None:
        """Take what was asked for before, at the same `now_unix_ms`."""
        if self.bucket is not None:
            self.bucket.charge(messages, now_unix_ms)
        for each in self._shared:
            each.charge(messages, now_unix_ms)

    def soon(self, now_unix_ms: int) -> float:
        """Return about how many may pass within the time that an actor waits for a limit."""
        return min(
            (
                limit.level_at(now_unix_ms) + limit.rate_per_s * RESIDENT_WAIT_MS / 1000.0
                for limit in self.path(now_unix_ms)
                if isinstance(limit, TokenBucket)
            ),
            default=math.inf,
        )

    def batch_ready_at_unix_ms(self, now_unix_ms: int) -> float:
        """Return from when a tenth of a second's worth may pass, or one mail at a slow rate."""
        ready = [float(now_unix_ms)]
        for limit in self.path(now_unix_ms):
            if isinstance(limit, TokenBucket):
                batch = max(1, min(limit.burst, int(limit.rate_per_s / 10)))
                ready.append(limit.ready_at_unix_ms(now_unix_ms, batch))
            else:
                ready.append(limit.ready_at_unix_ms(now_unix_ms))
        return max(ready)

    def rest(self, now_unix_ms: int) -> tuple[int, str] | None:
        """Return until when to rest, and why, if nothing may pass for longer than an actor waits.

        A shared limit wakes who waits for it in turn.
        """
        limit, ready_unix_ms = binding_limit(self.path(now_unix_ms), now_unix_ms)
        if limit is not None:
            self.refusals.note(now_unix_ms)
        if limit is None or ready_unix_ms - now_unix_ms <= RESIDENT_WAIT_MS:
            for each in self._shared:
                if each not in self._busy_at:
                    return self._around.throttles.rest(each, self._name, now_unix_ms), "rate_limit"
            return None
        for each in self._shared:
            if each.scope == limit.scope:
                return self._around.throttles.rest(each, self._name, now_unix_ms), limit.code
        return int(ready_unix_ms), limit.code

    def others_wait(self) -> bool:
        """Whether others wait for a place, among all destinations or at a limit of ours."""
        return self._around.others_wait() or any(each.waiting for each in self._shared)

    def is_crowded(self) -> bool:
        """Whether others may soon have to wait: then a turn has an end."""
        return self._around.is_crowded() or any(each.waiting for each in self._shared)

    def store(self, health: Health, now_unix_ms: int, *, is_more: bool) -> None:
        """Write into the record what the next actor goes on with.

        That is the bucket as it is now, and whose mail waits for its own limits meanwhile, if there
        `is_more` than was sent.
        """
        record = health.record
        if self.bucket is not None:
            record.bucket_level = self.bucket.level_at(now_unix_ms)
            record.bucket_unix_ms = now_unix_ms
        if self.flows is None:
            if self.wanted is not None:
                record.waits = ()
            return
        waits = self.flows.rest(now_unix_ms) if is_more else ()
        record.waits = waits[:WAITS_MAX]
        if len(waits) > WAITS_MAX:
            health.hold_until(now_unix_ms + RESIDENT_WAIT_MS, "rate_limit", now_unix_ms)
