"""A list on its way in: no more of it is read than is stored, and no more is held than that."""

import os
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from engine.config import load_typos
from engine.http_server import BodyFault
from engine.intake import campaigns
from engine.intake.campaigns import BATCH, CampaignBody, ListAnswer, ListIntake, new_campaign
from engine.intake.campaigns_http import take_in
from engine.spool.interface import Accepted, AcceptedEnvelope, AcceptRequest, Quota, Spool
from protocols.recipient_lists import RecipientList
from protocols.records import Account, Campaign, CampaignState, Status
from protocols.templates import read_template
from tests.spool import harness as h

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


NEW = new_campaign(ACCOUNT, msgspec.convert(BODY, CampaignBody), host="out.example")
CAMPAIGN = Campaign(
    *(1, 1, NEW.name, CampaignState.OPEN, NEW.digest, 1, len(NEW.template)),
    *(NEW.reverse_path, NEW.subject, NEW.lane, False, False, 0),
)


def intake_over(
    spool: Any, account: Account = ACCOUNT, campaign: Campaign = CAMPAIGN
) -> ListIntake:
    return ListIntake(
        spool,
        account,
        campaign,
        read_template(NEW.template),
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


people = st.lists(
    st.one_of(
        st.integers(0, 40).map(lambda number: f"p{number}@in{number % 3}.example,P{number}"),
        st.sampled_from(["Tom@@ beispiel.de,Tom", "nobody@in.example,", 'x@in.example,"X']),
    ),
    min_size=1,
    max_size=80,
)


@pytest.mark.slow
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(people, st.lists(st.tuples(st.integers(0, 2_000), st.booleans()), max_size=4))
def test_however_a_list_breaks_off_the_whole_of_it_reaches_everybody_once(
    rows: list[str], breaks: list[tuple[int, bool]]
) -> None:
    body = ("email,name\n" + "\n".join(rows) + "\n").encode()

    async def program() -> None:
        with h.data_directory() as directory:
            harness = h.Harness("lmdb", directory)
            async with harness.open() as spool:
                account = await h.make_account(spool)
                new = new_campaign(account, msgspec.convert(BODY, CampaignBody), host="x")
                await spool.create_campaign(new)
            for place, is_crash in breaks:
                async with harness.open() as spool:
                    await _hand_in(spool, body[:place], breaks_off=True, is_crash=is_crash)
            async with harness.open() as spool:
                first = await _hand_in(spool, body)
                again = await _hand_in(spool, body)
                envelopes = await h.all_envelopes(spool)
                assert await spool.check_invariants() == []
        got = [each.fixed.address for each in envelopes]
        assert sorted(got) == sorted(set(got))
        assert first.accepted + first.repeated == again.repeated >= len(got)
        assert again.accepted == 0
        assert first.refused == again.refused

    # Small batches, so that a break comes between two of them.
    with patch.object(campaigns, "BATCH", 7):
        trio.run(program)


async def _hand_in(
    spool: Spool, body: bytes, *, breaks_off: bool = False, is_crash: bool = False
) -> ListAnswer:
    """Hand in a body, which may break off; in a crash what was not accepted by then is not."""
    [account] = await spool.accounts()
    campaign = await spool.campaign(account.account_id, "spring")
    assert campaign is not None
    intake = intake_over(spool, account, campaign)

    async def octets() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 300):
            yield body[start : start + 300]
        if breaks_off:
            raise BodyFault(400, "body_broken", "cut")

    with trio.CancelScope() as scope:
        if is_crash:
            scope.deadline = trio.current_time() + 0.001
        try:
            await take_in(intake, RecipientList(is_csv=True), octets())
        except BodyFault:
            assert breaks_off
    return intake.answer("open", is_complete=not breaks_off)


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
