"""The same seed gives the same trace: events, times, receivers, answers, in any process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import simulate

ROOT = Path(__file__).parents[2]
SEED = 9


def trace_in_a_new_process(url: str, hash_seed: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", str(SEED), url],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.split()[0]


@pytest.mark.slow
@pytest.mark.parametrize("url", ["memory:", "lmdb:"])
def test_two_processes_see_the_same(url: str) -> None:
    assert trace_in_a_new_process(url, "1") == trace_in_a_new_process(url, "2")


@pytest.mark.slow
def test_another_seed_is_another_run(data_dir: Path) -> None:
    assert simulate(6, "memory:", data_dir).trace != simulate(SEED, "memory:", data_dir).trace
