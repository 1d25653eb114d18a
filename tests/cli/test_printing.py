"""Columns for people, and nothing that a stranger could do to their terminal."""

import pytest

from engine.cli.printing import print_columns, print_json, printable


def test_numbers_stand_to_the_right_and_the_last_column_is_not_padded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_columns(["name", "count", "reply"], [["a", 5, "ok"], ["long.example", 1234, None]])
    assert capsys.readouterr().out.splitlines() == [
        "name          count  reply",
        "a                 5  ok",
        "long.example   1234  -",
    ]


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"reply": "two\nlines", "name": "Müller"})
    assert capsys.readouterr().out == '{"reply":"two\\nlines","name":"Müller"}\n'


def test_control_sequences_are_shown_and_not_done() -> None:
    assert printable("550 \x1b[2J\r\nhello\u202e") == "550 \\x1b[2J\\r\\nhello\\u202e"
    assert printable("Grüße") == "Grüße"
