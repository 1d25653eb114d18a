"""What holds for the octets of every mail that we make, and how a stranger reads them."""

import email
import email.policy
from email.message import EmailMessage


def fit_for_the_wire(octets: bytes) -> bytes:
    """Return the octets of a mail, having checked what holds for every one."""
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert octets.isascii()
    assert b"\0" not in octets
    return octets


def read(octets: bytes) -> EmailMessage:
    """Return a mail as the standard library reads it, without defects."""
    parsed = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert all(not part.defects for part in parsed.walk())
    return parsed
