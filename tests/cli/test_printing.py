"""Columns for people, and nothing that a stranger could do to their terminal."""

import pytest

from engine.cli.printing import in_words, print_columns, print_json, printable


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


def test_codes_are_told_in_words() -> None:
    told = [in_words(name) for name in ("hard_bounced", "soft_bounced", "delivered", "next_at")]
    assert told == ["hard-bounced", "soft-bounced", "delivered", "next at"]
