"""What limits the mail of single accounts and campaigns on its way to one destination.

Rules by account or campaign leave other mail alone, so they are no gate of the destination: each
mail is asked for the limits of its own flow, and the others pass it meanwhile. What has to wait for
longer stays in the spool, which passes it over until its time; of what waits for moments only so
much is here as will soon go. There is none of this where no such rule is in force. Owns no mail and
no bucket: those are shared by all destinations, and `throttles` has them.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from engine.delivery.flow_waits import PassedFlows
from engine.delivery.limits import RESIDENT_WAIT_MS, Limit, TokenBucket
from engine.delivery.throttles import Throttle, Throttles
from engine.shaping.book import PlacedRule, flow_rates
from engine.spool.interface import PassedOver
from protocols.records import Envelope, EnvelopeFixed, FlowWait

# Mail of limited flows that one actor holds: a window's worth, beside the one of all others.
LIMITED_HERE_MAX: Final = 256
# Beyond so many flows that wait at one destination, all its mail waits with them for a moment.
WAITS_MAX: Final = 256
# How long a flow is passed over that has all here that it may have: until half of it has gone,
# within these bounds.
PASS_OVER_MS_MIN: Final = 20
PASS_OVER_MS_MAX: Final = 1000

# Flows whose limits are remembered, most of them none: some hundred octets each.
PATHS_MAX: Final = 10_000

_NO_LIMIT: Final = 2**31


class FlowLimits:
    """The limits of each flow at one destination; `rules` are those that may concern its mail."""

    def __init__(
        self, destination: str, site: str, rules: Sequence[PlacedRule], throttles: Throttles
    ) -> None:
        self._destination = destination
        self._site = site
        self._rules = rules
        self._throttles = throttles
        self._paths: dict[tuple[int, str | None], tuple[Throttle, ...]] = {}
        # The limits that mail here has, with whose mail that is.
        self._met: dict[Throttle, FlowWait] = {}
        # Of those the ones at which we have a place; the others keep enough actors busy without us.
        self._busy_at: set[Throttle] = set()
        # Of all without those of which a window would have had mail, and had none.
        self._present: dict[Throttle, None] = {}
        # Those to look at before the next pull: mail of theirs is here, was, or was put back.
        self._seen: dict[Throttle, None] = {}
        self._passed = PassedFlows()

    def meet(self, waits: Iterable[FlowWait]) -> None:
        """Know again whom the last actor passed over."""
        for wait in waits:
            self._path(wait.account_id, wait.account, wait.campaign)

    def leave(self) -> None:
        """Let go of what is shared."""
        for throttle in self._met:
            throttle.users -= 1
        for throttle in self._busy_at:
            throttle.busy -= 1
        self._met.clear()
        self._busy_at.clear()
        self._paths.clear()
        self._present.clear()
        self._seen.clear()

    def is_limited(self, fixed: EnvelopeFixed) -> bool:
        return bool(self._path_of(fixed))

    def limits(
        self, account_id: int, account: str, campaign: str | None, now_unix_ms: int
    ) -> tuple[Limit, ...]:
        """Return copies of the limits of a flow."""
        path = self._path(account_id, account, campaign)
        return tuple(replace(_bucket(throttle, now_unix_ms)) for throttle in path)

    def refusing(self, now_unix_ms: int, account_id: int | None = None) -> tuple[Limit, ...]:
        """Return copies of the limits here that let nothing pass now, of one account if given."""
        return tuple(
            replace(_bucket(throttle, now_unix_ms))
            for throttle in self._present
            if account_id in (None, self._met[throttle].account_id)
            and throttle.ready_at_unix_ms(now_unix_ms) > now_unix_ms
        )

    def whole_at(self, fixed: EnvelopeFixed, now_unix_ms: int) -> int:
        """Return how many mails of a flow may go now; a very large number without a limit."""
        return min(
            (
                _bucket(throttle, now_unix_ms).whole_at(now_unix_ms)
                for throttle in self._path_of(fixed)
            ),
            default=_NO_LIMIT,
        )

    def charge(self, fixed: EnvelopeFixed, messages: int, now_unix_ms: int) -> int:
        """Take what was asked for before, at the same time; return how many had a limit."""
        path = self._path_of(fixed)
        for throttle in path:
            throttle.charge(messages, now_unix_ms)
        return messages if path else 0

    def first_to_go(self, heads: Iterable[EnvelopeFixed], now_unix_ms: int) -> tuple[int, int]:
        """Return the place of the first that may go now, and how many of its flow; (0, 0): none."""
        known: dict[tuple[int, str | None], int] = {}
        for place, fixed in enumerate(heads):
            key = (fixed.account_id, fixed.campaign)
            whole = known.get(key)
            if whole is None:
                whole = known[key] = self.whole_at(fixed, now_unix_ms)
            if whole > 0:
                return place, whole
        return 0, 0

    def passing(self, heads: Iterable[tuple[EnvelopeFixed, int]], now_unix_ms: int) -> int:
        """Return how many of all may go now; each head comes with how many are like it."""
        left: dict[tuple[int, str | None], int] = {}
        count = 0
        for fixed, messages in heads:
            key = (fixed.account_id, fixed.campaign)
            if key not in left:
                left[key] = self.whole_at(fixed, now_unix_ms)
            going = min(messages, left[key])
            left[key] -= going
            count += going
        return count

    def ready_at_unix_ms(self, fixed: EnvelopeFixed, now_unix_ms: int) -> float:
        """Return from when one more of a flow may go."""
        return max(
            (throttle.ready_at_unix_ms(now_unix_ms) for throttle in self._path_of(fixed)),
            default=now_unix_ms,
        )

    def batch_ready_at_unix_ms(self, heads: Iterable[EnvelopeFixed], now_unix_ms: int) -> float:
        """Return from when a few of some flow may go, or one at a slow rate."""
        paths = {self._path_of(fixed) for fixed in heads} - {()}
        return min(
            (max(_batch_ready(throttle, now_unix_ms) for throttle in path) for path in paths),
            default=math.inf,
        )

    def keep(
        self, envelopes: Sequence[Envelope], here: Counter[Throttle], now_unix_ms: int
    ) -> tuple[list[Envelope], list[int]]:
        """Part a window into what will soon go and the ids of what had better stay in the spool.

        `here` counts what is here already, by limit.
        """
        kept: list[Envelope] = []
        over: list[int] = []
        limited = here.total()
        for envelope in envelopes:
            path = self._path_of(envelope.fixed)
            if path:
                self._present.update(dict.fromkeys(path))
                self._seen.update(dict.fromkeys(path))
                if limited >= LIMITED_HERE_MAX or any(
                    not self._is_busy_at(throttle) or here[throttle] >= _soon(throttle, now_unix_ms)
                    for throttle in path
                ):
                    over.append(envelope.fixed.envelope_id)
                    continue
                here.update(path)
                limited += len(path)
            kept.append(envelope)
        return kept, over

    def counted(self, envelopes: Iterable[Envelope]) -> Counter[Throttle]:
        """Count mails by the limits that they have."""
        here: Counter[Throttle] = Counter()
        for envelope in envelopes:
            here.update(self._path_of(envelope.fixed))
        return here

    def waits(self, here: Counter[Throttle], now_unix_ms: int) -> PassedOver | None:
        """Return whom the next window passes over, if anybody; `here` counts what is here already.

        However many flows were met, a bounded number of limits is looked at: those of the mail that
        the last window showed, or that was here, and those whose wait is over. All others wait on,
        or are let come, and `keep` sees to it.
        """
        looks = {**self._seen, **self._passed.over(now_unix_ms), **dict.fromkeys(here)}
        self._seen = dict.fromkeys(here)
        for throttle in looks:
            until_unix_ms = self._waits_until(throttle, here[throttle], now_unix_ms)
            if not until_unix_ms and not here[throttle]:
                self._present.pop(throttle, None)
            self._passed.put(throttle, until_unix_ms)
        is_full = here.total() >= LIMITED_HERE_MAX
        self._passed.all_until_unix_ms = now_unix_ms + PASS_OVER_MS_MIN if is_full else 0
        return self._passed if self._passed.has_any else None

    def rest(self, now_unix_ms: int) -> tuple[FlowWait, ...]:
        """Return whose mail waits while no actor is there; it stands in line for its limits.

        Of more than `WAITS_MAX` one more, which tells that there are.
        """
        waiting = (
            throttle
            for throttle in self._present
            if throttle not in self._busy_at or throttle.ready_at_unix_ms(now_unix_ms) > now_unix_ms
        )
        return tuple(
            _until(
                self._met[throttle],
                self._throttles.rest(throttle, self._destination, now_unix_ms),
            )
            for throttle in islice(waiting, WAITS_MAX + 1)
        )

    def _waits_until(self, throttle: Throttle, here: int, now_unix_ms: int) -> int:
        """Return until when mail that has this limit stays in the spool; 0 if it may come."""
        ready_unix_ms = throttle.ready_at_unix_ms(now_unix_ms)
        if not self._is_busy_at(throttle):
            ready_unix_ms = max(ready_unix_ms, now_unix_ms + RESIDENT_WAIT_MS + 1)
        elif ready_unix_ms - now_unix_ms <= RESIDENT_WAIT_MS:
            if here < _soon(throttle, now_unix_ms):
                return 0
            half_gone_ms = here / 2 / _bucket(throttle, now_unix_ms).rate_per_s * 1000.0
            ready_unix_ms = now_unix_ms + min(max(half_gone_ms, PASS_OVER_MS_MIN), PASS_OVER_MS_MAX)
        return math.ceil(ready_unix_ms)

    def _is_busy_at(self, throttle: Throttle) -> bool:
        """Say whether we have a place at a limit; take one if it is free."""
        if throttle not in self._busy_at:
            if not self._throttles.has_place(throttle):
                return False
            self._busy_at.add(throttle)
            throttle.busy += 1
        return True

    def _path_of(self, fixed: EnvelopeFixed) -> tuple[Throttle, ...]:
        path = self._paths.get((fixed.account_id, fixed.campaign))
        if path is None:
            path = self._path(fixed.account_id, fixed.account, fixed.campaign)
        return path

    def _path(self, account_id: int, account: str, campaign: str | None) -> tuple[Throttle, ...]:
        path = []
        for found in flow_rates(self._rules, account, campaign):
            is_campaigns = found.scope == "campaign"
            place = {"destination": self._destination, "site": self._site}.get(
                found.place or "", ""
            )
            whose = FlowWait(account_id, account, campaign if is_campaigns else None, 0)
            throttle = self._throttles.of_flow(
                (found.scope, found.place or "", place, account_id, whose.campaign),
                (campaign or "") if is_campaigns else account,
            )
            throttle.rule = found.rate
            if throttle not in self._met:
                self._met[throttle] = whose
                self._present[throttle] = self._seen[throttle] = None
                self._passed.meet(throttle, whose)
                throttle.users += 1
            path.append(throttle)
        if len(self._paths) >= PATHS_MAX:
            self._paths.clear()
        self._paths[account_id, campaign] = tuple(path)
        return tuple(path)


def _bucket(throttle: Throttle, now_unix_ms: int) -> TokenBucket:
    throttle.limits(now_unix_ms)
    assert throttle.bucket is not None, "a flow's limit comes from a rule"
    return throttle.bucket


def _soon(throttle: Throttle, now_unix_ms: int) -> int:
    """Return about how many may go within the time that an actor waits for a limit."""
    bucket = _bucket(throttle, now_unix_ms)
    if bucket.ready_at_unix_ms(now_unix_ms) - now_unix_ms > RESIDENT_WAIT_MS:
        return 0
    earned = bucket.rate_per_s * RESIDENT_WAIT_MS / 1000.0
    return max(1, int(bucket.level_at(now_unix_ms) + earned))


def _batch_ready(throttle: Throttle, now_unix_ms: int) -> float:
    bucket = _bucket(throttle, now_unix_ms)
    # Half a burst: what a full bucket earns until somebody looks is lost.
    batch = max(1, min(bucket.burst // 2, int(bucket.rate_per_s / 10)))
    return bucket.ready_at_unix_ms(now_unix_ms, batch)


def _until(whose: FlowWait, until_unix_ms: int) -> FlowWait:
    return FlowWait(whose.account_id, whose.account, whose.campaign, until_unix_ms)
