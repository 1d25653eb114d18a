"""The engine with one figure changed: what is finished is forgotten after minutes, not a month.

For the soak: what an engine keeps on purpose must not look like what it fails to give back.
`python -m tests.scenarios.short_memory` takes the words of `eilpost`.
"""

from dataclasses import replace

from engine import compose
from engine.cli import main
from engine.config import Config
from engine.spool.interface import SpoolSettings

KEPT_MS = 180_000

if __name__ == "__main__":
    settings_of = compose.spool_settings

    def spool_settings(config: Config) -> SpoolSettings:
        return replace(settings_of(config), finished_retention_ms=KEPT_MS)

    setattr(compose, "spool_settings", spool_settings)  # noqa: B010 - the figure that is changed
    main()
