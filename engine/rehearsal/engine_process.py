"""A real engine in a process of its own, as a user would start it.

Owns starting, waiting until it is ready, stopping, killing, and reading what it
costs. It knows the engine by its outside faces only: the configuration file, the
command line, HTTP and /proc. Calls block; a caller on trio makes them in a thread.
"""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# The console script may not be on the path of whoever runs a rehearsal; its function is.
COMMAND = (sys.executable, "-c", "from engine.cli import main; main()")
# A spool of a million envelopes opens in a second; a machine under load takes its time.
READY_S_MAX = 60.0
STOP_S_MAX = 30.0
POLL_S = 0.01


class EngineFailed(Exception):
    """The engine did not do what was asked; the text has the end of what it wrote."""


@dataclass(frozen=True, slots=True)
class Credentials:
    account: str
    api_key: str
    secret_key: str

    @property
    def authorization(self) -> str:
        pair = f"{self.api_key}:{self.secret_key}".encode()
        return "Basic " + base64.b64encode(pair).decode()


class EngineProcess:
    """`eilpost serve` with the configuration `toml` in `directory`.

    The caller gives everything but `data_dir` and `[http]`, which point into
    `directory` and at a free port on loopback. `command` is what runs as `eilpost`.
    """

    def __init__(self, directory: Path, toml: str, *, command: Sequence[str] = COMMAND) -> None:
        self.directory = directory
        self.command = command
        self.port = free_port()
        self.config_path = directory / "eilpost.toml"
        self.output_path = directory / "engine.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.config_path.write_text(
            f'data_dir = "data"\n{toml}\n[http]\nlisten = "127.0.0.1:{self.port}"\n'
            f'[smtp]\nlisten = "127.0.0.1:{free_port()}"\n',
            encoding="utf-8",
        )

    @property
    def pid(self) -> int:
        assert self._process is not None, "the engine was not started"
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def operator_url(self) -> str:
        """Return the link that signs in an operator once; `serve` prints it when it is ready."""
        for word in self.output_path.read_text(encoding="utf-8", errors="replace").split():
            if word.startswith(self.url) and "#token=" in word:
                return word
        raise EngineFailed(f"no operator's link in what it wrote: {self._last_words()}")

    def start(self) -> None:
        """Start it without waiting for anything."""
        assert self._process is None, "the engine runs already"
        with self.output_path.open("ab") as output:
            self._process = subprocess.Popen(
                [*self.command, "serve", "--config", str(self.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def wait_until_ready(self) -> None:
        """Wait for /readyz. Raises EngineFailed if the engine ends first or takes too long."""
        deadline_s = time.monotonic() + READY_S_MAX
        client = HttpClient(self.port)
        heard = "nothing"
        while time.monotonic() < deadline_s:
            self.check_alive()
            try:
                status, answer = client.request("GET", "/readyz")
            except OSError as error:
                heard = str(error)
            else:
                client.close()
                if status == 200:
                    return
                heard = f"{status} {answer}"
            time.sleep(POLL_S)
        raise EngineFailed(
            f"not ready after {READY_S_MAX:.0f} s, /readyz: {heard}; {self._last_words()}"
        )

    def check_alive(self) -> None:
        """Raise EngineFailed if it ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            status = self._process.returncode
            self._process = None
            raise EngineFailed(f"the engine ended with {status}: {self._last_words()}")

    def stop(self) -> int:
        """End it the polite way and return its exit status; 0 if it does not run."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            return process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise EngineFailed(f"no end within {STOP_S_MAX:.0f} s of {how.name}") from None

    def run(self, *arguments: str) -> str:
        """Run another `eilpost` command with this configuration; return what it printed."""
        command = [*COMMAND, *arguments, "--config", str(self.config_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineFailed(f"eilpost {' '.join(arguments)}: {done.stderr.strip()[-1000:]}")
        return done.stdout

    def create_account(self, name: str) -> Credentials:
        made = json.loads(self.run("account", "create", name, "--json"))
        return Credentials(name, made["api_key"], made["secret_key"])

    def cpu_s(self) -> float:
        """Return the CPU seconds of the process so far: all threads, and children that ended."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        # proc(5): utime, stime, cutime, cstime are fields 14 to 17; these begin with field 3.
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def private_bytes(self) -> int:
        """Return its memory that is no page cache: anonymous, resident or swapped."""
        anonymous = 0
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Anonymous:", "Swap:")):
                anonymous += int(line.split()[1]) * 1024
        return anonymous

    def _last_words(self) -> str:
        text = self.output_path.read_text(encoding="utf-8", errors="replace")
        return text[-2000:].strip() or "it wrote nothing"


class HttpClient:
    """One kept connection to the engine; `request` returns (status, decoded JSON or text)."""

    def __init__(self, port: int, credentials: Credentials | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"Content-Type": "application/json"}
        if credentials is not None:
            self.headers["Authorization"] = credentials.authorization

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, object]:
        """Raises OSError when the connection fails; the next request opens another."""
        status, kind, octets = self.exchange(method, path, body)
        return status, json.loads(octets) if "json" in kind else octets.decode()

    def exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """Return status, content type and body as they came. Raises OSError like `request`."""
        try:
            self._connection.request(method, path, body, self.headers)
            response = self._connection.getresponse()
            octets = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ConnectionError(str(error)) from error
        return response.status, response.getheader("Content-Type", ""), octets

    def get(self, path: str) -> dict[str, object]:
        """Return the object at `path`. Raises EngineFailed for anything but a 200 with one."""
        status, value = self.request("GET", path)
        if status != 200 or not isinstance(value, dict):
            raise EngineFailed(f"GET {path}: {status} {value!r:.300}")
        return value

    def close(self) -> None:
        self._connection.close()


def status_counts(client: HttpClient, group: str = "") -> dict[str, dict[str, int]]:
    """Return the books: counts by status of each row of `group`, or of the one row "total"."""
    path = "/v1/statistics" + (f"?group={group}" if group else "")
    rows = client.get(path)["rows"]
    assert isinstance(rows, Sequence)
    return {
        row["key"]: {name: n for name, n in row.items() if name not in ("key", "total")}
        for row in rows
    }


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
