"""Addresses beyond ASCII, to servers that take them and servers that do not (RFC 6531).

What such a server cannot take is no fault of the address: nothing is suppressed, and other mail to
the same server goes on.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from aiosmtpd.controller import Controller

from engine.clock import SystemClock
from engine.config import Config, Route
from engine.config import Delivery as DeliverySettings
from engine.config_values import DomainPattern, NextHop
from engine.delivery.resolver import DnsResolver
from engine.delivery.service import Delivery
from engine.spool import open_spool
from engine.spool.interface import AcceptRequest, NewMessage, NewRecipient, SpoolSettings
from engine.spool.listing_calls import EnvelopeFilter
from protocols.records import Account, ApiKey, Envelope, Reason, Status
from tests.delivery.test_connection_peers import Mailbox, free_port

pytestmark = pytest.mark.slow

BODY = "From: büro@out.example\r\nSubject: x\r\n\r\nHello\r\n".encode()


class Narrow(Mailbox):
    """Knows SMTPUTF8, and takes no such address all the same."""

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if not address.isascii():
            return "553 5.6.7 User unknown: no such mailbox here"
        return await super().handle_RCPT(server, session, envelope, address, options)


@contextmanager
def server(mailbox: Mailbox, *, smtputf8: bool) -> Iterator[int]:
    controller = Controller(
        mailbox, hostname="127.0.0.1", port=free_port(), enable_SMTPUTF8=smtputf8
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def mail(sender: str, recipient: str, *, needs_utf8: bool) -> NewMessage:
    domain = recipient.rpartition("@")[2]
    people = [NewRecipient(random.randbytes(16), recipient, recipient, domain)]
    return NewMessage(BODY, people, sender, needs_8bit=needs_utf8, needs_utf8=needs_utf8)


async def delivered(
    place: Path, routes: dict[str, int], *messages: NewMessage
) -> tuple[dict[tuple[str, str], Envelope], int]:
    """Return the envelopes by sender and recipient, and how many addresses are suppressed."""
    config = Config(
        routes=tuple(
            Route(domain=DomainPattern(domain), next_hop=NextHop("127.0.0.1", port))
            for domain, port in routes.items()
        ),
        delivery=DeliverySettings(ehlo_name="out.example"),
    )
    clock, rand = SystemClock(), random.Random(1)
    async with open_spool(
        "memory:",
        place,
        settings=SpoolSettings(),
        clock=clock,
        run_blocking=trio.to_thread.run_sync,
        random=rand,
    ) as spool:
        account = await spool.create_account(
            Account(0, "acme", "", 1), ApiKey("key", 0, b"\0" * 32, 1)
        )
        settled = trio.Event()
        spool.add_listener(
            lambda notice: settled.set() if spool.spool_statistics().envelopes_open == 0 else None
        )
        await spool.accept([AcceptRequest(account, messages)])
        delivery = Delivery(spool, config, clock, rand, DnsResolver(["127.0.0.1:1"]))
        async with trio.open_nursery() as running:
            await running.start(delivery.run)
            with trio.fail_after(20):
                await settled.wait()
            delivery.stop()
        page = await spool.find(EnvelopeFilter(), None, 1000)
        suppressed = await spool.suppressions(account.account_id)
    found = {(each.fixed.reverse_path, each.fixed.address): each for each in page.envelopes}
    return found, len(suppressed)


MAILS = (
    mail("a@out.example", "jörg@one.test", needs_utf8=True),
    mail("büro@out.example", "ann@one.test", needs_utf8=True),
    mail("a@out.example", "bob@one.test", needs_utf8=True),
    mail("a@out.example", "cyd@one.test", needs_utf8=False),
)
ADDRESS = "553 5.6.7 (not sent: an address is beyond ASCII, and the server does not offer SMTPUTF8)"
HEADER = (
    "550 5.6.9 (not sent: the header has an address beyond ASCII, and the server does not offer "
    "SMTPUTF8)"
)


async def test_a_server_without_smtputf8_is_not_sent_such_mail(tmp_path: Path) -> None:
    mailbox = Mailbox()
    with server(mailbox, smtputf8=False) as port:
        found, suppressed = await delivered(tmp_path, {"one.test": port}, *MAILS)
    assert [
        (each.state.status, each.state.reason, each.state.attempts, each.state.reply)
        for each in (found[mail.reverse_path, mail.recipients[0].address] for mail in MAILS[:3])
    ] == [
        (Status.SOFT_BOUNCED, Reason.PROTOCOL, 1, ADDRESS),
        (Status.SOFT_BOUNCED, Reason.PROTOCOL, 1, ADDRESS),
        (Status.SOFT_BOUNCED, Reason.PROTOCOL, 1, HEADER),
    ]
    assert found["a@out.example", "cyd@one.test"].state.status is Status.DELIVERED
    assert [recipients for _, recipients, _ in mailbox.messages] == [["cyd@one.test"]]
    assert suppressed == 0


async def test_a_server_with_smtputf8_is_sent_it_as_it_is(tmp_path: Path) -> None:
    mailbox = Mailbox()
    with server(mailbox, smtputf8=True) as port:
        found, _ = await delivered(tmp_path, {"one.test": port}, *MAILS)
    assert {each.state.status for each in found.values()} == {Status.DELIVERED}
    assert sorted((sender, *recipients) for sender, recipients, _ in mailbox.messages) == [
        ("a@out.example", "bob@one.test"),
        ("a@out.example", "cyd@one.test"),
        ("a@out.example", "jörg@one.test"),
        ("büro@out.example", "ann@one.test"),
    ]
    assert all(octets == BODY for _, _, octets in mailbox.messages)


async def test_a_server_that_refuses_such_an_address_suppresses_none(tmp_path: Path) -> None:
    # In the words of an unknown user; the same server's word on another address counts.
    narrow = Narrow()
    nobody = mail("a@out.example", "nobody@one.test", needs_utf8=False)
    with server(narrow, smtputf8=True) as port:
        found, suppressed = await delivered(tmp_path, {"one.test": port}, MAILS[0], nobody)
    refused = found["a@out.example", "jörg@one.test"].state
    assert (refused.status, refused.reason) == (Status.SOFT_BOUNCED, Reason.PROTOCOL)
    assert refused.reply.startswith("553 5.6.7 User unknown")
    assert found["a@out.example", "nobody@one.test"].state.status is Status.HARD_BOUNCED
    assert suppressed == 1
