"""A real engine for an hour, with everything going on at once; and nothing may be lost, or grow.

`python -m tests.scenarios.soak --minutes 60` is the long form of the test in the suite. Two fifths
of the time are restless: the engine is killed, or asked to end, after every few seconds. Then it
lives through, and what it takes up is measured. All the time several accounts hand in mail and
campaigns, receivers of every temper take it, an operator holds, cancels, changes rules and plans,
and subscribers misbehave. The clock is the machine's. In the end all mail has to have its end, and
the books of `soak_books.py` have to agree.
"""

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from engine.clock import SystemClock
from engine.rehearsal.engine_process import Credentials, EngineFailed, EngineProcess
from protocols.timestamps import time_text
from tests.scenarios import crash, soak_books, soak_measures
from tests.scenarios.counting_receivers import CountingReceivers, routes
from tests.scenarios.follower import Follower
from tests.scenarios.senders import Ledger, Sender
from tests.scenarios.soak_books import OPEN, Books, Life
from tests.scenarios.soak_deeds import (
    DEED_EVERY_S,
    BadSubscribers,
    Onlooker,
    Operator,
    OperatorsFollower,
)
from tests.scenarios.soak_mail import HOSTILE, STALLING, CampaignSender, Mailbag, Pace

ACCOUNTS: Final = {"shop": None, "small": "tight", "lists": None}
# The share of the mail that is campaigns.
LISTS_SHARE: Final = 0.3
RESTLESS_SHARE: Final = 0.4
KILL_SHARE: Final = 0.7
LIFE_S_MAX: Final = 40.0
# Below this, mail that a stalling receiver keeps would be most of the run.
LONG_S: Final = 300.0
# By whether the run is long: all mail that nobody takes has to end in the run.
MAX_AGE_S: Final = {True: 60.0, False: 12.0}
# A whole walk over the spool costs what some hundred mails do.
WALK_EVERY_S: Final = 120.0
TELL_EVERY_S: Final = 30.0
TICK_S: Final = 0.5
# After the last mail is handed in: its age, what is with a stalling server, and the machine's load.
DRAIN_S_MAX: Final = 460.0
SHORT_MEMORY: Final = (sys.executable, "-m", "tests.scenarios.short_memory")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much; `rate_per_s` counts mails, campaigns' included."""

    seconds: float
    rate_per_s: float
    seed: int

    @property
    def is_long(self) -> bool:
        return self.seconds >= LONG_S

    def toml(self, rules: Path, port: int) -> str:
        # What is kept on purpose has to be given up within the run, or it looks like growth.
        retention_s = 180 if self.is_long else 86_400
        return (
            f"[delivery]\nretry_s = [1, 2, 5, 10]\ngreylist_retry_s = [2, 4]\n"
            f"max_age_s = {MAX_AGE_S[self.is_long]:.0f}\n"
            f"[events]\nretention_s = {retention_s}\n"
            '[[plan]]\nname = "tight"\nmessages_per_day = 40\n'
            '[[plan]]\nname = "wide"\nmessages_per_day = 400\n'
            f'[shaping]\nfiles = ["{rules.name}"]\n' + routes(port)
        )


