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

HEARTBEAT_S = 0.2
"""How often a node is asked whether it is there: else nobody might notice that it can't say any more what changes."""
_PING = command("PING")
_log = structlog.get_logger()


class Owner(Protocol):
    """Who a node belongs to."""

    def greeting(self) -> Sequence[Command]:
        """What every connection to a node begins with."""

    def connected(self, node: "Node") -> None:
        """A node can be asked; what it has said before may not have come."""

    def disconnected(self, node: "Node") -> None:
        """A node that could be asked can't be any more, nor does it say what changes."""

    def pushed(self, message: list[Any]) -> None:
        """What a node says unasked."""


class Node:
    """The node at one address."""

    def __init__(self, owner: Owner, access: Access, address: Address, timeout_s: float) -> None:
        """Know it; `maintain` connects."""
        self.address = address
        self.name = str(address)
        self.breaker = Breaker()
        self.last_error = ""
        self.reads = 0
        """How many reads there were that its replicas share with it."""
        self._owner = owner
        self._access = access
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_known_well = False
        """Whether its owner takes it for connected."""
        self._ping_at = 0.0
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
        if self.breaker.state is State.CLOSED:  # else only a probe counts
            self.breaker.succeeded()

    def maintain(self, now: float) -> None:
        """Connect where there is no connection, probe where it is time to; to be called some times a second."""
        if self._closed or self._task is not None:
            return
        breaker, link = self.breaker, self._link
        if link is None:
            if breaker.state is State.CLOSED or breaker.wants_probe(now):
                if breaker.state is State.OPEN:
                    breaker.probing()
                self._task = asyncio.get_running_loop().create_task(self._connect())
        elif link.phase is not Phase.READY:
            return
        elif breaker.wants_probe(now):
            breaker.probing()
            link.ask(_PING, self._probed)
        elif breaker.state is State.CLOSED and now >= self._ping_at:
            self._ping_at = now + HEARTBEAT_S
            link.ask(_PING, self._heard)

    def close(self) -> None:
        """Let go of it."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._link is not None:
            self._link.close()

    async def _connect(self) -> None:
        greeting = self._owner.greeting()
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
        except Exception as error:  # noqa: BLE001  not only OSErrors: what is no host name is a UnicodeError
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
        self._is_back()

    def _is_back(self) -> None:
        if self.breaker.succeeded():
            _log.info("redis node is back", node=self.name)
        self.last_error = ""
        self._is_known_well = True
        self._owner.connected(self)

    def _lost(self, link: Link, error: RedisError) -> None:
        if link is not self._link:
            return
        self._link = None
        if self._closed:
            return
        self._failed(str(error))
        self._is_gone()

    def _is_gone(self) -> None:
        if self._is_known_well:
            self._is_known_well = False
            self._owner.disconnected(self)

    def _timed_out(self) -> None:
        if self.breaker.failed(time.monotonic()):
            self._opened("it does not answer in time")
            self._is_gone()

    def _failed(self, why: str) -> None:
        if self.breaker.trip(time.monotonic()):
            self._opened(why)
        self.last_error = why

    def _opened(self, why: str) -> None:
        self.last_error = why
        _log.error("redis node is given a rest: nobody waits for it", node=self.name, error=why)

    def _heard(self, reply: Reply) -> None:
        if not isinstance(reply, NoAnswerError):
            self.answered()

    def _probed(self, reply: Reply) -> None:
        if self.breaker.state is not State.HALF_OPEN:
            return  # what else failed meanwhile has ended the probe
        if isinstance(reply, NoAnswerError):
            self.breaker.failed(time.monotonic())
        else:  # an error is an answer
            self._is_back()
