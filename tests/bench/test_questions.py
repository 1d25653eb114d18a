"""Each question answered small: the figures are there and sane; none is held to a speed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from bench.chromium import has_chromium

pytestmark = pytest.mark.slow

TINY = {
    "campaign": ["recipients=6000", "destinations=5", "kilobytes=2", "drained=2000"],
    "drain": ["destinations=7", "kilobytes=2", "messages=2000"],
    "end_to_end": ["destinations=5", "kilobytes=2", "messages=400"],
    "explain": ["queued=3000", "destinations=1,30", "asks=20"],
    "fill": ["kilobytes=2", "umlauts=0,10,100", "messages=200"],
    "growth": ["queued=2000,4000", "messages=1500"],
    "intake": ["kilobytes=2", "messages=400"],
    "isolation": ["throttled=300", "messages=980", "rounds=1"],
    "latency": ["per_second=300", "seconds=1", "subscribers=3"],
    "limits": ["per_s=100", "seconds=1", "domains=100"],
    "memory": ["queued=3000", "destinations=50", "seconds=1"],
    "page": ["queued=3000", "destinations=300", "loads=2"],
}


def answer(name: str, sizes: list[str], directory: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench", name, *sizes, "--json", "--data-dir", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(directory.iterdir()) == [], "the bench leaves nothing behind"
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("name", list(TINY))
def test_the_answer_has_its_figures(name: str, tmp_path: Path) -> None:
    if name == "page" and not has_chromium():
        pytest.skip("needs Debian packages chromium and chromium-driver")
    told = answer(name, TINY[name], tmp_path)
    assert told["question"].endswith("?")
    assert told["command"].startswith(f"python -m bench {name}")
    assert "fdatasync" in told["setting"]["disk"]
    assert "data_dir" in told["limits"]
    assert told["notes"] == []
    figures = {figure["name"]: figure["value"] for figure in told["figures"]}
    # Nothing over a limit is what one wants to see.
    assert all(figures[each] > 0 for each in figures if not each.startswith("over")), figures
    expected = {
        "campaign": {"the whole command", "memory of the engine, highest", "against plain mails"},
        "explain": {"explain, p50", "explain, p99", "its forecast, median"},
        "fill": {"rate", "CPU to fill it in", "CPU to check a recipient"},
        "growth": {"cost grows by"},
        "isolation": {"alone", "beside the bad ones", "kept"},
        "latency": {"p50", "p99", "CPU of the engine"},
        "limits": {
            "over the limit at MAIL",
            "over the limit at the end of the data",
            "used",
            "used after the restart",
            "used after the change",
        },
        "memory": {"private memory, highest", "from start after kill -9 to the first delivery"},
        "page": {"first paint, median", "totals shown, median", "waiting mail shown, slowest"},
    }
    assert figures.keys() >= expected.get(name, {"rate", "CPU of the engine"})


def test_end_to_end_measures_postfix_beside_it() -> None:
    if shutil.which("postfix") is None:
        pytest.skip("needs Debian package postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix needs root to start")
    sizes = ["destinations=5", "kilobytes=2", "messages=200", "--against", "postfix"]
    # Not below pytest's own directory, which only its owner may enter: Postfix has its own user.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        told = answer("end_to_end", sizes, Path(directory))
    cases = {figure["case"]: figure for figure in told["figures"] if figure["name"] == "rate"}
    assert len(cases) == 2
    (ratio,) = (f["value"] for f in told["figures"] if f["name"] == "against postfix")
    assert ratio > 0
    assert told["notes"] == []
