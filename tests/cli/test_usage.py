"""What the command line says before any engine is asked: help, wrong usage, refusals."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import COMMANDS

# Each of these costs more to import than all of `--help` may take.
HEAVY = ("trio", "dns", "lmdb", "cryptography", "rich")


def eilpost(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from engine.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_lists_every_command_and_loads_none_of_them(tmp_path: Path) -> None:
    look = (
        "import sys\nfrom click.testing import CliRunner\nfrom engine.cli import main\n"
        "print(CliRunner().invoke(main, ['--help']).output)\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "loaded: []" in done.stdout
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_takes_the_configuration(
    name: str, tmp_path: Path
) -> None:
    done = eilpost(name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--config FILE" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["queue", "--nonsense"], ["account", "create"], ["--config"], ["queue", "more"]],
)
def test_wrong_usage_ends_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = eilpost(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Error: " in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "nothing.toml", "queue"],
        ["queue", "--config", "nothing.toml"],
        ["account", "--config", "nothing.toml", "list"],
        ["account", "create", "shop", "--config", "nothing.toml"],
        ["serve", "--config", "nothing.toml"],
    ],
)
def test_a_missing_configuration_is_refused_wherever_it_is_named(
    arguments: list[str], tmp_path: Path
) -> None:
    done = eilpost(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: nothing.toml: cannot be read: No such file or directory\n"


def test_the_last_configuration_on_the_line_counts(tmp_path: Path) -> None:
    done = eilpost("--config", "first.toml", "queue", "--config", "second.toml", cwd=tmp_path)
    assert done.stderr.startswith("Error: second.toml")
