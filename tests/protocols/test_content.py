"""Content on the wire: what is stuffed comes back, and no end stands inside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.content import from_wire, has_bare_line_ending, to_wire


@pytest.mark.parametrize(
    ("content", "on_the_wire"),
    [
        (b"", b""),
        (b"a\r\n", b"a\r\n"),
        (b"a", b"a\r\n"),
        (b".", b"..\r\n"),
        (b".\r\n", b"..\r\n"),
        (b"..\r\n", b"...\r\n"),
        (b"\r\n.\r\n", b"\r\n..\r\n"),
        (b".\r\n.\r\n.\r\n", b"..\r\n..\r\n..\r\n"),
        (b"a\r\n.b\r\n", b"a\r\n..b\r\n"),
        (b"\r\n", b"\r\n"),
        (b"a\r\n\r\n", b"a\r\n\r\n"),
    ],
)
def test_dots_and_the_last_line_end(content: bytes, on_the_wire: bytes) -> None:
    assert to_wire(content) == on_the_wire


@pytest.mark.parametrize("edge", [4096, 65536])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_a_dot_at_the_edge_of_a_buffer(edge: int, offset: int) -> None:
    content = b"x" * (edge + offset - 2) + b"\r\n.y\r\n"
    assert from_wire(to_wire(content)) == content


@pytest.mark.parametrize(
    "content",
    [b"\n", b"\r", b"a\n.\n", b"a\r\n.\r", b"\r\r\n", b"\n\r", b"a\nb\rc", b"\r\n\n\r", b"a\rb\n"],
)
def test_bare_line_ends_are_seen(content: bytes) -> None:
    assert has_bare_line_ending(content)


def is_bare(content: bytes) -> bool:
    rest = content.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\x0b", b"\x85"])))
def test_the_fast_check_agrees_with_the_plain_one(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    assert has_bare_line_ending(content) == is_bare(content)


@given(st.lists(st.sampled_from([b"\r\n", b".", b"a", b"..", b"\r\n.\r\n"])))
def test_every_content_comes_back_and_holds_no_end(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    lines = to_wire(content)
    whole = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
    assert from_wire(lines) == whole
    assert b"\r\n.\r\n" not in b"\r\n" + lines
    assert not has_bare_line_ending(lines)
