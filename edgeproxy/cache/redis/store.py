"""`RedisStore`: stored responses in a Redis Cluster that several nodes share.

A look-up is one round trip; where responses vary in a way that is not known yet, two. Nothing raises and nothing waits
for longer than the configured time: what Redis does not answer is not stored. Each operation carries its trace, and is
noted for the request that it was made for (`operating`).
"""

import os
import time
from collections.abc import Callable, Mapping

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import url_of
from edgeproxy.cache.operations import Asker
from edgeproxy.cache.redis import layout, showing
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import Command
from edgeproxy.cache.redis.layout import Compression, VaryMark
from edgeproxy.cache.redis.link import RedisError, Reply
from edgeproxy.cache.redis.node import Node
from edgeproxy.cache.redis.operating import UnderWay
from edgeproxy.cache.redis.reading import Reader
from edgeproxy.cache.redis.rules import SharedRules
from edgeproxy.cache.store import Found, StoreHealth, StoreStats
from edgeproxy.cache.stored import Stored

MARK_TTL_MS = 86_400_000
"""A vary mark stays for a day at least, or as long as what was stored under it last."""


class RedisStore:
    """A worker's use of the cluster as a store."""

    is_remote = True

    def __init__(
        self, cluster: Cluster, rules: SharedRules, reader: Reader, compression: Compression, *, max_object_bytes: int
    ) -> None:
        """Store through a cluster whatever is not larger than that; what is read is read by `reader`."""
        self.cluster = cluster
        self.rules = rules
        self.dropped = 0
        """Responses that could not be written."""
        self._reader = reader
        self._operating = reader.operating
        self._names = reader.names
        self._commands = reader.commands
        self._compression = compression
        self._max_object_bytes = max_object_bytes
        self._breaks = 0

    def start(self) -> None:
        """Connect, in the background; needs a running loop. Until that is done nothing is found."""
        self.cluster.start()
        self.rules.start()

    # --- reading

    def lookup(self, key: bytes, names: Mapping[bytes, bytes], found: Found, asker: Asker | None = None) -> None:
        """Call `found`, in a later turn of the loop, with what is stored; with None where Redis does not say."""
        if self.rules.is_current:
            self._reader.look(key, names, found, asker)
        else:
            found(None)

    def forget(self, key: bytes) -> None:
        """What is stored for a key may vary in another way by now."""
        self._reader.forget(key)

    # --- writing

    def put(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:
        """Store in place of what there is for the same key and variant."""
        stored, body = entry.stored, entry.body
        if len(body) > self._max_object_bytes:
            self._drop(stored.key, self._place(stored), done, asker)
            return
        primary = self._names.primary(stored.key, stored.url)
        operation = self._operating.begin("SET", asker, primary, stored.key)
        traceparent = operation.traceparent
        ttl_ms = layout.ttl_ms(stored, time.time_ns())
        mark = self._mark(stored)
        name = primary if mark is None else self._names.variant(primary, mark, stored.variant)
        kept, encoding = self._compression.keep(stored, body)
        values: list[tuple[bytes, bytes, int]] = []
        if kept:
            values.append((layout.body_name(name), layout.body_value(kept, traceparent), ttl_ms))
        values.append((name, layout.head(stored, body, kept, encoding, traceparent), ttl_ms))
        if mark is not None:
            values.append((primary, layout.vary_mark(mark, traceparent), max(ttl_ms, MARK_TTL_MS)))
        self._write(self._commands.write(values, traceparent), operation, done)

    def _mark(self, stored: Stored) -> VaryMark | None:
        """How the resource varies now that this response is stored for it: as before, or anew."""
        if not stored.vary:
            self._reader.forget(stored.key)
            return None
        mark = self._reader.mark_of(stored.key)
        if mark is None or mark.vary != stored.vary:
            mark = VaryMark(stored.vary, os.urandom(layout.GENERATION_BYTES))
            self._reader.remember(stored.key, mark)
        return mark

    def _place(self, stored: Stored) -> bytes:
        """The name of what a response takes the place of: that of all variants where they were others."""
        primary = self._names.primary(stored.key, stored.url)
        mark = self._reader.mark_of(stored.key)
        if mark is None or mark.vary != stored.vary:
            self._reader.forget(stored.key)
            return primary
        return self._names.variant(primary, mark, stored.variant)

    def freshen(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:
        """Store the entry anew: whether its body is still there would take another round trip to know."""
        self.put(entry, done, asker)

    def discard(self, key: bytes, asker: Asker | None = None) -> None:
        """Forget all variants of a primary key."""
        self._reader.forget(key)
        self._drop(key, self._names.primary(key, url_of(key)), None, asker)

    def _drop(self, key: bytes, name: bytes, done: Callable[[], None] | None, asker: Asker | None) -> None:
        operation = self._operating.begin("UNLINK", asker, name, key)
        self._write(self._commands.drop([name, layout.body_name(name)], operation.traceparent), operation, done)

    def _write(self, written: Command, operation: UnderWay, done: Callable[[], None] | None) -> None:
        def answered(reply: Reply, node: Node | None) -> None:
            if isinstance(reply, RedisError):
                self.dropped += 1
                operation.failed(node, reply)
            else:
                operation.ended(node, "ok")
            if done is not None:
                done()

        self.cluster.ask(operation.slot, written, answered)

    # --- how it is

    async def show(self, url: bytes) -> list[tuple[Stored, int]]:
        """What is stored for a URL as keyed, with each body's size in bytes; nothing where Redis does not answer."""
        return await showing.stored_for(self.cluster, self._names, url)

    async def status(self) -> StoreStats:
        """How full the cluster is, other tenants' keys included."""
        return await showing.stats(self.cluster, self._operating.failures)

    def health(self) -> StoreHealth:
        """How the cluster is, as this worker has seen it."""
        nodes = self.cluster.nodes.values()
        self._breaks = max(self._breaks, sum(node.breaker.opened for node in nodes))  # nodes may leave
        return StoreHealth(
            operations=self._operating.begun,
            failures=self._operating.failures,
            dropped=self.dropped,
            damaged=self._reader.damaged,
            breaks=self._breaks,
            nodes=len(nodes),
            nodes_well=sum(node.is_well for node in nodes),
            is_usable=self.rules.is_current,
        )

    async def finish(self) -> None:
        """Wait until every operation has ended; none takes long."""
        await self._operating.finish()

    def close(self) -> None:
        """Let go; what is under way is given up."""
        if self._operating.trail is not None:
            self._operating.trail.close()
        self.rules.close()
        self.cluster.close()
