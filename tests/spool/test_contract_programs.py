"""Random programs of calls: the adapter does what the model does, and every invariant holds.

A program is a list of steps that name what they act on by number, so that it shrinks well. Each
step runs on the adapter and on the model; then everything that can be seen is compared. What the
contract leaves open (numbers of contents, the order of events inside one commit) is not.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings

from engine.spool import activity
from engine.spool.campaign_calls import NewCampaign
from engine.spool.figure_calls import TimesGroup
from engine.spool.hold_calls import Hold, MailFilter
from engine.spool.interface import (
    Accepted,
    AttemptResult,
    CampaignEnded,
    CommitNotice,
    EventFilter,
    Finish,
    Group,
    NewMessage,
    NewRecipient,
    Quota,
    Rest,
    RetryAt,
    Spool,
    TryNow,
    WindowPosition,
)
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import (
    FINAL_STATUSES,
    Account,
    CampaignState,
    DestinationRecord,
    Event,
    Reason,
    Status,
    Suppression,
)
from tests.spool import harness as h
from tests.spool.program_steps import DESTINATIONS, PEOPLE, SETTINGS, Step, programs

WAITING = EnvelopeFilter(
    destination="one.test", statuses=frozenset({Status.QUEUED, Status.DEFERRED})
)
DEFERRED = EnvelopeFilter(account_id=1, statuses=frozenset({Status.DEFERRED}))


class Crash(Exception):
    """Ends a life of both spools in the middle."""


class Pair:
    """The adapter and the model, going through the same program."""

    def __init__(self, adapter: h.Harness, model: h.Harness) -> None:
        self.harnesses = (adapter, model)
        model.clock = adapter.clock
        self.clock = adapter.clock
        self.accounts: list[Account] = []
        self.accepted = 0
        self.people = 0
        self.ids: list[int] = []
        self.last_results: list[AttemptResult] = []

    async def run(self, program: Sequence[Step]) -> None:
        steps = iter(program)
        is_running = True
        while is_running:
            try:
                await self._live(steps)
                is_running = False
            except Crash:
                continue

    async def _live(self, steps: Any) -> None:
        async with AsyncExitStack() as stack:
            spools = [await stack.enter_async_context(each.open()) for each in self.harnesses]
            self.adapter, self.model = spools
            self.positions: dict[tuple[int, str], WindowPosition] = {}
            self.claimed: list[Any] = []
            self.told: list[Event] = []
            self.adapter.add_listener(self._hear)
            self.head_at_start = self.adapter.head()
            if not self.accounts:
                for name, zone in (("acme", "UTC"), ("bolt", "America/New_York")):
                    made = [await h.make_account(spool, name, zone) for spool in spools]
                    assert made[0] == made[1]
                    self.accounts.append(made[0])
            await self._compare()
            for name, argument in steps:
                await getattr(self, f"do_{name}")(argument)
                await self._compare()

    def _hear(self, notice: CommitNotice) -> None:
        self.told += notice.events

    async def _both(self, call: Any) -> Any:
        """Do `call` on both; return the adapter's answer, which must be the model's."""
        adapters_answer, models_answer = await call(self.adapter), await call(self.model)
        assert adapters_answer == models_answer
        return adapters_answer

    # Steps.

    async def do_accept(self, requests: Any) -> None:
        made = []
        for account, parts, quota, digest in requests:
            made.append(
                h.request_of(
                    self.accounts[account],
                    *(self._message(*part) for part in parts),
                    quota=quota,
                    digest=digest,
                )
            )

        async def call(spool: Spool) -> Any:
            answers = await spool.accept(made)
            return [each if isinstance(each, Accepted) else type(each) for each in answers]

        for answer in await self._both(call):
            if isinstance(answer, Accepted) and not answer.repeated:
                self._note_new(answer)

    def _note_new(self, answer: Accepted) -> None:
        new = [each.envelope_id for each in answer.envelopes]
        assert new == sorted(new)
        assert not (self.ids and new) or new[0] > self.ids[-1]
        self.ids += new

    async def do_list(self, argument: tuple[int, str, list[tuple[int, str]], Quota]) -> None:
        number, name, people, quota = argument
        account = self.accounts[number]
        made = NewCampaign(account, name, name.encode(), bytes(16), "", "Hello")

        async def create(spool: Spool) -> Any:
            campaign, is_new = await spool.create_campaign(made)
            return msgspec.structs.replace(campaign, content_id=0), is_new

        campaign, _ = await self._both(create)
        addresses = [f"r{person}@{destination}" for person, destination in people]
        part = NewMessage(
            *(b"", h.recipients(*addresses), "", "Hello", name),
            campaign_id=campaign.campaign_id,
        )

        async def call(spool: Spool) -> Any:
            [answer] = await spool.accept([h.request_of(account, part, quota=quota)])
            return answer if isinstance(answer, Accepted) else type(answer)

        answer = await self._both(call)
        if isinstance(answer, Accepted):
            assert len(answer.repeats) + len(answer.envelopes) == len(people)
            self._note_new(answer)
        elif campaign.state is not CampaignState.OPEN:
            assert answer is CampaignEnded

    async def do_end(self, argument: tuple[int, str, CampaignState]) -> None:
        number, name, state = argument
        account_id = self.accounts[number].account_id
        campaign = await self.model.campaign(account_id, name)
        if campaign is not None:
            for spool in (self.adapter, self.model):
                await spool.end_campaign(account_id, campaign.campaign_id, state)

    def _message(self, names: list[str], campaign: str | None, lane: int) -> NewMessage:
        self.people += len(names)
        people: list[NewRecipient] = h.recipients(
            *(f"r{(self.people + place) % PEOPLE}@{name}" for place, name in enumerate(names))
        )
        content = people[0].uuid * 3
        return NewMessage(content, people, "", campaign=campaign, lane=lane, subject="Hello")

    async def do_window(self, argument: tuple[int, int]) -> None:
        number, limit = argument
        now_unix_ms = self.model.now_unix_ms()
        due = await self.model.due_destinations(now_unix_ms, 3)
        destination = due[number % len(due)].destination if due else DESTINATIONS[number]
        windows = []
        for which, spool in enumerate((self.adapter, self.model)):
            position = self.positions.setdefault((which, destination), WindowPosition())
            windows.append(await spool.window(destination, position, limit, now_unix_ms))
        seen = [
            (
                [each.fixed.envelope_id for each in window.envelopes],
                window.more,
                window.next_due_unix_ms,
            )
            for window in windows
        ]
        assert seen[0] == seen[1]
        assert not {each.fixed.envelope_id for each in self.claimed} & set(seen[0][0])
        for envelope in windows[0].envelopes:
            record = await self.model.destination(destination) or DestinationRecord()
            assert self.model.hold_of(envelope, record.site) is None
        self.claimed += windows[0].envelopes

    async def do_settle(self, outcomes: list[str]) -> None:
        now_unix_ms = self.model.now_unix_ms()
        results: list[AttemptResult] = []
        decisions: list[Any] = []
        back: list[int] = []
        for envelope, outcome in zip(self.claimed[:], outcomes, strict=False):
            envelope_id = envelope.fixed.envelope_id
            statuses = {
                "delivered": Status.DELIVERED,
                "deferred": Status.DEFERRED,
                "hard": Status.HARD_BOUNCED,
                "soft": Status.SOFT_BOUNCED,
            }
            if outcome == "keep":
                continue
            self.claimed.remove(envelope)
            if outcome in statuses:
                due = now_unix_ms + h.HOUR_MS if outcome == "deferred" else 0
                result = h.result_of(self.model, envelope, statuses[outcome], due_unix_ms=due)
                results.append(result)
            elif outcome == "finish":
                decisions.append(
                    Finish(envelope_id, Status.HARD_BOUNCED, now_unix_ms, Reason.NULL_MX)
                )
            elif outcome == "retry":
                decisions.append(RetryAt(envelope_id, now_unix_ms + 5 * h.SECOND_MS))
            else:
                back.append(envelope_id)
        for spool in (self.adapter, self.model):
            await spool.settle(results, decisions)
            spool.give_back(back)
        self.last_results = results or self.last_results

    async def do_repeat(self, _: int) -> None:
        head = self.adapter.head()
        for spool in (self.adapter, self.model):
            await spool.settle(self.last_results)
        assert self.adapter.head() == head

    async def do_rest(self, argument: tuple[str, int, str]) -> None:
        destination, wait_ms, site = argument
        record = DestinationRecord()
        if wait_ms:
            not_before = self.model.now_unix_ms() + wait_ms
            record = DestinationRecord(not_before, "destination_unreachable", 1, 1, "no route")
        record.site = site
        for spool in (self.adapter, self.model):
            await spool.settle([], [Rest(destination, record)])
        assert await self.adapter.destination(destination) or record == DestinationRecord()

    async def do_try(self, destination: str) -> None:
        await self._both(lambda spool: spool.settle([], [TryNow(destination)]))

    async def do_cancel(self, number: int) -> None:
        if self.ids:
            envelope_id = self.ids[-1 - number % len(self.ids)]
            now_unix_ms = self.model.now_unix_ms()
            for spool in (self.adapter, self.model):
                await spool.settle([], [Finish(envelope_id, Status.CANCELLED, now_unix_ms, None)])

    async def do_retry(self, argument: tuple[int, int]) -> None:
        number, shift_ms = argument
        claimed = {each.fixed.envelope_id for each in self.claimed}
        unclaimed = [each for each in self.ids if each not in claimed]
        if unclaimed:
            due_unix_ms = self.model.now_unix_ms() + shift_ms
            retry = RetryAt(unclaimed[-1 - number % len(unclaimed)], due_unix_ms)
            for spool in (self.adapter, self.model):
                await spool.settle([], [retry])

    async def do_hold(self, argument: tuple[MailFilter, int | None]) -> None:
        wanted, for_ms = argument
        now_unix_ms = self.model.now_unix_ms()
        until_unix_ms = None if for_ms is None else now_unix_ms + for_ms
        hold = Hold(0, wanted, until_unix_ms, "operator", "because", now_unix_ms)
        await self._both(lambda spool: spool.put_hold(hold))

    async def do_lift(self, numbers: list[int]) -> None:
        there = [each.hold_id for each in self.model.holds()]
        chosen = [there[number % len(there)] for number in numbers if there]
        await self._both(lambda spool: spool.lift_holds(chosen))

    async def do_clock(self, shift_ms: int) -> None:
        # A step back goes unnoticed by a spool that did not look before it, so both look.
        before = [spool.now_unix_ms() for spool in (self.adapter, self.model)]
        self.clock.now += shift_ms
        after = [spool.now_unix_ms() for spool in (self.adapter, self.model)]
        assert after[0] == after[1] >= max(before)

    async def do_tomorrow(self, _: int) -> None:
        await self.do_clock(h.DAY_MS)
        await self.do_release(0)

    async def do_release(self, _: int) -> None:
        now_unix_ms = self.model.now_unix_ms()
        await self._both(lambda spool: spool.release(now_unix_ms))

    async def do_rebook(self, argument: tuple[int, Quota]) -> None:
        number, quota = argument
        account_id = self.accounts[number].account_id
        await self._both(lambda spool: spool.rebook(account_id, quota))

    async def do_suppress(self, argument: tuple[int, int, str]) -> None:
        account, person, name = argument
        now_unix_ms = self.model.now_unix_ms()
        until = now_unix_ms + person * h.DAY_MS if person else 0
        suppression = Suppression(f"r{person}@{name}", now_unix_ms, until, text="by hand")
        for spool in (self.adapter, self.model):
            await spool.suppress(self.accounts[account].account_id, suppression)

    async def do_unsuppress(self, argument: tuple[int, int, str]) -> None:
        account, person, name = argument
        account_id = self.accounts[account].account_id
        await self._both(lambda spool: spool.lift_suppression(account_id, f"r{person}@{name}"))

    async def do_sweep(self, _: int) -> None:
        await h.sweep_all(self.adapter)
        await h.sweep_all(self.model)

    async def do_crash(self, _: int) -> None:
        raise Crash

    async def do_page(self, limit: int) -> None:
        whole = [each.seq for each in await h.all_events(self.adapter)]
        seq = whole[0] - 1 if whole else 0
        paged: list[int] = []
        while seq < self.adapter.head():
            page = await self.adapter.events(seq, EventFilter(), limit)
            paged += [each.seq for each in page.events]
            seq = page.seq
        assert paged == whole

    # What is seen after each step.

    async def _compare(self) -> None:
        assert await self.adapter.check_invariants() == []
        assert (await self.adapter.check_some()).faults == []
        assert await self.model.check_invariants() == []
        seen = [await _seen(spool) for spool in (self.adapter, self.model)]
        assert seen[0] == seen[1]
        [total] = await self.adapter.statistics(Group.TOTAL)
        assert sum(total.counts) == len(self.ids)
        events = await h.all_events(self.adapter)
        seqs = [each.seq for each in events]
        assert seqs == list(range(seqs[0], self.adapter.head() + 1)) if seqs else True
        finals = Counter(each.envelope_id for each in events if each.status in FINAL_STATUSES)
        assert max(finals.values(), default=0) <= 1
        told = [each.seq for each in self.told]
        assert told == list(range(self.head_at_start + 1, self.adapter.head() + 1))


async def _seen(spool: Spool) -> dict[str, Any]:
    """Everything that the read side shows, without what the contract leaves open."""
    envelopes = []
    for envelope in await h.all_envelopes(spool):
        fixed, state = envelope.fixed, envelope.state
        story = [_plain(each) for each in await spool.events_at(state.event_seqs)]
        is_open = state.status not in FINAL_STATUSES
        content = (await spool.content([fixed.content_id])).get(fixed.content_id)
        envelopes.append(
            (
                msgspec.structs.replace(fixed, content_id=0),
                msgspec.structs.replace(state, event_seqs=[]),
                story,
                content if is_open else None,
            )
        )
    rows = {group: await spool.statistics(group) for group in Group}
    of_one = {group: await spool.statistics(group, account_id=1) for group in Group}
    campaigns = await spool.campaigns(None)
    statistics = spool.spool_statistics()
    far = 2**60
    hour = spool.now_unix_ms() - spool.now_unix_ms() % h.HOUR_MS
    return {
        "envelopes": envelopes,
        "events": Counter(_plain(each) for each in await h.all_events(spool)),
        "statistics": rows,
        "statistics of one": of_one,
        "waiting": [each.fixed.envelope_id for each in await h.all_envelopes(spool, WAITING)],
        "deferred": [each.fixed.envelope_id for each in await h.all_envelopes(spool, DEFERRED)],
        "times": {each: await spool.delivery_times(each) for each in TimesGroup},
        "times of one": [
            await spool.delivery_times(each, account_id=1, from_unix_ms=hour - h.DAY_MS)
            for each in TimesGroup
        ],
        "series": await spool.series(hour - h.DAY_MS, hour + h.HOUR_MS, h.HOUR_MS),
        "minutes of one": await spool.series(
            hour, hour + h.HOUR_MS, activity.MINUTE_MS, account_id=1
        ),
        "destinations": await spool.destinations(),
        "destinations of one": await spool.destinations(account_id=1),
        "destinations of a campaign": await spool.destinations(campaign="spring"),
        "of one's": await spool.destinations(account_id=2, campaign="spring"),
        "some of what waits": [
            [
                each.fixed.envelope_id
                for each in await spool.waiting_at(
                    name, account_id=account_id, campaign=campaign, limit=3
                )
            ]
            for name in DESTINATIONS
            for account_id in (None, 1)
            for campaign in (None, "spring")
        ],
        "releases": [
            await spool.first_releases(account_id=account_id, campaign=None, looked_at_max=9999)
            for account_id in (None, 1, 2)
        ],
        "agenda": await spool.due_destinations(far, 100),
        "next wake": await spool.next_wake_unix_ms(),
        "suppressions": [await spool.suppressions(account_id) for account_id in (1, 2)],
        "campaigns": [msgspec.structs.replace(each, content_id=0) for each in campaigns],
        "their counts": await spool.campaign_counts(1, ["spring", "autumn"]),
        "head": spool.head(),
        "counts": (statistics.envelopes_open, statistics.in_flight, statistics.head_seq),
        "oldest": statistics.oldest_seq,
        "start": spool.start_count,
        "holds": spool.holds(),
        "next hold end": spool.next_hold_end_unix_ms(),
    }


def _plain(event: Event) -> str:
    return repr(msgspec.structs.replace(event, seq=0))


async def run_program(make: Callable[[Path], h.Harness], program: Sequence[Step]) -> None:
    """Run a program on the adapter that `make` gives for a directory, and on the model."""
    with h.data_directory() as directory:
        await Pair(make(directory), h.Harness("memory", directory, SETTINGS)).run(program)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", h.ADAPTERS)
def test_every_program_means_the_same_as_on_the_model(adapter: str) -> None:
    def make(directory: Path) -> h.Harness:
        return h.Harness(adapter, directory, SETTINGS)

    @settings(
        max_examples=60,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(programs)
    def check(program: list[Step]) -> None:
        trio.run(run_program, make, program, clock=trio.testing.MockClock())

    check()
