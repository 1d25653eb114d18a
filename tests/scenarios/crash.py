"""A real engine under load, killed with `kill -9` at random moments and started again.

`python -m tests.scenarios.crash --rounds 500` is the long form of the test in the suite. Three
books are kept by three parties that the engine cannot influence: what the clients were told, what
the receivers took, what a subscriber heard. In the end they have to agree with each other and with
the engine's own. The seed decides the mail and the moments of the kills.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from engine.clock import SystemClock
from engine.compose import in_a_thread
from engine.delivery.disposition import UNSETTLED_ENVELOPES_MAX
from engine.rehearsal.engine_process import (
    COMMAND,
    Credentials,
    EngineFailed,
    EngineProcess,
    HttpClient,
    status_counts,
)
from engine.spool import open_spool
from engine.spool.interface import SpoolSettings
from tests.scenarios.counting_receivers import CountingReceivers, routes
from tests.scenarios.follower import FINAL, Follower, Heard
from tests.scenarios.senders import REFUSED_KIND, Ledger, Sender, tag_of

SENDERS: Final = 3
# More open mail than this, and the clients wait: the rounds are many, the machine is small.
OPEN_MAX: Final = 1500
LIFE_S: Final = (0.05, 0.9)
# One life in so many is ended before it is ready, in the middle of coming up.
STILLBORN_SHARE: Final = 0.15
DRAIN_S_MAX: Final = 120.0
POLL_S: Final = 0.02
FAULTS_SHOWN: Final = 50
SETTINGS: Final = "[delivery]\nretry_s = [0.3, 0.6]\n"


@dataclass(slots=True)
class Books:
    """What the three parties know, and what the engine says of itself in the end."""

    ledger: Ledger
    heard: Heard
    # Of each recipient: the life of the engine in which it was taken, and the content's digest.
    taken: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    wrong_content: list[str] = field(default_factory=list)
    # When each life began, as the engine writes times.
    begun_at: list[str] = field(default_factory=list)
    kills: int = 0
    # Whether the machine goes on when the engine dies: then each suspected duplicate is told.
    machine_lives: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    by_destination: dict[str, dict[str, int]] = field(default_factory=dict)
    log_digest: str = ""
    broken_invariants: list[str] = field(default_factory=list)
    exit_status: int = 0

    def take(self, taken: Sequence[tuple[str, str, str]]) -> None:
        """Add what the receivers took from the life that has just ended."""
        for recipient, digest, tag in taken:
            self.taken.setdefault(recipient, []).append((len(self.begun_at), digest))
            if tag != tag_of(recipient):
                self.wrong_content.append(f"{recipient} got the mail of {tag!r}")

    def duplicates(self) -> list[int]:
        """Return for each life how many of its mails were taken again in a later one."""
        counted = Counter(
            life for places in self.taken.values() for life, _ in places[:-1] if len(places) > 1
        )
        return [counted[life] for life in range(1, len(self.begun_at) + 1)]

    def summary(self) -> str:
        again = self.duplicates()
        return (
            f"{self.kills} kills, {len(self.ledger.acknowledged)} mails acknowledged in "
            f"{len(self.begun_at)} lives, {sum(map(len, self.taken.values()))} taken by receivers, "
            f"{sum(again)} of them again, at worst {max(again)} after one kill (the bound is "
            f"{UNSETTLED_ENVELOPES_MAX}); {len(self.ledger.unanswered)} requests without an "
            f"answer, {self.ledger.repeats} repeated; {self.heard.events} events over "
            f"{self.heard.connections} connections, {len(self.heard.holes)} holes"
        )


# What has to hold. Each check returns what does not, in words.


def lost(books: Books) -> Iterator[str]:
    """Acknowledged mail that was neither delivered nor finished as its address asks."""
    by_address = {story.address: story for story in books.heard.stories.values()}
    for address in books.ledger.acknowledged:
        final = "soft_bounced" if address.startswith(REFUSED_KIND) else "delivered"
        story = by_address.get(address)
        if (final == "delivered") != (address in books.taken):
            yield f"{address}: taken {len(books.taken.get(address, []))} times, not {final}"
        elif story is None or story.statuses[-1] != final:
            yield f"{address}: {story.statuses if story else 'no event'}, not {final}"


def torn(books: Books) -> Iterator[str]:
    """Requests of which a part was kept, and refused mail that was delivered all the same."""
    known = {story.address for story in books.heard.stories.values()}
    for addresses in books.ledger.unanswered:
        kept = sum(address in known for address in addresses)
        if kept not in (0, len(addresses)):
            yield f"{kept} of {len(addresses)} of one request were kept: {addresses[0]}"
    yield from (
        f"{address} was refused and taken" for address in books.ledger.refused if address in known
    )
    yield from (f"refused for no reason: {refusal}" for refusal in books.ledger.refusals)
    handed_in = {*books.ledger.acknowledged, *books.ledger.refused}
    handed_in.update(address for each in books.ledger.unanswered for address in each)
    yield from (f"{address} was never handed in" for address in books.taken.keys() - handed_in)


def repeated(books: Books) -> Iterator[str]:
    """Mail that was taken twice, although nobody died between its final dot and its commit."""
    stories = {story.address: story for story in books.heard.stories.values()}
    for address, places in books.taken.items():
        lives = [life for life, _ in places]
        # A receiver that goes down may have taken what it can no longer say yes to.
        may_be_cut_off = address.endswith(".sometimes.test")
        if len(set(lives)) < len(lives) and not may_be_cut_off:
            yield f"{address} was taken twice in one life: {lives}"
        if len({digest for _, digest in places}) > 1:
            yield f"{address} got two different contents"
        story = stories.get(address)
        if len(lives) > 1 and books.machine_lives and (not story or not story.doubts):
            yield f"{address} was taken again, and nobody was told that it may be: {lives}"
        if len(lives) > 1 and story and story.last_at < books.begun_at[lives[-1] - 1]:
            yield f"{address} was taken again after its delivery had been committed: {lives}"
    for life, count in enumerate(books.duplicates(), 1):
        if count > UNSETTLED_ENVELOPES_MAX:
            yield f"{count} mails of life {life} were taken again"


def unheard(books: Books) -> Iterator[str]:
    """Holes in the subscriber's stream, and stories that are no stories."""
    yield from books.heard.holes
    if books.heard.digest.hexdigest() != books.log_digest:
        yield "the subscriber did not hear what the log says"
    addresses: set[str] = set()
    for message_id, story in books.heard.stories.items():
        *before, last = story.statuses
        finals = FINAL.intersection(before)
        if not before or before[0] != "queued" or last not in FINAL or finals:
            yield f"{message_id} {story.address}: {story.statuses}"
        if story.address in addresses:
            yield f"{story.address} was accepted twice"
        addresses.add(story.address)
        if books.ledger.acknowledged.get(story.address, message_id) != message_id:
            yield f"{story.address} was acknowledged with another id"


