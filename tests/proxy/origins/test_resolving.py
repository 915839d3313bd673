"""Names of origins: every address that a name has is tried before the origin counts as down."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from edgeproxy.config import Limits, Origin
from edgeproxy.ledger import Counter
from edgeproxy.proxy.deadlines import Deadlines
from edgeproxy.proxy.errors import OriginError
from edgeproxy.proxy.tick import Tick
from edgeproxy.proxy.upstream.attempt import Attempt
from edgeproxy.proxy.upstream.connection import OriginConnection
from edgeproxy.proxy.upstream.pool import OriginPool
from tests.support import free_port


async def connection_to(name: str, found: Sequence[tuple[int, str]], port: int, attempt: Attempt) -> OriginConnection:
    """Connect as the pool does, to a name that the resolver says these addresses of."""

    async def getaddrinfo(*_: Any, **__: Any) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if not found:
            raise UnicodeError("label too long")
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in found]

    asyncio.get_running_loop().getaddrinfo = getaddrinfo  # type: ignore[assignment, method-assign]
    counters = memoryview(bytearray(8 * len(Counter))).cast("Q")
    origin = Origin(name="app", urls=[f"http://{name}:{port}"])
    pool = OriginPool(origin, Limits(), Tick(), Deadlines(), counters)
    (address,) = pool._addresses
    return await pool._open_connection(address, attempt)


async def test_a_names_next_address_is_tried_when_nobody_is_at_the_first() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    attempt = Attempt("00f067aa0ba902b7", 0.0)
    found = [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.1")]
    connection = await connection_to("both.test", found, port, attempt)
    assert attempt.dns_s is not None
    assert attempt.connect_s is not None
    connection.transport.abort()
    server.close()


async def test_when_nobody_is_at_any_the_last_refusal_is_the_cause() -> None:
    with pytest.raises(OriginError, match="could not be connected to") as raised:
        await connection_to("none.test", [(socket.AF_INET, "127.0.0.1")] * 2, free_port(), Attempt("0", 0.0))
    assert raised.value.code == "origin_connect_error"
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


async def test_a_name_that_no_resolver_can_be_asked_for_is_an_error_like_others() -> None:
    with pytest.raises(OriginError) as raised:
        await connection_to("odd.test", [], 80, Attempt("0", 0.0))
    assert isinstance(raised.value.__cause__, UnicodeError)
