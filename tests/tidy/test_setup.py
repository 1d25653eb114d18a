"""The set-up that every tool shares: what it does once, what it says, and that it goes on."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT


def bash(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euo", "pipefail", "-c", f"source {ROOT}/tools/setup.sh\n{script}"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


# In place of the real work, which has no place in a test: it is what CI begins with.
MAKE = "make_environment() { mkdir -p $VENV; echo made; }\n"


def test_the_environment_is_made_once_for_each_lock(project: Path) -> None:
    assert bash(MAKE + "setup_python; setup_python", project).stdout == "made\n"
    assert bash(MAKE + "setup_python", project).stdout == ""
    (project / "requirements.lock").write_text("changed")
    assert bash(MAKE + "setup_python; setup_python", project).stdout == "made\n"


def test_an_environment_that_failed_is_made_again(project: Path) -> None:
    failing = "make_environment() { mkdir -p $VENV; return 1; }\n"
    assert bash(failing + "setup_python", project).returncode != 0
    assert bash(MAKE + "setup_python", project).stdout == "made\n"


def test_without_root_the_missing_packages_are_named_and_it_goes_on(tmp_path: Path) -> None:
    done = bash(
        "can_install() { return 1; }\nis_installed() { [ $1 != knot ] && [ $1 != swaks ]; }\n"
        "setup_programs\necho on",
        tmp_path,
    )
    if shutil.which("dpkg-query") is None:
        pytest.skip("needs Debian package dpkg")
    assert done.stdout == "on\n"
    assert done.stderr == "set-up: not installed, so some tests will skip: knot swaks\n"


def test_packages_that_cannot_be_had_stop_nothing(tmp_path: Path) -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("needs Debian package dpkg")
    done = bash(
        "can_install() { return 0; }\nis_installed() { [ $1 != strace ]; }\n"
        "install_packages() { return 100; }\nsetup_programs\necho on",
        tmp_path,
    )
    assert done.stdout == "on\n"
    assert done.stderr.endswith("some tests will skip: strace\n")


def test_nothing_is_said_when_all_is_there(tmp_path: Path) -> None:
    done = bash("is_installed() { return 0; }\nsetup_programs", tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_no_python_that_is_new_enough_is_said(tmp_path: Path) -> None:
    done = bash(
        "find_python() { return 1; }\ncan_install() { return 1; }\nmake_environment", tmp_path
    )
    assert done.returncode == 1
    assert done.stderr == "set-up: needs Python 3.11 with venv: apt-get install python3-venv\n"
