"""A real engine under load on a real file system, and the power goes off, again and again.

`python -m tests.scenarios.power_cut --cuts 50` is the long form of the test in the suite; it needs
root, and the Debian packages in PROGRAMS. The spool lies on ext4 or XFS, on a disk that forgets
what was not flushed (`volatile_disk.py`). After each cut the file system is mounted as after a
reboot, and the engine goes on with what is left. The three books are those of `crash.py`.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.rehearsal.engine_process import COMMAND, EngineFailed, EngineProcess
from tests.scenarios import crash

# By program, the Debian package that has it.
PROGRAMS: Final = {
    "nbdkit": "nbdkit and nbdkit-plugin-python",
    "nbdfuse": "libnbd-bin",
    "fusermount3": "fuse3",
    "losetup": "mount",
    "unshare": "util-linux",
}
MAKE: Final = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q")}
CONTROL: Final = (sys.executable, "-m", "tests.scenarios.unsynced")
# Above the spool's low-water mark; a sparse file, of which a few dozen megabytes are written.
DISK_OCTETS: Final = 1024 * 1024 * 1024
# How much of what was not flushed survives: nothing, some sectors and not others, all.
KEEPS: Final = (0.0, 0.5, 1.0)
PATIENCE_S: Final = 20.0
POLL_S: Final = 0.02
# What this machine cannot do, as an exit status; 77 is what test drivers take for "skipped".
IMPOSSIBLE: Final = 77


class Impossible(Exception):
    """This machine has no such disk: no root, no loop devices, a program is missing."""


class VolatileDisk:
    """The disk, and the file system on it mounted at `place`. `cut` is a power cut and a reboot."""

    def __init__(self, work: Path, place: Path, kind: str, rand: random.Random) -> None:
        self.cuts = 0
        self._work = work
        self._place = place
        self._rand = rand
        self._image = work / "image"
        self._loop = ""
        self._server: subprocess.Popen[bytes] | None = None
        self._fuse: subprocess.Popen[bytes] | None = None
        with self._image.open("wb") as image:
            image.truncate(DISK_OCTETS)
        self._power_on()
        _run(*MAKE[kind], self._loop)
        self._mount()
        place.chmod(0o700)

    def cut(self, engine: EngineProcess) -> None:
        """Take the power from the disk and from the engine, and come back."""
        self.cuts += 1
        # Without power nobody is told that the disk has none.
        os.kill(engine.pid, signal.SIGSTOP)
        (self._work / "cut").touch()
        engine.kill()
        self.off()
        self._power_on()
        self._mount()

    def off(self) -> None:
        """Unplug everything; what was not flushed is gone."""
        (self._work / "cut").touch()
        subprocess.run(["umount", "-l", self._place], capture_output=True, check=False)
        if self._loop:
            subprocess.run(["losetup", "-d", self._loop], capture_output=True, check=False)
        for process in (self._server, self._fuse):
            if process is not None:
                process.kill()
                process.wait()
        subprocess.run(
            ["fusermount3", "-uqz", self._work / "nbd"], capture_output=True, check=False
        )

    def _power_on(self) -> None:
        work = self._work
        (work / "cut").unlink(missing_ok=True)
        (work / "socket").unlink(missing_ok=True)
        (work / "nbd").mkdir(exist_ok=True)
        disk = Path(__file__).with_name("volatile_disk.py")
        settings: dict[str, object] = {
            "image": self._image,
            "cut": work / "cut",
            "seed": self._rand.randrange(1 << 32),
            "keep": self._rand.choice(KEEPS),
        }
        arguments = [f"{name}={value}" for name, value in settings.items()]
        nbdkit: list[str | Path] = ["nbdkit", "-f", "-U", work / "socket"]
        plugin: list[str | Path] = [
            "--filter=blocksize",
            "python",
            disk,
            *arguments,
            "minblock=512",
        ]
        self._server = _start([*nbdkit, *plugin], work / "nbdkit.log")
        self._wait_for((work / "socket").exists, self._server, work / "nbdkit.log")
        device = work / "nbd" / "disk"
        self._fuse = _start(["nbdfuse", device, "--unix", work / "socket"], work / "nbdfuse.log")
        self._wait_for(device.exists, self._fuse, work / "nbdfuse.log")
        self._loop = _run("losetup", "-f", "--show", device)

    def _mount(self) -> None:
        _run("mount", self._loop, self._place)

    def _wait_for(
        self, met: Callable[[], bool], process: subprocess.Popen[bytes], log: Path
    ) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Impossible(log.read_text(encoding="utf-8", errors="replace")[-500:])
            time.sleep(POLL_S)


def why_impossible(kind: str) -> str:
    """Say what is missing here; "" if nothing that could be known before."""
    if os.geteuid() != 0:
        return "needs root, for mounting"
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if shutil.which(MAKE[kind][0]) is None:
        missing.append({"ext4": "e2fsprogs", "xfs": "xfsprogs"}[kind])
    if missing:
        return f"needs Debian packages {', '.join(missing)}"
    return "" if Path("/dev/fuse").exists() else "needs /dev/fuse"


def run(
    directory: Path, cuts: int, seed: int, kind: str, *, is_control: bool = False
) -> crash.Books:
    """Cut the power `cuts` times and let the last engine finish. Raises Impossible.

    Mounts below `directory`: call it in a mount namespace of its own.
    """
    work, place = directory / "disk", directory / "engine" / "data"
    work.mkdir()
    place.mkdir(parents=True)
    with _plugged_in(work, place, kind, random.Random(f"{seed} disk")) as disk:
        books = crash.run(
            place.parent,
            cuts,
            seed,
            command=CONTROL if is_control else COMMAND,
            end=disk.cut,
            tell=crash.say,
        )
        # What was handed over is noted without a sync.
        books.machine_lives = False
        return books


@contextmanager
def _plugged_in(work: Path, place: Path, kind: str, rand: random.Random) -> Iterator[VolatileDisk]:
    disk: VolatileDisk | None = None
    try:
        disk = VolatileDisk(work, place, kind, rand)
        yield disk
    finally:
        if disk is not None:
            disk.off()


def _start(command: list[str | Path], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Impossible(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scenarios.power_cut",
        description="Cut the power of a loaded engine's disk; see that it keeps its promises.",
    )
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--file-system", choices=MAKE, default="ext4")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--control", action="store_true", help="without flushes: mail must be lost")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if why := why_impossible(options.file_system):
        crash.say(why)
        raise SystemExit(IMPOSSIBLE)
    if not options.in_namespace:
        # Nothing that is mounted here is seen outside, and all of it ends with this process.
        again = [sys.executable, "-m", "tests.scenarios.power_cut", "--in-namespace"]
        os.execvp("unshare", ["unshare", "--mount", *again, *sys.argv[1:]])
    crash.say(f"seed {options.seed}, {options.file_system}")
    with tempfile.TemporaryDirectory(prefix="eilpost-power-cut-") as directory:
        try:
            books = run(
                Path(directory),
                options.cuts,
                options.seed,
                options.file_system,
                is_control=options.control,
            )
        except Impossible as why_not:
            crash.say(str(why_not))
            raise SystemExit(IMPOSSIBLE) from None
        except EngineFailed as failed:
            raise SystemExit(f"the engine failed: {failed}, seed {options.seed}") from None
    found = crash.faults(books)
    for line in (books.summary(), *found[: crash.FAULTS_SHOWN]):
        crash.say(line)
    raise SystemExit(f"{len(found)} faults, seed {options.seed}" if found else 0)


if __name__ == "__main__":
    main()
