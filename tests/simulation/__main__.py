"""Run one seed, print its trace and its faults: `python -m tests.simulation SEED [lmdb:]`."""

import sys

from tests.simulation.law import faults_of
from tests.simulation.run import simulate
from tests.spool.harness import data_directory


def main() -> int:
    seed, url = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "memory:"
    with data_directory() as path:
        seen = simulate(seed, url, path / "data")
    faults = faults_of(seen)
    sys.stdout.write("".join(f"{line}\n" for line in (seen.trace, *faults)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
