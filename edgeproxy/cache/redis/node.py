"""One node of the cluster as a worker sees it: its connection, kept up in the background, and its circuit breaker.

Nobody ever waits for a connection: while there is none, or the breaker is open, commands fail at once.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

import structlog

from edgeproxy.cache.redis.access import CONNECT_TIMEOUT_S, Access, Address
from edgeproxy.cache.redis.breaker import Breaker, State
from edgeproxy.cache.redis.commands import Command, command
from edgeproxy.cache.redis.link import Answered, Link, NoAnswerError, Phase, RedisError, Reply

_PING = command("PING")
_log = structlog.get_logger()


class Owner(Protocol):
    """Who a node belongs to."""

    def greeting(self, *, is_replica: bool) -> Sequence[Command]:
        """What every connection to a node begins with."""

    def connected(self, node: "Node") -> None:
        """A node can be asked."""

    def disconnected(self, node: "Node") -> None:
        """A node can't be asked any more, nor does it say what changes."""

    def pushed(self, message: list[Any]) -> None:
        """What a node says unasked."""


class Node:
    """The node at one address."""

    def __init__(self, owner: Owner, access: Access, address: Address, timeout_s: float) -> None:
        """Know it; `maintain` connects."""
        self.address = address
        self.name = str(address)
        self.is_replica = False
        self.breaker = Breaker()
        self.last_error = ""
        self._owner = owner
        self._access = access
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_well(self) -> bool:
        """Whether it can be asked now."""
        link = self._link
        return link is not None and link.phase is Phase.READY and self.breaker.state is State.CLOSED

    def ask(self, asked: Command, answered: Answered, *, asking: bool = False) -> None:
        """Ask; `answered` gets the reply in a later turn of the loop, or a RedisError."""
        link = self._link
        if link is None or link.phase is not Phase.READY:
            self._refused(answered, "there is no connection to the node")
        elif self.breaker.state is not State.CLOSED:
            self._refused(answered, "the node's circuit breaker is open")
        else:
            link.ask(asked, answered, asking=asking)

    @staticmethod
    def _refused(answered: Answered, why: str) -> None:
        asyncio.get_running_loop().call_soon(answered, NoAnswerError(why))

    def answered(self) -> None:
        """It has answered a command, if with an error."""
        if self.breaker.state is State.CLOSED:
            self.breaker.succeeded()

    def maintain(self, now: float) -> None:
        """Connect where there is no connection, probe where it is time to; to be called some times a second."""
        if self._closed or self._task is not None:
            return
        if self._link is None:
            if self.breaker.state is State.CLOSED or self.breaker.wants_probe(now):
                if self.breaker.state is State.OPEN:
                    self.breaker.probing()
                self._task = asyncio.get_running_loop().create_task(self._connect())
        elif self.breaker.wants_probe(now):
            self.breaker.probing()
            self._link.ask(_PING, self._probed)

    def close(self) -> None:
        """Let go of it."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._link is not None:
            self._link.close()

    async def _connect(self) -> None:
        greeting = self._owner.greeting(is_replica=self.is_replica)
        loop = asyncio.get_running_loop()
        context = self._access.tls
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.create_connection(
                    lambda: self._linked(Link(greeting, self._timeout_s, self._ready, self._owner.pushed, self._lost)),
                    self.address.host,
                    self.address.port,
                    ssl=context,
                    server_hostname=self.address.host if context else None,
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            link, self._link = self._link, None
            if link is not None:
                link.close()
            self._failed(f"can't be connected to: {str(error) or 'it does not answer'}")
        finally:
            self._task = None

    def _linked(self, link: Link) -> Link:
        self._link = link
        link.timed_out = self._timed_out
        return link

    def _ready(self, _link: Link) -> None:
        was_open = self.breaker.state is not State.CLOSED
        self.breaker.succeeded()
        self.last_error = ""
        if was_open:
            _log.info("redis node is back", node=self.name)
        self._owner.connected(self)

    def _lost(self, link: Link, error: RedisError) -> None:
        if link is not self._link:
            return
        self._link = None
        if self._closed:
            return
        self._failed(str(error))
        self._owner.disconnected(self)

    def _timed_out(self) -> None:
        if self.breaker.failed(time.monotonic()):
            self._opened("it does not answer in time")

    def _failed(self, why: str) -> None:
        if self.breaker.trip(time.monotonic()):
            self._opened(why)
        self.last_error = why

    def _opened(self, why: str) -> None:
        self.last_error = why
        _log.error("redis node is given a rest: nobody waits for it", node=self.name, error=why)
        self._owner.disconnected(self)

    def _probed(self, reply: Reply) -> None:
        if isinstance(reply, RedisError):
            if self.breaker.state is State.HALF_OPEN:
                self.breaker.failed(time.monotonic())
            return
        if self.breaker.state is not State.CLOSED:
            self.breaker.succeeded()
            self.last_error = ""
            _log.info("redis node is back", node=self.name)
            self._owner.connected(self)
