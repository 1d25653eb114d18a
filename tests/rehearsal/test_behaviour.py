"""How simulated receivers choose: by name, by seed, by time given as an argument."""

import pytest

from engine.rehearsal.behaviour import (
    Action,
    Behaviour,
    Memory,
    Mischief,
    Stage,
    judge_rate,
    judge_recipient,
    mischief_named_by,
    plays_trick,
)


@pytest.mark.parametrize(
    ("recipient", "wanted"),
    [
        ("421-after-rcpt@x.test", Mischief(Action.REPLY, Stage.RCPT, 421)),
        ("552-after-dot.2+77@x.test", Mischief(Action.REPLY, Stage.DOT, 552, 2)),
        ("Close-After-Data@x.test", Mischief(Action.CLOSE, Stage.DATA)),
        ("stall-after-content+a@x.test", Mischief(Action.STALL, Stage.CONTENT)),
        ("ann@x.test", None),
        ("621-after-rcpt@x.test", None),
        ("421-after-lunch@x.test", None),
        ("dance-after-rcpt@x.test", None),
    ],
)
def test_an_address_can_name_the_behaviour(recipient: str, wanted: Mischief | None) -> None:
    assert mischief_named_by(recipient) == wanted


def codes(behaviour: Behaviour, memory: Memory, now_s: float = 0.0) -> list[int]:
    verdicts = (
        judge_recipient(behaviour, memory, "127.0.0.1", "s@x.test", f"u{i}@y.test", now_s)
        for i in range(1000)
    )
    return [verdict.code if verdict else 250 for verdict in verdicts]


def test_shares_hold_and_depend_on_the_seed_alone() -> None:
    behaviour = Behaviour(unknown_share=0.2, full_share=0.1, full_until_s=50.0)
    first = codes(behaviour, Memory(1))
    assert first == codes(behaviour, Memory(1))
    assert first != codes(behaviour, Memory(2))
    assert 150 < first.count(550) < 250
    assert 50 < first.count(452) < 120
    later = codes(behaviour, Memory(1), 50.0)
    assert later.count(452) == 0
    assert later.count(550) == first.count(550)


def test_greylisting_lets_a_triplet_in_once_it_is_old_enough() -> None:
    behaviour, memory = Behaviour(greylist_s=5.0), Memory(1)

    def code(recipient: str, now_s: float) -> int:
        verdict = judge_recipient(behaviour, memory, "127.0.0.1", "s@x.test", recipient, now_s)
        return verdict.code if verdict else 250

    asked = [("a@y.test", 0.0), ("a@y.test", 4.9), ("b@y.test", 5.0), ("a@y.test", 5.0)]
    assert [code(*each) for each in asked] == [451, 451, 451, 250]


def test_a_rate_gives_its_burst_and_then_what_time_brings() -> None:
    behaviour, memory = Behaviour(rate_per_s=2.0, rate_burst=3), Memory(1)
    times_s = [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 10.0, 10.0, 10.0, 10.0]
    refused = [judge_rate(behaviour, memory, at_s) is not None for at_s in times_s]
    assert refused == [False, False, False, True, False, True, False, False, False, True]


def test_a_trick_ends_after_its_times() -> None:
    memory = Memory(1)
    twice = Mischief(Action.CLOSE, Stage.RCPT, 0, 2)
    assert [plays_trick(memory, twice, "a") for _ in range(3)] == [True, True, False]
    assert plays_trick(memory, twice, "b")
    ever = Mischief(Action.CLOSE, Stage.RCPT)
    assert all(plays_trick(memory, ever, "c") for _ in range(9))


def test_being_down_has_a_beginning_and_an_end() -> None:
    behaviour = Behaviour(down_s=((0.0, 10.0), (20.0, 25.0)))
    assert [behaviour.is_down(now_s) for now_s in (0, 9.9, 10, 20, 25)] == [
        True,
        True,
        False,
        True,
        False,
    ]
