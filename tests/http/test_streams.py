"""What a websocket's stream knows of itself: whether all that was begun was sent."""

import trio
import trio.testing

from engine.http_server import ReplayStream


async def test_a_send_that_was_cut_off_leaves_it_unwhole() -> None:
    stream, _ = trio.testing.lockstep_stream_pair()
    replay = ReplayStream(stream, b"")
    assert replay.is_whole
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replay.send_all, b"nobody reads this")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not replay.is_whole


async def test_a_part_that_the_kernel_took_makes_it_unwhole_until_the_rest_is_sent() -> None:
    listener, *_ = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        async with client, await listener.accept() as served:
            replay = ReplayStream(served, b"")
            data = bytes(50_000_000)
            sent = replay.send_nowait(data)
            assert 0 < sent < len(data)
            assert not replay.is_whole
            async with trio.open_nursery() as nursery:
                nursery.start_soon(replay.send_all, data[sent:])
                received = 0
                while received < len(data):
                    received += len(await client.receive_some())
            assert replay.is_whole
            assert replay.send_nowait(b"more") == 4
            assert replay.is_whole
