"""An operator who suspends, resumes, retries and cancels at any moment, deaths included.

Uses the routes that `eilpost suspend` and its neighbours use. Only some destinations are meddled
with, so that those whose fate is known by their kind keep it. `law` reads when what was held.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from engine.compose import Engine
from engine.http_server import HttpError, Identity, Request
from tests.simulation.lives import Life

OPERATED = (
    "slow.test",
    "grey.test",
    "later.test",
    "busy.test",
    "picky.test",
    "ceiled.test",
    "throttled.test",
    "shared-a.test",
    "shared-b.test",
    "down.test",
)


@dataclass(slots=True)
class HeldSpan:
    """A destination was held at least between these moments (trio's clock)."""

    hold_id: int
    destination: str
    from_s: float
    until_s: float


@dataclass(eq=False, slots=True)
class Operator:
    """Acts until cancelled."""

    rand: random.Random
    every_s: float
    spans: list[HeldSpan] = field(default_factory=list)
    # When mail to a destination was made due by hand.
    retries: dict[str, list[float]] = field(default_factory=dict)

    async def operate(self, living: Callable[[], tuple[Life, Engine] | None]) -> None:
        deeds = (self._hold, self._hold, self._lift, self._retry, self._cancel)
        while True:
            await trio.sleep(self.rand.expovariate(1.0 / self.every_s))
            found = living()
            if found is not None:
                await self.rand.choice(deeds)(*found)

    async def _hold(self, life: Life, engine: Engine) -> None:
        destination, for_s = self.rand.choice(OPERATED), self.rand.uniform(1.0, 10 * self.every_s)
        asked_s = trio.current_time()
        body = {"destination": destination, "for_s": for_s, "reason": "simulated"}
        answer = await ask(life, engine, "POST", "/v1/holds", body)
        if answer is not None:
            span = (trio.current_time(), asked_s + for_s)
            self.spans.append(HeldSpan(answer["hold_id"], destination, *span))

    async def _lift(self, life: Life, engine: Engine) -> None:
        if self.spans:
            span = self.rand.choice(self.spans)
            # From the question on it may be lifted, whatever becomes of the answer.
            span.until_s = min(span.until_s, trio.current_time())
            await ask(life, engine, "DELETE", "/v1/holds/{id}", None, id=str(span.hold_id))

    async def _retry(self, life: Life, engine: Engine) -> None:
        destination = self.rand.choice(OPERATED)
        self.retries.setdefault(destination, []).append(trio.current_time())
        await ask(life, engine, "POST", "/v1/retry", {"destination": destination})

    async def _cancel(self, life: Life, engine: Engine) -> None:
        body: dict[str, Any] = {"destination": self.rand.choice(OPERATED)}
        if self.rand.random() < 0.7:
            body["campaign"] = f"campaign {self.rand.randint(1, 3)}"
        await ask(life, engine, "POST", "/v1/cancel", body)


async def ask(
    life: Life, engine: Engine, method: str, pattern: str, body: Any, **params: str
) -> dict[str, Any] | None:
    """Call a route as an operator and return the answer.

    None if it is a refusal, or the process died before it gave one.
    """
    route = next(
        each for each in engine.http.routes if (each.method, each.pattern) == (method, pattern)
    )
    request = Request(
        method,
        pattern,
        "",
        [(b"content-type", b"application/json")],
        params=params,
        body=b"" if body is None else json.dumps(body).encode(),
        identity=Identity(operator=True),
    )
    try:
        response = await life.visit(route.handler, request)
    except HttpError:
        if life.failed_s is not None:
            # A store's writer ends the process with the commit that fails. The model has none, and
            # whoever asked for this commit was us.
            life.die()
        return None
    found: dict[str, Any] | None = None if response is None else json.loads(response.body)
    return found
