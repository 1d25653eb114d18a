"""The mail that one destination's actor holds: claimed, ready, in flight.

Owns the window: whose content is in memory, which envelopes share a transaction, and which are
with a server. Knows no connection and no outcome; what was claimed and has no content yet is
`claimed`'s, what a content becomes on its way out is `filling`'s.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from engine.clock import Clock
from engine.delivery import filling
from engine.delivery.claimed import Claimed, Load, drop_old
from engine.delivery.content_room import LOAD_BYTES, ContentBudget, ContentRoom
from engine.delivery.flows import FlowLimits
from engine.delivery.holding import Place
from engine.delivery.limits import RESIDENT_WAIT_MS
from engine.delivery.throttles import Throttle
from engine.spool.interface import Content, Finish, Spool, WindowPosition
from protocols.records import Envelope, EnvelopeFixed, Reason, Status
from protocols.transactions import Transaction

# RFC 5321 4.5.3.1.8 promises room for 100; half of it leaves servers that count otherwise
# at ease, and one refused session then delays fewer mails.
RECIPIENTS_PER_TRANSACTION_MAX: Final = 50
# Between two looks into the held mails of a destination, of some milliseconds each.
LOOK_ON_S: Final = 0.01


@dataclass(eq=False, slots=True)
class _Group:
    """Envelopes that share reverse path and content; `left` have no outcome yet."""

    mail: filling.Sendable
    room: ContentRoom
    reserved_bytes: int
    waiting: deque[Envelope] = field(default_factory=deque)
    left: int = 0


class DestinationMail:
    """One destination's window. `pull` claims, `load` fetches content, `take` hands out."""

    def __init__(
        self,
        name: str,
        spool: Spool,
        clock: Clock,
        budget: ContentBudget,
        may_load_again: Callable[[], None],
    ) -> None:
        """`may_load_again` is called when there is room for content that had to wait for it."""
        self._name = name
        self._spool = spool
        self._clock = clock
        self._budget = budget
        self._position = WindowPosition()
        self._claimed = Claimed(budget, may_load_again)
        self._groups: deque[_Group] = deque()
        self._in_flight: dict[int, tuple[Envelope, _Group]] = {}
        self._held_bytes = 0
        self.ready = 0
        # When the first of those that are here and not with a server is too old (wall ms).
        self.expires_unix_ms: float = math.inf
        # Whether the spool has more that is due, and when the next one is. Unknown before a pull.
        self.more_due = True
        self.next_due_unix_ms: int | None = None
        # Whether the last pull left some behind: then there is more than a window of it.
        self.has_backlog = False
        self._recalls = 0
        # Limits of single accounts, if there are any, and how many of the mails here have one.
        self.flows: FlowLimits | None = None
        self.limited = 0

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def claimed(self) -> int:
        """Envelopes that were claimed and have no content in memory yet."""
        return len(self._claimed)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is here to be handed out and nothing with a server."""
        return not (self.ready or self.claimed or self._in_flight)

    async def pull(self, limit: int) -> None:
        """Claim up to `limit` more envelopes that are due now."""
        self.more_due = False
        recalls = self._recalls
        while True:
            now_unix_ms = self._clock.now_unix_ms()
            here = self._pass_over(now_unix_ms)
            window = await self._spool.window(self._name, self._position, limit, now_unix_ms)
            if recalls != self._recalls:
                # It was chosen before the holds changed; `more_due` says so already.
                self._spool.give_back([each.fixed.envelope_id for each in window.envelopes])
                return
            envelopes = self._trimmed(window.envelopes, here)
            is_over = len(envelopes) < len(window.envelopes)
            if envelopes or not (window.more or is_over):
                break
            if not window.envelopes:
                # Only some of very many held mails were looked at: others have the spool meanwhile.
                await trio.sleep(LOOK_ON_S)
        for envelope in envelopes:
            self.expires_unix_ms = min(self.expires_unix_ms, envelope.state.expires_unix_ms)
        self._claimed.add(envelopes)
        self._recount()
        # New mail may have come while the spool was looking: then `wake` has set it.
        self.more_due = self.more_due or window.more or is_over
        self.has_backlog = window.more
        self.next_due_unix_ms = window.next_due_unix_ms

    def finish_claimed(self, status: Status, reason: Reason, reply: str) -> list[Finish]:
        """Let go of all that is claimed and not loaded; return the decisions that end it."""
        now_unix_ms = self._clock.now_unix_ms()
        return [
            Finish(envelope.fixed.envelope_id, status, now_unix_ms, reason, reply)
            for envelope in self._claimed.take_all()
        ]

    def place_of(self, envelope_id: int) -> Place:
        """Say where a mail is: with a server, here behind others, or behind all that is here."""
        if envelope_id in self._in_flight:
            return Place(is_in_flight=True, is_claimed=True)
        before = -1
        for before, envelope in enumerate(self._all_here()):
            if envelope.fixed.envelope_id == envelope_id:
                return Place(is_claimed=True, before=before)
        return Place(before=before + 1, position=self._position.copied())

    @property
    def may_load(self) -> bool:
        """Whether `load` has something to do and this destination has not had its share."""
        return self._claimed.may_load(self._held_bytes)

    async def load(self) -> list[Finish]:
        """Fetch content for the next part of what is claimed, if there is room for it now.

        Returns decisions for what cannot be sent: it is too old, or its content is damaged.
        """
        now_unix_ms = self._clock.now_unix_ms()
        finishes: list[Finish] = []
        load = self._claimed.next_load(now_unix_ms, finishes)
        if load is None:
            return finishes
        recalls = self._recalls
        try:
            contents = await self._spool.content({e.fixed.content_id for e in load.envelopes})
        except BaseException:
            load.room.give_back(load.octets)
            self._claimed.put_back(load.envelopes)
            raise
        if recalls != self._recalls:
            load.room.give_back(load.octets)
            self._spool.give_back([each.fixed.envelope_id for each in load.envelopes])
            self.look_again()
            return finishes
        left = self._group(load, contents, finishes)
        if left > 0:
            load.room.give_back(left)
        else:
            load.room.exceed(-left)
        self._recount()
        return finishes

    def _group(self, load: Load, contents: Mapping[int, Content], finishes: list[Finish]) -> int:
        """Make what was loaded ready to be handed out; return how much of its octets is left.

        That is below 0 if templates filled in take more than was thought. What would be far more is
        not filled in yet.
        """
        now_unix_ms = self._clock.now_unix_ms()
        taken = load.octets
        groups: dict[tuple[int, str, bool, bool], _Group] = {}
        for number, envelope in enumerate(load.envelopes):
            if taken < -LOAD_BYTES:
                self._claimed.put_back(load.envelopes[number:])
                break
            fixed = envelope.fixed
            fault = filling.address_fault(fixed)
            if fault is not None:
                finishes.append(filling.ended_unsent(envelope, now_unix_ms, fault.reply))
                continue
            key = (fixed.content_id, fixed.reverse_path, fixed.needs_8bit, fixed.needs_utf8)
            group = groups.get(key)
            if group is None:
                mail = self._budget.templates.sendable(fixed, contents.get(fixed.content_id))
                if isinstance(mail, filling.Unsendable):
                    finishes.append(filling.ended_unsent(envelope, now_unix_ms, mail.reply))
                    continue
                reserved_bytes = len(mail.octets)
                if not mail.is_own:
                    # What is larger than all there is was granted all there is.
                    reserved_bytes = max(0, min(reserved_bytes, taken))
                group = _Group(mail, load.room, reserved_bytes)
                taken -= group.reserved_bytes
                self._held_bytes += group.reserved_bytes
                self._groups.append(group)
                if not mail.is_own:
                    groups[key] = group
            group.waiting.append(envelope)
            group.left += 1
            self.ready += 1
        return taken

    def unpark(self) -> None:
        """Wait for no room any more, and leave what was granted to others."""
        self._claimed.unpark()

    def expire(self) -> list[Finish]:
        """Return decisions for what became too old while it waited here; it is here no more."""
        now_unix_ms = self._clock.now_unix_ms()
        finishes: list[Finish] = []
        expires_unix_ms = self._claimed.drop_old(now_unix_ms, finishes)
        for group in self._groups:
            before = len(group.waiting)
            first = drop_old(group.waiting, now_unix_ms, finishes)
            expires_unix_ms = min(expires_unix_ms, first)
            dropped = before - len(group.waiting)
            self.ready -= dropped
            self._leave(group, dropped)
        self.expires_unix_ms = expires_unix_ms
        self._groups = deque(group for group in self._groups if group.waiting)
        self._recount()
        return finishes

    def take(self, envelopes_max: int) -> Transaction:
        """Return the next transaction, of at most so many envelopes; they are in flight then.

        Something must be `ready`, and its account's limits have agreed (`bring_forward`).
        """
        group = self._groups[0]
        waiting = group.waiting
        count = min(len(waiting), envelopes_max, RECIPIENTS_PER_TRANSACTION_MAX)
        recipients: list[tuple[int, str]] = []
        fixed = waiting[0].fixed
        for _ in range(count):
            envelope = waiting.popleft()
            envelope_id = envelope.fixed.envelope_id
            recipients.append((envelope_id, envelope.fixed.recipient))
            self._in_flight[envelope_id] = (envelope, group)
        if not waiting:
            self._groups.popleft()
        self.ready -= count
        if self.limited and self.flows is not None:
            self.limited -= self.flows.charge(fixed, count, self._clock.now_unix_ms())
        return Transaction(
            fixed.reverse_path,
            recipients,
            group.mail.octets,
            group.mail.needs_8bit,
            group.mail.needs_utf8,
        )

    def expiries(self, transaction: Transaction) -> Iterator[tuple[int, int]]:
        """Give each envelope of a transaction in flight with when it is too old (wall ms)."""
        for envelope_id, _ in transaction.recipients:
            yield envelope_id, self._in_flight[envelope_id][0].state.expires_unix_ms

    def attempts(self, envelope_ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Give envelopes in flight with the number of the attempt that is under way."""
        for envelope_id in envelope_ids:
            yield envelope_id, self._in_flight[envelope_id][0].state.attempts + 1

    def bring_forward(self, now_unix_ms: int) -> int:
        """Let the first whose account's limits agree be the next; return how many of it may go."""
        assert self.flows is not None, "without limits nothing is limited"
        place, whole = self.flows.first_to_go(self._heads(), now_unix_ms)
        if place:
            group = self._groups[place]
            del self._groups[place]
            self._groups.appendleft(group)
        return whole

    def passing(self, now_unix_ms: int) -> int:
        """Return how many of those that are ready are let pass by their accounts' limits now."""
        if not self.limited or self.flows is None:
            return self.ready
        heads = ((group.waiting[0].fixed, len(group.waiting)) for group in self._groups)
        return self.flows.passing(heads, now_unix_ms)

    def flows_wait_s(self, now_unix_ms: int) -> float:
        """Return after which time more that waits for its account may go, or be pulled."""
        if self.flows is None:
            return math.inf
        ready = self.flows.batch_ready_at_unix_ms(self._heads(), now_unix_ms)
        due = None if self.more_due else self.next_due_unix_ms
        return max(0.0, min(ready, due or math.inf) - now_unix_ms) / 1000.0

    def look_when_due(self, now_unix_ms: int) -> None:
        """Have the next pull see what its account has room for again; put back what waits long."""
        if self.flows is None:
            return
        if self.next_due_unix_ms is not None and self.next_due_unix_ms <= now_unix_ms:
            self.more_due = True
        unused: list[int] = []
        for group in self._groups if self.limited else ():
            ready_unix_ms = self.flows.ready_at_unix_ms(group.waiting[0].fixed, now_unix_ms)
            if ready_unix_ms - now_unix_ms > RESIDENT_WAIT_MS:
                unused += self._emptied(group)
        if unused:
            self._groups = deque(group for group in self._groups if group.waiting)
            self.ready -= len(unused)
            self._spool.give_back(unused)
            self.look_again()
            self._recount()

    def _pass_over(self, now_unix_ms: int) -> Counter[Throttle]:
        """Let the next window pass over who has to wait; return what is here, by limit."""
        if self.flows is None:
            self._position.waits = None
            return Counter()
        here = self.flows.counted(self._all_here() if self.limited else ())
        self._position.waits = self.flows.waits(here, now_unix_ms)
        return here

    def _trimmed(self, found: Sequence[Envelope], here: Counter[Throttle]) -> Sequence[Envelope]:
        """Give back what will not go soon, for its account's limits; return the rest."""
        if self.flows is None:
            return found
        kept, over = self.flows.keep(found, here, self._clock.now_unix_ms())
        if over:
            self._spool.give_back(over)
            self._position.look_again()
        return kept

    def _heads(self) -> Iterator[EnvelopeFixed]:
        return (group.waiting[0].fixed for group in self._groups)

    def _all_here(self) -> Iterator[Envelope]:
        """Give what is not with a server, in its order."""
        for group in self._groups:
            yield from group.waiting
        yield from self._claimed

    def go_by(self, flows: FlowLimits | None) -> None:
        """Have other limits of accounts from now on, for what is here already, too."""
        self.flows = flows
        self._recount()

    def _recount(self) -> None:
        flows, here = self.flows, self._all_here()
        self.limited = 0 if flows is None else sum(flows.is_limited(each.fixed) for each in here)

    def land(self, envelope_id: int) -> Envelope:
        """Return the envelope that has an outcome now; it is not in flight any more."""
        envelope, group = self._in_flight.pop(envelope_id)
        self._leave(group, 1)
        return envelope

    def is_held(self, site: str) -> bool:
        """Say whether a hold keeps all mail of this destination, which is at this site."""
        return self._spool.hold_of_destination(self._name, site) is not None

    def wake(self, *, recall: bool) -> None:
        """Pull again; after a `recall` everything that is not with a server is chosen anew."""
        self.more_due = True
        if recall:
            self._recalls += 1
            self.give_back()

    def look_again(self) -> None:
        """Have the next pull see what went back to the spool."""
        self.more_due = True
        self._position.look_again()

    def give_back(self) -> int:
        """End the claim on everything that was not handed out; return how many those were."""
        unused = [envelope.fixed.envelope_id for envelope in self._claimed.take_all()]
        unused += [each for group in self._groups for each in self._emptied(group)]
        self._groups.clear()
        self.ready = self.limited = 0
        if unused:
            self._spool.give_back(unused)
            self._position.look_again()
        return len(unused)

    def abandon(self) -> None:
        """Free the content of what is still in flight, when the actor is cancelled."""
        for _, group in self._in_flight.values():
            self._leave(group, 1)
        self._spool.give_back(list(self._in_flight))
        self._in_flight.clear()

    def _emptied(self, group: _Group) -> list[int]:
        """Take all that is not with a server out of a group; return the ids."""
        ids = [envelope.fixed.envelope_id for envelope in group.waiting]
        group.waiting.clear()
        self._leave(group, len(ids))
        return ids

    def _leave(self, group: _Group, envelopes: int) -> None:
        group.left -= envelopes
        if group.left == 0:
            self._held_bytes -= group.reserved_bytes
            group.room.give_back(group.reserved_bytes)
