"""Templates on their way out: filled in for each envelope, the same each time, damage contained."""

import email
import email.policy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from aiosmtpd.controller import Controller
from trio.testing import MockClock

from engine.clock import SystemClock
from engine.config import Config, Route
from engine.config import Delivery as DeliverySettings
from engine.config_values import DomainPattern, NextHop
from engine.delivery.content_room import LOAD_BYTES, ContentBudget
from engine.delivery.filling import TEMPLATES_MAX, Sendable, Templates
from engine.delivery.mail import DestinationMail
from engine.delivery.service import Delivery
from engine.rehearsal.receiver import Receiver
from engine.spool import open_spool
from engine.spool.interface import (
    Accepted,
    AcceptRequest,
    Content,
    ContentKind,
    NewMessage,
    NewRecipient,
    SpoolSettings,
)
from protocols.addresses import Address, parse_address
from protocols.header_fields import Mailbox
from protocols.records import Account, ApiKey, Reason, Status
from protocols.templates import TemplateSource, compile_template
from protocols.variables import pack_variables
from tests.delivery.test_connection_peers import free_port
from tests.delivery.world import START_UNIX_MS, World


def compiled(subject: str = "Hello", text: str = "", html: str = "") -> bytes:
    sender = parse_address("news@shop.example")
    assert isinstance(sender, Address)
    source = TemplateSource(from_=Mailbox(sender, "Shop"), subject=subject, text=text, html=html)
    return compile_template(source, host="out.example")


def campaign(
    content: bytes, recipients: Mapping[str, Mapping[str, str] | bytes | None], seed: int = 1
) -> NewMessage:
    rand = random.Random(seed)
    return NewMessage(
        content,
        [
            NewRecipient(
                rand.randbytes(16),
                name,
                name,
                name.rpartition("@")[2],
                pack_variables(given) if isinstance(given, Mapping) else given,
            )
            for name, given in recipients.items()
        ],
        "news@shop.example",
        kind=ContentKind.TEMPLATE,
    )


async def accept(world: World, *messages: NewMessage) -> list[int]:
    if world.account is None:
        await world.send([])
    assert world.account is not None
    (answer,) = await world.spool.accept([AcceptRequest(world.account, messages)])
    assert isinstance(answer, Accepted)
    return [each.envelope_id for each in answer.envelopes]


def keeping(world: World, domain: str) -> Receiver:
    """Let `domain` have a receiver that keeps what it took."""
    world.add(domain)
    address = next(reversed(world.receivers))
    world.receivers[address] = Receiver(f"mx.{domain}", keep_content=True)
    return world.receivers[address]


def subject_and_body(content: bytes) -> tuple[str, str]:
    parsed = email.message_from_bytes(content, policy=email.policy.default)
    payload = parsed.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return str(parsed["Subject"]), payload.decode().rstrip("\r\n")


async def test_each_recipient_gets_a_mail_of_its_own(autojump_clock: MockClock) -> None:
    world = World()
    receiver = keeping(world, "one.test")
    content = compiled("For {{name}}", 'Dear {{name}}, {{word:"none"}}')
    people = {
        "a@one.test": {"name": "Ann"},
        "b@one.test": {"name": "Bärbel", "word": "<b>"},
        "c@one.test": {"name": "Cem"},
    }
    async with world.delivering():
        await accept(world, campaign(content, people))
        await world.send(["d@one.test"])
        await world.settle_down()
    assert {
        each.recipient: subject_and_body(each.content)
        for each in receiver.acceptances
        if each.recipient != "d@one.test"
    } == {
        "a@one.test": ("For Ann", "Dear Ann, none"),
        "b@one.test": ("For Bärbel", "Dear Bärbel, <b>"),
        "c@one.test": ("For Cem", "Dear Cem, none"),
    }
    assert await world.counts() == {Status.DELIVERED: 4}
    assert await world.faults() == []


async def test_no_two_recipients_share_what_was_filled_in(autojump_clock: MockClock) -> None:
    world = World()
    receiver = keeping(world, "one.test")
    people = {"a@one.test": None, "b@one.test": None}
    async with world.delivering():
        await accept(world, campaign(compiled("{{address}}", "x"), people))
        await world.settle_down()
    assert {each.recipient: subject_and_body(each.content)[0] for each in receiver.acceptances} == {
        "a@one.test": "a@one.test",
        "b@one.test": "b@one.test",
    }


