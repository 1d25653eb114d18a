"""Receivers in a process of their own that write down every mail they said yes to.

They outlive each engine that is killed. `python -m tests.scenarios.counting_receivers` prints one
JSON line when it listens. The order "taken" is answered with what was taken since the last time;
"drain" with the same, once no connection is open any more, so that everything an engine that has
died had sent is judged.
"""

import json
import re
import sys
from typing import Any, Final

import trio

from bench.children import Child
from engine.rehearsal.behaviour import Action, Behaviour, Mischief, Stage
from engine.rehearsal.receiver import Acceptance, Receiver
from engine.rehearsal.receivers import serve_receivers

# A mail's body names its message, and so does each of its recipients.
TAG: Final = re.compile(rb"tag<([^>]*)>")
# Down for three seconds out of ten, for as long as the longest run may take.
DOWN_S: Final = tuple((10.0 * turn, 10.0 * turn + 3.0) for turn in range(2000))
BEHAVIOURS: Final = {
    "fast": Behaviour(),
    "near": Behaviour(reply_delay_s=0.005),
    "distant": Behaviour(reply_delay_s=0.05),
    "sometimes": Behaviour(down_s=DOWN_S),
}
# Whose answer hangs on who asks, how fast, and when.
MOODY: Final = {
    "grey": Behaviour(greylist_s=2.0),
    "busy": Behaviour(rate_per_s=4.0, rate_burst=10),
    "few": Behaviour(connections_max=1),
    "picky": Behaviour(unknown_share=0.2, full_share=0.2),
    "filled": Behaviour(full_share=0.5, full_until_s=120.0),
    "tarpit": Behaviour(reply_delay_s=0.4),
}
# And one for each bad habit at each stage, named like "close-dot".
HOSTILE: Final = {
    f"{action.name.lower()}-{stage.value}": Behaviour(mischief=Mischief(action, stage))
    for action in Action
    if action is not Action.REPLY
    for stage in Stage
}
ADDRESSES: Final = {name: f"127.7.0.{place}" for place, name in enumerate(BEHAVIOURS, 1)}
MOODY_ADDRESSES: Final = {name: f"127.9.0.{place}" for place, name in enumerate(MOODY, 1)}
HOSTILE_ADDRESSES: Final = {name: f"127.8.0.{place}" for place, name in enumerate(HOSTILE, 1)}
# Quiet means that nobody came in so long, or a connection could still be in a queue of the kernel.
QUIET_S: Final = 0.05
QUIET_S_MAX: Final = 30.0


class CountingReceivers(Child):
    """The process, seen from the test."""

    def __init__(self) -> None:
        super().__init__("tests.scenarios.counting_receivers")
        self.port: int = self.ready["port"]

    def drain(self) -> list[tuple[str, str, str]]:
        """Return (recipient, digest of the content, tag in the content) of each mail taken.

        Waits for the end of all connections: the engine that held them is dead.
        """
        return self._taken("drain")

    def taken(self) -> list[tuple[str, str, str]]:
        """Return the same of what was taken up to now, while the engine lives."""
        return self._taken("taken")

    def _taken(self, order: str) -> list[tuple[str, str, str]]:
        answer = self.ask(order)
        assert answer["quiet"], f"connections stay open though their engine is dead: {answer}"
        return [(recipient, digest, tag) for recipient, digest, tag in answer["taken"]]


def routes(port: int) -> str:
    """Return the configuration that sends `*.NAME.test` to the receiver of that name."""
    return "".join(
        f'[[route]]\ndomain = "*.{name}.test"\nnext_hop = "{address}:{port}"\n'
        for name, address in (ADDRESSES | MOODY_ADDRESSES | HOSTILE_ADDRESSES).items()
    )


def _described(taken: Acceptance) -> tuple[str, str, str]:
    found = TAG.search(taken.content)
    return taken.recipient, taken.digest.hex(), found[1].decode() if found else ""


async def _wait_until_quiet(receivers: list[Receiver]) -> bool:
    with trio.move_on_after(QUIET_S_MAX):
        while True:
            before = sum(each.connections for each in receivers)
            await trio.sleep(QUIET_S)
            after = sum(each.connections for each in receivers)
            if before == after and not any(each.connections_open for each in receivers):
                return True
    return False


async def _run() -> None:
    addresses = ADDRESSES | MOODY_ADDRESSES | HOSTILE_ADDRESSES
    behaviours = BEHAVIOURS | MOODY | HOSTILE
    receivers = {
        addresses[name]: Receiver(name, behaviour, keep_content=True)
        for name, behaviour in behaviours.items()
    }
    async with trio.open_nursery() as nursery:
        _say({"port": await nursery.start(serve_receivers, receivers)})
        while order := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            quiet = order != "drain\n" or await _wait_until_quiet(list(receivers.values()))
            taken: list[tuple[str, str, str]] = []
            for receiver in receivers.values():
                taken.extend(_described(each) for each in receiver.acceptances)
                receiver.acceptances.clear()
            _say({"quiet": quiet, "taken": taken})
        nursery.cancel_scope.cancel()


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    trio.run(_run)
