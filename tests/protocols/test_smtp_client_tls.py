"""STARTTLS dialogues: policies, and what is injected around the handshake (RFC 3207)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from protocols.records import Reason
from protocols.smtp_client import SmtpClient
from protocols.smtp_states import Stage
from protocols.transactions import TlsPolicy
from tests.protocols.dialogue import ANN, Dialogue, ehlo_reply

Begin = Callable[..., Dialogue]
BOTH = [TlsPolicy.OPPORTUNISTIC, TlsPolicy.REQUIRED]


@pytest.fixture(params=["whole", "octet by octet"])
def begin(request: Any) -> Begin:
    return partial(Dialogue, one_by_one=request.param != "whole", offers=None)


def to_starttls(talk: Dialogue) -> None:
    talk.server("220 mx.example")
    talk.client("EHLO out.example")
    talk.server(*ehlo_reply(["PIPELINING", "SIZE 10", "STARTTLS"]))
    talk.client("STARTTLS")


@pytest.mark.parametrize("policy", BOTH)
def test_what_was_learned_before_tls_is_forgotten(begin: Begin, policy: TlsPolicy) -> None:
    talk = begin(tls=policy)
    to_starttls(talk)
    talk.server("220 2.0.0 go")
    assert talk.start_tls == 1
    assert talk.smtp.waiting_for is Stage.TLS
    assert not talk.ready
    talk.smtp.tls_started()
    assert not talk.smtp.capabilities.pipelining
    talk.queue(ANN)
    talk.client("EHLO out.example")
    talk.server(*ehlo_reply(["8BITMIME", "STARTTLS"]))
    capabilities = talk.ready[0].capabilities
    assert capabilities.eight_bit_mime
    assert not capabilities.pipelining
    assert capabilities.size_max is None
    # TLS inside TLS is not asked for.
    talk.client("MAIL FROM:<me@out.example>")


@pytest.mark.parametrize(
    "behind",
    [b"250-mx\r\n250 SIZE 1\r\n", b"2", b"\r\n", b"421 bye\r\n", b"\x16\x03\x01", b"250 x"],
)
@pytest.mark.parametrize("policy", BOTH)
def test_octets_behind_220_drop_the_connection(policy: TlsPolicy, behind: bytes) -> None:
    talk = Dialogue(tls=policy, offers=None)
    to_starttls(talk)
    talk.server_octets(b"220 go\r\n" + behind)
    assert talk.start_tls == 0
    assert talk.closed is not None
    assert (talk.closed.stage, talk.closed.reason) == (Stage.STARTTLS, Reason.TLS)


def test_octets_before_the_handshake_is_reported_done_drop_the_connection() -> None:
    talk = Dialogue(tls=TlsPolicy.REQUIRED, offers=None)
    to_starttls(talk)
    talk.server("220 go")
    assert talk.start_tls == 1
    talk.server("250 mx.example")
    assert talk.closed is not None
    assert talk.closed.reason is Reason.TLS


@pytest.mark.parametrize("reply", ["454 4.7.0 no TLS now", "501 what", "502 never"])
def test_a_refused_starttls_goes_on_in_the_clear_if_it_may(begin: Begin, reply: str) -> None:
    talk = begin(tls=TlsPolicy.OPPORTUNISTIC)
    to_starttls(talk)
    talk.server(reply)
    assert len(talk.ready) == 1
    assert talk.ready[0].capabilities.pipelining


@pytest.mark.parametrize("reply", ["454 4.7.0 no TLS now", "501 what", "421 bye"])
def test_required_never_goes_on_in_the_clear(begin: Begin, reply: str) -> None:
    talk = begin(tls=TlsPolicy.REQUIRED)
    to_starttls(talk)
    talk.server(reply)
    assert not talk.ready
    assert talk.closed is not None
    assert (talk.closed.stage, talk.closed.reason) == (Stage.STARTTLS, Reason.TLS)


def test_required_and_not_offered(begin: Begin) -> None:
    talk = begin(tls=TlsPolicy.REQUIRED)
    talk.server("220 mx.example")
    talk.server(*ehlo_reply(["PIPELINING", "X-STARTTLS"]))
    assert not talk.ready
    assert talk.closed is not None
    assert talk.closed.reason is Reason.TLS


def test_required_does_not_fall_back_to_helo(begin: Begin) -> None:
    talk = begin(tls=TlsPolicy.REQUIRED)
    talk.server("220 mx.example")
    talk.client("EHLO out.example")
    talk.server("502 what?")
    talk.client()
    assert talk.closed is not None


def test_opportunistic_and_not_offered(begin: Begin) -> None:
    talk = begin(tls=TlsPolicy.OPPORTUNISTIC)
    talk.server("220 mx.example")
    talk.server(*ehlo_reply(["PIPELINING"]))
    assert len(talk.ready) == 1


def test_none_does_not_ask(begin: Begin) -> None:
    talk = begin(tls=TlsPolicy.NONE)
    talk.server("220 mx.example")
    talk.client("EHLO out.example")
    talk.server(*ehlo_reply(["STARTTLS"]))
    talk.client()
    assert len(talk.ready) == 1


def test_a_broken_handshake_is_a_matter_of_tls() -> None:
    talk = Dialogue(tls=TlsPolicy.OPPORTUNISTIC, offers=None)
    to_starttls(talk)
    talk.server("220 go")
    results = talk.smtp.connection_lost("wrong version number", reason=Reason.TLS)
    assert len(results) == 1
    assert isinstance(talk.smtp, SmtpClient)
    assert talk.smtp.is_closed
    talk._take(results)
    assert talk.closed is not None
    assert (talk.closed.stage, talk.closed.reason) == (Stage.TLS, Reason.TLS)
    assert talk.closed.reply == "451 4.7.5 (wrong version number)"
