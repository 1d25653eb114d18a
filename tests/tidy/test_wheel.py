"""What is installed: the wheel, and the lock file it is developed with."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.tidy.tree import ROOT, tracked_files


@pytest.mark.slow
def test_the_wheel_holds_the_two_packages_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} - {
        name.split("/")[0] for name in names if ".dist-info/" in name
    } == {"engine", "protocols"}
    # Pages and other data travel with the code that reads them.
    packaged = {str(file) for file in tracked_files() if file.parts[0] in ("engine", "protocols")}
    assert packaged <= set(names)


def test_the_lock_holds_every_dependency_with_a_hash() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lock = (ROOT / "requirements.lock").read_text()
    locked = {line.split("==")[0] for line in lock.splitlines() if line[:1].isalnum()}
    assert {name.partition(">=")[0].partition("==")[0] for name in wanted} <= locked
    entries = lock.replace("\\\n", " ").splitlines()
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
