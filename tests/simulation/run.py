"""One simulation: the composed engine lives, dies and is restarted until all its mail is finished.

It is `engine.compose.running_engine` with its five seams and nothing else in its place; only the
calls to the spool pass a gate that shuts when the process dies. Requests go to the handlers of the
HTTP port's routes, without its sockets. What was seen goes to `Observed`, which `law` judges.
"""

import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from engine import compose
from engine.clock import VirtualClock
from engine.compose import Engine, Seams, running_engine, spool_settings
from engine.config import Config
from engine.delivery.wire import Wire
from engine.http_server import Identity, Request, Response
from engine.spool import housekeeping, open_spool
from engine.spool.interface import (
    AcceptRequest,
    EventFilter,
    Group,
    Spool,
    SpoolFailed,
    SpoolFull,
    StatisticsRow,
)
from engine.spool.listing_calls import EnvelopeFilter
from engine.watch.status import monitor
from protocols.records import (
    FINAL_STATUSES,
    STATUSES,
    Account,
    ApiKey,
    Campaign,
    Envelope,
    Event,
)
from tests.simulation.campaigning import ACCOUNT, CampaignSeen, CampaignSender
from tests.simulation.following import Follower
from tests.simulation.inquiry import Inquiry
from tests.simulation.letters import LETTER, digest_of_letter, with_letters
from tests.simulation.lives import FAILING_COMMIT, Ending, Life, MortalSpool, MortalThreads
from tests.simulation.operating import Operator
from tests.simulation.peers import FaultyResolver, Network
from tests.simulation.plan import World, world_of
from tests.simulation.seeding import Standstill, chances, run_simulated
from tests.simulation.steps import StepChecks

ACCOUNTS = ("bulk", "small")
SEND_PATH = "/v3.1/send"
# A mail whose time is over may still be with a server; after this nobody waits for it any more.
GRACE_S = 2400.0
# How often it is looked whether all is over: a look costs as much as some steps.
LOOKS_PER_AGE = 200
OPEN = EnvelopeFilter(statuses=frozenset(STATUSES) - FINAL_STATUSES)

_names = itertools.count()


@dataclass(slots=True)
class Answered:
    """What came of one request. `status` is 0 while its sender knows nothing."""

    status: int = 0
    # (subject, recipient) -> (message_id, uuid), as answered.
    accepted: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    # Whether some try died without an answer, so that its mail may be there all the same.
    is_in_doubt: bool = False


@dataclass(slots=True)
class Observed:
    """Everything that the law looks at."""

    world: World
    lives: list[Life]
    answers: dict[int, Answered]
    follower: Follower
    operator: Operator
    contents: dict[tuple[str, str], set[bytes]]
    steps: StepChecks
    faults: list[str] = field(default_factory=list)
    # Read from the spool when all was over.
    events: list[Event] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    statistics: dict[tuple[str | None, Group], list[StatisticsRow]] = field(default_factory=dict)
    stream_id: str = ""
    campaigns: list[CampaignSeen] = field(default_factory=list)
    # By name: the template as it was stored, and what the spool has of it when all is over.
    templates: dict[str, bytes] = field(default_factory=dict)
    stored_campaigns: dict[str, Campaign] = field(default_factory=dict)
    trace: str = ""


# A control puts a faulty spool between the engine and its own.
WrapSpool = Callable[[Spool], Spool]


def simulate(
    seed: int,
    url: str,
    data_dir: Path,
    wrap: WrapSpool = lambda spool: spool,
    inquiry: Inquiry | None = None,
) -> Observed:
    """Run `seed` on "memory:" or "lmdb:", from its first mail to the end of its last.

    With an inquiry it ends with that, and only its faults mean anything.
    """
    if url == "memory:":
        url = f"memory:simulation-{next(_names)}"
    world = world_of(seed, url, data_dir)
    with (
        mock.patch.object(housekeeping, "EVERY_S", world.span.housekeeping_s),
        mock.patch.object(monitor, "EVERY_S", 2 * world.span.housekeeping_s),
    ):
        return run_simulated(seed, _Simulation(world, wrap, inquiry).run)


