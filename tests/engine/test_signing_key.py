"""The keys beside the spool: made once, for the engine's eyes only."""

import os
import stat
from pathlib import Path

import pytest

from engine.compose import signing_key
from engine.http_server import HttpSetupError


def test_it_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "operator.key"
    key = signing_key(file, os.urandom)
    assert len(key) == 32
    assert signing_key(file, os.urandom) == key == file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_one_that_others_may_know_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "operator.key"
    file.write_bytes(bytes(32))
    file.chmod(mode)
    with pytest.raises(HttpSetupError, match=rf"operator\.key is open to others \(mode {mode:o}\)"):
        signing_key(file, os.urandom)


def test_one_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(bytes(32))
    elsewhere.chmod(0o600)
    file = tmp_path / "operator.key"
    file.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        signing_key(file, os.urandom)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_torn_one_is_made_anew(tmp_path: Path, length: int) -> None:
    file = tmp_path / "operator.key"
    file.touch(0o600)
    file.write_bytes(bytes(length))
    key = signing_key(file, os.urandom)
    assert (len(key), file.read_bytes()) == (32, key)
