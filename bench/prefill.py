"""Lay a queue into a spool that no engine has open: `python -m bench.prefill`.

A child process, so that what filling costs is not counted for the engine. Each
envelope has an address of its own. With `--recipients` above one a content is
shared by so many envelopes at as many destinations, so that a million fit on a
disk; they still travel alone. With `--days` they were accepted over as many days,
up to now, and with `--delivered` so many of a hundred are delivered already.
"""

import argparse
import hashlib
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import trio

from bench.name_server import ZONE
from engine.clock import Clock, SystemClock
from engine.config import load_config
from engine.spool import open_spool
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    AttemptResult,
    NewMessage,
    NewRecipient,
    Quota,
    Spool,
    SpoolSettings,
)
from protocols.records import Account, ApiKey, Status

# What intake's largest batches come to; the writer joins several into a commit.
ENVELOPES_PER_REQUEST = 100
REQUESTS_AT_ONCE = 10

DAY_MS = 86_400_000
NO_QUOTA = Quota()


def content_of(octets: int) -> bytes:
    """Return a mail of about this size."""
    head = (
        b"From: Bench <bench@out.example>\r\nTo: you@bench.test\r\nSubject: A figure\r\n"
        b"Date: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: <bench@out.example>\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
    )
    line = b"The quick brown fox jumps over the lazy dog, and then it does so again.\r\n"
    return head + line * max(1, (octets - len(head)) // len(line))


def messages(
    count: int, *, destinations: int, recipients: int, octets: int, group: str, first: int
) -> Iterator[NewMessage]:
    """Yield contents with `count` envelopes in all, spread evenly over the destinations."""
    content = content_of(octets)
    recipients = min(recipients, destinations)
    for start in range(first, first + count, recipients):
        chosen = range(start, min(start + recipients, first + count))
        yield NewMessage(
            content=content,
            recipients=[new_recipient(i, f"d{i % destinations}.{group}.{ZONE}") for i in chosen],
            reverse_path="bench@out.example",
            subject="A figure",
            campaign="bench",
            lane=1,
        )


def new_recipient(number: int, destination: str) -> NewRecipient:
    address = f"r{number}@{destination}"
    # Any 16 octets that differ will do for a UUID here.
    return NewRecipient(number.to_bytes(16, "big"), address, address, destination)


def requests(
    account: Account, contents: Iterator[NewMessage], quota: Quota = NO_QUOTA
) -> Iterator[AcceptRequest]:
    gathered: list[NewMessage] = []
    envelopes = 0
    for message in contents:
        gathered.append(message)
        envelopes += len(message.recipients)
        if envelopes >= ENVELOPES_PER_REQUEST:
            yield AcceptRequest(account, gathered, quota)
            gathered, envelopes = [], 0
    if gathered:
        yield AcceptRequest(account, gathered, quota)


class Pace:
    """Wall time that walks from `days` ago to now while `count` envelopes are laid in."""

    def __init__(self, days: int, count: int) -> None:
        self._real: Clock = SystemClock()
        self._behind_ms = float(days * DAY_MS)
        self._step_ms = self._behind_ms / count

    def now_unix_ms(self) -> int:
        return self._real.now_unix_ms() - int(self._behind_ms)

    def go_on(self, count: int) -> None:
        self._behind_ms = max(0.0, self._behind_ms - count * self._step_ms)


async def deliver(spool: Spool, accepted: Accepted, percent: int, rand: random.Random) -> None:
    """Settle so many of a hundred as delivered, after times like those of real receivers."""
    now_unix_ms = spool.now_unix_ms()
    await spool.settle(
        [
            AttemptResult(
                each.envelope_id,
                1,
                Status.DELIVERED,
                now_unix_ms + int(1000 * rand.lognormvariate(0.5, 1.5)),
                reply="250 2.0.0 Ok",
                mx_host="mx.bench.test",
            )
            for each in accepted.envelopes
            if rand.randrange(100) < percent
        ]
    )


async def account_of(spool: Spool, options: argparse.Namespace) -> Account:
    """Return the account, having made it if its key is given: then in the past, as all else.

    What is made now would keep the spool's time, which never steps back, at now.
    """
    if options.api_key:
        secret = hashlib.sha256(options.secret_key.encode()).digest()
        now_unix_ms = spool.now_unix_ms()
        key = ApiKey(options.api_key, 0, secret, now_unix_ms)
        return await spool.create_account(Account(0, options.account, "", now_unix_ms), key)
    return next(each for each in await spool.accounts() if each.name == options.account)


async def fill(options: argparse.Namespace) -> int:
    config = load_config(options.config)
    accepted = 0
    pace, rand = Pace(options.days, options.messages), random.Random(1)
    async with open_spool(
        config.spool.url,
        config.data_dir,
        settings=SpoolSettings(),
        clock=pace,
        run_blocking=trio.to_thread.run_sync,
        random=random.Random(1),
    ) as spool:
        account = await account_of(spool, options)
        source = requests(
            account,
            messages(
                options.messages,
                destinations=options.destinations,
                recipients=options.recipients,
                octets=options.octets,
                group=options.group,
                first=options.first,
            ),
            Quota(per_day=options.per_day or None),
        )
        while batch := list(islice(source, REQUESTS_AT_ONCE)):
            for answer in await spool.accept(batch):
                if not isinstance(answer, Accepted):
                    raise SystemExit(f"the spool refused: {answer}")
                accepted += len(answer.envelopes)
                if options.delivered:
                    await deliver(spool, answer, options.delivered, rand)
                pace.go_on(len(answer.envelopes))
    return accepted


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.prefill")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--account", required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--destinations", type=int, required=True)
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--octets", type=int, required=True)
    parser.add_argument("--group", default="good")
    parser.add_argument("--first", type=int, default=0, help="the first recipient's number")
    parser.add_argument("--days", type=int, default=0, help="accepted over the last so many")
    parser.add_argument("--delivered", type=int, default=0, help="so many of a hundred")
    parser.add_argument("--per-day", type=int, default=0, help="the quota: the rest is paused")
    parser.add_argument("--api-key", default="", help="make the account, with this key")
    parser.add_argument("--secret-key", default="")
    print(trio.run(fill, parser.parse_args()))


if __name__ == "__main__":
    main()
