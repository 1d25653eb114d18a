"""`watch`: a snapshot, then what changes of it; an account's own, or everything."""

from typing import Any

import pytest
import trio
import trio.testing

from engine.spool.interface import Rest
from engine.watch import boards
from protocols.records import STATUSES, DestinationRecord, Reason
from tests.spool.harness import accept_many, claim, deliver
from tests.watch.looking import Listener, LiveOne, Look, make_account

EMPTY = dict.fromkeys(map(str, STATUSES), 0)


async def hear_until_totals(listener: Listener, wanted: dict[str, int]) -> None:
    while True:
        frame = await listener.hear()
        assert set(frame) == {"totals", "snapshot"}
        assert frame["snapshot"] is False
        if frame["totals"] == wanted:
            return


async def hear_until_row(listener: Listener, name: str, **fields: Any) -> dict[str, Any]:
    while True:
        frame = await listener.hear()
        assert set(frame) == {"destinations", "snapshot"}
        assert frame["snapshot"] is False
        for row in frame["destinations"]:
            if row["destination"] == name and fields.items() <= row.items():
                return dict(row)


async def test_totals(look: Look) -> None:
    async with look.stream() as listener:
        await listener.say({"watch": "totals"})
        assert await listener.hear() == {"totals": EMPTY, "snapshot": True}
        await accept_many(look.spool, look.account, 7)
        await hear_until_totals(listener, EMPTY | {"queued": 7})
        await deliver(look.spool, (await claim(look.spool))[:4])
        await hear_until_totals(listener, EMPTY | {"queued": 3, "delivered": 4})


@pytest.mark.slow
async def test_destinations(look: Look) -> None:
    await accept_many(look.spool, look.account, 2, at="one.test")
    await accept_many(look.spool, look.account, 1, at="two.test")
    async with look.stream(subprotocol="eilpost.v1+msgpack") as listener:
        await listener.say({"watch": "destinations"})
        snapshot = await listener.hear()
        assert snapshot["snapshot"] is True
        first, second = snapshot["destinations"]
        assert (first["destination"], first["queued"], first["state"]) == ("one.test", 2, "idle")
        assert second["destination"] == "two.test"
        look.live["two.test"] = LiveOne("flowing", "mx.two.test", 3, 12.5)
        row = await hear_until_row(listener, "two.test", state="flowing")
        assert (row["site"], row["connections"], row["rate_per_s"]) == ("mx.two.test", 3, 12.5)
        await accept_many(look.spool, look.account, 5, at="one.test")
        await hear_until_row(listener, "one.test", queued=7)


@pytest.mark.slow
async def test_a_destination_in_back_off_says_why(look: Look) -> None:
    await accept_many(look.spool, look.account, 1)
    async with look.stream() as listener:
        await listener.say({"watch": "destinations"})
        await listener.hear()
        record = DestinationRecord(
            not_before_unix_ms=look.clock.now + 60_000,
            cause="destination_unreachable",
            since_unix_ms=look.clock.now,
            failures=1,
            reply="connection refused",
            reason=Reason.CONNECTION,
        )
        await look.spool.settle([], [Rest("one.test", record)])
        row = await hear_until_row(listener, "one.test", state="unreachable")
        assert row["last_reply"] == "connection refused"
        assert row["next_attempt_at"] == "2026-11-24T09:31:00.000Z"
        assert row["held_by"]["code"] == "destination_unreachable"
        assert row["held_by"]["scope"] == "destination"


@pytest.mark.slow
async def test_texts_are_in_the_language_of_the_stream_or_of_the_request(look: Look) -> None:
    await accept_many(look.spool, look.account, 1)
    texts = []
    for query, asked in (("", {}), ("?lang=de", {}), ("?lang=de", {"language": "en"})):
        async with look.stream(query=query) as listener:
            await listener.say({"watch": "destinations", **asked})
            [row] = (await listener.hear())["destinations"]
            texts.append(row["held_by"]["text"].split()[1])
    assert texts == ["are", "sind", "are"]
    async with look.stream() as listener:
        await listener.say({"watch": "destinations", "language": "fr"})
        assert (await listener.hear())["error"]["code"] == "bad_frame"


async def test_each_sees_its_own_counts(look: Look) -> None:
    other = await make_account(look.spool, "other")
    await accept_many(look.spool, look.account, 2)
    await accept_many(look.spool, other, 3)
    expected: list[tuple[str | tuple[str, str], int]] = [("acme", 2), ("other", 3)]
    for who, queued in [*expected, (look.operator(), 5)]:
        async with look.stream(who) as listener:
            await listener.say({"watch": "totals"})
            assert (await listener.hear())["totals"]["queued"] == queued


async def test_events_and_boards_share_a_connection(look: Look) -> None:
    async with look.stream() as listener:
        await listener.say({"watch": "totals"})
        await listener.say({"watch": "destinations"})
        await listener.say({"watch": "totals"})  # Asked twice is told once.
        await listener.say({"subscribe": {"after": "now"}})
        kinds = [set(await listener.hear()) - {"snapshot"} for _ in range(3)]
        assert sorted(map(sorted, kinds)) == [
            ["after", "cursor", "events"],
            ["destinations"],
            ["totals"],
        ]