class _Simulation:
    def __init__(self, world: World, wrap: WrapSpool, inquiry: Inquiry | None) -> None:
        self.world = world
        self.wrap = wrap
        self.inquiry = inquiry
        self.clock = VirtualClock(world.start_unix_ms)
        self.network = Network(world.receivers, world.notebook, self.chances("network"))
        self.steps = StepChecks()
        self.trace = blake2b(digest_size=16)
        follower = Follower(self.chances("follower"), world.span.max_age_s / 10)
        answers = {each.number: Answered() for each in world.requests}
        operator = Operator(self.chances("operator"), world.span.sending_s / 30)
        self.seen = Observed(world, [], answers, follower, operator, {}, self.steps)
        self.accounts: dict[str, Account] = {}
        self.engine: Engine | None = None
        # Inquiries are about the causes of single mails.
        plans = world.campaigns if inquiry is None else []
        self.seen.campaigns = [CampaignSeen(plan) for plan in plans]
        self.sending = len(world.requests) + len(plans)
        self.outside = trio.CancelScope()

    def chances(self, purpose: str) -> Any:
        return chances(self.world.seed, purpose)

    async def run(self, standstill: Standstill) -> Observed:
        for receiver in self.world.receivers.values():
            receiver.now_s()
        await self._make_accounts()
        with standstill.scope:
            await self._run_all_lives()
        if standstill.scope.cancelled_caught:
            self.seen.faults.append(f"time stands still at {trio.current_time()} s: a busy loop")
        await self._read_all()
        self._digest()
        return self.seen

    async def _run_all_lives(self) -> None:
        world = self.world
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.network.serve)
            nursery.start_soon(self._people)
            if self.inquiry is not None:
                nursery.start_soon(self._inquire, self.inquiry, nursery)
            for ending, downtime_s in zip(world.endings, world.downtimes_s, strict=False):
                await self._live(ending)
                await trio.sleep(downtime_s)
            await self._live(None)
            nursery.cancel_scope.cancel()

    async def _people(self) -> None:
        """Whoever does something to the engine from outside, and the network."""
        with self.outside:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.network.tear, self.world.tear_every_s)
                nursery.start_soon(self.seen.follower.follow, self.living)
                nursery.start_soon(self.seen.operator.operate, self.living)
                for request in self.world.requests:
                    nursery.start_soon(self._send, request)
                for campaign in self.seen.campaigns:
                    nursery.start_soon(self._campaign, campaign)

    async def _inquire(self, inquiry: Inquiry, everything: trio.Nursery) -> None:
        await trio.sleep(inquiry.at_s)
        found = None
        while found is None or found[0].failed_s is not None:
            await trio.sleep(1.0)
            found = self.living()
        life, engine = found
        life.is_spared, self.world.full_spool = True, 0.0
        self.outside.cancel()
        await inquiry.run(life, engine, self.world)
        everything.cancel_scope.cancel()

    def living(self) -> tuple[Life, Engine] | None:
        life = self.seen.lives[-1] if self.seen.lives else None
        if life is None or not life.is_up or life.is_over or self.engine is None:
            return None
        return life, self.engine

    # Lives.

    async def _live(self, ending: Ending | None) -> None:
        """Run the engine once, until it crashes, stops or, the last time, has finished all mail."""
        life = Life(len(self.seen.lives) + 1, ending, trio.current_time(), self.network.cut_all)
        self.seen.lives.append(life)
        try:
            with life.scope, self._gate(life):
                async with running_engine(self.world.config, self._seams(life)) as engine:
                    self.engine, life.is_up = engine, True
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._end_in_time, life)
                        await life.stop.wait()
                        nursery.cancel_scope.cancel()
                    life.is_up = False
        except* SpoolFailed:
            # What it has to do after a failed commit, and only then; the dead may say anything.
            if life.failed_s is None and not life.is_over:
                self.seen.faults.append(f"life {life.number} ended itself, and no commit failed")
            life.end(FAILING_COMMIT)
            life.die()
        except* Exception as group:  # noqa: BLE001  # whatever it was, it is a breach of the law
            self.seen.faults.append(f"life {life.number} ended itself: {_first_of(group)!r}")
            life.die()
        life.is_up = False
        life.be_over()

    async def _end_in_time(self, life: Life) -> None:
        if life.ending is not None:
            await trio.sleep(life.ending.within_s)
            life.end("time")
            return
        assert self.engine is not None
        while self.sending or await self._may_still_end(self.engine.spool):  # noqa: ASYNC110  no event
            await trio.sleep(self.world.span.max_age_s / LOOKS_PER_AGE)
        await self.seen.follower.catch_up(life, self.engine)
        life.stop.set()

    async def _may_still_end(self, spool: Spool) -> bool:
        """Say whether mail is open whose time is not over for long."""
        if not spool.spool_statistics().envelopes_open:
            return False
        page = await spool.find(OPEN, None, 1000)
        latest = max((each.state.expires_unix_ms for each in page.envelopes), default=0)
        return self.clock.now_unix_ms() < latest + GRACE_S * 1000

    def _seams(self, life: Life) -> Seams:
        rand = self.chances(f"engine {life.number}")

        async def connect(address: str, port: int, source: str | None) -> Wire:
            return await self.network.connect(life, address)

        return Seams(
            clock=self.clock,
            rand=rand,
            resolver=FaultyResolver(
                self.world.zones, self.chances(f"dns {life.number}"), self.world.dns_faults
            ),
            connect=connect,
            run_blocking=MortalThreads(life, self.chances(f"threads {life.number}")),
            random_octets=rand.randbytes,
        )

    @contextmanager
    def _gate(self, life: Life) -> Iterator[None]:
        """Let compose open its spool behind the gate that shuts at the end of this life."""

        @asynccontextmanager
        async def open_gated(url: str, data_dir: Path, **named: Any) -> AsyncIterator[Spool]:
            # How full the machine's disk happens to be is not the seed's.
            named["settings"] = replace(named["settings"], disk_free_bytes_min=0)
            async with open_spool(url, data_dir, **named) as spool:
                rand = self.chances(f"spool {life.number}")
                yield self.wrap(_Gated(spool, life, rand, self).as_spool())

        with mock.patch.object(compose, "open_spool", open_gated):
            yield

    # Senders.

    async def _make_accounts(self) -> None:
        async with self._plain_spool() as spool:
            for name in ACCOUNTS:
                account = Account(0, name, "small" if name == "small" else "", 1)
                key = ApiKey(f"key-{name}", 0, bytes(32), 1)
                self.accounts[name] = await spool.create_account(account, key)

    async def _send(self, request: Any) -> None:
        """Be one sender: wait, call, and call again as senders do."""
        rand = self.chances(f"sender {request.number}")
        answer = self.seen.answers[request.number]
        await trio.sleep(request.at_s)
        headers = [(b"idempotency-key", request.key.encode())] if request.key else []
        identity = Identity(self.accounts[request.account])
        while True:
            found = self.living()
            if found is None:
                await trio.sleep(rand.uniform(0.5, 2.0))
                continue
            life, engine = found
            route = next(each for each in engine.http.routes if each.pattern == SEND_PATH)
            http_request = Request(
                "POST", SEND_PATH, "", headers, body=request.body, identity=identity
            )
            response = await life.visit(route.handler, http_request)
            self.note("answer", request.number, None if response is None else response.body)
            if response is not None and response.status != 503:
                _take_answer(answer, response)
                break
            # No answer, or one of a spool that does not know itself whether it has the mail.
            answer.is_in_doubt |= response is None or life.failed_s is not None
            if not request.is_stubborn or (answer.is_in_doubt and not request.key):
                # Without a key, trying again may be sending twice.
                answer.status = 0 if response is None else response.status
                break
            await trio.sleep(rand.uniform(0.1, 30.0))
        self.sending -= 1

    async def _campaign(self, campaign: CampaignSeen) -> None:
        rand = self.chances(campaign.plan.name)
        await CampaignSender(campaign, self.accounts[ACCOUNT], self.living, rand).run()
        self.sending -= 1

    def note(self, *values: object) -> None:
        """Add to the trace, with the moment."""
        self.trace.update(repr((trio.current_time(), *values)).encode())

    # The end.

    @asynccontextmanager
    async def _plain_spool(self) -> AsyncIterator[Spool]:
        async def run_inline(function: Callable[..., Any], /, *arguments: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return function(*arguments)

        config: Config = self.world.config
        async with open_spool(
            config.spool.url,
            config.data_dir,
            settings=spool_settings(config),
            clock=self.clock,
            run_blocking=run_inline,
            random=self.chances("plain spool"),
        ) as spool:
            yield spool

    async def _read_all(self) -> None:
        """Read what the spool holds, as a new process would find it."""
        seen = self.seen
        async with self._plain_spool() as spool:
            seen.stream_id = spool.stream_id
            while len(seen.events) < spool.head():
                page = await spool.events(len(seen.events), EventFilter(), 1000)
                seen.events += page.events
            after: int | None = None
            while True:
                envelopes = await spool.find(EnvelopeFilter(), after, 1000)
                seen.envelopes += envelopes.envelopes
                after = envelopes.after
                if after is None:
                    break
            for account in (None, *self.accounts.values()):
                name, account_id = (account.name, account.account_id) if account else (None, None)
                for group in Group:
                    rows = await spool.statistics(group, account_id=account_id)
                    seen.statistics[name, group] = rows
            seen.faults += await spool.check_invariants()
            seen.faults += (await spool.check_some()).faults
            for campaign in seen.campaigns:
                name = campaign.plan.name
                stored = await spool.campaign(self.accounts[ACCOUNT].account_id, name)
                if stored is not None:
                    seen.stored_campaigns[name] = stored
        for fixed in (each.fixed for each in seen.envelopes if each.fixed.variables is not None):
            template = seen.templates.get(fixed.campaign or "", LETTER)
            seen.contents[fixed.subject, fixed.recipient] = {digest_of_letter(fixed, template)}

    def _digest(self) -> None:
        seen = self.seen
        self.note([(each.ended_s, each.ended_by) for each in seen.lives])
        self.note(seen.events, seen.envelopes, seen.follower.seen)
        self.note([(each.key, each.at_s, each.answered_s) for each in seen.world.notebook.taken])
        self.note([(each.at_s, each.recipient) for each in seen.world.notebook.asked])
        seen.trace = self.trace.hexdigest()


class _Gated(MortalSpool):
    """The gate, which also notes what was handed in and is full now and then."""

    def __init__(self, inner: Spool, life: Life, rand: Any, simulation: _Simulation) -> None:
        super().__init__(inner, life, rand, simulation.steps.check)
        self._simulation = simulation

    async def accept(self, requests: Any) -> Any:
        if self.rand.random() < self._simulation.world.full_spool:
            return [SpoolFull("no room, says the simulation") for _ in requests]
        requests = [with_letters(request) for request in requests]
        for request in requests:
            _note_contents(self._simulation.seen.contents, request)
        return await super().accept(requests)

    async def create_campaign(self, new: Any) -> Any:
        self._simulation.seen.templates[new.name] = new.template
        return await super().__getattr__("create_campaign")(new)

    async def settle(self, results: Any, decisions: Any = ()) -> None:
        if self.rand.random() < self._simulation.world.full_spool:
            raise SpoolFull("no room, says the simulation")
        await super().settle(results, decisions)


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _note_contents(contents: dict[tuple[str, str], set[bytes]], request: AcceptRequest) -> None:
    # A repeat builds its content again, with another date; only one of them is stored.
    # What a template becomes is known when its envelopes are.
    for message in request.messages:
        digest = blake2b(message.content, digest_size=16).digest()
        for recipient in message.recipients:
            contents.setdefault((message.subject, recipient.recipient), set()).add(digest)


def _take_answer(answer: Answered, response: Response) -> None:
    answer.status = response.status
    for message in json.loads(response.body)["Messages"]:
        if message["Status"] != "success":
            continue
        for each in message["To"]:
            key = (message["CustomID"], each["Email"])
            answer.accepted[key] = (each["MessageID"], each["MessageUUID"])
