"""The window of one destination: claimed, loaded within the budget, handed out, given back."""

import trio
from trio.testing import MockClock

from engine.delivery.content_room import LOAD_BYTES, ContentBudget, ContentRoom, Share
from engine.delivery.mail import DestinationMail
from protocols.records import Reason, Status
from tests.delivery.world import START_UNIX_MS, World


def test_room_for_content_is_given_out_in_order() -> None:
    room = ContentRoom(100)
    heard: list[str] = []

    def ask(name: str, size: int) -> Share:
        return room.ask(size, lambda: heard.append(name))

    whole = ask("whole", 250)
    assert (whole.octets, whole.is_granted) == (100, True)
    first, second, third = ask("first", 60), ask("second", 50), ask("third", 10)
    gone = ask("gone", 70)
    room.withdraw(gone)
    room.withdraw(whole)
    # The small one would have fitted beside the first, but it came after the second.
    assert heard == ["first"]
    assert [each.is_granted for each in (first, second, third, gone)] == [True, False, False, False]
    room.withdraw(second)
    assert heard == ["first", "third"]
    room.give_back(first.octets)
    room.give_back(third.octets)
    assert room.used == 0


async def window_of(world: World, budget: ContentBudget) -> DestinationMail:
    return DestinationMail("one.test", world.spool, world.clock, budget, lambda: None)


async def test_a_window_is_claimed_loaded_handed_out_and_landed() -> None:
    world = World()
    ids = await world.send([f"r{n}@one.test" for n in range(70)], together=True)
    ids += await world.send(["other@one.test"], content=b"Subject: other\r\n\r\n")
    budget = ContentBudget()
    mail = await window_of(world, budget)
    await mail.pull(100)
    assert (mail.claimed, mail.ready, mail.more_due) == (71, 0, False)
    assert await mail.load() == []
    assert (mail.claimed, mail.ready) == (0, 71)
    assert budget.used > 0
    sizes = []
    while mail.ready:
        transaction = mail.take(1000)
        sizes.append(len(transaction.recipients))
        for envelope_id, address in transaction.recipients:
            assert mail.land(envelope_id).fixed.recipient == address
    assert sizes == [50, 20, 1]
    assert budget.used == 0
    assert mail.is_empty
    assert world.spool.spool_statistics().in_flight == 71


async def test_what_was_not_handed_out_is_given_back() -> None:
    world = World()
    await world.send([f"r{n}@one.test" for n in range(30)])
    budget = ContentBudget()
    mail = await window_of(world, budget)
    await mail.pull(20)
    await mail.load()
    await mail.pull(5)
    transaction = mail.take(1)
    assert mail.give_back() == 24
    assert world.spool.spool_statistics().in_flight == 1
    mail.land(transaction.recipients[0][0])
    assert budget.used == 0


async def test_damaged_content_and_old_mail_end_without_an_attempt(
    autojump_clock: MockClock,
) -> None:
    world = World()
    damaged, good = await world.send(["a@one.test", "b@one.test"])
    del world.data.contents[world.data.fixed[damaged].content_id]
    mail = await window_of(world, ContentBudget())
    await mail.pull(10)
    (finish,) = await mail.load()
    assert (finish.envelope_id, finish.status) == (damaged, Status.SOFT_BOUNCED)
    assert "damaged" in finish.reply
    assert mail.take(10).recipients == [(good, "b@one.test")]
    (late,) = await world.send(["c@one.test"])
    await trio.sleep(4 * 86_400)
    await mail.pull(10)
    (finish,) = await mail.load()
    assert (finish.envelope_id, finish.reason) == (late, Reason.EXPIRED)


async def test_a_bad_record_ends_itself_and_nothing_else() -> None:
    world = World()
    bad, good = await world.send(["a\r\nRCPT TO:<b@one.test", "b@one.test"])
    mail = await window_of(world, ContentBudget())
    await mail.pull(10)
    (finish,) = await mail.load()
    assert (finish.envelope_id, finish.reply[:9]) == (bad, "553 5.1.3")
    assert mail.take(10).recipients == [(good, "b@one.test")]


