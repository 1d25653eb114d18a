"""The engine with a small bound on mail that was handed out and is not settled.

`python -m tests.scenarios.small_bound` takes the words of `eilpost`.
"""

from typing import Any

from engine.cli import main
from engine.delivery.disposition import Disposition

UNSETTLED_MAX = 12

if __name__ == "__main__":
    made: Any = Disposition.__init__
    made.__kwdefaults__["unsettled_max"] = UNSETTLED_MAX
    main()
