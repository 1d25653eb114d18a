"""Limits that many destinations share: of a site, of an account or campaign, of all from here.

One state for each, in memory while it is of use: a token bucket, for a site what its replies have
taught, and who waits for it without an actor. Owns what a reply does to that state, and in which
order destinations are woken when there are tokens again: one by one, as there can be thousands of
them. Says what changed to whoever keeps the state on disk; knows no connection and no mail.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from engine.clock import Clock
from engine.config_values import Rate
from engine.delivery.holding import Gate
from engine.delivery.learned import Learned, fallen, reacted, suspended
from engine.delivery.limits import RESIDENT_WAIT_MS, Limit, TokenBucket
from engine.shaping.book import Effective, first_reaction
from protocols.named_waits import named_wait_ms
from protocols.outcomes import Bounced, Deferred
from protocols.records import Reason
from protocols.smtp_states import Stage

# A flow is what went in the last five to ten seconds.
FLOW_SLOT_MS: Final = 5_000
# Sites in memory. One that nothing is known of can be forgotten at any time.
SITES_MAX: Final = 50_000
# Likewise accounts and campaigns that a rule is for.
FLOWS_MAX: Final = 50_000
# A destination that waits for its site looks by itself so often, in case nobody wakes it.
FALLBACK_MS: Final = 300_000
# So many actors one limit keeps busy, and more where it lets a mail of each pass within the time
# that an actor waits. Others stand in line without an actor, and those that are busy take turns.
BUSY_MIN: Final = 20
# The line is looked at so often while places may become free.
PLACES_LOOK_MS: Final = 250
# Woken at most so often, whatever the rate: each brings a window of mail along.
WAKES_APART_MS: Final = 50
# Replies by which a receiver asks to go slower (with the reason `throttled`).
THROTTLING_CODES: Final = frozenset({"421", "450", "451", "452"})
# About one recipient's mailbox, or about one transaction: neither says a thing about the site.
_NOT_ABOUT_SITE: Final = (".2.1", ".2.2", ".5.3")


K = TypeVar("K")


@dataclass(slots=True)
class Flow:
    """How many a second are handed to a site, lately."""

    slot_unix_ms: int = 0
    count: int = 0
    before: int = 0

    def add(self, messages: int, now_unix_ms: int) -> None:
        if not 0 <= now_unix_ms - self.slot_unix_ms < FLOW_SLOT_MS:
            self._move_to(now_unix_ms)
        self.count += messages

    def per_s(self, now_unix_ms: int) -> float:
        self._move_to(now_unix_ms)
        into_ms = now_unix_ms - self.slot_unix_ms
        if not self.before:
            # It began in this slot: a full slot would make little of a quick start.
            return self.count / max(into_ms, 1000) * 1000.0
        return (self.count + self.before) / (into_ms + FLOW_SLOT_MS) * 1000.0

    def _move_to(self, now_unix_ms: int) -> None:
        passed_ms = now_unix_ms - self.slot_unix_ms
        if 0 <= passed_ms < FLOW_SLOT_MS:
            return
        if FLOW_SLOT_MS <= passed_ms < 2 * FLOW_SLOT_MS:
            self.slot_unix_ms += FLOW_SLOT_MS
            self.before, self.count = self.count, 0
        else:
            self.slot_unix_ms, self.before, self.count = now_unix_ms, 0, 0


@dataclass(frozen=True, slots=True)
class StepTaken:
    """An automatic step, for the audit trail: from what to what, and the reply that caused it.

    `cause` is "throttled", "named wait", or the place of the reaction's rule.
    """

    site: str
    at_unix_ms: int
    before: Learned
    after: Learned
    cause: str
    reply: str


@dataclass(eq=False, slots=True)
class Throttle:
    """What one site, one account or campaign, or all mail from here is held to.

    `rule` is None without a configured rate; `users` are the actors that hold on to it, and `busy`
    those of them that send by it.
    """

    scope: str
    key: str
    started_unix_ms: int
    rule: Rate | None = None
    learned: Learned = field(default_factory=Learned)
    bucket: TokenBucket | None = None
    flow: Flow = field(default_factory=Flow)
    waiting: dict[str, None] = field(default_factory=dict)
    woken_unix_ms: int = 0
    users: int = 0
    busy: int = 0

    def places(self, now_unix_ms: int) -> int:
        """Return how many more actors it could keep busy."""
        self.limits(now_unix_ms)
        if self.bucket is None:
            return SITES_MAX
        rests_after_s = RESIDENT_WAIT_MS / 1000.0
        return max(BUSY_MIN, int(self.bucket.rate_per_s * rests_after_s)) - self.busy

    def limits(self, now_unix_ms: int) -> tuple[Limit, ...]:
        """Return what has to be asked now; buckets among it are charged afterwards."""
        learned = self.learned
        if self.rule is None and learned.since_unix_ms == 0:
            self.bucket = None
            return ()
        self._refresh(now_unix_ms)
        until_unix_ms = self.learned.suspended_until(now_unix_ms)
        if until_unix_ms > now_unix_ms:
            gate = Gate(
                "rate_limit",
                self.scope,
                self.key,
                until_unix_ms,
                self.learned.since_unix_ms,
                "suspended",
                self.learned.reply,
                Reason.THROTTLED,
            )
            return (gate,) if self.bucket is None else (gate, self.bucket)
        return () if self.bucket is None else (self.bucket,)

    def charge(self, messages: int, now_unix_ms: int) -> None:
        self.flow.add(messages, now_unix_ms)
        if self.bucket is not None:
            self.bucket.charge(messages, now_unix_ms)

    def ready_at_unix_ms(self, now_unix_ms: int) -> float:
        """Return from when one more may pass."""
        return max(
            (limit.ready_at_unix_ms(now_unix_ms) for limit in self.limits(now_unix_ms)),
            default=now_unix_ms,
        )

    def next_in_line(self) -> str:
        name = next(iter(self.waiting))
        del self.waiting[name]
        return name

    def rests_until_unix_ms(self, name: str, now_unix_ms: int) -> int:
        """Note that a destination waits without an actor; return when it looks by itself."""
        ready_unix_ms = self.ready_at_unix_ms(now_unix_ms)
        self.waiting.setdefault(name)
        # Who stands in line though something could go waits for a place, and is woken for it.
        ready_unix_ms = max(ready_unix_ms, now_unix_ms + RESIDENT_WAIT_MS)
        if self.bucket is None or len(self.waiting) == 1:
            return int(ready_unix_ms)
        turn_ms = (len(self.waiting) - 1) / self.bucket.rate_per_s * 1000.0
        return int(ready_unix_ms + min(turn_ms, FALLBACK_MS))

    def _refresh(self, now_unix_ms: int) -> None:
        """Let the bucket have the rate that holds now: the rule's or what was learned, if lower."""
        per_s = self.learned.rate_at(now_unix_ms)
        rule = self.rule
        if rule is not None and rule.per_s <= per_s:
            rate = rule
        elif math.isinf(per_s):
            self.bucket = None
            return
        else:
            # A tenth of a second's worth at once, as with a rule that names no burst.
            rate = Rate(per_s, max(1, math.ceil(per_s / 10)))
        bucket = self.bucket
        if bucket is None:
            # Nothing is known of what went before: as if it had been emptied when the process
            # began. A new limit that was just learned starts empty, too.
            at_unix_ms = max(self.started_unix_ms, self.learned.rate_unix_ms)
            self.bucket = bucket = TokenBucket(
                self.scope, self.key, rate.per_s, rate.burst, 0.0, min(at_unix_ms, now_unix_ms)
            )
        elif (bucket.rate_per_s, bucket.burst) != (rate.per_s, rate.burst):
            bucket.change_rate(rate, now_unix_ms)
        is_learned = rate is not rule
        bucket.reply = self.learned.reply if is_learned else ""
        bucket.since_unix_ms = self.learned.since_unix_ms if is_learned else 0


