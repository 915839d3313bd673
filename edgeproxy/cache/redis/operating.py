"""Operations on the cluster, from the moment they are begun: each has its place in a trace, is noted for the request
that it was made for, and counted. Knows no command and no value.
"""

import asyncio
import time
from collections.abc import Callable

from redis.crc import key_slot

from edgeproxy.cache.operation import Operation, Outcome
from edgeproxy.cache.operations import Asker, Operations
from edgeproxy.cache.redis.link import RedisError
from edgeproxy.cache.redis.node import Node
from edgeproxy.cache.redis.trail import Trail
from edgeproxy.tracing import format_traceparent


class Operating:
    """One worker's."""

    def __init__(self, span_id: Callable[[], str], trace_id: str, trail: Trail | None) -> None:
        """`trace_id` is that of operations that no request asked for; a share of the others is noted in `trail`."""
        self.begun = 0
        self.failures = 0
        """Operations that came to nothing: errors and time-outs."""
        self.span_id = span_id
        self.trace_id = trace_id
        self.trail = trail
        self._under_way = 0
        self._idle = asyncio.Event()

    def begin(self, op: str, asker: Asker | None, name: bytes, key: bytes) -> "UnderWay":
        """Begin an operation on a key's name in Redis, for a primary key."""
        self.begun += 1
        self._under_way += 1
        return UnderWay(self, op, asker, name, key)

    def ended(self) -> None:
        """An operation has ended."""
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    async def finish(self) -> None:
        """Wait until every operation has ended; none takes long. What was noted of them is in the trail then."""
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()
        if self.trail is not None:
            await self.trail.finish()


class UnderWay:
    """An operation that has not ended."""

    __slots__ = (
        "_at_ms",
        "_key",
        "_name",
        "_op",
        "_operations",
        "_owner",
        "_span_id",
        "_started",
        "_trace_id",
        "slot",
        "traceparent",
    )

    def __init__(self, owner: Operating, op: str, asker: Asker | None, name: bytes, key: bytes) -> None:
        """Use `Operating.begin`."""
        self._owner = owner
        self._op = op
        self._name = name
        self._key = key
        self._span_id = owner.span_id()
        self._operations: Operations | None = None
        self._trace_id = owner.trace_id
        flags = 0
        if asker is not None:
            self._trace_id = asker.trace.trace_id
            flags = asker.trace.flags
            if asker.operations is None:
                asker.operations = Operations()
            self._operations = asker.operations
            self._operations.pending += 1
        self.slot: int = key_slot(name)
        """Its key's."""
        self.traceparent = format_traceparent(self._trace_id, self._span_id, flags).encode()
        """Its place in the trace, for Redis."""
        self._started = time.monotonic()
        self._at_ms = 0.0 if asker is None else round((self._started - asker.started) * 1e3, 3)

    def failed(self, node: Node | None, error: RedisError) -> None:
        """It has come to nothing; `node` is where, None when it went nowhere."""
        self._owner.failures += 1
        self.ended(node, "error", str(error))

    def ended(self, node: Node | None, outcome: Outcome, error: str = "") -> None:
        """It has ended, and how."""
        owner, operations = self._owner, self._operations
        if operations is not None:
            us = int((time.monotonic() - self._started) * 1e6)
            where = "" if node is None else node.name
            operation = Operation(self._op, self._span_id, where, self.slot, us, outcome, error, self._at_ms)
            operations.ended(operation)
            if owner.trail is not None and owner.trail.has(self._trace_id):
                owner.trail.note(operation, self._trace_id, self._name, self._key, time.time_ns() - us * 1000)
        owner.ended()
