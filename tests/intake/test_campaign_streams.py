"""A list on its way in: no more of it is read than is stored, and no more is held than that."""

import os
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from engine.config import load_typos
from engine.intake.campaigns import BATCH, CampaignBody, ListIntake, new_campaign
from engine.intake.campaigns_http import take_in
from engine.spool.interface import Accepted, AcceptedEnvelope, AcceptRequest, Quota
from protocols.recipient_lists import RecipientList
from protocols.records import Account, Campaign, CampaignState, Status
from protocols.templates import read_template

ACCOUNT = Account(1, "acme", "", 0)
BODY = {
    "campaign": "spring",
    "from": {"email": "news@out.example"},
    "subject": "Hello {{name}}",
    "text": "Dear {{name}}",
}
# So many people are in one part of a body.
PART = 200
TYPOS = load_typos()


class SlowSpool:
    """Takes a batch in when it is let; knows what was in it."""

    accounts_version = 0

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.sizes: list[int] = []
        self.at_once = 0

    async def accept(self, requests: Sequence[AcceptRequest]) -> list[Accepted]:
        [request] = requests
        people = [each for message in request.messages for each in message.recipients]
        self.sizes.append(len(people))
        self.at_once += 1
        assert self.at_once == 1, "two batches at once would change places"
        await self.gate.wait()
        self.at_once -= 1
        return [Accepted([AcceptedEnvelope(1, each.uuid, Status.QUEUED, 0) for each in people])]


def intake_over(spool: Any) -> ListIntake:
    new = new_campaign(ACCOUNT, msgspec.convert(BODY, CampaignBody), host="out.example")
    campaign = Campaign(
        *(1, 1, new.name, CampaignState.OPEN, new.digest, 1, len(new.template)),
        *(new.reverse_path, new.subject, new.lane, False, False, 0),
    )
    return ListIntake(
        spool,
        ACCOUNT,
        campaign,
        read_template(new.template),
        quota_of=lambda account: Quota(),
        typos=TYPOS,
        language="en",
        random_octets=os.urandom,
    )


class Parts:
    """A body of `count` parts that knows how many were asked for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read = 0

    async def octets(self) -> AsyncIterator[bytes]:
        yield b"email,name\n"
        for number in range(self.count):
            await trio.lowlevel.checkpoint()
            self.read += 1
            first = number * PART
            yield b"".join(
                b"p%d@in.example,Person Number %d\n" % (each, each)
                for each in range(first, first + PART)
            )


async def test_nothing_more_is_read_while_a_batch_waits_to_be_stored() -> None:
    spool, parts = SlowSpool(), Parts(100)
    intake = intake_over(spool)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_in, intake, RecipientList(is_csv=True), parts.octets())
        await wait_all_tasks_blocked()
        assert spool.sizes == [BATCH]
        # One batch is being stored, one waits behind it, and a part is half read.
        assert parts.read * PART <= 2 * BATCH + 2 * PART
        spool.gate.set()
    assert sum(spool.sizes) == 100 * PART
    assert max(spool.sizes) == BATCH
    assert intake.answer("open", is_complete=True).accepted == 100 * PART


async def test_people_who_come_one_by_one_do_not_wait_for_a_full_batch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    spool = SlowSpool()
    spool.gate.set()
    seen: list[int] = []

    async def octets() -> AsyncIterator[bytes]:
        yield b"email,name\n" + b"a@in.example,Ann\n" * 30
        for _ in range(40):
            await trio.sleep(0.5)
            yield b"b@in.example,Bob\n"
            seen.append(sum(spool.sizes))

    await take_in(intake_over(spool), RecipientList(is_csv=True), octets())
    assert sum(spool.sizes) == 70
    assert seen[10] > 0
    assert len(spool.sizes) > 5


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_list() -> None:
    spool = SlowSpool()
    spool.gate.set()
    peaks: list[int] = []
    tracemalloc.start()
    try:
        for count in (20, 80):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            await take_in(intake_over(spool), RecipientList(is_csv=True), Parts(count).octets())
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    small, large = peaks
    assert sum(spool.sizes) == 100 * PART
    assert large < 1.5 * small
    assert large < 5_000_000
