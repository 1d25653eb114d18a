"""Dialogues with our end of a session; each one is run again one octet at a time."""

import pytest

from protocols.errors import LocalProtocolError
from protocols.outcomes import Bounced, Deferred, Unattempted
from protocols.records import Reason
from protocols.smtp_client import SmtpClient, Transaction
from protocols.smtp_states import Stage
from tests.protocols.dialogue import (
    ANN,
    BOB,
    CONTENT,
    EVE,
    EVERYTHING,
    OK,
    ON_THE_WIRE,
    PLAIN,
    Begin,
    Dialogue,
    envelope,
    unknown_user,
)


def test_one_refused_recipient_does_not_spoil_the_other(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN, BOB)
    talk.client(*envelope(ANN, BOB))
    talk.server("250 2.1.0 Ok", "250 2.1.5 Ok", "550 5.1.1 No such user", "354 go")
    talk.client(*ON_THE_WIRE)
    talk.server("250 2.0.0 taken")
    assert talk.outcomes == {1: OK, 2: unknown_user("550 5.1.1 No such user")}
    assert talk.closed is None
    assert talk.smtp.is_idle


def test_the_next_envelope_travels_with_the_final_dot(begin: Begin) -> None:
    talk = begin()
    for number, recipient in enumerate((ANN, BOB, EVE), 1):
        talk.queue(recipient, first=number)
    talk.client(*envelope(ANN))
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.client(*ON_THE_WIRE, *envelope(BOB))
    talk.server("250 2.0.0 taken", "250 Ok", "250 Ok", "354 go")
    talk.client(*ON_THE_WIRE, *envelope(EVE))
    talk.server("250 2.0.0 taken", "250 Ok", "250 Ok", "354 go")
    talk.client(*ON_THE_WIRE)
    talk.server("250 2.0.0 taken")
    assert talk.outcomes == {1: OK, 2: OK, 3: OK}


def test_depth_one_sends_the_next_envelope_after_the_reply(begin: Begin) -> None:
    talk = begin(depth=1)
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.client(*envelope(ANN))
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.client(*ON_THE_WIRE)
    talk.server("250 2.0.0 taken")
    talk.client(*envelope(BOB))


def test_without_pipelining_one_command_at_a_time(begin: Begin) -> None:
    talk = begin(offers=PLAIN)
    talk.queue(ANN, BOB)
    talk.queue(EVE, first=3)
    talk.client("MAIL FROM:<me@out.example> SIZE=30")
    talk.server("250 Ok")
    talk.client(f"RCPT TO:<{ANN}>")
    talk.server("250 Ok")
    talk.client(f"RCPT TO:<{BOB}>")
    talk.server("450 4.2.0 Greylisted, come back")
    talk.client("DATA")
    talk.server("354 go")
    talk.client(*ON_THE_WIRE)
    talk.server("250 2.0.0 taken")
    talk.client("MAIL FROM:<me@out.example> SIZE=30")
    assert talk.outcomes == {
        1: OK,
        2: Deferred("4.2.0", "450 4.2.0 Greylisted, come back", Reason.GREYLISTED, Stage.RCPT),
    }


def test_without_pipelining_all_refused_needs_no_data_but_a_reset(begin: Begin) -> None:
    talk = begin(offers=PLAIN)
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.client("MAIL FROM:<me@out.example> SIZE=30")
    talk.server("250 Ok")
    talk.client(f"RCPT TO:<{ANN}>")
    talk.server("550 5.1.1 no")
    talk.client("RSET")
    talk.server("250 Ok")
    talk.client("MAIL FROM:<me@out.example> SIZE=30")
    assert talk.outcomes == {1: unknown_user("550 5.1.1 no")}


def test_without_pipelining_a_refused_sender_needs_no_reset(begin: Begin) -> None:
    talk = begin(offers=PLAIN)
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.client("MAIL FROM:<me@out.example> SIZE=30")
    talk.server("451 4.3.0 not now")
    talk.client("MAIL FROM:<me@out.example> SIZE=30")
    assert talk.outcomes == {1: Deferred("4.3.0", "451 4.3.0 not now", Reason.OTHER, Stage.MAIL)}


