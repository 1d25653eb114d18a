"""Senders who hand in campaigns, over deaths of the engine: broken off, repeated, called off.

The lists go through the handlers of the campaign routes, a few octets at a time. Who was to get
what, and when a campaign was paused or cancelled for certain, is written down for the law.
"""

import json
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from engine.compose import Engine
from engine.http_server import BodyFault, HttpError, Identity, Request
from protocols.records import Account
from tests.simulation.lives import Life

ACCOUNT = "bulk"
# What a rule allows each of them, over all destinations together.
RATE = "20/min, burst 5"
NAMES = "list *"
PART_OCTETS = 200


@dataclass(slots=True)
class CampaignPlan:
    """One campaign: who gets it, and what its sender does, as the seed has it."""

    name: str
    at_s: float
    people: list[str]
    breaks_off: bool
    pause_s: float
    is_cancelled: bool
    is_closed: bool


@dataclass(slots=True)
class CampaignSeen:
    """What its sender knows for certain; times are trio's clock, infinity is never."""

    plan: CampaignPlan
    is_complete: bool = False
    # Held at least between these, if both were answered for.
    paused_s: float = math.inf
    resumed_s: float = -math.inf
    cancel_asked_s: float = math.inf
    cancelled_s: float = math.inf
    faults: list[str] = field(default_factory=list)


def campaign_plans(
    rand: random.Random, sending_s: float, domains: Sequence[str]
) -> list[CampaignPlan]:
    plans = []
    for number in range(rand.randint(1, 3)):
        count = rand.randint(5, 30)
        home = rand.choice(domains)
        people = [
            f"c{number}-{place}@{home if rand.random() < 0.4 else rand.choice(domains)}"
            for place in range(count)
        ]
        plans.append(
            CampaignPlan(
                f"list {number}",
                rand.uniform(0.0, sending_s),
                people,
                rand.random() < 0.5,
                rand.choice((0.0, rand.uniform(20.0, sending_s / 4))),
                rand.random() < 0.35,
                rand.random() < 0.5,
            )
        )
    return plans


class CampaignSender:
    """Be the sender of one campaign: call until there is an answer, as senders do."""

    def __init__(
        self,
        seen: CampaignSeen,
        account: Account,
        living: Callable[[], tuple[Life, Engine] | None],
        rand: random.Random,
    ) -> None:
        self._seen = seen
        self._identity = Identity(account)
        self._living = living
        self._rand = rand

    async def run(self) -> None:
        seen, plan, rand = self._seen, self._seen.plan, self._rand
        await trio.sleep(plan.at_s)
        definition = {
            "campaign": plan.name,
            "from": {"email": "news@out.example"},
            "subject": plan.name,
            "text": "Dear {{address}},\n.\n{{word}}\n",
        }
        one = "/v1/campaigns/{campaign}"
        await self._ask("/v1/campaigns", json.dumps(definition).encode(), is_streamed=True)
        if plan.pause_s:
            await self._ask(f"{one}/pause", b"{}")
            seen.paused_s = trio.current_time()
        # Twice in the list is once in the campaign, and a broken line harms nobody else.
        lines = [f"{address},w {address}\n" for address in plan.people]
        lines += [rand.choice(lines), "no address,x\n"]
        octets = b"email,word\n" + "".join(lines).encode()
        if plan.breaks_off:
            part = octets[: rand.randrange(len(octets))]
            await self._try(f"{one}/recipients", part, is_streamed=True, breaks_off=True)
        answer = await self._ask(f"{one}/recipients", octets, is_streamed=True)
        seen.is_complete = True
        if answer["refused"] < 1 or answer["accepted"] + answer["repeated"] < len(plan.people):
            seen.faults.append(f"{plan.name}: {len(plan.people)} people, answered {answer}")
        if plan.pause_s:
            await trio.sleep(plan.pause_s)
            seen.resumed_s = trio.current_time()
        if plan.is_cancelled:
            await trio.sleep(rand.uniform(0.0, 60.0))
            seen.cancel_asked_s = trio.current_time()
            await self._ask(f"{one}/cancel", b"{}")
            seen.cancelled_s = trio.current_time()
            return
        if plan.pause_s:
            await self._ask(f"{one}/resume", b"{}")
        if plan.is_closed:
            await self._ask(f"{one}/close", b"{}")

    async def _ask(self, pattern: str, body: bytes, *, is_streamed: bool = False) -> dict[str, Any]:
        while True:
            found = await self._try(pattern, body, is_streamed=is_streamed)
            if found is not None:
                return found
            await trio.sleep(self._rand.uniform(0.5, 20.0))

    async def _try(
        self, pattern: str, body: bytes, *, is_streamed: bool, breaks_off: bool = False
    ) -> dict[str, Any] | None:
        """Return the answer; None if the process died before it gave one, or could not store."""
        living = self._living()
        if living is None:
            return None
        life, engine = living
        route = next(
            each
            for each in engine.http.routes
            if (each.method, each.pattern) == ("POST", pattern) and each.streamed == is_streamed
        )
        kind = b"text/csv" if pattern.endswith("recipients") else b"application/json"
        request = Request(
            "POST",
            pattern,
            "",
            [(b"content-type", kind)],
            params={"campaign": self._seen.plan.name},
            body=b"" if is_streamed else body,
            identity=self._identity,
            parts=self._parts(body, breaks_off=breaks_off) if is_streamed else None,
        )
        try:
            response = await life.visit(route.handler, request)
        except HttpError as error:
            if life.failed_s is not None:
                # As the writer of a store does; the model has none. See `operating.ask`.
                life.die()
            elif error.status != 503:
                self._seen.faults.append(f"{self._seen.plan.name}: {pattern}: {error.message}")
            return None
        if response is None or response.status == 503 or breaks_off:
            return None
        answer: dict[str, Any] = json.loads(response.body)
        if response.status >= 400:
            self._seen.faults.append(f"{self._seen.plan.name}: {pattern}: {answer}")
        return answer

    async def _parts(self, octets: bytes, *, breaks_off: bool) -> AsyncIterator[bytes]:
        for start in range(0, len(octets), PART_OCTETS):
            await trio.sleep(self._rand.choice((0.0, 0.0, 0.5)))
            yield octets[start : start + PART_OCTETS]
        if breaks_off:
            raise BodyFault(400, "body_broken", "The connection broke off.")
