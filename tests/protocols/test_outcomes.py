"""What replies of real servers mean."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.outcomes import Bounced, Deferred, Delivered, is_too_many_recipients, outcome_of
from protocols.records import Reason
from protocols.replies import ReplyParser
from protocols.smtp_states import Stage


def outcome(line: str, stage: Stage = Stage.RCPT, recipients: int = 1) -> object:
    [reply] = ReplyParser().receive(f"{line}\r\n".encode())
    return outcome_of(reply, stage=stage, recipients=recipients)


def test_delivered_keeps_the_reply() -> None:
    assert outcome("250 2.6.0 <x> Queued mail", Stage.DOT) == Delivered(
        "250 2.6.0 <x> Queued mail", "2.6.0"
    )
    assert outcome("250 ok", Stage.DOT) == Delivered("250 ok", "2.0.0")
    assert outcome("250 5.1.1 odd", Stage.DOT) == Delivered("250 5.1.1 odd", "2.0.0")


# The left column: is it over (soft or hard), or does it go on?
REPLIES = [
    ("hard", Reason.UNKNOWN_USER, "550 5.1.1 <a@b>: Recipient address rejected: User unknown"),
    ("hard", Reason.UNKNOWN_USER, "550 5.1.1 no"),
    ("hard", Reason.UNKNOWN_USER, "550 No such user here"),
    ("hard", Reason.UNKNOWN_USER, "550 Requested action not taken: mailbox unavailable"),
    ("hard", Reason.UNKNOWN_USER, "550 5.5.0 Requested action not taken: mailbox unavailable"),
    ("hard", Reason.UNKNOWN_USER, "550 5.4.1 Recipient address rejected: Access denied. AS(2)"),
    ("hard", Reason.UNKNOWN_USER, "550 5.2.1 The email account is disabled"),
    ("hard", Reason.UNKNOWN_USER, "551 not here"),
    ("hard", Reason.UNKNOWN_USER, "553 5.1.3 not an address"),
    ("hard", Reason.UNKNOWN_USER, "550 5.1.6 has moved"),
    ("hard", Reason.NULL_MX, "556 5.1.10 Recipient address has null MX"),
    ("hard", Reason.NULL_MX, "556 does not accept mail"),
    ("hard", Reason.NO_SUCH_DOMAIN, "550 5.1.2 bad destination"),
    ("soft", Reason.OTHER, "550 no"),
    ("soft", Reason.OTHER, "550 5.2.1 disabled"),
    ("soft", Reason.OTHER, "500 5.3.0 Error: command failed"),
    ("soft", Reason.POLICY, "550 5.7.1 Service unavailable; client blocked using zen.spamhaus.org"),
    ("soft", Reason.POLICY, "550 5.1.1 blocked using zen.spamhaus.org, user unknown"),
    ("soft", Reason.POLICY, "554 5.7.1 Your IP is on our blocklist"),
    ("soft", Reason.POLICY, "550 5.7.26 This mail is unauthenticated"),
    ("soft", Reason.POLICY, "550 5.7.1 not authorized"),
    ("soft", Reason.SPAM, "554 5.7.1 Message looks like SPAM"),
    ("soft", Reason.SPAM, "550 5.7.1 [x] our system has detected unsolicited mail"),
    ("soft", Reason.RELAY_DENIED, "554 5.7.1 <a@b>: Relay access denied"),
    ("soft", Reason.RELAY_DENIED, "553 sorry, that domain isn't in my list of allowed rcpthosts"),
    ("soft", Reason.RELAY_DENIED, "550 5.7.1 Unable to relay"),
    ("soft", Reason.MAILBOX_FULL, "550 5.2.2 over quota"),
    ("soft", Reason.MAILBOX_FULL, "550 mailbox full"),
    ("soft", Reason.SIZE, "550 5.3.4 too big"),
    ("soft", Reason.SIZE, "550 5.2.3 too big for this mailbox"),
    ("soft", Reason.TLS, "530 5.7.0 Must issue a STARTTLS command first"),
    ("soft", Reason.TLS, "550 5.7.10 encryption needed"),
    ("soft", Reason.PROTOCOL, "501 5.5.4 syntax"),
    ("soft", Reason.THROTTLED, "550 5.7.28 rate"),
    ("later", Reason.MAILBOX_FULL, "552 5.2.2 mailbox full"),
    ("later", Reason.MAILBOX_FULL, "552 no"),
    ("later", Reason.THROTTLED, "552 5.5.3 too many recipients"),
    ("later", Reason.MAILBOX_FULL, "452 4.2.2 The email account is over quota"),
    ("later", Reason.MAILBOX_FULL, "450 4.2.2 no"),
    ("later", Reason.GREYLISTED, "450 4.2.0 <a@b>: Recipient address rejected: Greylisted"),
    ("later", Reason.GREYLISTED, "451 4.7.1 Greylisting in action, please come back in 00:05:00"),
    ("later", Reason.GREYLISTED, "450 4.7.1 Recipient address rejected: Please try again later"),
    ("later", Reason.GREYLISTED, "554 greylisted, come back"),
    ("later", Reason.THROTTLED, "421 4.7.0 Too many connections from your IP"),
    ("later", Reason.THROTTLED, "450 4.2.1 The user is receiving mail at a rate that prevents"),
    ("later", Reason.THROTTLED, "421 4.7.28 unusual rate of mail"),
    ("later", Reason.THROTTLED, "451 4.7.500 Server busy. Please try again later"),
    ("later", Reason.THROTTLED, "421 4.4.5 congestion"),
    ("later", Reason.CONNECTION, "421 Service not available"),
    ("later", Reason.POLICY, "450 4.7.1 Client host rejected: cannot find your reverse DNS"),
    ("later", Reason.UNKNOWN_USER, "450 4.1.1 unknown right now"),
    ("later", Reason.OTHER, "451 4.3.0 Temporary lookup failure"),
    ("later", Reason.OTHER, "451 what"),
    ("later", Reason.PROTOCOL, "503 5.5.1 need MAIL"),
]


@pytest.mark.parametrize(("end", "reason", "line"), REPLIES)
def test_replies_to_rcpt(end: str, reason: Reason, line: str) -> None:
    found = outcome(line)
    if end == "later":
        assert isinstance(found, Deferred)
        assert found.enhanced_status_code.startswith("4.")
    else:
        assert isinstance(found, Bounced)
        assert found.enhanced_status_code.startswith("5.")
        assert found.is_hard == (end == "hard")
    assert found.reason == reason
    assert found.reply == line
    assert found.stage == Stage.RCPT


@pytest.mark.parametrize(("end", "reason", "line"), REPLIES)
@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.STARTTLS])
def test_the_session_stages_never_bounce(end: str, reason: Reason, line: str, stage: Stage) -> None:
    found = outcome(line, stage)
    assert isinstance(found, Deferred)
    assert found.reason not in (Reason.UNKNOWN_USER, Reason.NO_SUCH_DOMAIN, Reason.NULL_MX)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("550 5.1.8 sender unknown", Reason.POLICY),
        ("550 5.1.1 user unknown", Reason.POLICY),
        ("550 user unknown", Reason.OTHER),
        ("552 5.3.4 too big", Reason.SIZE),
        ("552 no", Reason.SIZE),
    ],
)
def test_a_refused_sender_says_nothing_about_the_recipient(line: str, reason: Reason) -> None:
    found = outcome(line, Stage.MAIL)
    assert isinstance(found, Bounced)
    assert (found.reason, found.is_hard) == (reason, False)


def test_a_class_that_contradicts_the_code_is_not_reported() -> None:
    found = outcome("450 5.1.1 odd")
    assert isinstance(found, Deferred)
    assert found.enhanced_status_code == "4.1.1"
    found = outcome("550 4.2.2 odd")
    assert isinstance(found, Bounced)
    assert found.enhanced_status_code == "5.2.2"


@pytest.mark.parametrize(
    ("line", "accepted", "expected"),
    [
        ("452 4.5.3 x", 1, True),
        ("552 5.5.3 x", 9, True),
        ("452 Too many recipients", 1, True),
        ("452 4.5.3 x", 0, False),
        ("452 4.2.2 full", 1, False),
        ("452 disk full", 1, False),
        ("450 4.5.3 x", 1, False),
        ("550 5.5.3 x", 1, False),
    ],
)
def test_too_many_recipients(line: str, accepted: int, expected: bool) -> None:
    [reply] = ReplyParser().receive(f"{line}\r\n".encode())
    assert is_too_many_recipients(reply, accepted=accepted) is expected


@given(
    code=st.integers(400, 599),
    enhanced=st.sampled_from(["", "5.1.1 ", "4.7.1 ", "5.999.999 ", "2.0.0 "]),
    text=st.text(max_size=60),
    stage=st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.DOT]),
)
def test_any_refusal_has_an_outcome(code: int, enhanced: str, text: str, stage: Stage) -> None:
    words = text.replace("\r", "").replace("\n", "")
    found = outcome(f"{code} {enhanced}{words}", stage)
    assert isinstance(found, Deferred | Bounced)
    if code < 500:
        assert isinstance(found, Deferred)


def test_hostile_text_costs_linear_time() -> None:
    def cost_s(line: str) -> float:
        begin = time.perf_counter()
        for _ in range(20):
            outcome(line)
        return time.perf_counter() - begin

    # Capped text bounds it in any case; the ratio shows that nothing backtracks.
    for word in ("user ", "account a", "mailbox is ", "the user does n"):
        short = min(cost_s("550 " + word * (100 // len(word))) for _ in range(3))
        long = min(cost_s("550 " + word * (1000 // len(word)) + "!") for _ in range(3))
        assert long < short * 100
