import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from edgeproxy.proxy.deadlines import NEVER, TICK_S, Deadlines
from edgeproxy.proxy.tick import Tick, Wire

RUNNERS = pytest.mark.parametrize("run", [uvloop.run, asyncio.run])


class Peer(asyncio.Protocol):
    """A connection that has to hear something before its deadline."""

    transport: Wire

    def __init__(self, tick: Tick) -> None:
        self.tick = tick
        self.deadline = NEVER
        self.seen: list[str] = []
        self.expired = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.tick.requested(self, data)

    def received(self, data: bytes) -> None:
        self.deadline = NEVER
        self.seen.append(data.decode())

    def on_deadline(self, now: float) -> None:
        assert now >= self.deadline
        self.deadline = NEVER
        self.seen.append("expired")
        self.expired.set()


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Peer, socket.socket]]:
    """A connection under deadlines, and the socket of its other side."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    tick = Tick()
    transport, peer = await loop.create_connection(lambda: Peer(tick), sock=ours)
    peer.transport = Wire(tick, transport)
    deadlines = Deadlines()
    deadlines.watched.add(peer)
    deadlines.start(loop)
    try:
        yield peer, theirs
    finally:
        deadlines.stop()
        theirs.close()
        peer.transport.abort()


@RUNNERS
def test_whoever_says_nothing_in_time_is_told_of(run: Callable[[Coroutine[object, object, None]], None]) -> None:
    async def play() -> None:
        async with watched() as (peer, _), asyncio.timeout(20):
            peer.deadline = time.monotonic() + TICK_S / 2
            await peer.expired.wait()
            assert peer.seen == ["expired"]

    run(play())


@RUNNERS
def test_what_came_while_the_process_was_kept_from_reading_came_in_time(
    run: Callable[[Coroutine[object, object, None]], None],
) -> None:
    async def play() -> None:
        async with watched() as (peer, theirs), asyncio.timeout(20):
            for _ in range(3):
                peer.deadline = time.monotonic() + TICK_S / 4
                theirs.send(b"here")
                time.sleep(TICK_S * 1.2)  # noqa: ASYNC251  the loop is held up: that is what this is about
                while not peer.seen:  # noqa: ASYNC110  one round of the loop after the other
                    await asyncio.sleep(0)
                assert peer.seen == ["here"]
                peer.seen.clear()

    run(play())
