"""The trail: a stream in Redis that all nodes add sampled operations to, for `edgeproxy keytrace`.

A worker collects what was noted and sends it in batches, one at a time: no request waits for that, and what Redis does
not take is dropped and counted. Which operations are noted is decided by their trace's id, by the rule of the SDKs'
TraceIdRatioBased: all operations of a trace are in, or none, on every node with the same ratio.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import structlog
from redis.crc import key_slot

from edgeproxy.cache.key import url_of
from edgeproxy.cache.operation import Operation
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import Command, command
from edgeproxy.cache.redis.layout import DamagedError, Names
from edgeproxy.cache.redis.link import RedisError, Reply
from edgeproxy.cache.redis.node import Node
from edgeproxy.tracing.sampler import LOW_HALF, Sampler, SamplerKind

BATCH_S = 0.1
BATCH_OPERATIONS = 100
"""A batch leaves when its first operation has waited so long, or when it has so many."""
WAITING_OPERATIONS = 10 * BATCH_OPERATIONS
"""So many wait while a batch is under way; more are dropped."""
TTL_MS = 86_400_000
"""The trail of a cluster that nobody uses any more is forgotten."""
TEXT_MAX_BYTES = 1024
"""What is noted of a URL, a key or an error: their size is the client's to choose, the stream's is not."""
_log = structlog.get_logger()

type Noted = tuple[Operation, str, bytes, bytes, int]
"""An operation, its trace id, its key's name in Redis, the primary key, and when it began (ns)."""


class Trail:
    """One worker's writing of the stream."""

    def __init__(self, cluster: Cluster, names: Names, *, ratio: float, max_entries: int, edge: str) -> None:
        """Note this share of traces as this edge node's; the stream keeps about `max_entries`."""
        self.bound = Sampler(SamplerKind.TRACEIDRATIO, ratio).bound
        """The low half of a noted trace's id sorts below it."""
        self.dropped = 0
        """Operations that were noted and did not reach Redis."""
        self._cluster = cluster
        self._name = names.trail
        self._slot: int = key_slot(self._name)
        self._max_entries = max_entries
        self._edge = edge.encode()
        self._waiting: list[Noted] = []
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._failing = False
        self._idle = asyncio.Event()

    def has(self, trace_id: str) -> bool:
        """Whether a trace's operations are noted."""
        return trace_id[LOW_HALF] < self.bound

    def note(self, operation: Operation, trace_id: str, name: bytes, key: bytes, began_ns: int) -> None:
        """Note an operation that has ended."""
        waiting = self._waiting
        if len(waiting) >= WAITING_OPERATIONS:
            self.dropped += 1
            return
        waiting.append((operation, trace_id, name, key, began_ns))
        if len(waiting) >= BATCH_OPERATIONS:
            self.send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_S, self.send)

    def send(self) -> None:
        """Send what waits, unless a batch is under way: then it goes when that one is answered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sent or not self._waiting:
            return
        batch, self._waiting = self._waiting[:BATCH_OPERATIONS], self._waiting[BATCH_OPERATIONS:]
        self._sent = len(batch)
        parts = [part for noted in batch for part in self._add(noted)]
        parts += command("PEXPIRE", self._name, TTL_MS)
        self._cluster.ask(self._slot, tuple(parts), self._answered)

    def _add(self, noted: Noted) -> Command:
        fields = fields_of(noted, self._edge)
        return command("XADD", self._name, "MAXLEN", "~", self._max_entries, "*", *fields)

    def _answered(self, reply: Reply, _node: Node | None) -> None:
        sent, self._sent = self._sent, 0
        if isinstance(reply, RedisError):
            self.dropped += sent
            if not self._failing:
                _log.warning("redis: the trail can't be written; what is noted is dropped", error=str(reply))
        elif self._failing:
            _log.info("redis: the trail is written again", dropped=self.dropped)
        self._failing = isinstance(reply, RedisError)
        self._idle.set()
        if len(self._waiting) >= BATCH_OPERATIONS:
            self.send()
        elif self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_S, self.send)

    async def finish(self) -> None:
        """Send what waits now, and wait until it is there or dropped."""
        while self._sent or self._waiting:
            self.send()
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """Note no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def cut(text: bytes) -> bytes:
    """What is noted of a text."""
    return text[:TEXT_MAX_BYTES]


def fields_of(noted: Noted, edge: bytes) -> list[bytes]:
    """An operation's fields in the stream."""
    operation, trace_id, name, key, began_ns = noted
    return [
        *(b"op", operation.op.encode()),
        *(b"key", cut(name)),
        *(b"url", cut(url_of(key))),
        *(b"node", operation.node.encode()),
        *(b"slot", b"%d" % operation.slot),
        *(b"us", b"%d" % operation.us),
        *(b"outcome", operation.outcome.encode()),
        *(b"error", cut(operation.error.encode())),
        *(b"trace_id", trace_id.encode()),
        *(b"span_id", operation.span_id.encode()),
        *(b"edge", edge),
        *(b"at", b"%d" % began_ns),
    ]


class Step(NamedTuple):
    """An operation as the trail tells of it."""

    operation: Operation
    trace_id: str
    url: bytes
    """As keyed; what is cut off is not there (`cut`)."""
    edge: str
    """Name of the edge node."""
    began_ns: int


def step_of(fields: Mapping[bytes, bytes]) -> Step:
    """The operation of an entry in the stream. Raises DamagedError."""
    try:
        texts = {name: value.decode("utf-8", "backslashreplace") for name, value in fields.items()}
        operation = Operation(
            op=texts[b"op"],
            span_id=texts[b"span_id"],
            node=texts[b"node"],
            slot=int(texts[b"slot"]),
            us=int(texts[b"us"]),
            outcome=texts[b"outcome"],  # type: ignore[arg-type]  # to be shown, whatever it is
            error=texts[b"error"],
        )
        return Step(operation, texts[b"trace_id"], fields[b"url"], texts[b"edge"], int(texts[b"at"]))
    except (KeyError, ValueError) as error:
        raise DamagedError(f"an entry of the trail that can't be read: {error}") from error
