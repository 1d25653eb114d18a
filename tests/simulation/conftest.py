"""Which seeds are run: a few by default, one by `--seed`, many by `--seeds`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spool.harness import data_directory

# A few of each kind of span; more of the model, because it costs a third of the other.
SEEDS: dict[str, tuple[int, ...]] = {"memory:": (0, 1, 2, 4, 6), "lmdb:": (1, 2)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="simulate this seed only")
    parser.addoption("--seeds", type=int, help="simulate so many seeds, from 0")


def seeds_of(config: pytest.Config, url: str) -> list[int]:
    """Return the seeds for an adapter. The options exist if this directory was named."""
    one, many = config.getoption("--seed", None), config.getoption("--seeds", None)
    if one is not None:
        return [one]
    return list(range(many) if many is not None else SEEDS[url])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"seed", "url"} <= set(metafunc.fixturenames):
        runs = [(seed, url) for url in SEEDS for seed in seeds_of(metafunc.config, url)]
        names = [f"{url.rstrip(':')}-{seed}" for seed, url in runs]
        metafunc.parametrize(("seed", "url"), runs, ids=names)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # In memory: what a crash leaves there is what was committed, and no more is asked here.
    with data_directory() as path:
        yield path / "data"