@dataclass(slots=True)
class Report:
    """What came of it."""

    books: Books
    growths: list[soak_measures.Growth] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    deeds: dict[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0
    engine_log: str = ""

    def lines(self) -> list[str]:
        growth = [each.text() for each in self.growths]
        deeds = ", ".join(f"{count} by {name}" for name, count in self.deeds.items())
        return [
            self.books.summary(),
            f"deeds: {deeds}; the last life took {self.cpu_s:.1f} s of CPU",
            *growth,
        ]


class _Soak:
    def __init__(self, plan: Plan, directory: Path, tell: Callable[[str], None]) -> None:
        self.plan = plan
        self.tell = tell
        self.rand = random.Random(f"{plan.seed} lives")
        self.rules = directory / "rules.toml"
        self.rules.write_text("", encoding="utf-8")
        self.receivers = CountingReceivers()
        self.engine = EngineProcess(
            directory,
            plan.toml(self.rules, self.receivers.port),
            command=SHORT_MEMORY,
        )
        self.accounts = {name: self._account(name, wanted) for name, wanted in ACCOUNTS.items()}
        self.follower = OperatorsFollower(self.engine, self.accounts["shop"])
        self.own_follower = Follower(self.engine.port, self.accounts["shop"])
        ledger = Ledger()
        self.books = Books(ledger, self.follower.heard, self.own_follower.heard)
        self.report = Report(self.books)
        self.samples: list[soak_measures.Sample] = []
        self.operator = Operator(
            self.engine, self.rules, seed=plan.seed, every_s=min(DEED_EVERY_S, plan.seconds / 30)
        )
        mailbag = Mailbag((*HOSTILE, *STALLING) if plan.is_long else HOSTILE)
        self.campaigns = CampaignSender(
            self.engine.port,
            self.accounts["lists"],
            ledger,
            mailbag,
            Pace(plan.rate_per_s * LISTS_SHARE),
            seed=plan.seed,
        )
        self.books.campaigns = self.campaigns.campaigns
        self.senders = self._senders(mailbag)
        self.bystanders = (
            Onlooker(self.engine.port, self.accounts["shop"], ledger, seed=plan.seed),
            BadSubscribers(self.engine.port, self.accounts["shop"], seed=plan.seed),
        )

    def _account(self, name: str, plan: str | None) -> Credentials:
        made = self.engine.create_account(name)
        if plan is not None:
            self.engine.run("account", "plan", name, plan)
        return made

    def _senders(self, mailbag: Mailbag) -> list[Sender]:
        pace = Pace(self.plan.rate_per_s * (1 - LISTS_SHARE))
        # Half of the messages that a request may have, two recipients each.
        mails = 9.0
        senders = []
        for number, account in enumerate(("shop", "shop", "small")):
            sender = Sender(
                f"client{number}",
                self.engine.port,
                self.accounts[account],
                self.books.ledger,
                seed=self.plan.seed,
                repeats=number != 1,
                may_send=lambda: pace.may_send(mails, self.campaigns.stop),
                make=mailbag.batch,
            )
            senders.append(sender)
        return senders

    def run(self) -> Report:
        plan = self.plan
        restless_until_s = time.monotonic() + plan.seconds * RESTLESS_SHARE
        calm_until_s = time.monotonic() + plan.seconds
        with self._everybody():
            while time.monotonic() < restless_until_s:
                self._begin_life()
                longest_s = min(LIFE_S_MAX, plan.seconds * RESTLESS_SHARE / 3)
                self._live(time.monotonic() + self.rand.uniform(0.05, longest_s))
                self._end_life()
            self._begin_life()
            self.engine.wait_until_ready()
            self._live(calm_until_s, is_measured=True)
            self._stop_sending()
            self._drain()
            self._close_books()
        self._judge()
        return self.report

    @contextmanager
    def _everybody(self) -> Iterator[None]:
        listening = (self.follower, self.own_follower)
        acting = (self.operator, *self.bystanders)
        for each in (*listening, *acting, self.campaigns, *self.senders):
            each.start()
        try:
            yield
        finally:
            self._stop_sending()
            for person in acting:
                person.stop.set()
                person.join()
            for follower in listening:
                follower.stop.set()
                follower.join()
            self.engine.kill()

    def _stop_sending(self) -> None:
        for sender in self.senders:
            sender.stop.set()
        self.campaigns.stop.set()
        for each in (*self.senders, self.campaigns):
            each.join()

    # Lives.

    def _begin_life(self) -> None:
        self.books.lives.append(Life(time_text(SystemClock().now_unix_ms())))
        self.engine.start()

    def _live(self, until_s: float, *, is_measured: bool = False) -> None:
        walk_at_s = time.monotonic() + (WALK_EVERY_S if self.plan.is_long else 5.0)
        tell_at_s = time.monotonic() + TELL_EVERY_S
        while (now_s := time.monotonic()) < until_s:
            self.engine.check_alive()
            time.sleep(min(TICK_S, max(0.0, until_s - now_s)))
            self.books.take(self.receivers.taken())
            if is_measured:
                found = soak_measures.sample(self.engine, self.books.heard.final)
                self.samples += [found] if found else []
            if now_s >= walk_at_s:
                walk_at_s = now_s + WALK_EVERY_S
                self._walk()
            if now_s >= tell_at_s:
                tell_at_s = now_s + TELL_EVERY_S
                self.tell(self.books.summary())

    def _walk(self) -> None:
        """Have the living engine look at everything that must hold between its tables."""
        found = self.operator.ask("GET", "/v1/doctor/spool")
        if found is not None and (found["faults"] or found["quarantined"]):
            self.report.faults.append(f"walk: {found}")

    def _end_life(self) -> None:
        life = self.books.lives[-1]
        life.is_killed = self.rand.random() < KILL_SHARE
        if life.is_killed:
            self.engine.kill()
        else:
            self.engine.wait_until_ready()
            if status := self.engine.stop():
                self.report.faults.append(f"SIGTERM ended life {len(self.books.lives)}: {status}")
        self.books.take(self.receivers.drain())

    # The end.

    def _drain(self) -> None:
        """Wait until all mail has its end."""
        self.operator.stop.set()
        self.operator.join()
        deadline_s = time.monotonic() + DRAIN_S_MAX
        counts: Counter[str] = Counter()
        while time.monotonic() < deadline_s:
            self.engine.check_alive()
            # Campaigns whose sender was stopped between a pause and its end are held, too.
            self.operator.let_everything_go()
            counts = Counter(
                each.statuses[-1] for each in list(self.follower.heard.stories.values())
            )
            told = self._told("")["total"]
            if not any(told[name] for name in OPEN) and not any(counts[name] for name in OPEN):
                self.books.take(self.receivers.taken())
                return
            self.books.take(self.receivers.taken())
            time.sleep(TICK_S)
        waiting = Counter(
            each.address.rpartition("@")[2]
            for each in self.follower.heard.stories.values()
            if each.statuses[-1] in OPEN
        )
        self.report.faults.append(f"not through after {DRAIN_S_MAX} s: {dict(waiting)}")

    def _told(self, grouping: str) -> dict[str, dict[str, int]]:
        query = f"?group={grouping}" if grouping else ""
        found = self.operator.ask("GET", f"/v1/statistics{query}")
        if found is None:
            raise EngineFailed("the engine does not tell its statistics")
        return {
            row["key"]: {name: n for name, n in row.items() if name not in ("key", "total")}
            for row in found["rows"]
        }

    def _close_books(self) -> None:
        self._walk()
        for grouping in ("", "account", "destination", "campaign"):
            self.books.statistics[grouping] = self._told(grouping)
        self.campaigns.look()
        self._wait_for_own_follower()
        self.report.cpu_s = self.engine.cpu_s()
        if status := self.engine.stop():
            self.report.faults.append(f"SIGTERM ended the last life: {status}")
        self.books.take(self.receivers.drain())

    def _wait_for_own_follower(self) -> None:
        deadline_s = time.monotonic() + 20.0
        while time.monotonic() < deadline_s:
            if self.own_follower.heard.cursor == self.follower.heard.cursor:
                return
            time.sleep(TICK_S)

    def _judge(self) -> None:
        report = self.report
        report.growths = soak_measures.growth_of(self.samples)
        people = (self.operator, *self.bystanders)
        report.deeds = {each.name: each.deeds for each in people}
        for each in (*people, self.campaigns):
            report.faults += [f"{each.name}: {text}" for text in each.surprises]
        report.faults += soak_books.faults(self.books)
        if self.plan.is_long:
            report.faults += soak_measures.faults_of(report.growths)
        data_dir = self.engine.directory / "data"
        report.faults += trio.run(crash.broken_invariants, data_dir)
        report.engine_log = self.engine.output_path.read_text(encoding="utf-8", errors="replace")
        if "Traceback" in report.engine_log:
            place = report.engine_log.index("Traceback")
            report.faults.append(f"in its log: {report.engine_log[place : place + 1500]}")


def run(
    directory: Path,
    plan: Plan,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Soak an engine in `directory`. Raises EngineFailed if it ends by itself or does not start."""
    soak = _Soak(plan, directory, tell)
    with soak.receivers:
        return soak.run()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scenarios.soak",
        description="Run an engine with everything going on at once; see that it keeps its word.",
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=10.0, help="mails a second")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--keep", type=Path, help="a directory for the engine's data, left behind")
    options = parser.parse_args()
    if not (math.isfinite(options.minutes) and options.minutes > 0 and options.rate > 0):
        parser.error("minutes and rate are above 0")
    crash.say(f"seed {options.seed}, {options.minutes} minutes, {options.rate} mails a second")
    plan = Plan(options.minutes * 60.0, options.rate, options.seed)
    with tempfile.TemporaryDirectory(prefix="eilpost-soak-") as directory:
        place = options.keep or Path(directory)
        place.mkdir(parents=True, exist_ok=True)
        report = run(place, plan, tell=crash.say)
    for line in (*report.lines(), *report.faults[: crash.FAULTS_SHOWN]):
        crash.say(line)
    raise SystemExit(f"{len(report.faults)} faults, seed {options.seed}" if report.faults else 0)


if __name__ == "__main__":
    main()