class Throttles:
    """All shared limits. `run` wakes destinations that wait for a site.

    `wake` starts a destination's actor and says whether that was of use; `changed` is told of each
    site whose learned state changed, with the automatic step if it was one.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        wake: Callable[[str], bool],
        changed: Callable[[Throttle, StepTaken | None], None],
    ) -> None:
        self._clock = clock
        self._wake = wake
        self._changed = changed
        self._started_unix_ms = clock.now_unix_ms()
        self._sites: dict[str, Throttle] = {}
        self._flows: dict[tuple[object, ...], Throttle] = {}
        self._waited_for: dict[Throttle, None] = {}
        self._work = trio.Event()
        self.egress: Final = Throttle("egress", "", self._started_unix_ms)

    def restore(self, learned: Iterable[tuple[str, Learned]]) -> None:
        """Take up what was kept on disk; called before any site is asked for."""
        for key, state in learned:
            throttle = self.site(key)
            throttle.learned = state

    def site(self, key: str) -> Throttle:
        throttle = self._sites.get(key)
        if throttle is None:
            throttle = self._sites[key] = Throttle("site", key, self._started_unix_ms)
            if len(self._sites) > SITES_MAX:
                self._forget_some(self._sites)
        return throttle

    def of_flow(self, key: tuple[object, ...], name: str) -> Throttle:
        """Return the limit of an account or campaign; `key` begins with which of them it is."""
        throttle = self._flows.get(key)
        if throttle is None:
            throttle = self._flows[key] = Throttle(str(key[0]), name, self._started_unix_ms)
            if len(self._flows) > FLOWS_MAX:
                self._forget_some(self._flows)
        return throttle

    def has_place(self, throttle: Throttle) -> bool:
        """Say whether a limit could keep another actor busy."""
        return throttle.places(self._clock.now_unix_ms()) > 0

    def known(self, key: str) -> Throttle | None:
        return self._sites.get(key)

    def rest(self, throttle: Throttle, name: str, now_unix_ms: int) -> int:
        """Let a destination wait for a limit without an actor; return when it looks by itself."""
        until_unix_ms = throttle.rests_until_unix_ms(name, now_unix_ms)
        self._waited_for[throttle] = None
        self._work.set()
        return until_unix_ms

    def heard(
        self,
        throttle: Throttle,
        effective: Effective,
        outcome: Deferred | Bounced,
        *,
        open_connections: int,
    ) -> bool:
        """Learn from a reply that took no mail; say whether anything holds now that did not."""
        now_unix_ms = self._clock.now_unix_ms()
        reply, before, flow = outcome.reply, throttle.learned, throttle.flow.per_s(now_unix_ms)
        placed = first_reaction(effective.reactions, reply)
        after: Learned | None = None
        cause = ""
        if placed is not None:
            cause = str(placed.place)
            step = placed.reaction.then
            after = reacted(before, now_unix_ms, step, flow_per_s=flow, reply=reply)
        elif _is_throttling(outcome):
            wait_ms = named_wait_ms(reply)
            if wait_ms is not None:
                cause = "named wait"
                after = suspended(before, now_unix_ms, wait_ms, reply)
            elif outcome.stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT):
                # A refusal at the door is about connections, and each destination counts its own.
                cause = "throttled"
                after = fallen(
                    before,
                    now_unix_ms,
                    flow_per_s=flow,
                    open_connections=open_connections,
                    reply=reply,
                )
        if after is None:
            return False
        self.set_learned(
            throttle, after, StepTaken(throttle.key, now_unix_ms, before, after, cause, reply)
        )
        return True

    def set_learned(
        self, throttle: Throttle, learned: Learned, step: StepTaken | None = None
    ) -> None:
        """Let another state hold from now on, and wake whoever waited for the old one to end."""
        throttle.learned = learned
        throttle.woken_unix_ms = 0
        self._changed(throttle, step)
        self._work.set()

    async def run(self) -> None:
        """Wake those who wait for a limit as it has tokens for them, until cancelled."""
        while True:
            self._work = trio.Event()
            wait_s = (self._wake_ready() - self._clock.now_unix_ms()) / 1000.0
            with trio.move_on_after(max(0.0, wait_s)):
                await self._work.wait()

    def _wake_ready(self) -> float:
        """Wake the next in line at each limit that has tokens; return when to look again."""
        now_unix_ms = self._clock.now_unix_ms()
        look_unix_ms: float = math.inf
        for throttle in list(self._waited_for):
            ready = max(throttle.ready_at_unix_ms(now_unix_ms), throttle.woken_unix_ms)
            if throttle.woken_unix_ms <= now_unix_ms and self._is_quick(throttle, ready):
                for _ in range(min(throttle.places(now_unix_ms), len(throttle.waiting))):
                    self._wake(throttle.next_in_line())
                ready = throttle.woken_unix_ms = now_unix_ms + PLACES_LOOK_MS
            while throttle.waiting and ready <= now_unix_ms:
                if self._wake(throttle.next_in_line()):
                    ready = throttle.woken_unix_ms = now_unix_ms + self._apart_ms(throttle)
            if not throttle.waiting:
                del self._waited_for[throttle]
            else:
                look_unix_ms = min(look_unix_ms, ready)
        return look_unix_ms

    def _is_quick(self, throttle: Throttle, ready_unix_ms: float) -> bool:
        """Say whether actors are resident while they wait for it; else each is woken in time."""
        now_unix_ms = self._clock.now_unix_ms()
        if throttle.bucket is None or ready_unix_ms - now_unix_ms > RESIDENT_WAIT_MS:
            return False
        return throttle.bucket.rate_per_s * RESIDENT_WAIT_MS >= 1000.0

    def _apart_ms(self, throttle: Throttle) -> int:
        if throttle.bucket is None:
            return WAKES_APART_MS
        return max(WAKES_APART_MS, int(1000.0 / throttle.bucket.rate_per_s))

    def _forget_some(self, throttles: dict[K, Throttle]) -> None:
        now_unix_ms = self._clock.now_unix_ms()
        idle = [
            key
            for key, throttle in throttles.items()
            if not (throttle.users or throttle.waiting)
            and throttle.learned.is_nothing(now_unix_ms)
            and (
                throttle.bucket is None
                or throttle.bucket.ready_at_unix_ms(now_unix_ms, 1_000_000) <= now_unix_ms
            )
        ]
        for key in idle[: len(throttles) // 10]:
            del throttles[key]


def _is_throttling(outcome: Deferred | Bounced) -> bool:
    return (
        isinstance(outcome, Deferred)
        and outcome.reason is Reason.THROTTLED
        and outcome.reply[:3] in THROTTLING_CODES
        and not outcome.enhanced_status_code.endswith(_NOT_ABOUT_SITE)
    )
