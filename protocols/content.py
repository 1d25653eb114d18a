r"""Content on the wire: line ends, dot transparency, the final dot (RFC 5321 4.5.2).

Works on whole contents with a few passes in C; a loop over lines would cost more
than all the rest of a delivery. Nothing is repaired: a content with a bare CR or
LF is refused, because some receivers end a mail at `\n.\n` and would read what
follows as commands, and because a signature covers the octets as they are.
"""

from typing import Final

FINAL_DOT: Final = b".\r\n"
END_OF_CONTENT: Final = b"\r\n.\r\n"


def has_bare_line_ending(content: bytes) -> bool:
    """Whether a CR or LF stands in `content` without the other."""
    # What is left without the pairs has none of either. A third of the time that it takes to count
    # CRs, LFs and pairs, and it is done for every mail.
    rest = content.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


def to_wire(content: bytes) -> bytes:
    """Return `content` dot-stuffed and ended with CRLF, without the final dot.

    A missing last CRLF is added, as RFC 5321 4.1.1.4 wants, and never a second
    one. The caller has made sure that `has_bare_line_ending` is False.
    """
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    return content


def from_wire(lines: bytes) -> bytes:
    """Return what `to_wire` was given, from the octets before the final dot."""
    if b"\r\n." in lines:
        lines = lines.replace(b"\r\n.", b"\r\n")
    return lines[1:] if lines.startswith(b".") else lines