def unbalanced(books: Books) -> Iterator[str]:
    """What the engine says of itself, against what was heard."""
    heard = Counter(story.statuses[-1] for story in books.heard.stories.values())
    if heard != Counter({name: n for name, n in books.counts.items() if n}):
        yield f"the books say {books.counts}, the events {dict(heard)}"
    for name, total in books.counts.items():
        if (parts := sum(row[name] for row in books.by_destination.values())) != total:
            yield f"{name}: {total} in all, {parts} by destination"
    if books.exit_status:
        yield f"SIGTERM ended it with {books.exit_status}"
    yield from books.broken_invariants


CHECKS: Final = (lost, torn, repeated, unheard, unbalanced)


def faults(books: Books) -> list[str]:
    return [f"{check.__name__}: {fault}" for check in CHECKS for fault in check(books)] + [
        f"content: {fault}" for fault in books.wrong_content
    ]


# The rounds.


def run(
    directory: Path,
    rounds: int,
    seed: int,
    *,
    command: Sequence[str] = COMMAND,
    resumes: bool = True,
    end: Callable[[EngineProcess], object] = EngineProcess.kill,
    tell: Callable[[str], None] = lambda text: None,
) -> Books:
    """End an engine `rounds` times and let the last one finish; return the books.

    `end` is how: as a power cut would, unless told otherwise. Raises EngineFailed if an engine
    does not come up, or does not finish.
    """
    rand = random.Random(seed)
    with CountingReceivers() as receivers:
        engine = EngineProcess(directory, SETTINGS + routes(receivers.port), command=command)
        credentials = engine.create_account("shop")
        follower = Follower(engine.port, credentials, resumes=resumes)
        books = Books(Ledger(), follower.heard)
        with _threads(engine, credentials, books, seed, follower) as stop_sending:
            try:
                for number in range(1, rounds + 1):
                    books.begun_at.append(_now())
                    engine.start()
                    _live(engine, rand)
                    end(engine)
                    books.kills += 1
                    books.take(receivers.drain())
                    tell(f"round {number} of {rounds}: {books.summary()}")
                books.begun_at.append(_now())
                engine.start()
                engine.wait_until_ready()
                stop_sending()
                _finish(engine, credentials, books, follower)
                books.exit_status = engine.stop()
            finally:
                engine.kill()
        books.take(receivers.drain())
    books.broken_invariants = trio.run(broken_invariants, directory / "data")
    return books


