"""What is looked at while a simulation runs: the agenda after each commit, everything now and then.

Only through the spool's interface, so that it is the same for every adapter. It takes several
calls, and what was committed in between makes the look worthless: then it is taken again.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from engine.spool.interface import Spool
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import DestinationRecord, Status
from tests.simulation.lives import Life

Flow = tuple[int, str | None]

WAITING = EnvelopeFilter(statuses=frozenset({Status.QUEUED, Status.DEFERRED}))
PAGE = 1000
ALWAYS_UNIX_MS = 1 << 48
# A walk over the whole spool costs as much as some dozens of steps.
WHOLE_EVERY_STEPS = 50
FAULTS_KEPT = 10


@dataclass(slots=True)
class StepChecks:
    """Counts the commits it has looked at and keeps the first faults."""

    steps: int = 0
    faults: list[str] = field(default_factory=list)

    async def check(self, spool: Spool, life: Life) -> None:
        self.steps += 1
        faults = await agenda_faults(spool, life)
        if self.steps % WHOLE_EVERY_STEPS == 1:
            faults += await spool.check_invariants()
        if len(self.faults) < FAULTS_KEPT:
            self.faults += [f"after step {self.steps}: {fault}" for fault in faults]


async def agenda_faults(spool: Spool, life: Life) -> list[str]:
    """Return where the agenda is too late, or has a row too many or too few."""
    while True:
        version = _version(spool, life)
        wakes = {
            row.destination: row.wake_unix_ms
            for row in await spool.due_destinations(ALWAYS_UNIX_MS, PAGE)
        }
        with_mail, earliest = await _earliest_due(spool)
        # What a hold does to the agenda, the walk over the whole spool knows.
        held = {hold.wanted.destination for hold in spool.holds()}
        faults = [f"agenda: {name} has a row and no mail" for name in wakes.keys() - with_mail]
        for name, flows in earliest.items():
            if name in held:
                continue
            wake = wakes.get(name)
            if wake is None:
                faults.append(f"agenda: {name} has mail and no row")
            elif wake > max(min(flows.values()), spool.now_unix_ms()):
                record = await spool.destination(name) or DestinationRecord()
                due_unix_ms = min(_wake_of(record, *flow) for flow in flows.items())
                if wake > max(due_unix_ms, record.not_before_unix_ms):
                    faults.append(f"agenda: {name} is woken {wake - due_unix_ms} ms too late")
        if _version(spool, life) == version:
            return faults


def _wake_of(record: DestinationRecord, flow: Flow, due_unix_ms: int) -> int:
    """Return when the mail of a flow has to be looked at: not while its account has to wait."""
    waits = [wait.until_unix_ms for wait in record.waits if wait.concerns(*flow)]
    return max([due_unix_ms, *waits])


async def _earliest_due(spool: Spool) -> tuple[set[str], dict[str, dict[Flow, int]]]:
    """Return where there is mail, and when the first of each flow is due there.

    That is without the mail of campaigns that are held.
    """
    held = {hold.wanted.campaign for hold in spool.holds()} - {None}
    with_mail: set[str] = set()
    earliest: dict[str, dict[Flow, int]] = {}
    after: int | None = None
    while True:
        page = await spool.find(WAITING, after, PAGE)
        for envelope in page.envelopes:
            fixed, due_unix_ms = envelope.fixed, envelope.state.due_unix_ms
            with_mail.add(fixed.destination)
            if fixed.campaign in held:
                continue
            flows = earliest.setdefault(fixed.destination, {})
            flow = (fixed.account_id, fixed.campaign)
            flows[flow] = min(due_unix_ms, flows.get(flow, due_unix_ms))
        after = page.after
        if after is None:
            return with_mail, earliest


def _version(spool: Spool, life: Life) -> Hashable:
    # What is on disk changes before the spool has counted it, and holds are not counted at all.
    holds = tuple(hold.hold_id for hold in spool.holds())
    return spool.spool_statistics().commits, life.counts.get("committed"), holds
