"""The disk fills up: intake closes first, deliveries go on, and nothing that was promised is lost.

The disk is a memory file system whose size is changed under the running engine.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from engine.rehearsal.engine_process import EngineFailed, EngineProcess
from tests.scenarios.counting_receivers import CountingReceivers, routes
from tests.scenarios.scene import Scene, mails

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system"),
]

MEGABYTE = 1024 * 1024
LARGE = 2048 * MEGABYTE
# Below the engine's low-water mark, and far above what a few mails need.
LOW = 256 * MEGABYTE
MAILS = 60
FILL_TRIES = 20


class Disk:
    """A file system at `path` that can be made larger and smaller."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, octets: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={octets}", str(self.path)], check=True)

    def fill(self) -> None:
        """Make it as small as what is on it, which grows while we look."""
        for tries_left in reversed(range(FILL_TRIES)):
            found = os.statvfs(self.path)
            try:
                self.resize((found.f_blocks - found.f_bfree) * found.f_frsize)
                return
            except subprocess.CalledProcessError:
                if not tries_left:
                    raise


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "data"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={LARGE}", "eilpost-test", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def running(disk: Disk, tmp_path: Path) -> Iterator[Scene]:
    with CountingReceivers() as receivers:
        toml = "[delivery]\nretry_s = [1]\n" + routes(receivers.port)
        engine = EngineProcess(tmp_path, toml)
        made = Scene(engine, receivers, engine.create_account("shop"))
        engine.start()
        try:
            engine.wait_until_ready()
            yield made
        finally:
            engine.kill()
        assert "Traceback" not in made.written()


def waiting(name: str) -> list[str]:
    """Addresses whose mail is refused at first and taken at the second attempt."""
    return [f"451-after-rcpt.1+{name}{n}@d{n % 7}.fast.test" for n in range(MAILS)]


def test_below_the_mark_intake_is_closed_and_deliveries_go_on(running: Scene, disk: Disk) -> None:
    accepted = waiting("before")
    running.send(accepted)
    disk.resize(LOW)
    for _ in range(3):
        status, answer = running.post(mails(["to+refused@d0.fast.test"]))
        assert (status, answer["StatusCode"]) == (503, 503)
        assert "Nothing was accepted; try again later" in answer["ErrorMessage"]
    assert running.wait_until_final() == {"delivered": MAILS}
    running.engine.stop()
    running.engine.start()
    while "no mail is taken while the disk of" not in running.written():
        running.engine.check_alive()
        time.sleep(0.05)
    disk.resize(LARGE)
    running.engine.wait_until_ready()
    later = waiting("later")
    running.send(later)
    assert running.wait_until_final() == {"delivered": 2 * MAILS}
    assert sorted(running.delivered()) == sorted(accepted + later)
    assert running.engine.stop() == 0


def test_without_any_room_nothing_is_promised_and_nothing_lost(running: Scene, disk: Disk) -> None:
    """Somebody else takes all that is left, at once: no commit that needs a page succeeds."""
    accepted = waiting("before")
    running.send(accepted)
    disk.fill()
    # Refused, or no answer at all: a result may find the disk full first, and end the engine.
    with suppress(OSError):
        status, answer = running.post(mails(["to+refused@d0.fast.test"]))
        assert status == 503, answer
    # Either the ballast carries it through, or it ends, and says why.
    survived = carries_on(running)
    if not survived:
        found = re.search(r"could not commit: .* \((.*), (\d+) octets free\)", running.written())
        assert found, running.written()
        assert found[1] == f"{disk.path}/spool"
        assert int(found[2]) < MEGABYTE
        disk.resize(LARGE)
        running.engine.kill()
        running.engine.start()
        running.engine.wait_until_ready()
    assert running.wait_until_final() == {"delivered": MAILS}
    assert set(running.delivered()) == set(accepted)
    assert len(running.delivered()) == MAILS or not survived
    assert running.engine.stop() == 0


def carries_on(running: Scene) -> bool:
    """Wait for the end of all mail, or of the engine; say whether the engine lives."""
    try:
        running.wait_until_final()
    except (EngineFailed, OSError):
        return False
    return True