def test_all_refused_and_data_refused_resets_before_the_next(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.client(*envelope(ANN))
    talk.server("250 Ok", "550 5.1.1 no", "554 5.5.1 no valid recipients")
    talk.client("RSET", *envelope(BOB))
    talk.server("250 Ok", "250 Ok", "250 Ok", "354 go")
    talk.client(*ON_THE_WIRE)
    assert talk.outcomes == {1: unknown_user("550 5.1.1 no")}


def test_all_refused_and_data_accepted_gets_a_lone_dot(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN, BOB)
    talk.queue(EVE, first=3)
    talk.client(*envelope(ANN, BOB))
    talk.server("250 Ok", "550 5.1.1 no", "550 5.1.1 no", "354 go")
    talk.client(".", *envelope(EVE))
    talk.server("250 2.0.0 an empty mail for nobody", "250 Ok", "250 Ok", "354 go")
    talk.client(*ON_THE_WIRE)
    talk.server("250 2.0.0 taken")
    refused = unknown_user("550 5.1.1 no")
    assert talk.outcomes == {1: refused, 2: refused, 3: OK}


def test_a_refused_sender_is_everybodys_outcome(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN, BOB)
    talk.queue(EVE, first=3)
    talk.client(*envelope(ANN, BOB))
    talk.server("550 5.7.1 not you", "503 5.5.1 MAIL first", "503 5.5.1 x", "503 5.5.1 x")
    refused = Bounced("5.7.1", "550 5.7.1 not you", Reason.POLICY, Stage.MAIL)
    assert talk.outcomes == {1: refused, 2: refused}
    talk.client(*envelope(EVE))


def test_a_refused_sender_with_everything_else_accepted_sends_nothing(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.client(*envelope(ANN))
    talk.server("451 4.7.1 wait", "250 Ok", "354 go")
    talk.client(".")
    talk.server("250 whatever")
    assert set(talk.outcomes) == {1}
    assert isinstance(talk.outcomes[1], Deferred)
    assert talk.smtp.is_idle


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("451 4.3.0 disk", Deferred("4.3.0", "451 4.3.0 disk", Reason.OTHER, Stage.DATA)),
        ("554 5.3.0 never", Bounced("5.3.0", "554 5.3.0 never", Reason.OTHER, Stage.DATA)),
        ("503 RCPT first", Deferred("4.0.0", "503 RCPT first", Reason.PROTOCOL, Stage.DATA)),
    ],
)
def test_data_refused_is_the_outcome_of_the_accepted(
    begin: Begin, reply: str, expected: object
) -> None:
    talk = begin()
    talk.queue(ANN, BOB)
    talk.queue(EVE, first=3)
    talk.client(*envelope(ANN, BOB))
    talk.server("250 Ok", "250 Ok", "550 5.1.1 no", reply)
    assert talk.outcomes == {1: expected, 2: unknown_user("550 5.1.1 no")}
    talk.client("RSET", *envelope(EVE))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("452 4.3.1 full", Deferred("4.3.1", "452 4.3.1 full", Reason.OTHER, Stage.DOT)),
        ("552 too big", Bounced("5.0.0", "552 too big", Reason.SIZE, Stage.DOT)),
        (
            "554 5.7.1 This is spam",
            Bounced("5.7.1", "554 5.7.1 This is spam", Reason.SPAM, Stage.DOT),
        ),
        (
            "550 5.1.1 no such user",
            Bounced("5.1.1", "550 5.1.1 no such user", Reason.UNKNOWN_USER, Stage.DOT, True),
        ),
    ],
)
def test_the_reply_to_the_dot_decides(begin: Begin, reply: str, expected: object) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.server(reply)
    assert talk.outcomes == {1: expected}
    assert talk.closed is None


def test_unknown_user_said_to_several_at_once_is_not_hard(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN, BOB)
    talk.server("250 Ok", "250 Ok", "250 Ok", "354 go")
    talk.server("550 5.1.1 no such user")
    assert [outcome.is_hard for outcome in talk.outcomes.values()] == [False, False]  # type: ignore[union-attr]  # both are Bounced, or the comparison fails


@pytest.mark.parametrize("reply", ["452 4.5.3 Too many", "552 Too many recipients"])
def test_too_many_recipients_go_into_the_next_transaction(begin: Begin, reply: str) -> None:
    talk = begin()
    talk.queue(ANN, BOB, EVE)
    talk.server("250 Ok", "250 Ok", reply, reply, "354 go")
    talk.server("250 2.0.0 taken")
    behind = Unattempted(reply, Reason.THROTTLED)
    assert talk.outcomes == {1: OK, 2: behind, 3: behind}
    assert talk.smtp.recipients_max == 1


