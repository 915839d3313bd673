"""What can happen to an origin's connection within one turn of the loop, where no test from outside can reach."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from edgeproxy.config import Limits, Origin
from edgeproxy.ledger import Counter
from edgeproxy.proxy.deadlines import Deadlines
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names
from edgeproxy.proxy.tick import Tick
from edgeproxy.proxy.upstream.attempt import Attempt
from edgeproxy.proxy.upstream.connection import OriginConnection
from edgeproxy.proxy.upstream.fetch import Fetch
from edgeproxy.proxy.upstream.pool import OriginPool
from tests.proxy.builders import an_exchange

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Wanting:
    """A fetch, as far as a connection and its pool know one."""

    is_sent = True

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.body = b""
        self.ended = False
        self.failure: ProxyError | None = None

    def on_head(self, status: int, reason: bytes, lines: FieldLines, names: Names) -> None:
        assert status == 200

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_end(self, _trailers: FieldLines | None) -> None:
        self.ended = True

    def on_failure(self, error: ProxyError) -> None:
        self.failure = error


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[OriginPool, OriginConnection]]:
    """A pool of one origin, and a connection to it."""
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    counters = memoryview(bytearray(8 * len(Counter))).cast("Q")
    pool = OriginPool(Origin(name="app", urls=[f"http://127.0.0.1:{port}"]), Limits(), Tick(), Deadlines(), counters)
    connection = await pool._open_connection(pool._addresses[0], Attempt("00f067aa0ba902b7", 0.0))
    pool._open += 1
    try:
        yield pool, connection
    finally:
        connection.transport.abort()
        server.close()
        await asyncio.sleep(0)


def taken(connection: OriginConnection, method: bytes = b"GET") -> Wanting:
    """Have the connection serve a fetch."""
    fetch = Wanting(an_exchange(method=method))
    connection.take(cast("Fetch", fetch))
    return fetch


async def the_tick() -> None:
    """Let the tick that has begun run."""
    await asyncio.sleep(0)


async def test_a_good_answer_leaves_the_connection_to_the_next_request() -> None:
    async with connected() as (pool, connection):
        fetch = taken(connection)
        connection.data_received(ANSWER)
        await the_tick()
        assert (fetch.body, fetch.ended, fetch.failure) == (b"hello", True, None)
        assert pool._addresses[0].idle == [connection]


@pytest.mark.parametrize("word", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\r\n", b"x"])
async def test_an_idle_connection_that_speaks_is_out_of_the_pool_at_once(word: bytes) -> None:
    async with connected() as (pool, connection):
        pool.release(connection)
        connection.data_received(word)
        assert pool._addresses[0].idle == []


async def test_an_idle_connection_that_ends_is_out_of_the_pool_at_once() -> None:
    async with connected() as (pool, connection):
        pool.release(connection)
        connection.eof_received()
        assert pool._addresses[0].idle == []


async def test_an_idle_connection_whose_time_is_up_is_out_of_the_pool_at_once() -> None:
    async with connected() as (pool, connection):
        pool.release(connection)
        connection.on_deadline(0.0)
        assert pool._addresses[0].idle == []


@pytest.mark.parametrize("more", [ANSWER, b"\r\n", b"x", b""])
async def test_what_is_read_behind_an_answer_in_the_same_tick_meets_no_other_request(more: bytes) -> None:
    async with connected() as (pool, connection):
        fetch = taken(connection)
        connection.data_received(ANSWER)
        connection.data_received(more)
        await the_tick()
        assert (fetch.body, fetch.ended) == (b"hello", True)
        assert pool._addresses[0].idle == []


async def test_an_end_does_not_overtake_the_data_before_it() -> None:
    async with connected() as (_, connection):
        fetch = taken(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhello")
        connection.eof_received()
        connection.connection_lost(None)
        assert (fetch.body, fetch.ended, fetch.failure) == (b"hello", True, None)


async def test_a_reset_right_behind_the_data_is_no_end() -> None:
    async with connected() as (_, connection):
        fetch = taken(connection)
        connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhello")
        connection.connection_lost(ConnectionResetError())
        assert (fetch.body, fetch.ended) == (b"hello", False)
        assert fetch.failure is not None
        assert fetch.failure.code == "origin_closed"
        assert isinstance(fetch.failure.__cause__, ConnectionResetError)
