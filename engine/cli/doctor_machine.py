"""The doctor's look at the machine: files, disk, clock, descriptors, and the HTTP port.

Each check is a function of what it looks at, and none changes anything.
"""

import ctypes
import http.client
import os
import resource
import socket
import ssl
import stat
from pathlib import Path
from pwd import getpwuid
from typing import Any, Final

import msgspec

from engine.cli.findings import Finding, fault, ok, warning
from engine.config import Config, ConfigError
from engine.delivery.slots import CONNECTIONS_MAX
from engine.http_server import HttpSettings
from engine.shaping.lint import idle_routes
from engine.shaping.loading import load_book, placed_routes

# adjtimex(2): what it returns while nothing keeps the clock right.
TIME_ERROR: Final = 5
# Larger than `struct timex` is anywhere (208 octets on 64-bit Linux); zeros mean "only tell".
TIMEX_OCTETS: Final = 512
PORT_S_MAX: Final = 10.0
# All connections that the port and the deliveries may have, and some files.
DESCRIPTORS_WANTED: Final = HttpSettings().connections_max + CONNECTIONS_MAX + 200
DESCRIPTORS_MIN: Final = 1024
# The clock's steps are smaller than this where it is kept right.
AHEAD_MS_MAX: Final = 2_000


def check_configuration(config: Config) -> Finding:
    """The file has been read by now; the files that it names have not."""
    name = "configuration"
    try:
        book = load_book(config)
    except ConfigError as error:
        return fault(name, str(error), "Correct that file; `eilpost shaping lint` checks it.")
    source = config.loaded_from or "no file, the defaults"
    return ok(name, f"{source}; {len(book.rules)} rules, {len(book.reactions)} reactions")


def check_routes(config: Config) -> Finding:
    """Say whether each route can be taken by some mail."""
    name = "routes"
    idle = idle_routes(placed_routes(config))
    if not idle:
        return ok(name, f"{len(config.routes)}, and each can be taken" if config.routes else "none")
    advice = "The first match wins: put the narrower route first, or take out what is not needed."
    return warning(name, "; ".join(map(str, idle)), advice)


def check_data_dir(path: Path) -> Finding:
    """Say whether the directory is ours and closed to others, with what has secrets in it."""
    name = "data directory"
    try:
        found = path.stat()
    except FileNotFoundError:
        return warning(name, f"{path} is not there", "`eilpost serve` makes it at its first start.")
    except OSError as error:
        return fault(name, f"{path}: {error.strerror}", "Run this as the engine's user.")
    if not stat.S_ISDIR(found.st_mode):
        return fault(name, f"{path} is no directory", "Set data_dir to one.")
    if found.st_uid != os.geteuid():
        owner = _user_name(found.st_uid)
        return fault(
            name,
            f"{path} belongs to {owner}, this runs as {_user_name(os.geteuid())}",
            f"Run this and the engine as {owner}, or give the directory to another user.",
        )
    if found.st_mode & 0o022:
        return fault(
            name,
            f"{path} can be changed by others (mode {stat.S_IMODE(found.st_mode):o})",
            f"chmod 700 {path}",
        )
    for file in (path / "operator.key", path / "spool" / "data.mdb"):
        if file.exists() and file.stat().st_mode & 0o077:
            return fault(name, f"{file} is open to others", f"chmod 600 {file}")
    if found.st_mode & 0o055:
        mode = f"{stat.S_IMODE(found.st_mode):o}"
        return warning(name, f"{path} can be listed by others (mode {mode})", f"chmod 700 {path}")
    return ok(name, str(path))


def check_disk(path: Path, free_bytes_min: int) -> Finding:
    """Compare the room beside the spool with the mark below which no mail is taken."""
    name = "disk"
    there = next(each for each in (path, *path.resolve().parents) if each.exists())
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    found = f"{_size(free)} free, intake closes below {_size(free_bytes_min)}"
    if free < free_bytes_min:
        return fault(name, found, f"Make room on the disk of {there}: new mail is refused.")
    if free < 2 * free_bytes_min:
        return warning(name, found, f"Make room on the disk of {there}.")
    return ok(name, found)


