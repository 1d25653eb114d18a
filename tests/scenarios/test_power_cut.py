"""The power goes off under a loaded engine: what was promised before is there after the reboot.

The long form is `python -m tests.scenarios.power_cut`, which cuts fifty times.
"""

import re
import subprocess
import sys

import pytest

from tests.scenarios.power_cut import IMPOSSIBLE, why_impossible

pytestmark = pytest.mark.slow


def cut_power(file_system: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if why := why_impossible(file_system):
        pytest.skip(why)
    command = [sys.executable, "-m", "tests.scenarios.power_cut", "--file-system", file_system]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == IMPOSSIBLE:
        pytest.skip(f"no such disk here: {done.stdout.strip()[-300:]}")
    return done


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_nothing_promised_is_lost_in_a_power_cut(file_system: str) -> None:
    done = cut_power(file_system, "--cuts", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    [summary] = re.findall(r"^3 kills, (\d+) mails acknowledged", done.stdout, re.MULTILINE)
    assert int(summary) > 100


def test_control_without_flushes_a_power_cut_loses_mail() -> None:
    done = cut_power("ext4", "--cuts", "2", "--control")
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout + done.stderr
    assert re.search(r"lost: |[1-9]\d* holes|the engine failed", said), said