def test_too_many_recipients_for_the_first_one_is_a_delay(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.server("250 Ok", "452 4.5.3 Too many recipients", "554 no recipients")
    reply = "452 4.5.3 Too many recipients"
    assert talk.outcomes == {1: Deferred("4.5.3", reply, Reason.THROTTLED, Stage.RCPT)}


def test_too_large_is_known_beforehand() -> None:
    talk = Dialogue(offers=("PIPELINING", "SIZE 30"))
    talk.queue(ANN, content=b"x" * 29 + b"\r\n")
    talk.client()
    outcome = talk.outcomes[1]
    assert isinstance(outcome, Bounced)
    assert (outcome.enhanced_status_code, outcome.reason, outcome.is_hard, outcome.stage) == (
        "5.3.4",
        Reason.SIZE,
        False,
        Stage.LOCAL,
    )
    talk.queue(BOB, first=2, content=b"x" * 28 + b"\r\n")
    talk.client(*envelope(BOB, size=30))


@pytest.mark.parametrize(
    ("needs_8bit", "needs_utf8", "offers", "code"),
    [
        (True, False, ("PIPELINING",), "5.6.3"),
        (False, True, ("PIPELINING", "8BITMIME"), "5.6.9"),
    ],
)
def test_what_the_server_cannot_carry_is_not_sent(
    needs_8bit: bool, needs_utf8: bool, offers: tuple[str, ...], code: str
) -> None:
    talk = Dialogue(offers=offers)
    talk.queue(ANN, needs_8bit=needs_8bit, needs_utf8=needs_utf8)
    talk.client()
    outcome = talk.outcomes[1]
    assert isinstance(outcome, Bounced)
    assert outcome.enhanced_status_code == code
    assert not outcome.is_hard


def test_parameters_are_said_where_needed_only() -> None:
    talk = Dialogue()
    talk.queue("jörg@example.com", needs_8bit=True, needs_utf8=True, sender="")
    talk.client("MAIL FROM:<> SIZE=30 BODY=8BITMIME SMTPUTF8", "RCPT TO:<jörg@example.com>", "DATA")


def test_no_parameters_for_a_server_without_extensions() -> None:
    talk = Dialogue(offers=())
    talk.queue(ANN)
    talk.client("MAIL FROM:<me@out.example>")


@pytest.mark.parametrize(
    "address",
    ["a@b>\r\nDATA", "a@b\nRCPT TO:<x@y>", "a@b> SIZE=1", "a b@c", "a@b\0", "jörg@c", "", "a"],
)
def test_an_unfit_address_is_refused_and_the_others_are_sent(address: str) -> None:
    talk = Dialogue()
    talk.queue(address, BOB)
    talk.client(*envelope(BOB))
    outcome = talk.outcomes[1]
    assert isinstance(outcome, Bounced)
    assert outcome.enhanced_status_code == "5.1.3"
    assert not outcome.is_hard


def test_an_unfit_sender_refuses_the_whole_transaction() -> None:
    talk = Dialogue()
    talk.queue(ANN, BOB, sender="me@out.example>\r\nRCPT TO:<x@y>")
    talk.client()
    assert len(talk.outcomes) == 2


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"\n.\r\n", b"a\r\n.\r", b"\n"])
def test_bare_line_ends_never_leave(content: bytes) -> None:
    talk = Dialogue()
    talk.queue(ANN, content=content)
    talk.client()
    outcome = talk.outcomes[1]
    assert isinstance(outcome, Bounced)
    assert outcome.enhanced_status_code == "5.6.0"


def test_helo_where_ehlo_is_not_known(begin: Begin) -> None:
    talk = begin(offers=None)
    talk.server("220 old.example")
    talk.client("EHLO out.example")
    talk.server("502 what?")
    talk.client("HELO out.example")
    talk.server("250 old.example")
    assert len(talk.ready) == 1
    assert not talk.ready[0].capabilities.extended
    talk.queue(ANN)
    talk.client("MAIL FROM:<me@out.example>")


@pytest.mark.parametrize(
    ("lines", "stage", "reason"),
    [
        (["554 5.7.1 blocked using dnsbl.example"], Stage.BANNER, Reason.POLICY),
        (["554 no"], Stage.BANNER, Reason.CONNECTION),
        (["421 4.3.2 too busy"], Stage.BANNER, Reason.THROTTLED),
        (["220 hi", "451 later"], Stage.EHLO, Reason.CONNECTION),
        (["220 hi", "502 what", "550 no"], Stage.EHLO, Reason.CONNECTION),
        (["220 hi", "250-mx", "550 mx"], Stage.EHLO, Reason.PROTOCOL),
        (["SSH-2.0-OpenSSH_9.2"], Stage.BANNER, Reason.PROTOCOL),
    ],
)
def test_a_session_that_does_not_begin(
    begin: Begin, lines: list[str], stage: Stage, reason: Reason
) -> None:
    talk = begin(offers=None)
    for line in lines:
        talk.server(line)
    assert talk.closed is not None
    assert (talk.closed.stage, talk.closed.reason) == (stage, reason)
    assert talk.closed.enhanced_status_code.startswith("4.")


def test_quit(begin: Begin) -> None:
    talk = begin()
    talk.smtp.quit()
    talk.queue()
    talk.client("QUIT")
    talk.server("221 2.0.0 bye")
    assert talk.closed is not None
    assert talk.outcomes == {}


def test_our_own_misuse_is_told_apart() -> None:
    client = SmtpClient("out.example")
    with pytest.raises(LocalProtocolError):
        client.send(Transaction("", [(1, ANN)], CONTENT))
    with pytest.raises(LocalProtocolError):
        client.quit()
    with pytest.raises(LocalProtocolError):
        client.tls_started()
    with pytest.raises(LocalProtocolError):
        SmtpClient("bad name\r\n")
    with pytest.raises(AssertionError):
        SmtpClient("out.example", pipeline_depth=3)
    with pytest.raises(LocalProtocolError):
        Dialogue(offers=EVERYTHING).queue()
