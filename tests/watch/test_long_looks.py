"""Answers that take long are found once for many who ask, and kept as long as they are worth."""

import pytest
import trio
from trio.testing import MockClock

from engine.watch.long_looks import ANSWERS_MAX, COST_SHARE, KEPT_S_MAX, LongLooks


class Finder:
    """Finds the number of looks so far, each of which takes some time."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.looks = 0
        self.fails = False

    async def find(self) -> int | None:
        self.looks += 1
        await trio.sleep(self.takes_s)
        if self.fails:
            raise ValueError("as asked")
        return self.looks


async def test_who_asks_meanwhile_gets_the_same_answer(autojump_clock: MockClock) -> None:
    looks, finder, answers = LongLooks[int](), Finder(0.2), list[tuple[int | None, int]]()

    async def ask(after_s: float) -> None:
        await trio.sleep(after_s)
        answers.append(await looks.answer("key", finder.find))

    async with trio.open_nursery() as nursery:
        for after_s in (0.0, 0.1, 0.15, 1.9):
            nursery.start_soon(ask, after_s)
    assert answers == [(1, 0), (1, 0), (1, 0), (1, 1)]


async def test_an_answer_is_kept_for_twenty_times_the_time_beyond_a_moment(
    autojump_clock: MockClock,
) -> None:
    looks, finder = LongLooks[int](), Finder(0.2)
    await looks.answer("key", finder.find)
    await trio.sleep(0.1 * COST_SHARE - 0.01)
    assert await looks.answer("key", finder.find) == (1, 1)
    await trio.sleep(0.02)
    assert await looks.answer("key", finder.find) == (2, 0)
    finder.takes_s = 60.0
    await trio.sleep(KEPT_S_MAX)
    assert await looks.answer("key", finder.find) == (3, 0)
    await trio.sleep(KEPT_S_MAX)
    finder.takes_s = 0.1
    assert await looks.answer("key", finder.find) == (4, 0)
    # What is found quickly is looked at each time.
    assert await looks.answer("key", finder.find) == (5, 0)


async def test_other_questions_have_other_answers_and_few_are_kept(
    autojump_clock: MockClock,
) -> None:
    looks, finder = LongLooks[int](), Finder(0.2)
    for number in range(ANSWERS_MAX + 1):
        assert await looks.answer(number, finder.find) == (number + 1, 0)
    assert (await looks.answer(ANSWERS_MAX, finder.find))[0] == ANSWERS_MAX + 1
    assert (await looks.answer(0, finder.find))[0] == ANSWERS_MAX + 2


async def test_what_fails_or_is_given_up_is_looked_at_again(autojump_clock: MockClock) -> None:
    looks, finder = LongLooks[int](), Finder(0.2)
    finder.fails = True
    with pytest.raises(ValueError, match="as asked"):
        await looks.answer("key", finder.find)
    finder.fails = False
    with trio.move_on_after(0.05):
        await looks.answer("key", finder.find)
    assert await looks.answer("key", finder.find) == (3, 0)

    async def nothing() -> None:
        await trio.sleep(0.2)

    assert await LongLooks[int]().answer("key", nothing) == (None, 0)
