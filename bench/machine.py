"""Where a figure was measured: the machine, the versions, and what the disk charges.

A rate means nothing without these, so every answer prints them.
"""

import importlib.metadata
import os
import platform
import resource
import statistics
import sysconfig
import time
from pathlib import Path

# A median over this many is steady to a tenth, and costs half a second on a slow disk.
FDATASYNC_SAMPLES = 50


def describe(directory: Path) -> dict[str, object]:
    """Return what a reader needs to judge a figure; `directory` is where the spool is."""
    load, _, _ = os.getloadavg()
    return {
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_gb()} GB, "
        f"Linux {platform.release()}, load {load:.1f} at the start",
        "versions": f"Python {platform.python_version()} ({_python_build()}), "
        + ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("trio", "lmdb", "msgspec", "eilpost")
        ),
        "disk": f"{_file_system(directory)}, fdatasync {fdatasync_ms(directory):.2f} ms (median)",
        "open_files_max": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def fdatasync_ms(directory: Path) -> float:
    """Return the median cost of making 16 KiB durable in `directory`."""
    path = directory / "fdatasync.probe"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    costs: list[float] = []
    try:
        for index in range(FDATASYNC_SAMPLES):
            os.pwrite(descriptor, os.urandom(16384), index * 16384)
            started = time.perf_counter()
            os.fdatasync(descriptor)
            costs.append((time.perf_counter() - started) * 1000)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(costs)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def _python_build() -> str:
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return "PGO" if optimised else "no PGO"


def _file_system(directory: Path) -> str:
    """Return the type of the file system that holds `directory`: the longest mount above it."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split(" ")
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]
