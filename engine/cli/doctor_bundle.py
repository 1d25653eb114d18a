"""`eilpost doctor --bundle`: one file with what explains a message, for whoever gives support.

It holds no keys and no content: secrets are left out of the configuration and of the log, and of
the mail there are addresses, subject and replies, since those are what it is about.
"""

import io
import os
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote

import msgspec

from engine.cli.control import Asked, EngineRefused, engine
from engine.cli.findings import Finding
from engine.cli.options import load
from engine.clock import SystemClock
from engine.config import Config
from protocols.timestamps import time_text

LOG_COMMAND: Final = ("journalctl", "--unit=eilpost", "--lines=1000", "--no-pager", "--quiet")
LOG_S_MAX: Final = 10.0
LOG_BYTES_MAX: Final = 1_000_000
LEFT_OUT: Final = "(left out)"
# `serve` prints the operator's link, and a service manager keeps what it prints.
SECRET_TEXT: Final = re.compile(r"(?P<before>token=|ticket=|://)(?P<secret>[^\s/@&]+)(?P<at>@?)")
SECRET_KEY: Final = re.compile(r"secret|password|passphrase|token", re.IGNORECASE)


def write_bundle(message_id: int, output: str, findings: Iterable[Finding]) -> None:
    """Write the bundle to a new file that only its owner can read.

    Raises EngineRefused if there is no such message, or if the file exists or cannot be made.
    """
    config = load()
    with engine(config) as asked:
        files = {**_of_message(asked, message_id), "configuration.json": _settings(config)}
    files["doctor.json"] = list(findings)
    texts = {name: _json(value) for name, value in files.items()}
    texts["about.txt"] = _about(message_id)
    log = _last_log_lines()
    if log:
        texts["log.txt"] = log
    octets = _archive(texts)
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise EngineRefused(f"{output} is there already: name another --output.") from error
    except OSError as error:
        raise EngineRefused(f"{output}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)


def _of_message(asked: Asked, message_id: int) -> dict[str, object]:
    story = asked.get(f"/v1/messages/{message_id}")
    # The sender's own words to himself: nothing that explains a delivery, and maybe private.
    story["event_payload"] = LEFT_OUT if story["event_payload"] else ""
    domain = quote(story["destination"], safe="")
    return {
        "message.json": story,
        "explain.json": _answer(asked, f"/v1/messages/{message_id}/explain"),
        "destination.json": _answer(asked, f"/v1/destinations/{domain}/explain"),
        "statistics.json": _answer(asked, "/v1/statistics"),
    }


def _answer(asked: Asked, route: str) -> object:
    """Return the answer, or its refusal: a bundle with a hole that is named is better than none."""
    try:
        return asked.get(route)
    except EngineRefused as error:
        return {"refused": str(error)}


def _settings(config: Config) -> object:
    settings: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    return without_secrets({name.strip(): value for name, value in settings.items()})


def without_secrets(value: Any) -> Any:
    """Return the same value with what must not travel left out."""
    if isinstance(value, Mapping):
        return {
            name: LEFT_OUT if SECRET_KEY.search(name) and each else without_secrets(each)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(each) for each in value]
    return without_secret_text(value) if isinstance(value, str) else value


def without_secret_text(text: str) -> str:
    """Leave out tokens, and user and password of URLs."""

    def left_out(found: re.Match[str]) -> str:
        is_plain_host = found["before"] == "://" and not found["at"]
        return found[0] if is_plain_host else f"{found['before']}{LEFT_OUT}{found['at']}"

    return SECRET_TEXT.sub(left_out, text)


def _last_log_lines() -> str:
    """Return what the service manager kept of a unit named `eilpost`, "" where there is none."""
    try:
        done = subprocess.run(
            LOG_COMMAND,
            capture_output=True,
            timeout=LOG_S_MAX,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = done.stdout[-LOG_BYTES_MAX:].decode("utf-8", "replace")
    return without_secret_text(text) if done.returncode == 0 else ""


def _about(message_id: int) -> str:
    now = time_text(SystemClock().now_unix_ms())
    return (
        f"Eilpost {version('eilpost')}, Python {platform.python_version()}, {platform.platform()}\n"
        f"Message {message_id}, {now}\n"
    )


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"


def _archive(texts: Mapping[str, str]) -> bytes:
    octets = io.BytesIO()
    with tarfile.open(fileobj=octets, mode="w:gz") as archive:
        for name, text in sorted(texts.items()):
            member = tarfile.TarInfo(f"eilpost-bundle/{name}")
            body = text.encode()
            member.size, member.mode = len(body), 0o600
            member.mtime = SystemClock().now_unix_ms() // 1000
            archive.addfile(member, io.BytesIO(body))
    return octets.getvalue()
