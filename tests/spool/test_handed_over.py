"""The file of what a server may have: what is in it after a death, and after damage."""

import stat
from pathlib import Path

import pytest

from engine.spool.handed_over import SLOTS, HandedOver, open_handed_over
from engine.spool.interface import SpoolUnusable


def test_what_is_noted_is_there_without_any_closing(tmp_path: Path) -> None:
    path = tmp_path / "handed_over"
    writing = HandedOver(path)
    writing.note([(7, 1), (2**53 - 1, 40), (9, 2)])
    writing.note([(7, 2)])
    writing.clear(9)
    writing.clear(1234)
    # A second look at the same pages, as the next process has it.
    assert HandedOver(path).noted() == {7: 2, 2**53 - 1: 40}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_place_that_was_given_up_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "handed_over"
    with open_handed_over(path) as writing:
        size = path.stat().st_size
        for round_ in range(3):
            ids = range(round_ * SLOTS + 1, (round_ + 1) * SLOTS + 1)
            writing.note((each, 1) for each in ids)
            assert len(writing.noted()) == SLOTS
            for each in ids:
                writing.clear(each)
        assert path.stat().st_size == size


def test_one_too_many_is_not_noted_and_no_other_is_lost(tmp_path: Path) -> None:
    with open_handed_over(tmp_path / "handed_over") as writing:
        writing.note((each, 1) for each in range(1, SLOTS + 2))
        assert set(writing.noted()) == set(range(1, SLOTS + 1))


@pytest.mark.parametrize("cut_to", [0, 17, 40])
def test_a_damaged_file_tells_of_what_is_whole(tmp_path: Path, cut_to: int) -> None:
    path = tmp_path / "handed_over"
    with open_handed_over(path) as writing:
        writing.note((each, 1) for each in range(1, SLOTS + 1))
    octets = bytearray(path.read_bytes())
    octets[5] ^= 1
    path.write_bytes(octets[:cut_to] if cut_to else octets)
    with open_handed_over(path) as reading:
        whole = len(reading.noted())
    assert whole == (cut_to // 16 - (cut_to >= 16) if cut_to else SLOTS - 1)


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "handed_over").mkdir()
    with (
        pytest.raises(SpoolUnusable, match=r"spool file .*handed_over: Is a directory"),
        open_handed_over(tmp_path / "handed_over"),
    ):
        pass
