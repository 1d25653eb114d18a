"""Whose fault it was: the two ways in which a protocol can be broken.

Different people must act on them, so they are different classes. The base is
there to be caught, never to be raised.
"""


class ProtocolError(Exception):
    """Somebody broke the rules of the protocol."""


class LocalProtocolError(ProtocolError):
    """We asked for something illegal here: a bug in this program."""


class RemoteProtocolError(ProtocolError):
    """The peer said something illegal here: close, defer, try elsewhere."""