def _size(octets: int) -> str:
    # Where it matters there are megabytes left, and "0.0 GB" is as good as nothing.
    return f"{octets / 1e9:,.1f} GB" if octets >= 1e9 else f"{octets / 1e6:,.0f} MB"


def clock_state() -> int:
    """Return what the kernel says of its clock, as adjtimex(2) does; -1 if it says nothing."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_OCTETS))
    except AttributeError:
        return -1  # A C library without it.
    return state


def check_clock(state: int) -> Finding:
    name = "clock"
    if state == TIME_ERROR:
        return warning(
            name,
            "not synchronised",
            "timedatectl set-ntp true, or install chrony: retries and dates go by this clock.",
        )
    if state < 0:
        return warning(name, "the kernel does not say", "Compare `date --utc` with a good clock.")
    return ok(name, "synchronised")


def check_stamp(ahead_ms: int) -> Finding:
    """`ahead_ms` is how far the spool's time is before wall time."""
    name = "spool's time"
    if ahead_ms > AHEAD_MS_MAX:
        return warning(
            name,
            f"{ahead_ms / 1000:,.0f} s ahead of the clock, which was set back",
            "Nothing is lost and it levels out by itself; see that the clock is synchronised.",
        )
    return ok(name, "level with the clock")


def descriptors_max(lock: Path | None) -> int:
    """Return the hard limit of the process that a lock file names, or of this one without it."""
    try:
        pid = int(lock.read_text()) if lock else os.getpid()
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except (OSError, ValueError):
        return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    [hard] = [line.split()[4] for line in limits if line.startswith("Max open files")]
    return resource.RLIM_INFINITY if hard == "unlimited" else int(hard)


def check_descriptors(limit: int) -> Finding:
    name = "file descriptors"
    if limit == resource.RLIM_INFINITY:
        return ok(name, "no limit")
    advice = f"LimitNOFILE={DESCRIPTORS_WANTED} in the unit file, or ulimit -Hn before the start."
    found = f"{limit:,} at most, {DESCRIPTORS_WANTED:,} wanted"
    if limit < DESCRIPTORS_MIN:
        return fault(name, found, advice)
    return warning(name, found, advice) if limit < DESCRIPTORS_WANTED else ok(name, found)


def check_port(config: Config, *, is_running: bool) -> Finding:
    """Ask the running engine at its port, or see whether a start would get it."""
    name, listen = "HTTP port", config.http.listen
    if listen.port == 0:
        return ok(name, f"{listen}: any port that is free, so there is none to look at")
    if not is_running:
        return _check_free(name, config)
    try:
        status, _ = _ask_port(config, "/healthz")
        if status != 200:
            raise ConnectionError(f"/healthz answers {status}")
        status, answer = _ask_port(config, "/readyz")
    except (OSError, http.client.HTTPException) as error:
        return fault(
            name,
            f"{listen}: {str(error) or type(error).__name__}",
            "The engine runs and its port does not answer: look for a firewall, then in its log.",
        )
    if status == 200:
        return ok(name, f"{listen}: alive and ready")
    missing = "; ".join(map(str, answer.get("missing", ()))) or f"/readyz answers {status}"
    return fault(name, f"{listen}: not ready: {missing}", "See to what is named, or wait for it.")


def _check_free(name: str, config: Config) -> Finding:
    listen = config.http.listen
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family) as trial:
        # As the server does it: what the last run left in TIME_WAIT is no reason.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((listen.host, listen.port))
            trial.listen(1)
        except OSError as error:
            advice = f"`ss -ltnp sport = {listen.port}` names who has it; or set [http] listen."
            return fault(name, f"{listen}: {error.strerror}", advice)
    return ok(name, f"{listen} is free; the engine is stopped")


def _ask_port(config: Config, path: str) -> tuple[int, dict[str, Any]]:
    listen = config.http.listen
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    connection: http.client.HTTPConnection
    if config.http.tls_certificate is None:
        connection = http.client.HTTPConnection(host, listen.port, timeout=PORT_S_MAX)
    else:
        # The certificate is for the public name, and this is the way around it.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            host, listen.port, timeout=PORT_S_MAX, context=context
        )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        octets = response.read()
    finally:
        connection.close()
    try:
        return response.status, msgspec.json.decode(octets, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConnectionError(f"{path}: somebody else answers there") from error


def _user_name(uid: int) -> str:
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
