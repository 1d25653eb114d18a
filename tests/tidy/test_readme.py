"""The README's example, done as it says: files written, commands run, mails received."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.delivery.disposition import UNSETTLED_ENVELOPES_MAX
from tests.tidy.tree import ROOT, tracked_files

README = (ROOT / "README.md").read_text()

# What the README leaves to the reader's eyes: wait until the mails are there, then look again.
AND_THEN = """
until [ "$(grep --count '^Subject: Your order' received.txt)" = 2 ]; do sleep 0.1; done
until [ "$(eilpost events --status delivered --json | wc --lines)" = 4 ]; do sleep 0.1; done
test "$(eilpost queue)" = "No mail is waiting."
kill -TERM %2
wait %2
"""


def blocks(kind: str) -> list[tuple[str, str]]:
    """Return (file name or "", text) of the fenced blocks of one language."""
    found = re.findall(rf"^```{kind}(?: (\S+))?\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [(name, text) for name, text in found]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_the_example_runs_as_it_is_printed(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs Debian package curl")
    ports = {port: free_port() for port in ("8620", "2525")}

    def here(text: str) -> str:
        return re.sub("|".join(ports), lambda found: ports[found[0]], text)

    for name, text in [*blocks("toml"), *blocks("python"), *blocks("csv")]:
        (tmp_path / name).write_text(here(text))
    # The example leaves the ports at their defaults; another engine may have them here.
    with (tmp_path / "eilpost.toml").open("a") as file:
        file.write(f'[http]\nlisten = "127.0.0.1:{ports["8620"]}"\n')
        file.write(f'[smtp]\nlisten = "127.0.0.1:{free_port()}"\n')
    script = "\n".join(
        ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
        + [here(text) for _, text in blocks("sh")]
        + [AND_THEN]
    )
    done = subprocess.run(
        # It signals the whole group, so that an example that hangs leaves nobody behind.
        ["timeout", "60", "bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    received = (tmp_path / "received.txt").read_text()
    assert "To: Ann <ann@example.test>" in received
    assert "It is on its way." in received
    assert "Dear customer,\nyour discount is 15 percent." in received.replace("\r\n", "\n")
    assert '"Status": "success"' in done.stdout.replace("'", '"')


def test_the_first_screen_has_the_two_commands() -> None:
    first_screen = README.splitlines()[:20]
    assert any(line.startswith("tools/demo") for line in first_screen)
    assert any(line.startswith("tools/test") for line in first_screen)


def test_the_published_bound_is_the_one_in_force() -> None:
    assert f"At most {UNSETTLED_ENVELOPES_MAX:,} mails" in README


def test_what_documents_link_to_is_there() -> None:
    missing = [
        f"{file}: {target}"
        for file in tracked_files()
        if file.suffix == ".md"
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / file).read_text())
        if not (ROOT / file.parent / target).exists()
    ]
    assert missing == []


def test_the_fault_that_the_readme_shows_is_the_one_that_comes(tmp_path: Path) -> None:
    (tmp_path / "eilpost.toml").write_text("[delivery]\nretry_s = [300, 600, -1]\n")
    command = [str(Path(sys.executable).parent / "eilpost"), "serve"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"$ eilpost serve\n{done.stderr.rstrip()}\n" in README
