"""A real Postfix with its default parameters at the other end.

Debian 12's takes several false ends of content for true ones when they come over
the wire: it shows what would happen if a bare CR or LF ever left us.
"""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from engine.delivery.connection import Connection
from engine.delivery.target import Target, TlsContexts
from protocols.outcomes import Bounced, Deferred, Delivered, Outcome
from protocols.records import Reason
from protocols.smtp_client import Transaction
from protocols.transactions import TlsPolicy
from tests.delivery.peers import Work

pytestmark = pytest.mark.slow

POSTFIX = shutil.which("postfix") or "/usr/sbin/postfix"
MASTER_LINES = Path("/usr/share/postfix/master.cf.dist")

START_TRIES_MAX = 3


class Postfix:
    """A running instance: its port, and the mails in its one mailbox."""

    def __init__(self, directory: Path, config: Path, port: int) -> None:
        self.port = port
        self._config = config
        self.log = directory / "log"
        self._new = directory / "mail" / "inbox" / "new"

    def mails(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self._new.glob("*"))]

    def takes_bare_line_ends(self) -> bool:
        asked = ["postconf", "-c", str(self._config), "-h", "smtpd_forbid_bare_newline"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        return said.strip() == "no"

    async def wait_for_mails(self, marker: bytes, count: int) -> list[bytes]:
        """Return the mails that contain `marker` once there are `count`."""
        with trio.move_on_after(20):
            while True:
                found = [mail for mail in self.mails() if marker in mail]
                if len(found) >= count:
                    return found
                await trio.sleep(0.02)
        raise AssertionError(self.log.read_text()[-3000:])


def write_configuration(directory: Path, port: int) -> Path:
    config = directory / "etc"
    for name in ("etc", "queue", "data", "mail"):
        (directory / name).mkdir()
    nobody = pwd.getpwnam("nobody")
    shutil.chown(directory / "data", "postfix")
    os.chown(directory / "mail", nobody.pw_uid, nobody.pw_gid)
    parameters = {
        "compatibility_level": "3.6",
        "queue_directory": directory / "queue",
        "data_directory": directory / "data",
        "maillog_file": directory / "log",
        "maillog_file_prefixes": directory,
        "myhostname": "mx.example",
        "mydestination": "",
        "mynetworks": "192.0.2.0/24",  # we are a stranger to it, not a local client
        "inet_interfaces": "127.0.0.1",
        "alias_maps": "",
        "virtual_mailbox_domains": "mx.example",
        "virtual_mailbox_maps": f"regexp:{config / 'mailboxes'}",
        "virtual_mailbox_base": directory / "mail",
        "virtual_uid_maps": f"static:{nobody.pw_uid}",
        "virtual_gid_maps": f"static:{nobody.pw_gid}",
    }
    text = "".join(f"{name} = {value}\n" for name, value in parameters.items())
    (config / "main.cf").write_text(text)
    (config / "mailboxes").write_text("/^user.*@mx\\.example$/ inbox/\n")
    lines = []
    for line in MASTER_LINES.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 8 and not line.startswith(("#", " ")):
            fields[4] = "n"  # no chroot: this one has no copies of system files
            if fields[:2] == ["smtp", "inet"]:
                fields[0] = f"127.0.0.1:{port}"
            line = " ".join(fields)
        lines.append(line)
    (config / "master.cf").write_text("\n".join(lines) + "\n")
    return config


def start_postfix(directory: Path) -> tuple[list[str], Postfix]:
    """Start an instance; return its command and itself."""
    said = ""
    for attempt in range(START_TRIES_MAX):
        # A port that was free a moment ago may be taken when Postfix comes to it.
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port: int = sock.getsockname()[1]
        place = directory / str(attempt)
        place.mkdir()
        config = write_configuration(place, port)
        command = [POSTFIX, "-c", str(config)]
        started = subprocess.run([*command, "start"], capture_output=True, text=True, check=False)
        if started.returncode == 0:
            return command, Postfix(place, config, port)
        said = started.stderr
    raise AssertionError(said)


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    if not os.access(POSTFIX, os.X_OK) or not MASTER_LINES.exists():
        pytest.skip("needs Debian package postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix can only be started by root")
    directory = tmp_path_factory.mktemp("postfix")
    # Its processes run as other users and have to find their way in.
    for above in (directory, directory.parent, directory.parent.parent):
        above.chmod(0o755)
    command, running = start_postfix(directory)
    try:
        yield running
    finally:
        subprocess.run([*command, "stop"], capture_output=True, check=False)


async def deliver(postfix: Postfix, *transactions: Transaction) -> dict[int, Outcome]:
    place = Target(
        "mx.example", "127.0.0.1", postfix.port, "out.example", tls=TlsPolicy.OPPORTUNISTIC
    )
    with trio.fail_after(30):
        connection = await Connection.open(place, tls_contexts=TlsContexts())
        assert isinstance(connection, Connection), connection
        work = Work(*transactions)
        await connection.deliver(work.next, work.report)
        await connection.quit()
    return work.outcomes


def mail(number: int, content: bytes, *recipients: str) -> Transaction:
    names = recipients or (f"user{number}@mx.example",)
    pairs = [(number + i, name) for i, name in enumerate(names)]
    return Transaction("me@out.example", pairs, content)


async def test_mail_arrives_with_its_dots(postfix: Postfix) -> None:
    body = b".\r\n..\r\n...x\r\n\r\n.\r\nend"
    content = b"Subject: dots-marker\r\n\r\n" + body
    outcomes = await deliver(postfix, *(mail(number, content) for number in range(20)))
    assert len(outcomes) == 20
    for outcome in outcomes.values():
        assert isinstance(outcome, Delivered)
        assert outcome.reply.startswith("250 2.0.0 Ok: queued as")
    arrived = await postfix.wait_for_mails(b"dots-marker", 20)
    expected = body.replace(b"\r\n", b"\n") + b"\n"
    assert all(one.endswith(b"\n\n" + expected) for one in arrived)


async def test_an_unknown_user_among_known_ones(postfix: Postfix) -> None:
    content = b"Subject: among-marker\r\n\r\nx\r\n"
    outcomes = await deliver(
        postfix, mail(1, content, "user1@mx.example", "nobody@mx.example", "user3@mx.example")
    )
    assert isinstance(outcomes[1], Delivered)
    assert isinstance(outcomes[3], Delivered)
    refused = outcomes[2]
    assert isinstance(refused, Bounced)
    assert (refused.reason, refused.is_hard) == (Reason.UNKNOWN_USER, True)
    assert refused.enhanced_status_code == "5.1.1"


async def test_all_recipients_refused_does_not_disturb_the_next(postfix: Postfix) -> None:
    content = b"Subject: next-marker\r\n\r\nx\r\n"
    outcomes = await deliver(
        postfix,
        mail(1, content, "nobody@mx.example", "none@mx.example"),
        mail(3, content, "someone@relay.example"),
        mail(4, content),
    )
    assert isinstance(outcomes[1], Bounced)
    assert isinstance(outcomes[2], Bounced)
    # Its default is 454 for strangers who want to relay.
    denied = outcomes[3]
    assert isinstance(denied, Deferred)
    assert denied.reason is Reason.RELAY_DENIED
    assert isinstance(outcomes[4], Delivered)


SMUGGLED = (
    b"MAIL FROM:<evil@out.example>\r\nRCPT TO:<user9@mx.example>\r\nDATA\r\n"
    b"Subject: smuggled-%b\r\n\r\nforged\r\n.\r\n"
)
FALSE_ENDS = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n"]


def say_raw(port: int, *groups: bytes) -> None:
    """Speak without a client that would look at line ends, and read until the server leaves."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.recv(1000)
        for group in groups[:-1]:
            sock.sendall(group)
            sock.recv(1000)
        sock.sendall(groups[-1])
        while sock.recv(1000):
            pass


async def test_no_false_end_of_content_leaves_us(postfix: Postfix) -> None:
    transactions = []
    for number, end in enumerate(FALSE_ENDS):
        content = b"Subject: outer-marker\r\n\r\nx" + end + SMUGGLED % b"ours"
        transactions.append(mail(number, content))
    # The true end is stuffed and arrives as text.
    stuffed = b"Subject: stuffed-marker\r\n\r\nx\r\n.\r\n" + SMUGGLED % b"ours"
    outcomes = await deliver(postfix, *transactions, mail(99, stuffed))
    assert isinstance(outcomes.pop(99), Delivered)
    for outcome in outcomes.values():
        assert isinstance(outcome, Bounced)
        assert outcome.enhanced_status_code == "5.6.0"
    [arrived] = await postfix.wait_for_mails(b"stuffed-marker", 1)
    assert b"\n.\nMAIL FROM:<evil@out.example>\n" in arrived
    # It has one envelope, ours: nothing was delivered in the name of the forged sender.
    assert not any(one.startswith(b"Return-Path: <evil@") for one in postfix.mails())


async def test_the_control_such_a_content_would_be_two_mails(postfix: Postfix) -> None:
    if not postfix.takes_bare_line_ends():
        pytest.skip("this Postfix refuses bare line ends by default, so it cannot be the control")
    say_raw(
        postfix.port,
        b"EHLO out.example\r\n",
        b"MAIL FROM:<me@out.example>\r\nRCPT TO:<user8@mx.example>\r\nDATA\r\n",
        b"Subject: control\r\n\r\nx\n.\n" + SMUGGLED % b"control" + b"QUIT\r\n",
    )
    arrived = await postfix.wait_for_mails(b"smuggled-control", 1)
    assert any(one.startswith(b"Return-Path: <evil@out.example>") for one in arrived)
