"""Formatter, linter, types and import contracts, as tools/check runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT

BIN = Path(sys.executable).parent


def passes(*command: str) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_formatter_has_nothing_to_do() -> None:
    passes("ruff", "format", "--check", ".")


def test_the_linter_is_content() -> None:
    passes("ruff", "check", ".")


@pytest.mark.slow
def test_types_are_strict_and_right() -> None:
    passes("mypy")


@pytest.mark.slow
def test_rooms_import_only_what_they_may() -> None:
    passes("lint-imports")
