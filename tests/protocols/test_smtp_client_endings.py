"""Dialogues that end before their time: 421, lost connections, replies that cannot be."""

import pytest

from protocols.outcomes import Bounced, Deferred, Unattempted
from protocols.records import Reason
from protocols.smtp_states import Stage
from tests.protocols.dialogue import ANN, BOB, EVE, OK, Begin, Dialogue, envelope, unknown_user


@pytest.mark.parametrize(
    ("replies", "stage"),
    [
        (["421 4.7.0 slow down"], Stage.MAIL),
        (["250 Ok", "421 4.7.0 slow down"], Stage.RCPT),
        (["250 Ok", "250 Ok", "421 4.7.0 slow down"], Stage.RCPT),
        (["250 Ok", "250 Ok", "250 Ok", "421 4.7.0 slow down"], Stage.DATA),
        (["250 Ok", "250 Ok", "250 Ok", "354 go", "421 4.7.0 slow down"], Stage.DOT),
    ],
)
def test_421_defers_what_it_answers_and_hands_back_the_rest(
    begin: Begin, replies: list[str], stage: Stage
) -> None:
    talk = begin()
    talk.queue(ANN, BOB)
    talk.queue(EVE, first=3)
    for reply in replies:
        talk.server(reply)
    cause = Deferred("4.7.0", "421 4.7.0 slow down", Reason.THROTTLED, stage)
    assert talk.closed == cause
    expected: dict[int, object] = {1: cause, 2: cause}
    if stage is Stage.DOT:
        expected[3] = Unattempted("421 4.7.0 slow down", Reason.THROTTLED)
    assert talk.outcomes == expected
    assert talk.smtp.receive(b"250 too late\r\n") == []
    assert not talk.smtp.wants_transaction


def test_421_after_a_delivery_leaves_it_delivered(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.server("250 2.0.0 taken", "421 4.7.0 too many messages")
    cause = Deferred("4.7.0", "421 4.7.0 too many messages", Reason.THROTTLED, Stage.MAIL)
    assert talk.outcomes == {1: OK, 2: cause}
    assert talk.closed == cause


def test_an_idle_timeout_that_crosses_our_mail_uses_no_attempt(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.server("250 2.0.0 taken")
    talk.queue(BOB, first=2)
    talk.server("421 4.4.2 timeout exceeded")
    assert talk.outcomes == {
        1: OK,
        2: Unattempted("421 4.4.2 timeout exceeded", Reason.CONNECTION),
    }


def test_421_while_idle_ends_the_session_only(begin: Begin) -> None:
    talk = begin()
    talk.server("421 4.3.2 shutting down")
    assert talk.outcomes == {}
    assert talk.closed is not None
    assert talk.closed.reply == "421 4.3.2 shutting down"


def test_connection_lost_before_the_first_reply_is_an_attempt(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.breaks("connection reset by peer")
    lost = Deferred("4.4.2", "451 4.4.2 (connection reset by peer)", Reason.CONNECTION, Stage.MAIL)
    assert talk.outcomes == {1: lost}
    assert talk.closed == lost


def test_connection_lost_in_the_envelope_defers(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN, BOB)
    talk.server("250 Ok", "550 5.1.1 no")
    talk.breaks()
    assert talk.outcomes == {
        1: unknown_user("550 5.1.1 no"),
        2: Deferred("4.4.2", "451 4.4.2 (reset)", Reason.CONNECTION, Stage.RCPT),
    }


def test_connection_lost_after_the_final_dot_is_unknown(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.breaks()
    assert talk.outcomes == {
        1: Deferred("4.4.2", "451 4.4.2 (reset)", Reason.OUTCOME_UNKNOWN, Stage.DOT),
        2: Unattempted("451 4.4.2 (reset)", Reason.CONNECTION),
    }


def test_a_dot_that_did_not_leave_is_known_not_to_be_delivered(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.server("250 Ok", "250 Ok", "354 go")
    behind_the_dot = sum(len(line) + 2 for line in envelope(BOB))
    talk.breaks(unsent=behind_the_dot + 1)
    assert talk.outcomes[1] == Deferred("4.4.2", "451 4.4.2 (reset)", Reason.CONNECTION, Stage.DOT)


def test_a_dot_that_left_before_the_rest_may_have_arrived(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.queue(BOB, first=2)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.breaks(unsent=sum(len(line) + 2 for line in envelope(BOB)))
    outcome = talk.outcomes[1]
    assert isinstance(outcome, Deferred)
    assert outcome.reason is Reason.OUTCOME_UNKNOWN


@pytest.mark.parametrize(
    ("last_words", "expected"),
    [
        (
            b"552 5.3.4 too big\r\n",
            Bounced("5.3.4", "552 5.3.4 too big", Reason.SIZE, Stage.DOT),
        ),
        (b"250 2.0.0 taken\r\n", None),
        (b"rubbish\r\n", None),
        (b"", None),
    ],
)
def test_last_words_before_the_end_of_the_content(
    begin: Begin, last_words: bytes, expected: object
) -> None:
    # A yes to a content that was not sent whole is no delivery.
    talk = begin()
    talk.queue(ANN)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.breaks(unsent=10, last_words=last_words)
    lost = Deferred("4.4.2", "451 4.4.2 (reset)", Reason.CONNECTION, Stage.DOT)
    assert talk.outcomes == {1: expected or lost}


def test_last_words_after_a_whole_content_count(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.breaks(last_words=b"250 2.0.0 taken\r\n")
    assert talk.outcomes == {1: OK}
    assert talk.closed is not None


@pytest.mark.parametrize(
    "replies",
    [
        ["354 go"],  # to MAIL
        ["250 Ok", "354 go"],  # to RCPT
        ["250 Ok", "250 Ok", "250 Ok"],  # to DATA
        ["199 what"],
        ["250 Ok", "999 what"],
        ["hello"],
        ["250-Ok", "251 Ok"],
        ["2x0 Ok"],
        ["25"],
    ],
)
def test_an_impossible_reply_closes_and_defers(begin: Begin, replies: list[str]) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.server(*replies)
    assert talk.closed is not None
    assert talk.closed.reason is Reason.PROTOCOL
    assert talk.outcomes == {1: talk.closed}


def test_354_to_the_dot_leaves_the_outcome_unknown(begin: Begin) -> None:
    talk = begin()
    talk.queue(ANN)
    talk.server("250 Ok", "250 Ok", "354 go")
    talk.server("354 go on")
    outcome = talk.outcomes[1]
    assert isinstance(outcome, Deferred)
    assert outcome.reason is Reason.OUTCOME_UNKNOWN


def test_more_replies_than_commands_deliver_nothing() -> None:
    # The 250 arrives with the 354, before our content has left.
    talk = Dialogue()
    talk.queue(ANN)
    talk.server("250 Ok", "250 Ok", "354 go", "250 2.0.0 taken")
    assert talk.closed is not None
    assert talk.closed.reason is Reason.PROTOCOL
    assert talk.outcomes == {1: talk.closed}


def test_a_reply_to_nothing_closes(begin: Begin) -> None:
    talk = begin()
    talk.server("250 Ok")
    assert talk.closed is not None
    assert talk.closed.reason is Reason.PROTOCOL
