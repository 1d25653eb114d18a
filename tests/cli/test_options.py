"""How a failure leaves the program: expected ones as a text, surprises with their traceback."""

import click
import pytest

from engine.cli.options import failures


def test_an_expected_failure_becomes_its_text() -> None:
    with pytest.raises(click.ClickException, match=r"^no room$"), failures(ValueError, OSError):
        raise OSError("no room")


def test_groups_are_opened_however_deep_and_each_text_said_once() -> None:
    inner = ExceptionGroup("", [OSError("no room"), ValueError("no sense")])
    expected = pytest.raises(click.ClickException, match=r"^no room; no sense$")
    with expected, failures(ValueError, OSError):
        raise ExceptionGroup("", [OSError("no room"), inner])


def test_a_surprise_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), failures(OSError):
        raise KeyError("bug")


def test_a_surprise_among_expected_ones_is_not_hidden() -> None:
    with pytest.raises(ExceptionGroup) as caught, failures(OSError):
        raise ExceptionGroup("", [OSError("no room"), KeyError("bug")])
    assert caught.group_contains(KeyError)
