"""What replies have taught, kept on disk, and the trail of every step with the reply behind it.

Owns the form of both in the spool's notes, how many steps are kept, and what an operator may do
about them: undo the last one, pin a site as it is or at a limit of his own, unpin it. A step counts
from the moment it is taken; it is on disk within a commit, and a crash before that forgets it,
which costs one more refusal.
"""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
import trio

from engine.clock import Clock
from engine.config_values import Rate
from engine.delivery.learned import Learned, pinned, unpinned
from engine.delivery.throttles import StepTaken, Throttle, Throttles
from engine.spool.interface import Spool, SpoolFull
from protocols.records import DamagedRecord, pack_record, unpack_record

# Some days of a large sender's throttling; a record of a step has half a kilobyte.
STEPS_KEPT: Final = 1000
# The reply is there to be read by people.
REPLY_CHARACTERS_MAX: Final = 512
SPOOL_FULL_WAIT_S: Final = 5.0
_SITES: Final = "shaping/site/"
_STEPS: Final = "shaping/step/"


class StepRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One step. `who` is "engine" or "operator"; `seq` counts from 1."""

    seq: int
    at_unix_ms: int
    site: str
    who: str
    cause: str
    reply: str
    before: Learned
    after: Learned
    is_undone: bool = False


class _SiteRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    site: str
    learned: Learned


class NothingToDo(Exception):
    """An operator asked for what cannot be; the text says why."""


class ShapingMemory:
    """The trail, and the writer of what changed. `attach` comes before anything else.

    `live_site` says where a destination's actor delivers to; "" without one.
    """

    def __init__(self, spool: Spool, clock: Clock, live_site: Callable[[str], str]) -> None:
        self._live_site = live_site
        self._spool = spool
        self._clock = clock
        self._throttles: Throttles | None = None
        self._steps: deque[StepRecord] = deque()
        self._seq = 0
        self._unsaved: dict[str, bytes | None] = {}
        self._work = trio.Event()

    def attach(self, throttles: Throttles) -> None:
        self._throttles = throttles

    async def load(self) -> None:
        """Take up what is on disk. What cannot be read is forgotten: mail does not depend on it."""
        now_unix_ms = self._clock.now_unix_ms()
        for name, stored in await self._spool.notes(_STEPS):
            try:
                self._steps.append(unpack_record(stored, StepRecord))
            except DamagedRecord:
                self._unsaved[name] = None
        self._seq = self._steps[-1].seq if self._steps else 0
        kept: list[tuple[str, Learned]] = []
        for name, stored in await self._spool.notes(_SITES):
            try:
                record = unpack_record(stored, _SiteRecord)
            except DamagedRecord:
                self._unsaved[name] = None
                continue
            if record.learned.is_nothing(now_unix_ms):
                self._unsaved[name] = None
            else:
                kept.append((record.site, record.learned))
        self._of_throttles().restore(kept)

    def changed(self, throttle: Throttle, step: StepTaken | None) -> None:
        """Keep a site's state, and the engine's own step that led to it."""
        if step is not None:
            self._note(throttle.key, "engine", step.cause, step.reply, step.before, step.after)
        self._keep(throttle)

    def steps(self, site: str | None = None) -> Sequence[StepRecord]:
        """Return the steps that are kept, the last one first; of one site, if it is given."""
        return [each for each in reversed(self._steps) if site is None or each.site == site]

    async def site_named(self, name: str) -> str:
        """Return the site that is meant by its name or by a domain's. Raises NothingToDo."""
        throttles = self._of_throttles()
        if throttles.known(name) is not None or any(each.site == name for each in self._steps):
            return name
        site = self._live_site(name.lower())
        if not site:
            record = await self._spool.destination(name.lower())
            site = record.site if record is not None else ""
        if not site:
            raise NothingToDo(f"{name} is no site that is known, and no domain with one")
        return site

    def undo(self, site: str) -> StepRecord:
        """Take back the last automatic step at a site. Raises NothingToDo."""
        if self.is_pinned(site):
            raise NothingToDo(f"{site} is pinned; unpin it first")
        can_undo = self.undoable()
        step = next((each for each in self.steps(site) if each.seq in can_undo), None)
        if step is None:
            raise NothingToDo(f"no step of the engine's own at {site} is left to undo")
        undone = msgspec.structs.replace(step, is_undone=True)
        self._steps[self._steps.index(step)] = undone
        self._unsaved[_step_name(undone)] = pack_record(undone)
        return self._set(site, step.before, f"undo of step {step.seq}", step.reply)

    def undoable(self) -> frozenset[int]:
        """Return the numbers of the steps to undo next: of each site the last automatic one.

        Where a site is pinned its steps change nothing.
        """
        last = {
            step.site: step.seq
            for step in self._steps
            if step.who == "engine" and not step.is_undone and not self.is_pinned(step.site)
        }
        return frozenset(last.values())

    def is_pinned(self, site: str) -> bool:
        throttle = self._of_throttles().known(site)
        return throttle is not None and throttle.learned.pinned_unix_ms > 0

    def pin(self, site: str, *, rate: Rate | None, connections: int | None) -> StepRecord:
        """Let a site stay as it is, or at these limits, until it is unpinned."""
        before = self._of_throttles().site(site).learned
        after = pinned(before, self._clock.now_unix_ms(), rate=rate, connections=connections)
        return self._set(site, after, "pin")

    def unpin(self, site: str) -> StepRecord:
        """Let a site learn again: from where it was, or what it had learned before limits of an
        operator's own. Raises NothingToDo.
        """
        before = self._of_throttles().site(site).learned
        if not before.pinned_unix_ms:
            raise NothingToDo(f"{site} is not pinned")
        cause = "unpin" if before.under_pin is None else "unpin, as before the pin"
        return self._set(site, unpinned(before, self._clock.now_unix_ms()), cause)

    async def run(self) -> None:
        """Store what changed, until cancelled. SpoolFailed ends it, and with it the process."""
        while True:
            self._work = trio.Event()
            await self.save()
            await self._work.wait()

    async def save(self) -> None:
        """Store what changed since the last time."""
        while self._unsaved:
            notes, self._unsaved = self._unsaved, {}
            try:
                await self._spool.put_notes(notes)
            except SpoolFull:
                self._unsaved = notes | self._unsaved
                await trio.sleep(SPOOL_FULL_WAIT_S)

    def _of_throttles(self) -> Throttles:
        assert self._throttles is not None, "attach comes first"
        return self._throttles

    def _set(self, site: str, learned: Learned, cause: str, reply: str = "") -> StepRecord:
        throttle = self._of_throttles().site(site)
        step = self._note(site, "operator", cause, reply, throttle.learned, learned)
        self._of_throttles().set_learned(throttle, learned)
        return step

    def _note(
        self, site: str, who: str, cause: str, reply: str, before: Learned, after: Learned
    ) -> StepRecord:
        self._seq += 1
        step = StepRecord(
            self._seq,
            self._clock.now_unix_ms(),
            site,
            who,
            cause,
            reply[:REPLY_CHARACTERS_MAX],
            before,
            after,
        )
        self._steps.append(step)
        self._unsaved[_step_name(step)] = pack_record(step)
        while len(self._steps) > STEPS_KEPT:
            self._unsaved[_step_name(self._steps.popleft())] = None
        self._work.set()
        return step

    def _keep(self, throttle: Throttle) -> None:
        # A site's name has all its hosts and may be longer than a note's name.
        digest = blake2b(throttle.key.encode(), digest_size=16).hexdigest()
        record = _SiteRecord(throttle.key, throttle.learned)
        self._unsaved[_SITES + digest] = pack_record(record)
        self._work.set()


def _step_name(step: StepRecord) -> str:
    return f"{_STEPS}{step.seq:016x}"
