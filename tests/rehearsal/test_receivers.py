"""Simulated receivers, driven over memory wires by hand and over sockets by smtplib."""

import contextlib
import smtplib
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from engine.delivery.wire import MemoryWire, WireBroken, connect_tcp, memory_wire_pair
from engine.rehearsal.behaviour import Action, Behaviour, Mischief, Stage
from engine.rehearsal.memory_network import MemoryNetwork
from engine.rehearsal.receiver import HUGE_LINE, RUBBISH, Receiver
from engine.rehearsal.receivers import serve_receivers

CONTENT = b"Subject: hello\r\n\r\nhow are you?\r\n"


class Client:
    """Speaks by hand; `replies` are the codes heard, in order."""

    def __init__(self, wire: MemoryWire) -> None:
        self.wire = wire
        self.heard = b""

    async def say(self, *lines: str) -> None:
        await self.wire.send("".join(line + "\r\n" for line in lines).encode())

    async def hear(self) -> int:
        """Return the code of the next reply; 0 when the other end has closed."""
        while True:
            line, found, rest = self.heard.partition(b"\r\n")
            if found:
                self.heard = rest
                if line[3:4] != b"-":
                    return int(line[:3])
                continue
            data = await self.wire.receive()
            if not data:
                return 0
            self.heard += data

    async def greet(self) -> None:
        assert await self.hear() == 220
        await self.say("EHLO out.example")
        assert await self.hear() == 250

    async def mail(self, *recipients: str, content: bytes = CONTENT) -> list[int]:
        """Send one mail with its envelope pipelined; return the codes up to where it ends."""
        names = [f"RCPT TO:<{recipient}>" for recipient in recipients]
        await self.say("MAIL FROM:<ann@out.example>", *names, "DATA")
        codes: list[int] = []
        while len(codes) < len(names) + 2:
            codes.append(await self.hear())
            if codes[-1] in (0, 421):
                return codes
        if codes[-1] == 354:
            await self.wire.send(content + b".\r\n")
            codes.append(await self.hear())
        return codes


async def on_a_wire(receiver: Receiver, talk: Callable[[Client], Awaitable[None]]) -> None:
    ours, theirs = memory_wire_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver.serve_wire, theirs)
        await talk(Client(ours))
        ours.close()


async def test_what_is_accepted_is_recorded_for_each_recipient() -> None:
    receiver = Receiver("mx.test", keep_content=True)

    async def talk(client: Client) -> None:
        await client.greet()
        assert await client.mail("bob@y.test", "eve@y.test") == [250, 250, 250, 354, 250]
        assert await client.mail("bob@y.test") == [250, 250, 354, 250]
        await client.say("QUIT")
        assert await client.hear() == 221
        assert await client.hear() == 0

    await on_a_wire(receiver, talk)
    taken = receiver.acceptances
    assert [each.recipient for each in taken] == ["bob@y.test", "eve@y.test", "bob@y.test"]
    assert taken[0].key == taken[2].key != taken[1].key
    assert {each.content for each in taken} == {CONTENT}
    assert {each.reverse_path for each in taken} == {"ann@out.example"}
    assert receiver.statistics().accepted == 3
    assert receiver.statistics().connections_open == 0


@pytest.mark.parametrize(
    ("recipient", "codes", "accepted"),
    [
        ("421-after-rcpt@y.test", [250, 421], 0),
        ("550-after-rcpt@y.test", [250, 550, 503], 0),
        ("451-after-data@y.test", [250, 250, 451], 0),
        ("552-after-dot@y.test", [250, 250, 354, 552], 0),
        ("close-after-rcpt@y.test", [250, 0], 0),
        ("close-after-content@y.test", [250, 250, 354, 0], 0),
        ("close-after-dot@y.test", [250, 250, 354, 0], 1),
        ("twice-after-rcpt@y.test", [250, 250, 250], 0),
        ("drip-after-dot@y.test", [250, 250, 354, 250], 1),
    ],
)
async def test_a_recipient_names_what_happens(
    recipient: str, codes: list[int], accepted: int
) -> None:
    receiver = Receiver("mx.test")

    async def talk(client: Client) -> None:
        await client.greet()
        try:
            assert (await client.mail(recipient))[: len(codes)] == codes
        except WireBroken:
            # A wire that closed before the content was written breaks the writing of it.
            assert codes[-1] == 0

    await on_a_wire(receiver, talk)
    assert len(receiver.acceptances) == accepted


async def test_a_trick_with_a_number_ends_after_so_many_attempts() -> None:
    receiver = Receiver("mx.test")

    async def talk(client: Client) -> None:
        await client.greet()
        last = [(await client.mail("451-after-dot.2+x@y.test"))[-1] for _ in range(3)]
        assert last == [451, 451, 250]

    await on_a_wire(receiver, talk)
    assert len(receiver.acceptances) == 1


@pytest.mark.parametrize("stage", [Stage.CONNECT, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA])
async def test_a_receiver_can_close_at_each_stage(stage: Stage) -> None:
    receiver = Receiver("mx.test", Behaviour(mischief=Mischief(Action.CLOSE, stage)))
    heard: list[int] = []

    async def talk(client: Client) -> None:
        for line in ("EHLO out", "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA"):
            heard.append(await client.hear())
            if not heard[-1]:
                return
            await client.say(line)
        heard.append(await client.hear())

    await on_a_wire(receiver, talk)
    order = [Stage.CONNECT, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA]
    assert heard == [*[220, 250, 250, 250][: order.index(stage)], 0]