async def test_a_mail_that_is_sent_again_has_the_same_octets(autojump_clock: MockClock) -> None:
    world = World()
    receiver = keeping(world, "one.test")
    content = compiled("{{name}}", "ü {{name}}", "<p>{{name}}</p>")
    async with world.delivering():
        await accept(world, campaign(content, {"close-after-dot.1@one.test": {"name": "Jörg"}}))
        await world.settle_down()
    first, second = receiver.acceptances
    assert first.content == second.content
    assert second.at_s > first.at_s
    assert await world.counts() == {Status.DELIVERED: 1}


async def test_an_international_address_is_delivered_with_smtputf8(
    autojump_clock: MockClock,
) -> None:
    world = World()
    receiver = keeping(world, "one.test")
    async with world.delivering():
        await accept(world, campaign(compiled(text="x"), {"jörg@one.test": {}}))
        await world.settle_down()
    assert [each.recipient for each in receiver.acceptances] == ["jörg@one.test"]
    assert "jörg@one.test".encode() in receiver.acceptances[0].content


@pytest.mark.parametrize(
    ("content", "variables", "words"),
    [
        (b"\x02rubbish", {}, "554 5.3.0 (the stored template is damaged"),
        (compiled(text="{{a}}")[:-2], {"a": "1"}, "554 5.3.0 (the stored template is damaged"),
        (compiled(text="{{a}}"), b"\x01\xff", "554 5.3.0 (the stored variables are damaged"),
        (compiled(text="{{a}}"), {}, "554 5.6.0 (the template cannot be filled in: there is no"),
        (compiled(text="{{a}}"), None, "554 5.6.0"),
    ],
)
async def test_what_cannot_be_filled_in_ends_itself_and_nothing_else(
    autojump_clock: MockClock,
    content: bytes,
    variables: Mapping[str, str] | bytes | None,
    words: str,
) -> None:
    world = World()
    world.add("one.test")
    async with world.delivering():
        bad, good = await accept(
            world,
            campaign(content, {"a@one.test": variables}),
            campaign(compiled(text="x"), {"b@one.test": {}}, seed=2),
        )
        await world.settle_down()
    ended, delivered = await world.spool.envelope(bad), await world.spool.envelope(good)
    assert ended is not None
    assert delivered is not None
    assert (ended.state.status, ended.state.reason) == (Status.SOFT_BOUNCED, Reason.OTHER)
    assert ended.state.reply.startswith(words)
    assert ended.state.attempts == 0
    assert delivered.state.status is Status.DELIVERED


async def loaded(world: World, budget: ContentBudget) -> DestinationMail:
    mail = DestinationMail("one.test", world.spool, world.clock, budget, lambda: None)
    await mail.pull(1000)
    while mail.may_load:
        assert await mail.load() == []
    return mail


async def test_the_octets_that_were_filled_in_are_what_is_counted() -> None:
    world = World()
    people = {f"r{n}@one.test": {"a": "ü" * n} for n in range(1, 40)}
    await accept(world, campaign(compiled(text="{{a}}" * 20), people))
    budget = ContentBudget()
    mail = await loaded(world, budget)
    transactions = [mail.take(50) for _ in range(len(people))]
    assert budget.used == sum(len(each.content) for each in transactions)
    assert [len(each.recipients) for each in transactions] == [1] * len(people)
    for each in transactions:
        mail.land(each.recipients[0][0])
    assert budget.used == 0
    assert mail.is_empty


async def test_templates_that_grow_are_filled_in_a_few_at_a_time() -> None:
    world = World()
    people = {f"r{n}@one.test": {"a": "x" * 20_000} for n in range(40)}
    await accept(world, campaign(compiled(text="{{a}}\n" * 40), people))
    budget = ContentBudget()
    mail = DestinationMail("one.test", world.spool, world.clock, budget, lambda: None)
    await mail.pull(1000)
    assert await mail.load() == []
    assert 0 < mail.ready < mail.claimed < 40
    assert budget.used < 4 * LOAD_BYTES
    seen: list[int] = []
    while not mail.is_empty:
        while mail.ready:
            seen += [number for number, _ in mail.take(50).recipients]
            mail.land(seen[-1])
        while mail.may_load and not mail.ready:
            assert await mail.load() == []
    assert len(seen) == len(set(seen)) == 40
    assert budget.used == 0


async def test_templates_are_kept_while_there_is_room() -> None:
    world = World()
    (number,) = await accept(world, campaign(compiled(text="x"), {"a@one.test": {}}))
    templates = Templates()

    def is_sendable(content_id: int, octets: bytes) -> bool:
        fixed = msgspec.structs.replace(world.data.fixed[number], content_id=content_id)
        found = templates.sendable(fixed, Content(ContentKind.TEMPLATE, octets))
        return isinstance(found, Sendable)

    assert all(is_sendable(content_id, compiled(text="x")) for content_id in range(TEMPLATES_MAX))
    # A content never changes, so what is still known is not read again.
    assert is_sendable(0, b"not read")
    assert is_sendable(TEMPLATES_MAX, compiled(text="x"))
    assert is_sendable(0, b"not read")
    assert not is_sendable(1, b"was let go")


