"""Starting an engine that must not come up."""

import subprocess
from typing import Final

from engine.rehearsal.engine_process import COMMAND, EngineProcess

REFUSED_S_MAX: Final = 60


def refusal_of(engine: EngineProcess, *arguments: str) -> str:
    """Start `engine`; return what it says, which is one line, with exit status 1."""
    command = [*COMMAND, *(arguments or ("serve", "--config", str(engine.config_path)))]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=REFUSED_S_MAX, check=False
    )
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, done.stderr
    # Besides the error there may be a warning of what was looked at for it.
    assert all(" WARNING " in line for line in lines if line not in errors), done.stderr
    return errors[0]
