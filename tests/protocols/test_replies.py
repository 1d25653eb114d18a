"""Reply lines to replies: forms, limits, foreign octets, rubbish."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import RemoteProtocolError
from protocols.replies import (
    REPLY_LINE_OCTETS_MAX,
    REPLY_OCTETS_MAX,
    REPLY_TEXT_CHARACTERS_MAX,
    Reply,
    ReplyParser,
    harmless_text,
    without_mailboxes,
)


def parse(octets: bytes, *, piece: int = 0) -> list[Reply]:
    parser = ReplyParser()
    size = piece or max(1, len(octets))
    replies: list[Reply] = []
    for at in range(0, len(octets), size):
        replies += parser.receive(octets[at : at + size])
    return replies


@pytest.mark.parametrize("piece", [0, 1, 2, 7])
@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"220 mx.example ESMTP\r\n", [Reply(220, "", ("mx.example ESMTP",))]),
        (b"250\r\n", [Reply(250, "", ("",))]),
        (b"250 \r\n", [Reply(250, "", ("",))]),
        (b"550 5.1.1 No such user\r\n", [Reply(550, "5.1.1", ("No such user",))]),
        (b"550 #5.1.0 Rejected\r\n", [Reply(550, "5.1.0", ("Rejected",))]),
        (b"550 5.7.1: no\r\n", [Reply(550, "5.7.1", ("no",))]),
        (b"250 2.0.0\r\n", [Reply(250, "2.0.0", ("",))]),
        (b"554 5.7.1.2 is an address\r\n", [Reply(554, "", ("5.7.1.2 is an address",))]),
        (b"220 10.1.2.3 ready\r\n", [Reply(220, "", ("10.1.2.3 ready",))]),
        (b"571 refused\r\n", [Reply(571, "", ("refused",))]),
        (
            b"550-5.1.1 The account\r\n550-5.1.1 does not exist.\r\n550 5.1.1 See https://x\r\n",
            [Reply(550, "5.1.1", ("The account", "does not exist.", "See https://x"))],
        ),
        (
            b"550-5.7.1 one\r\n550 two\r\n250 2.1.0 Ok\r\n354 go\r\n",
            [
                Reply(550, "5.7.1", ("one", "two")),
                Reply(250, "2.1.0", ("Ok",)),
                Reply(354, "", ("go",)),
            ],
        ),
        (b"250-\r\n250\r\n", [Reply(250, "", ("", ""))]),
    ],
)
def test_forms(octets: bytes, expected: Sequence[Reply], piece: int) -> None:
    assert parse(octets, piece=piece) == expected


def test_a_reply_on_one_line() -> None:
    [reply] = parse(b"550-5.1.1 The account\r\n550 5.1.1 does not exist.\r\n")
    assert reply.on_one_line == "550 5.1.1 The account does not exist."
    assert parse(b"421\r\n")[0].on_one_line == "421"
    assert parse(b"421 4.3.2\r\n")[0].on_one_line == "421 4.3.2"


def test_text_is_capped() -> None:
    line = b"x" * 3000
    [reply] = parse(b"550-" + line + b"\r\n550 " + line + b"\r\n")
    assert len(reply.text) == REPLY_TEXT_CHARACTERS_MAX
    assert reply.text.endswith("x…")


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize(
    "octets",
    [
        b"25\r\n",
        b"\r\n",
        b"150 preliminary\r\n",
        b"999 x\r\n",
        b"600 x\r\n",
        b"250ok\r\n",
        b"2 50 ok\r\n",
        b" 250 ok\r\n",
        b"hello\r\n",
        b"250-one\r\n550 two\r\n",
        b"250-one\r\nhello\r\n",
        b"250 ok\n",
        b"250 ok\n250 ok\r\n",
        b"250-one\n250 two\r\n",
        b"\xb2\xb50 ok\r\n",
        "２５０ ok\r\n".encode(),
        b"250 " + b"x" * REPLY_LINE_OCTETS_MAX + b"\r\n",
        b"x" * (REPLY_LINE_OCTETS_MAX + 1),
        (b"250-" + b"x" * 1000 + b"\r\n") * (REPLY_OCTETS_MAX // 1000 + 1),
    ],
)
def test_what_is_no_reply(octets: bytes, piece: int) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(octets, piece=piece)


def test_replies_before_the_rubbish_are_given() -> None:
    replies = ReplyParser().receive(b"250 ok\r\nrubbish\r\n")
    assert next(replies) == Reply(250, "", ("ok",))
    with pytest.raises(RemoteProtocolError):
        next(replies)


def test_a_reply_without_end_is_cut_off_early() -> None:
    parser = ReplyParser()
    taken = 0

    def feed_for_ever() -> None:
        nonlocal taken
        while True:
            taken += 1
            for _ in parser.receive(b"250-and another thing\r\n"):
                pytest.fail("nothing is complete")

    with pytest.raises(RemoteProtocolError):
        feed_for_ever()
    assert taken <= REPLY_OCTETS_MAX


def test_whether_a_piece_is_waiting() -> None:
    parser = ReplyParser()
    assert not parser.holds_octets
    list(parser.receive(b"250-one\r\n"))
    assert parser.holds_octets
    list(parser.receive(b"250 two\r"))
    assert parser.holds_octets
    list(parser.receive(b"\n"))
    assert not parser.holds_octets


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"plain", "plain"),
        ("grüße".encode(), "grüße"),
        (b"\x1b[31mred\x00\x7f", "\\x1b[31mred\\x00\\x7f"),
        (b"gr\xfc\xdfe", "gr\\xfc\\xdfe"),
        ("a\u2028b\u202ec\x85".encode(), "a\\u2028b\\u202ec\\x85"),
        ("\U000e0001".encode(), "\\U000e0001"),
        (b"tab\there\rcr", "tab\\x09here\\x0dcr"),
    ],
)
def test_foreign_text_is_made_harmless(octets: bytes, text: str) -> None:
    assert harmless_text(octets) == text
    assert parse(b"550 " + octets + b"\r\n")[0].text == text


LINES = st.lists(
    st.one_of(
        st.sampled_from([b"250 ok", b"250-ok", b"550 5.1.1 x", b"250-", b"354", b"250", b"x"]),
        st.binary(max_size=20),
    ),
    max_size=12,
)


def test_mailboxes_are_left_out_in_linear_time() -> None:
    # The square of this length would take hours.
    for hostile in ("a" * 2_000_000 + " b@x.test", '"' * 1_999_999 + "@x.test", "@" * 2_000_000):
        assert len(without_mailboxes(hostile)) <= len(hostile)
    assert without_mailboxes("450 a+b=c@x.test 'd@y.test' @z.test") == (
        "450 …@x.test '…@y.test' @z.test"
    )


@given(lines=LINES, cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_octets_in_any_pieces_give_the_same(lines: list[bytes], cuts: list[int]) -> None:
    octets = b"\r\n".join(lines)
    results = []
    for places in ([0], sorted({0, *(cut for cut in cuts if cut < len(octets))})):
        parser = ReplyParser()
        replies: list[Reply] = []
        failed = False
        try:
            for begin, end in zip(places, [*places[1:], len(octets)], strict=True):
                for reply in parser.receive(octets[begin:end]):
                    replies.append(reply)  # noqa: PERF402  # those before a fault must be kept
        except RemoteProtocolError:
            failed = True
        results.append((replies, failed))
    assert results[0] == results[1]
    for reply in results[0][0]:
        assert 200 <= reply.code <= 599
        assert reply.text.isprintable()
