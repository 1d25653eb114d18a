"""What an engine takes up while it runs, and whether that grows.

Memory, descriptors, threads and disk. A slope is a straight line through all samples of one life
but the first third, in which caches fill and the interpreter finds its size.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from engine.rehearsal.engine_process import EngineProcess

WARM_UP_SHARE: Final = 1 / 3
SAMPLES_MIN: Final = 12
HOUR_S: Final = 3600.0
MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One look; `handled` counts the mails that had their end by then."""

    at_s: float
    memory: int
    descriptors: int
    threads: int
    disk: int
    handled: int


@dataclass(frozen=True, slots=True)
class Growth:
    """One figure over a life: where it stood in the middle of the samples, and its slope."""

    name: str
    typical: float
    per_hour: float
    rise: float  # from the first half's mean to the second's
    fifths: tuple[float, ...]  # the means of each: what fills up bends, what leaks does not

    def text(self) -> str:
        unit, by = (" MB", MB) if self.name in ("memory", "disk") else ("", 1)
        fifths = ", ".join(f"{each / by:.1f}" for each in self.fifths)
        return (
            f"{self.name} {self.typical / by:.1f}{unit}, {self.per_hour / by:+.1f}{unit}/h, "
            f"second half {self.rise / by:+.2f}{unit}, by fifths {fifths}"
        )


# What a second half may have more than the first: the noise of a life of some minutes.
RISE_MAX: Final = {"memory": 6 * MB, "descriptors": 25, "threads": 6, "disk": 12 * MB}


def sample(engine: EngineProcess, handled: int) -> Sample | None:
    """Look at a running engine; None if it ended meanwhile."""
    try:
        process = Path(f"/proc/{engine.pid}")
        return Sample(
            time.monotonic(),
            engine.private_bytes(),
            len(os.listdir(process / "fd")),
            len(os.listdir(process / "task")),
            _disk_octets(engine.directory / "data"),
            handled,
        )
    except (OSError, AssertionError):
        return None


def growth_of(samples: Sequence[Sample]) -> list[Growth]:
    """Return the growth of each figure after the warm-up; nothing if the life was too short."""
    kept = samples[round(len(samples) * WARM_UP_SHARE) :]
    if len(kept) < SAMPLES_MIN:
        return []
    return [
        _growth(name, [(each.at_s, float(getattr(each, name))) for each in kept])
        for name in RISE_MAX
    ]


def faults_of(growths: Sequence[Growth]) -> list[str]:
    """Return what grows by more than noise."""
    return [f"grows: {each.text()}" for each in growths if each.rise > RISE_MAX[each.name]]


def _growth(name: str, points: Sequence[tuple[float, float]]) -> Growth:
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    half = count // 2
    first = sum(y for _, y in points[:half]) / half
    second = sum(y for _, y in points[-half:]) / half
    edges = [count * each // 5 for each in range(6)]
    fifths = tuple(
        sum(y for _, y in points[begin:end]) / (end - begin) for begin, end in pairwise(edges)
    )
    typical = sorted(y for _, y in points)[half]
    return Growth(name, typical, slope * HOUR_S, second - first, fifths)


def _disk_octets(directory: Path) -> int:
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(Path(place) / name).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
