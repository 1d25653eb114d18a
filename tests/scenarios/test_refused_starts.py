"""A start that something stands in the way of: one line that names it, status 1, nothing changed.

More of these are in `tests/cli/test_engine.py` and, for the configuration, `tests/engine`.
"""

import os
import subprocess
from pathlib import Path

import pytest

from engine.rehearsal.engine_process import EngineProcess
from tests.scenarios.refusals import refusal_of
from tests.scenarios.scene import scene

pytestmark = pytest.mark.slow

# What is written into the file, and what the refusal has to name besides the file.
FAULTS = {
    "no TOML": ("data_dir = ", "no TOML"),
    "unknown table": ("[deliveries]\n", "deliveries"),
    "unknown key": ("[delivery]\nretry = [1]\n", "[delivery] retry"),
    "wrong type": ('[delivery]\nport = "25"\n', "[delivery] port"),
    "out of range": ("[delivery]\nport = 70000\n", "[delivery] port"),
    "empty list": ("[delivery]\nretry_s = []\n", "[delivery] retry_s"),
    "wrong element": ("[delivery]\nretry_s = [1, -1]\n", "[delivery] retry_s[1]"),
    "no network": ('[delivery]\nprivate_targets = ["10.0.0.1/8x"]\n', "private_targets[0]"),
    "open to the world": ('[http]\nlisten = "0.0.0.0:0"\n', "[http] listen"),
    "certificate that is missing": (
        '[http]\ntls_certificate = "c.pem"\ntls_key = "k.pem"\n',
        "[http] tls_certificate",
    ),
    "route without a host": ('[[route]]\ndomain = "*.test"\n', "[[route]] 1"),
    "rate": ('[[rule]]\ndestination = "x.test"\nrate = "fast"\n', "[[rule]] 1 rate"),
    "spool of another kind": ('[spool]\nurl = "mysql:"\n', "[spool] url"),
    "shaping file that is missing": ('[shaping]\nfiles = ["s.toml"]\n', "s.toml"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_configuration_names_file_and_key(tmp_path: Path, fault: str) -> None:
    text, place = FAULTS[fault]
    engine = EngineProcess(tmp_path, "")
    engine.config_path.write_text(text)
    said = refusal_of(engine)
    assert place in said
    assert str(engine.config_path if fault[:7] != "shaping" else tmp_path) in said
    assert not (tmp_path / "data").exists(), "nothing is made before everything is understood"


def test_a_configuration_that_is_missing_is_named(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, "")
    assert "none.toml" in refusal_of(engine, "serve", "--config", str(tmp_path / "none.toml"))


def test_a_second_engine_disturbs_nobody(tmp_path: Path) -> None:
    with scene(tmp_path) as first:
        (tmp_path / "second").mkdir()
        second = EngineProcess(tmp_path / "second", "")
        text = second.config_path.read_text()
        second.config_path.write_text(text.replace('"data"', f'"{tmp_path}/data"'))
        said = refusal_of(second)
        assert f"process {first.engine.pid}" in said
        assert f"{tmp_path}/data/spool/lock" in said
        # Its socket and its mail are still the first one's.
        first.engine.create_account("another")
        first.send(["to@d0.fast.test"])
        assert first.wait_until_final() == {"delivered": 1}


def test_a_disk_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    engine = EngineProcess(tmp_path, "")
    place = tmp_path / "data"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "eilpost-test", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    try:
        said = refusal_of(engine)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert f"{place}/spool" in said
    assert "Read-only file system" in said


def test_a_control_socket_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, "")
    (tmp_path / "data" / "control.sock").mkdir(parents=True)
    assert f"{tmp_path}/data/control.sock" in refusal_of(engine)
