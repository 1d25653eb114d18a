"""The helpers of a measurement, each in a process of its own that answers in JSON lines.

What the sink, the name server and the subscribers cost must not be counted for
the engine, and must not stop its loop. They end when their standard input does,
so none outlives the bench, however it ends.
"""

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from engine.rehearsal.engine_process import EngineFailed

# Generous: a loaded machine starts an interpreter slowly, and this only ends a bench that hangs.
END_S_MAX = 20.0


class Child:
    """A process that says one JSON line when it is ready and one for each order."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._read()

    def ask(self, order: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.communicate(timeout=END_S_MAX)
            raise EngineFailed(f"a helper ended with {self._process.returncode}, see above")
        value: dict[str, Any] = json.loads(line)
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=END_S_MAX)


class Sink(Child):
    """The sink on `hosts` addresses from `address` on."""

    def __init__(
        self,
        *,
        address: str = "127.1.0.1",
        hosts: int = 1,
        port: int = 0,
        round_trip_ms: int = 0,
        stamps: bool = False,
    ) -> None:
        super().__init__(
            "engine.rehearsal.sink",
            *("--address", address, "--hosts", str(hosts), "--port", str(port)),
            *("--round-trip-ms", str(round_trip_ms)),
            *(["--stamps"] if stamps else []),
        )
        self.address = address
        self.hosts = hosts
        self.port: int = self.ready["port"]

    def report(self) -> dict[str, Any]:
        return self.ask("report")


class NameServer(Child):
    """The bench's DNS for groups of destinations: name -> (first address, hosts)."""

    def __init__(self, groups: dict[str, tuple[str, int]]) -> None:
        texts = [f"{name}={first}+{hosts}" for name, (first, hosts) in groups.items()]
        super().__init__("bench.name_server", *texts)
        self.port: int = self.ready["port"]


class Subscribers(Child):
    """So many subscribers of everything the account may see."""

    def __init__(self, port: int, authorization: str, count: int, *, after: str = "now") -> None:
        super().__init__(
            "bench.subscriber",
            *("--port", str(port), "--authorization", authorization),
            *("--count", str(count), "--after", after),
        )

    def report(self) -> dict[str, Any]:
        return self.ask("report")


class Loader(Child):
    """Hands in mail over HTTP when it is told to `go`; see `bench.loader` for the sizes."""

    def __init__(self, port: int, authorization: str, **sizes: int | str) -> None:
        texts = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
        super().__init__(
            "bench.loader", f"--port={port}", f"--authorization={authorization}", *texts
        )

    def go(self) -> dict[str, Any]:
        """Hand all of it in; return what was accepted and how long it took."""
        return self.ask("go")


class Receiver(Child):
    """A receiver with manners on one address; `traits` are those of `receivers`' command line."""

    def __init__(self, address: str, port: int, **traits: float) -> None:
        texts = [f"--{name.replace('_', '-')}={value}" for name, value in traits.items()]
        super().__init__(
            "engine.rehearsal.receivers", f"--address={address}", f"--port={port}", *texts
        )
