"""The operator's way to the engine: HTTP over `data_dir/control.sock`.

The socket has mode 0600 and asks for no credentials: whoever may open it is the operator. The
routes are those of the HTTP port, with all accounts visible. Plain blocking code, because a command
that asks one question and prints the answer needs no loop. An engine elsewhere is asked the same
questions over its HTTP port, as the account whose keys are given.
"""

import base64
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from engine.config import Config
from engine.http_server.unix_socket import unix_socket_address

# An answer that takes longer than this is a hung engine. Long polls say how long they wait.
ANSWER_S_MAX: Final = 60.0


class EngineStopped(Exception):
    """Nobody listens on the control socket."""


class EngineRefused(Exception):
    """The engine answered with an error; the text is its reason, `answer` all that it said."""

    def __init__(self, text: str, answer: object = None) -> None:
        super().__init__(text)
        self.answer = answer


class EngineBusy(EngineRefused):
    """It refused for now only (503, 429): the same question may be answered in a moment."""


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            with unix_socket_address(self._path) as address:
                self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise


class Asked(Protocol):
    """Whoever answers: the running engine, or the stopped one's spool."""

    def get(self, route: str, **query: object) -> Any:
        """Return the decoded answer; what is None is left out of the query, lists are repeated."""
        ...

    def post(self, route: str, body: object) -> Any:
        """Send `body` as JSON and return the decoded answer."""
        ...

    def delete(self, route: str, **query: object) -> Any:
        """Have what is at `route` removed."""
        ...


def pages(asked: Asked, route: str, items: str, **query: object) -> Iterator[dict[str, Any]]:
    """Go through all pages of a listing and give its items one by one."""
    after: str | None = None
    while True:
        page = asked.get(route, after=after, **query)
        yield from page[items]
        after = page["after"]
        if after is None:
            return


class HttpAsked:
    """An engine asked over one kept connection; `where` names it in errors."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        where: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._connection = connection
        self._where = where
        self._headers = headers or {}

    def get(self, route: str, **query: object) -> Any:
        return self._ask("GET", target_of(route, query), b"")

    def post(self, route: str, body: object) -> Any:
        return self.send(route, msgspec.json.encode(body), "application/json")

    def send(self, route: str, body: bytes, content_type: str) -> Any:
        """Post octets as they are and return the decoded answer."""
        return self._ask("POST", route, body, content_type)

    def delete(self, route: str, **query: object) -> Any:
        return self._ask("DELETE", target_of(route, query), b"")

    def close(self) -> None:
        self._connection.close()

    def _ask(self, method: str, target: str, body: bytes, content_type: str = "") -> Any:
        headers = {**self._headers, **({"Content-Type": content_type} if content_type else {})}
        try:
            self._connection.request(method, target, body, headers)
            response = self._connection.getresponse()
            octets = response.read()
        except (OSError, http.client.HTTPException) as error:
            # What is left of this exchange must not be taken for an answer to the next.
            self._connection.close()
            raise self._fault_of(error) from error
        return decoded(response.status, octets)

    def _fault_of(self, error: OSError | http.client.HTTPException) -> Exception:
        if isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
            return EngineStopped(f"the engine is not running: nobody at {self._where}")
        if isinstance(error, TimeoutError):
            seconds = self._connection.timeout
            return EngineBusy(f"{self._where}: no answer within {seconds:.0f} s")
        if isinstance(error, PermissionError | socket.gaierror | ssl.SSLError):
            return EngineRefused(f"{self._where}: {error.strerror}")
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return EngineStopped(f"the engine ended while it was asked ({why})")


class Control(HttpAsked):
    """One kept connection to the running engine."""

    def __init__(self, path: Path, answer_s_max: float = ANSWER_S_MAX) -> None:
        super().__init__(_SocketConnection(path, answer_s_max), str(path))

    def answers(self) -> bool:
        """Say whether somebody listens."""
        try:
            self._connection.connect()
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise EngineRefused(f"{self._where}: {error.strerror}") from error
        return True


def engine_at(url: str, api_key: str, secret_key: str) -> HttpAsked:
    """Return the way to an engine's HTTP port, as an account. Raises ValueError for no URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is no address like https://mail.example:8620")
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=ANSWER_S_MAX)
    pair = base64.b64encode(f"{api_key}:{secret_key}".encode()).decode()
    return HttpAsked(connection, url, {"Authorization": f"Basic {pair}"})


def target_of(route: str, query: Mapping[str, object]) -> str:
    """Return route and query as a request target."""
    given = {name: value for name, value in query.items() if value is not None}
    return f"{route}?{urlencode(given, doseq=True)}" if given else route


def decoded(status: int, octets: bytes) -> Any:
    """Return an answer's JSON; raises EngineRefused with its reason if it is an error."""
    try:
        answer = msgspec.json.decode(octets) if octets else None
    except msgspec.DecodeError as error:
        raise EngineRefused(f"The engine's answer ({status}) is no JSON.") from error
    if status >= 400:
        fault = answer.get("error", {}) if isinstance(answer, dict) else {}
        kind = EngineBusy if status in (429, 503) else EngineRefused
        raise kind(fault.get("message") or f"the engine answered {status}", answer)
    return answer


def say_if_stopped(asked: Asked) -> None:
    """Say on stderr that whatever the answer is, nothing moves: nobody delivers now."""
    if not isinstance(asked, Control):
        click.echo("The engine is stopped: nothing moves before it is started.", err=True)


@contextmanager
def running_engine(path: Path, answer_s_max: float = ANSWER_S_MAX) -> Iterator[Control]:
    """Open the control socket; raises EngineStopped if nobody listens there."""
    control = Control(path, answer_s_max)
    try:
        yield control
    finally:
        control.close()


@contextmanager
def engine(config: Config, answer_s_max: float = ANSWER_S_MAX) -> Iterator[Asked]:
    """Open the way to the engine of this configuration, whether it runs or not."""
    with running_engine(config.control_socket, answer_s_max) as control:
        if control.answers():
            yield control
            return
    from engine.cli.stopped import StoppedEngine

    yield StoppedEngine(config)