async def test_hostile_replies_are_what_they_are_called() -> None:
    said = {Action.HUGE: HUGE_LINE, Action.RUBBISH: RUBBISH}
    for action, reply in said.items():
        receiver = Receiver("mx.test", Behaviour(mischief=Mischief(action, Stage.CONNECT)))
        ours, theirs = memory_wire_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.serve_wire, theirs)
            assert await ours.receive() == reply
            ours.close()


async def test_an_endless_reply_ends_when_nobody_reads_it() -> None:
    receiver = Receiver("mx.test", Behaviour(mischief=Mischief(Action.ENDLESS, Stage.EHLO)))

    async def talk(client: Client) -> None:
        assert await client.hear() == 220
        await client.say("EHLO out.example")
        received = 0
        while received < 100_000:
            received += len(await client.wire.receive())

    await on_a_wire(receiver, talk)
    assert receiver.statistics().connections_open == 0


async def test_a_stalling_receiver_says_nothing_and_keeps_the_wire(
    autojump_clock: MockClock,
) -> None:
    receiver = Receiver("mx.test", Behaviour(mischief=Mischief(Action.STALL, Stage.CONNECT)))

    async def talk(client: Client) -> None:
        with trio.move_on_after(600) as patience:
            await client.hear()
        assert patience.cancelled_caught

    await on_a_wire(receiver, talk)


async def test_greylisting_and_rate_work_over_time(autojump_clock: MockClock) -> None:
    behaviour = Behaviour(greylist_s=5.0, rate_per_s=1.0, rate_burst=2)
    receiver = Receiver("mx.test", behaviour)

    async def talk(client: Client) -> None:
        await client.greet()
        assert await client.mail("bob@y.test") == [250, 451, 503]
        await client.say("RSET")
        assert await client.hear() == 250
        await trio.sleep(6)
        assert await client.mail("bob@y.test") == [250, 250, 354, 250]
        assert await client.mail("bob@y.test") == [250, 250, 354, 250]
        assert await client.mail("bob@y.test") == [421]

    await on_a_wire(receiver, talk)
    assert len(receiver.acceptances) == 2


async def test_each_reply_takes_the_delay(autojump_clock: MockClock) -> None:
    receiver = Receiver("mx.test", Behaviour(reply_delay_s=0.05))

    async def talk(client: Client) -> None:
        await client.greet()
        await client.mail("bob@y.test")

    await on_a_wire(receiver, talk)
    # Banner, EHLO, the group up to DATA, and the final dot: four round trips.
    assert trio.current_time() == pytest.approx(0.2)


async def test_connections_beyond_the_ceiling_are_sent_away() -> None:
    receiver = Receiver("mx.test", Behaviour(connections_max=1))

    async def talk(client: Client) -> None:
        await client.greet()

        async def second(other: Client) -> None:
            assert await other.hear() == 421

        await on_a_wire(receiver, second)

    await on_a_wire(receiver, talk)
    assert receiver.statistics().refused == 1


async def test_the_memory_network_refuses_carries_and_cuts(autojump_clock: MockClock) -> None:
    receiver = Receiver("mx.test", Behaviour(down_s=((0.0, 10.0),)))
    network = MemoryNetwork({"127.0.0.2": receiver}, connect_s=0.1)
    async with trio.open_nursery() as nursery:
        await nursery.start(network.serve)
        for address in ("127.0.0.2", "127.0.0.3"):
            with pytest.raises(ConnectionRefusedError):
                await network.connect(address, 25, None)
        await trio.sleep(10)
        client = Client(await network.connect("127.0.0.2", 25, None))
        await client.greet()
        network.cut_all()
        with pytest.raises(WireBroken):
            await client.hear()
        await trio.testing.wait_all_tasks_blocked()
        assert receiver.statistics().connections_open == 0
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_over_sockets_on_several_addresses_with_one_port() -> None:
    receivers = {f"127.0.0.{n}": Receiver(f"mx{n}.test") for n in (1, 2)}
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(serve_receivers, receivers)

        def send(address: str) -> None:
            with smtplib.SMTP(address, port, "out.example") as client:
                refused = client.sendmail(
                    "a@x.test", ["b@y.test", "550-after-rcpt@y.test"], CONTENT
                )
                assert list(refused) == ["550-after-rcpt@y.test"]

        for address in receivers:
            await trio.to_thread.run_sync(send, address)
        nursery.cancel_scope.cancel()
    for receiver in receivers.values():
        assert [each.recipient for each in receiver.acceptances] == ["b@y.test"]


async def test_a_receiver_that_is_down_refuses_connections_and_comes_back() -> None:
    # Not in virtual time: whether the kernel refuses is the question.
    receiver = Receiver("mx.test", Behaviour(down_s=((0.0, 0.05), (0.1, 0.15))))
    results: list[str] = []
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(serve_receivers, {"127.0.0.1": receiver})
        while receiver.now_s() < 0.15 or results[-1] != "open":
            try:
                wire = await connect_tcp("127.0.0.1", port, None)
            except ConnectionRefusedError:
                results.append("refused")
            except ConnectionResetError:
                results.append("closed")
            else:
                # It may go down before its banner is out.
                with contextlib.suppress(WireBroken):
                    results.append("open" if await wire.receive() else "closed")
                wire.close()
            await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    assert results[0] == "refused"
    assert "open" in results
    assert "refused" in results[results.index("open") :]