async def test_what_grows_old_in_the_window_is_ended_from_there(autojump_clock: MockClock) -> None:
    world = World()
    await world.send(["a@one.test", "b@one.test"], together=True)
    await trio.sleep(60)
    await world.send(["c@one.test", "d@one.test"], together=True)
    budget = ContentBudget()
    mail = await window_of(world, budget)
    await mail.pull(3)
    await mail.load()
    await mail.pull(1)
    assert mail.expires_unix_ms == START_UNIX_MS + 3 * 86_400_000
    await trio.sleep(3 * 86_400 - 59)
    assert len(mail.expire()) == 2
    assert (mail.ready, mail.claimed) == (1, 1)
    assert mail.expires_unix_ms == START_UNIX_MS + 3 * 86_400_000 + 60_000
    await trio.sleep(60)
    assert len(mail.expire()) == 2
    assert mail.is_empty
    assert budget.used == 0


async def test_what_finds_no_room_waits_within_reach(autojump_clock: MockClock) -> None:
    world = World()
    content = b"Subject: large\r\n\r\n" + b"y\r\n" * (LOAD_BYTES // 3)
    await world.send(["a@one.test", "b@one.test"], content=content)
    (small,) = await world.send(["c@one.test"])
    budget = ContentBudget(5 * LOAD_BYTES)
    before = budget.room_for(2 * LOAD_BYTES).ask(LOAD_BYTES, lambda: None)
    heard: list[str] = []
    mail = DestinationMail(
        "one.test", world.spool, world.clock, budget, lambda: heard.append("room")
    )

    async def load_what_may_be_loaded() -> None:
        while mail.may_load:
            assert await mail.load() == []

    await mail.pull(10)
    await load_what_may_be_loaded()
    assert (mail.claimed, mail.ready, mail.is_empty) == (2, 1, False)
    assert mail.take(1).recipients == [(small, "c@one.test")]
    mail.land(small)
    assert heard == []
    budget.room_for(2 * LOAD_BYTES).withdraw(before)
    assert heard == ["room"]
    await load_what_may_be_loaded()
    # The second one may ask when the first has gone.
    assert (mail.claimed, mail.ready) == (1, 1)
    mail.land(mail.take(1).recipients[0][0])
    assert budget.used == 0
    before = budget.room_for(2 * LOAD_BYTES).ask(LOAD_BYTES, lambda: None)
    await load_what_may_be_loaded()
    assert mail.give_back() == 1
    budget.room_for(2 * LOAD_BYTES).withdraw(before)
    assert (heard, budget.used, mail.is_empty) == (["room"], 0, True)
    assert world.spool.spool_statistics().in_flight == 2
    # And of those that wait, the ones that are too old are ended from there.
    mail.look_again()
    before = budget.room_for(2 * LOAD_BYTES).ask(LOAD_BYTES, lambda: None)
    await mail.pull(10)
    await load_what_may_be_loaded()
    await trio.sleep(4 * 86_400)
    assert [finish.reason for finish in mail.expire()] == [Reason.EXPIRED]
    budget.room_for(2 * LOAD_BYTES).withdraw(before)
    assert (heard, budget.used, mail.is_empty) == (["room"], 0, True)


async def test_what_is_called_back_while_its_content_is_fetched_takes_no_room() -> None:
    world = World()
    await world.send([f"r{n}@one.test" for n in range(3)])
    budget = ContentBudget()
    mail = await window_of(world, budget)
    await mail.pull(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mail.load)
        while not budget.used:
            await trio.lowlevel.checkpoint()
        assert (mail.claimed, mail.ready) == (0, 0), "they are with the spool"
        mail.wake(recall=True)
    assert (budget.used, mail.is_empty, mail.more_due) == (0, True, True)
    assert world.spool.spool_statistics().in_flight == 0
    await mail.pull(10)
    assert mail.claimed == 3


async def test_a_fetch_that_is_cancelled_leaves_its_mail_in_its_order_and_no_room_taken() -> None:
    world = World()
    await world.send([f"r{n}@one.test" for n in range(3)])
    budget = ContentBudget()
    mail = await window_of(world, budget)
    await mail.pull(10)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mail.load()
    assert (budget.used, mail.claimed, mail.ready) == (0, 3, 0)
    await mail.load()
    addresses = [mail.take(1).recipients[0][1] for _ in range(3)]
    assert addresses == [f"r{n}@one.test" for n in range(3)]