@dataclass
class Cutting:
    """What an aiosmtpd controller was given. It hangs up on the first mail to some, unanswered."""

    cut: set[str]
    taken: list[tuple[str, bytes]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    async def handle_MAIL(  # the name that aiosmtpd calls
        self, server: Any, session: Any, envelope: Any, address: str, options: Sequence[str]
    ) -> str:
        envelope.mail_from = address
        self.sizes += [int(each.partition("=")[2]) for each in options if each.startswith("SIZE=")]
        return "250 2.1.0 ok"

    async def handle_DATA(  # the name that aiosmtpd calls
        self, server: Any, session: Any, envelope: Any
    ) -> str:
        (recipient,) = envelope.rcpt_tos
        self.taken.append((recipient, envelope.content))
        if recipient in self.cut:
            self.cut.remove(recipient)
            server.transport.abort()
        return "250 2.0.0 taken"


@pytest.mark.slow
async def test_three_recipients_of_a_template_at_a_real_server(tmp_path: Path) -> None:
    box = Cutting({"b@in.example"})
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        await deliver_campaign(tmp_path, controller.port)
    finally:
        controller.stop()
    # With the connection go replies to others that were not read yet: those are sent again as well.
    assert [recipient for recipient, _ in box.taken].count("b@in.example") == 2
    found = dict(box.taken)
    assert set(box.taken) == set(found.items())
    assert {len(content) for content in found.values()} == set(box.sizes)
    parsed = {
        name: email.message_from_bytes(octets, policy=email.policy.default)
        for name, octets in found.items()
    }
    assert {name: str(each["Subject"]) for name, each in parsed.items()} == {
        "a@in.example": "Grüße an Anna Müller",
        "b@in.example": "Grüße an Bob <b@x>",
        "c@in.example": "Grüße an Çelik & Söhne",
    }
    assert {name: parts(each) for name, each in parsed.items()} == {
        "a@in.example": [
            "Schöne Grüße, Anna Müller, a@in.example",
            "<p>Schöne Grüße, Anna Müller</p>",
        ],
        "b@in.example": [
            "Schöne Grüße, Bob <b@x>, b@in.example",
            "<p>Schöne Grüße, Bob &lt;b@x&gt;</p>",
        ],
        "c@in.example": [
            "Schöne Grüße, Çelik & Söhne, c@in.example",
            "<p>Schöne Grüße, Çelik &amp; Söhne</p>",
        ],
    }
    assert parsed["b@in.example"]["To"].addresses[0].display_name == "Bob <b@x>"


def parts(message: Message) -> list[str]:
    payloads = [each.get_payload(decode=True) for each in message.walk()]
    return [each.decode() for each in payloads if isinstance(each, bytes)]


async def deliver_campaign(data_dir: Path, port: int) -> None:
    content = compiled(
        "Grüße an {{name}}",
        "Schöne Grüße, {{name}}, {{address}}",
        "<p>Schöne Grüße, {{var:name}}</p>",
    )
    people = {
        "a@in.example": {"name": "Anna Müller"},
        "b@in.example": {"name": "Bob <b@x>"},
        "c@in.example": {"name": "Çelik & Söhne"},
    }
    config = Config(
        routes=(Route(domain=DomainPattern("*"), next_hop=NextHop("127.0.0.1", port)),),
        delivery=DeliverySettings(ehlo_name="out.example", retry_s=(0.05,)),
    )
    clock, rand = SystemClock(), random.Random(1)
    async with open_spool(
        "lmdb:",
        data_dir,
        settings=SpoolSettings(),
        clock=clock,
        run_blocking=trio.to_thread.run_sync,
        random=rand,
    ) as spool:
        account = await spool.create_account(
            Account(0, "acme", "", START_UNIX_MS), ApiKey("key", 0, b"\0" * 32, START_UNIX_MS)
        )
        settled = trio.Event()
        spool.add_listener(
            lambda notice: None if spool.spool_statistics().envelopes_open else settled.set()
        )
        await spool.accept([AcceptRequest(account, [campaign(content, people)])])
        delivery = Delivery(spool, config, clock, rand, None)  # type: ignore[arg-type]  # the route needs no resolver
        async with trio.open_nursery() as running:
            await running.start(delivery.run)
            with trio.fail_after(20):
                await settled.wait()
            delivery.stop()