async def test_nobody_watching_costs_no_look(look: Look) -> None:
    async with look.stream() as listener:
        await listener.say({"watch": "totals"})
        await listener.hear()
        assert look.watch.boards.count == 1
    while look.watch.hub.subscribers:
        await accept_many(look.spool, look.account, 1)
    assert look.watch.boards.count == 0


@pytest.mark.slow
async def test_of_very_many_destinations_the_fullest_are_shown(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "DESTINATIONS_MAX", 3)
    monkeypatch.setattr(boards, "PAGE", 2)
    for number in range(9):
        await accept_many(look.spool, look.account, 1 + number % 4, at=f"d{number}.test")
    async with look.stream() as listener:
        await listener.say({"watch": "destinations"})
        snapshot = await listener.hear()
        shown = {row["destination"]: row["queued"] for row in snapshot["destinations"]}
        assert shown == {"d3.test": 4, "d7.test": 4, "d2.test": 3} or shown == {
            "d3.test": 4,
            "d7.test": 4,
            "d6.test": 3,
        }
        # Who was shown waiting is shown empty before another takes the place.
        await deliver(look.spool, await claim(look.spool, "d7.test"))
        await hear_until_row(listener, "d7.test", queued=0)
        await accept_many(look.spool, look.account, 9, at="d0.test")
        await hear_until_row(listener, "d0.test", queued=10)


async def test_a_long_list_comes_in_pieces_what_waits_most_first(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "ROWS_PER_FRAME", 3)
    counts = {f"d{number}.test": 1 + number % 4 for number in range(8)}
    for name, count in counts.items():
        await accept_many(look.spool, look.account, count, at=name)
    async with look.stream() as listener:
        await listener.say({"watch": "destinations"})
        frames = [await listener.hear() for _ in range(3)]
    assert [frame["snapshot"] for frame in frames] == [True, False, False]
    rows = [row for frame in frames for row in frame["destinations"]]
    assert {row["destination"]: row["queued"] for row in rows} == counts
    assert len(rows) == len(counts)
    assert [row["queued"] for row in rows] == sorted(counts.values(), reverse=True)


async def test_of_a_new_long_list_the_fullest_are_shown_before_all_are_looked_at(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "FIRST_ROWS", 2)
    counts = {f"d{number}.test": 1 + number for number in range(5)}
    for name, count in counts.items():
        await accept_many(look.spool, look.account, count, at=name)
    views, is_heard = boards.Boards._views, trio.Event()

    async def patient(self: Any, board: Any, rows: Any) -> Any:
        if len(rows) > 2:
            await is_heard.wait()
        return await views(self, board, rows)

    monkeypatch.setattr(boards.Boards, "_views", patient)
    async with look.stream() as listener:
        await listener.say({"watch": "destinations"})
        first = await listener.hear()
        is_heard.set()
        second = await listener.hear()
    assert {row["destination"] for row in first["destinations"]} == {"d3.test", "d4.test"}
    assert (first["snapshot"], second["snapshot"]) == (True, False)
    told = {
        row["destination"]: row["queued"]
        for frame in (first, second)
        for row in frame["destinations"]
    }
    assert told == counts


async def test_a_long_board_is_there_for_whoever_comes_back_and_then_goes(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "FIRST_ROWS", 2)
    monkeypatch.setattr(boards, "KEPT_S", 3_600.0)
    for number in range(4):
        await accept_many(look.spool, look.account, 1, at=f"d{number}.test")
    kept = look.watch.boards._boards
    seen_boards: list[boards.Board] = []
    for _ in range(2):
        async with look.stream() as listener:
            await listener.say({"watch": "destinations"})
            seen: set[str] = set()
            while len(seen) < 4:
                seen |= {row["destination"] for row in (await listener.hear())["destinations"]}
        while look.watch.hub.subscribers:
            await trio.lowlevel.checkpoint()
        assert look.watch.boards.count == 0
        seen_boards += kept.values()
    # The second one found what the first had left: nothing was looked at anew for it.
    first, second = seen_boards
    assert first is second
    first.kept_until_s = trio.current_time()
    look.watch.boards._woken["destinations"].set()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not kept


async def test_who_comes_to_a_long_list_does_not_wait_for_its_pace(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if one look had been so costly that the next one is an hour away."""
    monkeypatch.setattr(boards, "PERIOD_S", 3_600.0)
    other = await make_account(look.spool, "other")
    await accept_many(look.spool, look.account, 2)
    await accept_many(look.spool, other, 1)
    async with look.stream() as first, look.stream("other") as second:
        await first.say({"watch": "destinations"})
        assert (await first.hear())["destinations"][0]["queued"] == 2
        await accept_many(look.spool, look.account, 1)
        await first.say({"watch": "totals"})
        assert (await first.hear())["totals"]["queued"] == 3
        await second.say({"watch": "destinations"})
        assert (await second.hear())["destinations"][0]["queued"] == 1
