"""An origin's connections, shared by all clients of a worker: kept alive, bounded, spread over the origin's urls.

Urls are taken in turn; one that could not be connected to is passed over for `fail_timeout` seconds. Knows connections
and addresses, nothing of requests beyond the fetch that waits for one.
"""

import asyncio
import ipaddress
import socket
import ssl
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from edgeproxy.config import Limits, Origin
from edgeproxy.ledger import Counter
from edgeproxy.proxy.deadlines import Deadlines
from edgeproxy.proxy.errors import OriginError, OriginTimeout, ProxyError
from edgeproxy.proxy.tick import Tick
from edgeproxy.proxy.upstream.address import Address
from edgeproxy.proxy.upstream.attempt import Attempt
from edgeproxy.proxy.upstream.connection import OriginConnection

if TYPE_CHECKING:
    from edgeproxy.proxy.upstream.fetch import Fetch

Counters = memoryview
Endpoint = tuple[int, tuple[object, ...]]
"""A family and what `connect` takes there."""


class OriginPool:
    """The connections to one origin."""

    def __init__(self, origin: Origin, limits: Limits, tick: Tick, deadlines: Deadlines, counters: Counters) -> None:
        """Connect to nothing yet. Raises OSError when the origin's CA file can't be read."""
        self.origin = origin
        self.limits = limits
        self.tick = tick
        self._deadlines = deadlines
        self._counters = counters
        self._addresses = [Address(url, _tls(origin) if url.startswith("https:") else None) for url in origin.urls]
        self._turn = 0
        self._open = 0
        self._idle = 0
        self._waiting: deque[Fetch] = deque()
        self._connecting: set[asyncio.Task[None]] = set()

    def acquire(self, fetch: "Fetch", *, avoid: Collection[Address] = (), fresh: bool = False) -> None:
        """Get a connection for a fetch: its `on_connection` is called at once if one is idle, else later, or
        `on_failure`.

        `avoid` names the urls already tried, `fresh` asks for a new connection.
        """
        address = self._choose(avoid)
        if not fresh and address.idle:
            connection = address.idle.pop()
            self._idle -= 1
            connection.take(fetch)
            fetch.on_connection(connection, reused=True)
        elif self._open < self.origin.max_connections or self._evict_idle():
            self._connect(address, fetch)
        else:
            self._waiting.append(fetch)
            fetch.wait_in_queue(self.origin.connect_timeout, self._timed_out)

    def release(self, connection: OriginConnection) -> None:
        """A connection is free for the next fetch."""
        if self._waiting and connection.has_unread_answer():
            connection.drop()  # most likely its end, behind the last answer: who waits gets a new one
            return
        while self._waiting:
            fetch = self._waiting.popleft()
            if fetch.waits_in_queue():
                connection.take(fetch)
                fetch.on_connection(connection, reused=True)
                return
        if self._idle >= self.origin.keepalive:
            connection.drop()
            return
        connection.deadline = time.monotonic() + self.origin.keepalive_timeout
        connection.address.idle.append(connection)
        self._idle += 1

    def lost(self, connection: OriginConnection) -> None:
        """A connection is closed."""
        self._deadlines.watched.discard(connection)
        self._open -= 1
        self.withdraw(connection)
        self._connect_waiting()

    def withdraw(self, connection: OriginConnection) -> None:
        """An idle connection is not to be used any more."""
        if connection in connection.address.idle:
            connection.address.idle.remove(connection)
            self._idle -= 1

    def close(self) -> None:
        """Close what is idle and give up what is connecting."""
        for task in self._connecting:
            task.cancel()
        for address in self._addresses:
            for connection in list(address.idle):
                connection.drop()

    def untried(self, tried: Collection[Address]) -> bool:
        """Whether there is a url that is not among these."""
        return len(set(tried)) < len(self._addresses)

    def _choose(self, avoid: Collection[Address]) -> Address:
        addresses = self._addresses
        if len(addresses) == 1:
            return addresses[0]
        now = time.monotonic()
        self._turn += 1
        in_turn = [addresses[(self._turn + offset) % len(addresses)] for offset in range(len(addresses))]
        candidates = [address for address in in_turn if address not in avoid] or in_turn
        return next((address for address in candidates if address.down_until <= now), candidates[0])

    def _connect_waiting(self) -> None:
        while self._waiting and self._open < self.origin.max_connections:
            fetch = self._waiting.popleft()
            if fetch.waits_in_queue():
                self._connect(self._choose(()), fetch)

    def _evict_idle(self) -> bool:
        # Another url's idle connection must not keep this one's fetch waiting.
        for address in self._addresses:
            if address.idle:
                address.idle.pop(0).drop()
                self._idle -= 1
                return True
        return False

    def _timed_out(self, fetch: "Fetch") -> None:
        seconds = self.origin.connect_timeout
        message = (
            f"all {self.origin.max_connections} connections to origin {self.origin.name} were busy for {seconds} s "
            "(origin.max_connections, origin.connect_timeout)"
        )
        fetch.on_failure(OriginTimeout("origin_busy", message))

    def _connect(self, address: Address, fetch: "Fetch") -> None:
        self._open += 1
        self._counters[Counter.ORIGIN_CONNECTS] += 1
        fetch.connecting(address)
        task = asyncio.get_running_loop().create_task(self._connected(address, fetch, fetch.attempt))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connected(self, address: Address, fetch: "Fetch", attempt: Attempt) -> None:
        try:
            connection = await self._open_connection(address, attempt)
        except (ProxyError, asyncio.CancelledError) as error:
            self._open -= 1
            address.down_until = time.monotonic() + self.origin.fail_timeout
            if isinstance(error, asyncio.CancelledError):
                raise
            if fetch.waits_for(attempt):
                fetch.on_failure(error)
            self._connect_waiting()
            return
        self._deadlines.watched.add(connection)
        address.down_until = 0.0
        if fetch.waits_for(attempt):
            connection.take(fetch)
            fetch.on_connection(connection, reused=False)
        else:
            self.release(connection)  # its client left meanwhile: the next one has it

    async def _open_connection(self, address: Address, attempt: Attempt) -> OriginConnection:
        timeout_s = self.origin.connect_timeout
        try:
            async with asyncio.timeout(timeout_s):
                return await self._dial(address, attempt)
        except TimeoutError as error:
            message = f"{address.text} could not be connected to within {timeout_s} s (origin.connect_timeout)"
            raise OriginTimeout("origin_connect_timeout", message) from error
        except socket.gaierror as error:
            raise OriginError("origin_dns_error", f"the name {address.host} can't be resolved") from error
        except ssl.SSLError as error:
            raise OriginError("origin_tls_error", f"no TLS session could be made with {address.text}") from error
        except (OSError, UnicodeError) as error:  # the latter from names that no resolver could be asked for
            raise OriginError("origin_connect_error", f"{address.text} could not be connected to") from error

    async def _dial(self, address: Address, attempt: Attempt) -> OriginConnection:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        endpoints = await _resolve(loop, address)
        resolved = time.monotonic()
        if not _is_literal(address.host):
            attempt.dns_s = resolved - started
        sock = await _connect_first(loop, endpoints)
        connected = time.monotonic()
        attempt.connect_s = connected - resolved
        hostname = address.host if address.tls else None
        try:
            _, connection = await loop.create_connection(
                lambda: OriginConnection(self, address), sock=sock, ssl=address.tls, server_hostname=hostname
            )
        except BaseException:
            sock.close()
            raise
        if address.tls is not None:
            attempt.tls_s = time.monotonic() - connected
        return connection


def _tls(origin: Origin) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=origin.tls_ca_file or None)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(loop: asyncio.AbstractEventLoop, address: Address) -> list[Endpoint]:
    if _is_literal(address.host):
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return [(family, (address.host, address.port))]
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, endpoint) for family, _, _, _, endpoint in found]


async def _connect_first(loop: asyncio.AbstractEventLoop, endpoints: Sequence[Endpoint]) -> socket.socket:
    """A connection to the first of a name's addresses that takes one: `localhost` may be ::1 and nobody there."""
    refused: OSError | None = None
    for family, endpoint in endpoints:
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            await loop.sock_connect(sock, endpoint)
            return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not isinstance(error, OSError):
                raise
            refused = error
    raise refused or OSError("the name has no address")