def _live(engine: EngineProcess, rand: random.Random) -> None:
    """Let the engine live for a random time."""
    lasts_s = rand.uniform(*LIFE_S)
    if rand.random() >= STILLBORN_SHARE:
        engine.wait_until_ready()
    time.sleep(lasts_s)
    engine.check_alive()


@contextmanager
def _threads(
    engine: EngineProcess, credentials: Credentials, books: Books, seed: int, follower: Follower
) -> Iterator[Callable[[], None]]:
    """Run the clients and the subscriber; gives what ends the clients."""
    senders = [
        Sender(
            f"client{number}",
            engine.port,
            credentials,
            books.ledger,
            seed=seed,
            repeats=number == 0,
            may_send=lambda: len(books.ledger.acknowledged) - books.heard.final < OPEN_MAX,
        )
        for number in range(SENDERS)
    ]

    def stop_sending() -> None:
        for sender in senders:
            sender.stop.set()
        for sender in senders:
            sender.join()

    for thread in (follower, *senders):
        thread.start()
    try:
        yield stop_sending
    finally:
        stop_sending()
        follower.stop.set()
        follower.join()


def _finish(
    engine: EngineProcess,
    credentials: Credentials,
    books: Books,
    follower: Follower,
) -> None:
    """Wait until nothing is open, and ask for the books and the log."""
    client = HttpClient(engine.port, credentials)
    deadline = time.monotonic() + DRAIN_S_MAX
    try:
        while True:
            books.counts = status_counts(client)["total"]
            if not any(books.counts[name] for name in ("queued", "deferred", "paused")):
                break
            if time.monotonic() > deadline:
                raise EngineFailed(f"not through after {DRAIN_S_MAX} s: {books.counts}")
            engine.check_alive()
            time.sleep(POLL_S)
        books.by_destination = status_counts(client, "destination")
    finally:
        client.close()
    second = Follower(engine.port, credentials)
    second.start()
    try:
        # The first one is at the head when it has heard the last final event of all.
        closed = sum(books.counts.values())
        while second.heard.final < closed and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if second.heard.cursor is None:
            raise EngineFailed("whoever follows the log from its start hears nothing")
        follower.wait_until_at(second.heard.cursor, max(0.0, deadline - time.monotonic()))
    finally:
        second.stop.set()
        second.join()
    books.log_digest = second.heard.digest.hexdigest()


async def broken_invariants(data_dir: Path) -> list[str]:
    """Return what does not hold between the tables of a stopped engine's spool."""
    async with open_spool(
        "lmdb:",
        data_dir,
        settings=SpoolSettings(disk_free_bytes_min=0),
        clock=SystemClock(),
        run_blocking=in_a_thread(),
        random=random.Random(1),
    ) as spool:
        return await spool.check_invariants()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scenarios.crash",
        description="Kill a loaded engine again and again; see that it keeps its promises.",
    )
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="eilpost-crash-") as directory:
        books = run(Path(directory), options.rounds, options.seed, tell=say)
    found = faults(books)
    for line in (books.summary(), f"again, by kill: {books.duplicates()}", *found[:FAULTS_SHOWN]):
        say(line)
    raise SystemExit(f"{len(found)} faults, seed {options.seed}" if found else 0)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
