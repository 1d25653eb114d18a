"""A Postfix of our own beside the engine: its configuration, its start, its cost.

Tuned for bulk as its manual advises: more delivery agents and connections, a large
active queue, kept connections, no throttle on intake, no name look-ups. Its queue
is as durable as packaged. It needs root, as Postfix does.
"""

import os
import shutil
import smtplib
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.children import Sink
from bench.name_server import ZONE
from bench.prefill import content_of
from engine.rehearsal.engine_process import EngineFailed, free_port

MAIN = """
compatibility_level = 3.6
queue_directory = {place}/queue
data_directory = {place}/data
maillog_file_prefixes = {place}
maillog_file = {place}/log
mail_owner = postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = out.example
mydestination =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
transport_maps = texthash:{place}/transport
smtp_tls_security_level = none
default_process_limit = 200
qmgr_message_active_limit = 60000
qmgr_message_recipient_limit = 60000
default_destination_concurrency_limit = 20
initial_destination_concurrency = 10
smtp_connection_cache_on_demand = yes
smtp_connection_reuse_time_limit = 300s
in_flow_delay = 0
"""

MASTER = """
{listen} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""

START_S_MAX = 20.0
# As many SMTP sessions as its default client limit would let one sender have.
SESSIONS = 20


class Postfix:
    """One instance below `place`; obtained from `running`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = free_port()

    def cpu_s(self) -> float:
        """Return the CPU seconds of master and of all it started, those that ended included."""
        master = int((self.place / "queue/pid/master.pid").read_text())
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                head, _, rest = path.read_text().rpartition(") ")
            except OSError:
                continue
            fields = rest.split()
            if int(head.split()[0]) == master or int(fields[1]) == master:
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def hand_in(self, *, messages: int, destinations: int, octets: int) -> None:
        """Send so many mails over several SMTP sessions. Raises EngineFailed if one is refused."""
        content = content_of(octets)
        numbers = iter(range(messages))
        lock = threading.Lock()
        faults: list[str] = []

        def send() -> None:
            try:
                with smtplib.SMTP("127.0.0.1", self.port, "out.example") as client:
                    while not faults:
                        with lock:
                            number = next(numbers, None)
                        if number is None:
                            return
                        to = f"r{number}@d{number % destinations}.good.{ZONE}"
                        client.sendmail("bench@out.example", [to], content)
            except (OSError, smtplib.SMTPException) as error:
                faults.append(str(error))

        threads = [threading.Thread(target=send) for _ in range(SESSIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise EngineFailed(f"Postfix refused: {faults[0]}")


@contextmanager
def running(place: Path, sink: Sink, destinations: int) -> Iterator[Postfix]:
    """Start a Postfix that sends each destination's mail to its address at `sink`."""
    if shutil.which("postfix") is None or os.geteuid() != 0:
        raise EngineFailed("needs Debian package postfix, and root")
    place.mkdir(parents=True)
    # The daemons run as their own user and have to get here; ours to open are two levels.
    for parent in (place, place.parent):
        parent.chmod(0o755)
    for parent in place.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            raise EngineFailed(f"Postfix' own user cannot enter {parent}; give another --data-dir")
    postfix = Postfix(place)
    (place / "main.cf").write_text(MAIN.format(place=place))
    (place / "master.cf").write_text(MASTER.format(listen=f"127.0.0.1:{postfix.port}"))
    first = [int(part) for part in sink.address.split(".")]
    with (place / "transport").open("w") as transport:
        for number in range(destinations):
            last = first[3] + number % sink.hosts
            address = f"{first[0]}.{first[1]}.{first[2] + last // 256}.{last % 256}"
            transport.write(f"d{number}.good.{ZONE} smtp:[{address}]:{sink.port}\n")
    (place / "queue").mkdir()
    (place / "data").mkdir()
    shutil.chown(place / "data", "postfix")
    _command(place, "start")
    try:
        _wait_for_port(postfix)
        yield postfix
    finally:
        _command(place, "stop")


def _command(place: Path, verb: str) -> None:
    done = subprocess.run(
        ["postfix", "-c", str(place), verb], capture_output=True, text=True, check=False
    )
    if done.returncode:
        log = place / "log"
        text = log.read_text()[-500:] if log.exists() else ""
        raise EngineFailed(f"postfix {verb}: {done.stderr.strip()} {text}")


def _wait_for_port(postfix: Postfix) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            with smtplib.SMTP("127.0.0.1", postfix.port, "out.example"):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise EngineFailed("Postfix does not listen") from None
            time.sleep(0.05)
