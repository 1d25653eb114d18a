"""A process with a spool is killed at its system calls, or they fail: nothing promised is lost.

What it was promised is what it said on its standard output. The control says so before the commit,
and has to be caught.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from protocols.records import Status
from tests.spool import harness as h
from tests.spool.harness import Harness

ROUNDS = 6

# What a commit does to the file: pages, the flush, the meta page; and the reply after it.
CALLS = ("pwrite64", "writev", "fdatasync", "write")

pytestmark = pytest.mark.slow

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="needs Debian package strace"
)


def run_child(
    data_dir: Path,
    *flags: str,
    inject: str = "",
    trace: Path | None = None,
    file_octets_max: int = resource.RLIM_INFINITY,
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tests.spool.lmdb_child", str(data_dir), str(ROUNDS), *flags]
    if trace is not None or inject:
        calls = inject.partition(":")[0] if inject else ",".join(CALLS)
        command = [
            *("strace", "-qq", "-f", "-o", str(trace or os.devnull)),
            *("-e", f"trace={calls}"),
            *(("-e", f"inject={inject}") if inject else ()),
            *command,
        ]
    limits = (file_octets_max, file_octets_max)
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
    )


async def books_of(harness: Harness, said: bytes) -> list[str]:
    """Return what was promised in `said` and is not so."""
    lines = [line.split() for line in said.decode().splitlines()]
    missing: list[str] = []
    async with harness.open() as spool:
        missing += await spool.check_invariants()
        found = await h.all_envelopes(spool)
        requests = Counter(each.fixed.address.partition("-")[0] for each in found)
        missing += [
            f"{name} has {count} envelopes" for name, count in requests.items() if count % 3
        ]
        for what, *number in lines:
            if what == "kept" and f"r{number[0]}" not in requests:
                missing.append(f"request {number[0]} is lost")
            if what == "delivered":
                envelope = await spool.envelope(int(number[0]))
                if envelope is None or envelope.state.status is not Status.DELIVERED:
                    missing.append(f"the result of {number[0]} is lost")
    return missing


def calls_of(tmp_path: Path) -> Counter[str]:
    """Return how often each call is made by a run that nobody disturbs, after it has begun."""
    trace = tmp_path / "trace"
    done = run_child(tmp_path / "counted", trace=trace)
    assert done.returncode == 0, done.stderr
    lines = trace.read_text().splitlines()
    return Counter(line.split()[1].partition("(")[0] for line in lines)


@needs_strace
async def test_nothing_promised_is_lost_wherever_it_is_killed(tmp_path: Path) -> None:
    counts = calls_of(tmp_path)
    assert counts["fdatasync"] > ROUNDS
    kills = 0
    for call in CALLS:
        # The whole loop is some hundred kills; here a few of each, the last rounds among them.
        total = counts[call]
        for when in sorted({max(1, total * part // 5) for part in (1, 2, 3, 4)}):
            place = tmp_path / f"{call}-{when}"
            done = run_child(place, inject=f"{call}:signal=SIGKILL:when={when}")
            kills += done.returncode != 0
            if (place / "spool").exists():
                assert await books_of(Harness("lmdb", place), done.stdout) == [], (call, when)
    assert kills >= 10


@needs_strace
async def test_the_control_that_promises_too_early_is_caught(tmp_path: Path) -> None:
    counts = calls_of(tmp_path)
    lost: list[str] = []
    # Two commits in a row: one of them takes mail in, the other a result.
    for when in (counts["fdatasync"] // 2, counts["fdatasync"] // 2 + 1):
        place = tmp_path / f"early-{when}"
        done = run_child(place, "early", inject=f"fdatasync:signal=SIGKILL:when={when}")
        lost += await books_of(Harness("lmdb", place), done.stdout)
    assert any("is lost" in each for each in lost), "the test cannot see a loss"


@needs_strace
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
async def test_after_a_disk_error_nothing_more_is_promised(tmp_path: Path, call: str) -> None:
    when = calls_of(tmp_path)[call] * 3 // 4
    place = tmp_path / "data"
    # Only this one fails: the library itself would go on with the next commit.
    done = run_child(place, inject=f"{call}:error=EIO:when={when}")
    assert done.returncode == 3, done.stderr
    assert b"could not commit" in done.stderr
    kept = done.stdout.count(b"kept")
    assert 0 < kept < ROUNDS
    assert await books_of(Harness("lmdb", place), done.stdout) == []


async def test_a_disk_that_is_full_ends_it_and_loses_nothing(tmp_path: Path) -> None:
    whole = run_child(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    size = (tmp_path / "whole" / "spool" / "data.mdb").stat().st_size
    place = tmp_path / "data"
    # A file that may not grow is the nearest thing to a full disk that needs no rights.
    done = run_child(place, file_octets_max=size - 16 * 1024)
    assert done.returncode == 3, done.stderr
    assert b"could not commit" in done.stderr
    assert 0 < done.stdout.count(b"kept") < ROUNDS
    assert await books_of(Harness("lmdb", place), done.stdout) == []
