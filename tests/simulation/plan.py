"""What a seed stands for: receivers and their moods, DNS, who sends what when, and each death.

Data and choices only; nothing here runs. All virtual lengths hang on the mail's longest age: a
seed is either a few hours at the pace of an afternoon or whole days until the last retry.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import Config, Delivery, Http, Plan, Rule, SpoolTable
from engine.config_values import DomainPattern, ListenAddress, NamePattern, Network, Rate
from engine.rehearsal.behaviour import Action, Behaviour, Stage
from engine.rehearsal.zones import NULL_MX, Fault, Records, Zones
from tests.simulation.campaigning import NAMES, RATE, CampaignPlan, campaign_plans
from tests.simulation.lives import FAILING_COMMIT, POINTS, Ending
from tests.simulation.peers import Mood, MoodyReceiver, Notebook
from tests.simulation.seeding import chances

HOUR_S = 3600.0
DAY_MS = 86_400_000
# 2026-11-24T00:00Z; runs begin some time before this midnight, where quotas turn over.
MIDNIGHT_UNIX_MS = 1_795_478_400_000
# A rate of one destination, and one that three destinations at a site share.
THROTTLED = "throttled.test"
POOL = ("pool-a.test", "pool-b.test", "pool-c.test")
THROTTLES = {(THROTTLED,): "12/min, burst 3", POOL: "20/min, burst 4"}
# A rate of one account, over all destinations.
ACCOUNT_RATES = {"small": "30/min, burst 5"}
CEILED = "ceiled.test"
# By MX host; one is a destination's rule, the other a site's.
CEILINGS = {"mx.ceiled.test": 2, "mx.pool-a.test": 3}


@dataclass(frozen=True, slots=True)
class Span:
    """How long mail lives, how long people keep sending, how often the house is kept."""

    max_age_s: float
    sending_s: float
    housekeeping_s: float
    retry_s: tuple[float, ...]


# The house is kept once a second in life. Over days that would be most of the run, so there it is
# kept less often, and the law allows an expiry just that much more.
SPANS = (
    Span(1 * HOUR_S, 0.3 * HOUR_S, 4.0, (60.0, 120.0, 300.0, 900.0)),
    Span(6 * HOUR_S, 2 * HOUR_S, 20.0, (300.0, 600.0, 1200.0, 2400.0, 4800.0)),
    Span(72 * HOUR_S, 12 * HOUR_S, 200.0, (300.0, 600.0, 1200.0, 2400.0, 4800.0, 9600.0, 14400.0)),
)

# Who gets mail again and again; all the others get one. Many of these are with nobody.
REGULARS = tuple(
    f"regular{number}@{domain}" for domain in ("picky.test", "nowhere.test") for number in range(4)
)

ALL_TRICKS = (
    Action.CLOSE,
    Action.CLOSE,
    Action.CLOSE,
    Action.STALL,
    Action.RUBBISH,
    Action.TWICE,
    Action.DRIP,
    Action.HUGE,
)


@dataclass(slots=True)
class SendRequest:
    """One call of `POST /v3.1/send`. `good` is (subject, recipient) of what may be accepted."""

    number: int
    at_s: float
    account: str
    body: bytes
    key: str | None
    good: list[tuple[str, str]]
    # Whether its sender tries again until there is an answer.
    is_stubborn: bool


@dataclass(slots=True)
class World:
    """Everything that is settled before the first moment."""

    seed: int
    span: Span
    start_unix_ms: int
    small_per_day: int
    config: Config
    notebook: Notebook
    receivers: dict[str, MoodyReceiver]
    zones: Zones
    dns_faults: dict[str, float]
    requests: list[SendRequest]
    campaigns: list[CampaignPlan]
    endings: list[Ending]
    downtimes_s: list[float]
    full_spool: float
    tear_every_s: float


def world_of(seed: int, url: str, data_dir: Path) -> World:
    rand = chances(seed, "world")
    span = SPANS[seed % len(SPANS)]
    builder = _Builder(seed, rand, span)
    builder.populate()
    requests = _requests(rand, span, builder.domains)
    small = sum(len(each.good) for each in requests if each.account == "small")
    # So that some wait for the first midnight, and none for the second.
    small_per_day = max(1, round(small * rand.uniform(0.55, 0.9)))
    endings = _endings(rand, span)
    return World(
        seed=seed,
        span=span,
        start_unix_ms=MIDNIGHT_UNIX_MS - round(rand.uniform(0.2, 1.0) * span.sending_s * 1000),
        small_per_day=small_per_day,
        config=_config(span, url, data_dir, small_per_day),
        notebook=builder.notebook,
        receivers=builder.receivers,
        zones=Zones(builder.table),
        dns_faults=builder.dns_faults,
        requests=requests,
        campaigns=campaign_plans(chances(seed, "campaigns"), span.sending_s, builder.domains),
        endings=endings,
        downtimes_s=[_downtime_s(rand, span) for _ in endings],
        full_spool=rand.choice((0.0, 0.1)),
        tear_every_s=rand.uniform(20.0, 600.0),
    )


def _downtime_s(rand: random.Random, span: Span) -> float:
    return rand.choice((0.0, rand.uniform(0.0, 5.0), rand.uniform(0.0, span.max_age_s / 30)))


def _config(span: Span, url: str, data_dir: Path, small_per_day: int) -> Config:
    return Config(
        data_dir=data_dir,
        http=Http(listen=ListenAddress("127.0.0.1", 0), idempotency_window_s=86_400.0),
        spool=SpoolTable(url=url),  # type: ignore[arg-type]  # names of memory: are for tests
        delivery=Delivery(
            ehlo_name="out.example",
            retry_s=span.retry_s,
            greylist_retry_s=(200.0, 400.0),
            max_age_s=span.max_age_s,
            private_targets=(Network.parse("127.0.0.0/8"),),
        ),
        plans=(Plan(name="small", messages_per_day=small_per_day),),
        rules=(
            Rule(
                destination=DomainPattern.parse(THROTTLED),
                rate=Rate.parse(THROTTLES[THROTTLED,]),
            ),
            Rule(
                destination=DomainPattern.parse(CEILED),
                connections_max=CEILINGS["mx.ceiled.test"],
            ),
            Rule(
                site=DomainPattern.parse("mx.pool-a.test"),
                rate=Rate.parse(THROTTLES[POOL]),
                connections_max=CEILINGS["mx.pool-a.test"],
            ),
            *(
                Rule(account=NamePattern.parse(name), rate=Rate.parse(text))
                for name, text in ACCOUNT_RATES.items()
            ),
            Rule(campaign=NamePattern.parse(NAMES), rate=Rate.parse(RATE)),
        ),
    )


@dataclass(slots=True)
class _Builder:
    """Makes the receivers and their DNS, one kind after the other."""

    seed: int
    rand: random.Random
    span: Span
    notebook: Notebook = field(default_factory=Notebook)
    receivers: dict[str, MoodyReceiver] = field(default_factory=dict)
    table: dict[str, Records] = field(default_factory=dict)
    dns_faults: dict[str, float] = field(default_factory=dict)
    domains: list[str] = field(default_factory=list)

    def populate(self) -> None:
        rand, span = self.rand, self.span
        self.receiver("fast.test")
        self.receiver("slow.test", Behaviour(reply_delay_s=rand.uniform(0.05, 2.0)))
        self.receiver("grumpy.test", mood=Mood(refusals=0.3))
        self.receiver("later.test", mood=Mood(refusals=0.5, only_4xx=True))
        self.receiver("closing.test", mood=Mood(tricks=0.12))
        self.receiver(
            "after-the-dot.test",
            Behaviour(reply_delay_s=rand.choice((0.0, 0.3))),
            Mood(tricks=0.25, stages=(Stage.DOT,)),
        )
        self.receiver("mad.test", mood=Mood(tricks=0.08, refusals=0.1, actions=ALL_TRICKS))
        self.receiver("stalling.test", mood=Mood(tricks=0.05, actions=(Action.STALL,)))
        self.receiver("grey.test", Behaviour(greylist_s=rand.uniform(30.0, 900.0)))
        self.receiver("busy.test", Behaviour(rate_per_s=rand.uniform(0.02, 2.0), rate_burst=5))
        self.receiver("few.test", Behaviour(connections_max=1))
        self.receiver("picky.test", Behaviour(unknown_share=0.3, full_share=0.2))
        self.receiver("full.test", Behaviour(full_share=0.5, full_until_s=span.max_age_s / 3))
        edges = sorted(rand.uniform(0.0, span.max_age_s) for _ in range(4))
        self.receiver("down.test", Behaviour(down_s=((edges[0], edges[1]), (edges[2], edges[3]))))
        self.receiver("dead.test", Behaviour(down_s=((0.0, 1e12),)))
        self.receiver("gone.test", mood=Mood(connect_s=100.0))
        self.receiver("never.test", mood=Mood(refusals=1.0, stages=(Stage.RCPT,), only_4xx=True))
        self.receiver(THROTTLED, mood=Mood(refusals=0.1, stages=(Stage.RCPT,)))
        self.receiver(CEILED, Behaviour(reply_delay_s=0.2))
        self.receiver(POOL[0], mood=Mood(refusals=0.1, stages=(Stage.RCPT,)))
        for domain in POOL[1:]:
            self.add(domain, Records(mx=((10, f"mx.{POOL[0]}"),)))
        self.receiver("flaky-dns.test")
        self.dns_faults["flaky-dns.test"] = 0.4
        # Two domains at one site, one of them with a first host that is not there.
        self.receiver("shared-a.test", mood=Mood(tricks=0.03))
        self.add("shared-b.test", Records(mx=((10, "mx.shared-a.test"),)))
        self.table["mx0.test"] = Records(a=("127.0.9.9",))
        self.add("backup.test", Records(mx=((5, "mx0.test"), (10, "mx.shared-a.test"))))
        self.add("alias.test", Records(cname="shared-b.test"))
        self.domains.append("nowhere.test")
        self.add("no-mail.test", NULL_MX)
        self.add("loop.test", Records(cname="loop.test"))
        self.add("silent.test", Records(fault=Fault.SILENCE))

    def add(self, domain: str, records: Records) -> None:
        self.table[domain] = records
        self.domains.append(domain)

    def receiver(
        self, domain: str, behaviour: Behaviour | None = None, mood: Mood | None = None
    ) -> None:
        address = f"127.0.1.{len(self.receivers) + 1}"
        self.receivers[address] = MoodyReceiver(
            f"mx.{domain}",
            behaviour or Behaviour(),
            self.seed,
            rand=chances(self.seed, f"receiver {domain}"),
            notebook=self.notebook,
            mood=mood or Mood(connect_s=self.rand.choice((0.0, 0.02))),
        )
        self.table[f"mx.{domain}"] = Records(a=(address,))
        self.add(domain, Records(mx=((10, f"mx.{domain}"),)))


def _requests(rand: random.Random, span: Span, domains: list[str]) -> list[SendRequest]:
    requests: list[SendRequest] = []
    for number in range(rand.randint(12, 24)):
        is_burst = rand.random() < 0.15
        messages: list[dict[str, Any]] = []
        good: list[tuple[str, str]] = []
        home = rand.choice((*domains, THROTTLED, THROTTLED, *POOL))
        for index in range(rand.randint(20, 40) if is_burst else rand.randint(1, 5)):
            subject = f"mail {number}-{index}"
            names = []
            for each in range(rand.choice((1, 1, 2, 6))):
                is_at_home = is_burst or rand.random() < 0.2
                domain = home if is_at_home else rand.choice(domains)
                names.append(f"u{number}-{index}-{each}@{domain}")
            if rand.random() < 0.15:
                names.append(rand.choice(REGULARS))
            message = _message(rand, subject, names)
            if rand.random() < 0.08:
                # Its good neighbours are taken, and this one must never be.
                message["To"].append({"Email": f"not an address@{home}"})
            else:
                good += [(subject, name) for name in names]
            messages.append(message)
        account = rand.choice(("bulk", "bulk", "small"))
        # Small mail before midnight, or it would go on for days.
        until_s = span.sending_s * (0.15 if account == "small" else 1.0)
        requests.append(
            SendRequest(
                number,
                rand.uniform(0.0, until_s),
                account,
                json.dumps({"Messages": messages}).encode(),
                f"key-{number}" if rand.random() < 0.85 else None,
                good,
                rand.random() < 0.85,
            )
        )
    return requests


def _message(rand: random.Random, subject: str, names: list[str]) -> dict[str, Any]:
    lines = [".", "..", "a line", ". dot first"]
    message: dict[str, Any] = {
        "From": {"Email": "news@out.example"},
        "To": [{"Email": name} for name in names],
        "Subject": subject,
        "TextPart": "\r\n".join(rand.choice(lines) for _ in range(rand.randint(1, 30))),
        "CustomID": subject,
        "Priority": rand.choice((1, 2, 3)),
    }
    if rand.random() < 0.5:
        message["CustomCampaign"] = f"campaign {rand.randint(1, 3)}"
    return message


def _endings(rand: random.Random, span: Span) -> list[Ending]:
    return [
        Ending(
            rand.choice((*POINTS, FAILING_COMMIT, FAILING_COMMIT)),
            rand.choice((1, 2, rand.randint(1, 10), rand.randint(1, 60))),
            rand.uniform(0.0, span.sending_s / 2),
            in_order=rand.random() < 0.2,
        )
        for _ in range(rand.randint(6, 14))
    ]
