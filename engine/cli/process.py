"""What a long-lived engine asks of its interpreter and of the system, once, before it starts."""

import gc
import logging
import resource
import sys
from typing import Final

# The committer's thread competes with the loop for the interpreter. At the default of 5 ms a busy
# loop let it make one fiftieth of its puts; at half a millisecond neither side loses much.
SWITCH_S: Final = 0.0005
# A full collection looks at every task and record: 95 ms with 20,000 tasks. Ours makes few cycles,
# so it is run seldom, and what was imported is not looked at again.
GC_THRESHOLDS: Final = (50_000, 20, 50)


def prepare_process() -> None:
    """Set log, interpreter and limits. Call it when everything is imported."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("eilpost").setLevel(logging.INFO)
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    # The soft limit is 1,024 on Debian, for programs that use select(2). Ours may have as many
    # connections as the hard one allows.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
