"""`RedisStore`: stored responses in a Redis Cluster that several nodes share.

A look-up is one round trip; where responses vary in a way that is not known yet, two. Nothing raises and nothing waits
for longer than the configured time: what Redis does not answer is not stored. Each operation carries its trace, and is
noted for the request that it was made for (`operations`).
"""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import structlog
from redis.crc import key_slot

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import url_of, variant
from edgeproxy.cache.operations import Asker, Operation, Operations, Outcome
from edgeproxy.cache.redis import layout
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import Command, Commands, command
from edgeproxy.cache.redis.layout import Compression, DamagedError, Head, Names, VaryMark
from edgeproxy.cache.redis.link import RedisError, Reply
from edgeproxy.cache.redis.node import Node
from edgeproxy.cache.redis.rules import SharedRules
from edgeproxy.cache.redis.trail import Trail
from edgeproxy.cache.store import Found, StoreHealth, StoreStats
from edgeproxy.cache.stored import Stored

TIER = "redis"
MARKS_MAX = 8192
"""How many resources are remembered to vary, so that their look-ups take one round trip."""
MARK_TTL_MS = 86_400_000
"""A vary mark stays for a day at least, or as long as what was stored under it last."""
LOOKS = 3
"""How often one look-up asks, where what it finds shows that something else had to be asked for."""
DAMAGES_SAID = 20
"""So many damaged values are said in the log in a second; the others are counted."""
KNOWN_MAX = 1024
KNOWN_BYTES = 4096
"""Of how many small responses it is known what was made of their values, for as long as Redis says the same: that saves
20 µs a hit, and takes some megabytes at most.
"""
_log = structlog.get_logger()


class Known(NamedTuple):
    """A response as it was read last."""

    head: bytes
    body: bytes | None
    entry: Entry


class RedisStore:
    """A worker's use of the cluster as a store."""

    is_remote = True

    def __init__(
        self,
        cluster: Cluster,
        rules: SharedRules,
        names: Names,
        commands: Commands,
        compression: Compression,
        *,
        max_object_bytes: int,
        span_id: Callable[[], str],
        trace_id: str,
        trail: Trail | None = None,
        knows: bool = False,
    ) -> None:
        """Store through a cluster; `trace_id` is that of operations that no request asked for, `trail` where a share of
        the others are noted. `knows`: no hot memory lies above, so what was made of a value is kept for the next like
        it.
        """
        self.cluster = cluster
        self.rules = rules
        self.operations = 0
        """All that were begun."""
        self.failures = 0
        """Operations that came to nothing: errors and time-outs."""
        self.dropped = 0
        """Responses that could not be written."""
        self.damaged = 0
        """Values that were not as they should be."""
        self._names = names
        self._commands = commands
        self._compression = compression
        self._max_object_bytes = max_object_bytes
        self._span_id = span_id
        self._trace_id = trace_id
        self._trail = trail
        self._said_since = float("-inf")
        self._said = 0
        self._marks: OrderedDict[bytes, VaryMark] = OrderedDict()
        self._knows = knows
        self._known: dict[bytes, Known] = {}
        self._breaks = 0
        self._under_way = 0
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Connect, in the background; needs a running loop. Until that is done nothing is found."""
        self.cluster.start()
        self.rules.start()

    # --- reading

    def lookup(self, key: bytes, names: Mapping[bytes, bytes], found: Found, asker: Asker | None = None) -> None:
        """Call `found`, in a later turn of the loop, with what is stored; with None where Redis does not say."""
        if not self.rules.is_current:
            found(None)
            return
        name = self._names.primary(key, url_of(key))
        mark = self._marks.get(key)
        if mark is None:
            self._read(name, [name, layout.body_name(name)], key, names, None, found, asker)
        else:
            self._read_variant(name, mark, key, names, found, asker)

    def _read_variant(
        self,
        name: bytes,
        mark: VaryMark,
        key: bytes,
        names: Mapping[bytes, bytes],
        found: Found,
        asker: Asker | None,
        looks: int = LOOKS,
    ) -> None:
        selected = self._names.variant(name, mark, variant(mark.vary, names))
        self._read(name, [name, selected, layout.body_name(selected)], key, names, mark, found, asker, looks)

    def _read(
        self,
        name: bytes,
        keys: Sequence[bytes],
        key: bytes,
        names: Mapping[bytes, bytes],
        mark: VaryMark | None,
        found: Found,
        asker: Asker | None,
        looks: int = LOOKS,
    ) -> None:
        traceparent, ended = self._operation(asker, name, key)

        def answered(reply: Reply, node: Node | None) -> None:
            if isinstance(reply, RedisError):
                self.failures += 1
                ended("MGET", node, "error", str(reply))
                found(None)
                return
            try:
                first, entry = self._understood(reply, keys, key, names, mark)
            except DamagedError as damage:
                self._say_damaged(key, asker, damage)
                ended("MGET", node, "error", str(damage))
                found(None)
                return
            now = first if isinstance(first, VaryMark) else None
            if first is not None and now != mark and looks > 1:
                ended("MGET", node, "ok", "")  # and shows what else to ask for
                if now is None:
                    self._read(name, [name, layout.body_name(name)], key, names, None, found, asker, looks - 1)
                else:
                    self._read_variant(name, now, key, names, found, asker, looks - 1)
                return
            ended("MGET", node, "miss" if entry is None else "hit", "")
            found(entry)

        self.cluster.ask(name, self._commands.read(keys, name, traceparent), answered, is_read=True)

    def _understood(
        self,
        values: Reply,
        keys: Sequence[bytes],
        key: bytes,
        names: Mapping[bytes, bytes],
        mark: VaryMark | None,
    ) -> tuple[Head | VaryMark | None, Entry | None]:
        """What stands under the primary name, and the response if it was the right one that was asked for. Raises
        DamagedError.
        """
        if not isinstance(values, list) or len(values) < len(keys):
            raise DamagedError("no list of values")
        known = self._known.get(key)
        if known is not None and known.head == values[0] and known.body == values[1] and mark is None:
            known.entry.tier = TIER
            return None, known.entry
        first = None if values[0] is None else layout.read(values[0])
        if isinstance(first, VaryMark):
            self._remember(key, first)
            head = None if first != mark or values[1] is None else layout.read(values[1])
        else:
            self._marks.pop(key, None)
            head = None if mark is not None else first
        if not isinstance(head, Head) or not layout.belongs(head.stored, key, names):
            return first, None
        value = values[len(keys) - 1]
        entry = Entry(head.stored, layout.body(head, value), tier=TIER)
        if self._knows and mark is None and len(entry.body) <= KNOWN_BYTES:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = Known(values[0], value, entry)
        return first, entry

    def _say_damaged(self, key: bytes, asker: Asker | None, damage: DamagedError) -> None:
        """Count a value that is not as it should be; say so, though not for each of thousands."""
        self.damaged += 1
        now = time.monotonic()
        if now - self._said_since >= 1:
            self._said_since, self._said = now, 0
        self._said += 1
        if self._said <= DAMAGES_SAID:
            _log.error(
                "redis: a stored response is damaged, and not used",
                key=key.decode("latin-1"),
                trace_id="" if asker is None else asker.trace.trace_id,
                why=str(damage),
            )

    def _remember(self, key: bytes, mark: VaryMark) -> None:
        self._marks[key] = mark
        self._marks.move_to_end(key)
        if len(self._marks) > MARKS_MAX:
            self._marks.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """What is stored for a key may vary in another way by now."""
        self._marks.pop(key, None)

    # --- writing

    def put(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:
        """Store in place of what there is for the same key and variant."""
        stored, body = entry.stored, entry.body
        if len(body) > self._max_object_bytes:
            if done is not None:
                asyncio.get_running_loop().call_soon(done)
            return
        name = self._names.primary(stored.key, stored.url)
        traceparent, ended = self._operation(asker, name, stored.key)
        now_ns = time.time_ns()
        ttl_ms = layout.ttl_ms(stored, now_ns)
        values: list[tuple[bytes, bytes, int]] = []
        target = name
        if stored.vary:
            mark = self._marks.get(stored.key)
            if mark is None or mark.vary != stored.vary:
                mark = VaryMark(stored.vary, os.urandom(8))
                self._remember(stored.key, mark)
            target = self._names.variant(name, mark, stored.variant)
            values.append((name, layout.vary_mark(mark, traceparent), max(ttl_ms, MARK_TTL_MS)))
        else:
            self._marks.pop(stored.key, None)
        kept, encoding = self._compression.keep(stored, body)
        values.insert(0, (target, layout.head(stored, body, kept, encoding, traceparent), ttl_ms))
        if kept:
            values.insert(0, (layout.body_name(target), layout.body_value(kept, traceparent), ttl_ms))
        self._write(name, self._commands.write(values, traceparent), ended, done)

    def freshen(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:
        """Store the entry anew: whether its body is still there would take another round trip to know."""
        self.put(entry, done, asker)

    def discard(self, key: bytes, asker: Asker | None = None) -> None:
        """Forget all variants of a primary key."""
        name = self._names.primary(key, url_of(key))
        self._marks.pop(key, None)
        traceparent, ended = self._operation(asker, name, key)
        self._write(name, self._commands.drop([name, layout.body_name(name)], traceparent), ended, None)

    def _write(self, name: bytes, written: Command, ended: "Ended", done: Callable[[], None] | None) -> None:
        def answered(reply: Reply, node: Node | None) -> None:
            if isinstance(reply, RedisError):
                self.failures += 1
                self.dropped += 1
                ended(written.name, node, "error", str(reply))
            else:
                ended(written.name, node, "ok", "")
            if done is not None:
                done()

        self.cluster.ask(name, written, answered)

    # --- operations

    def _operation(self, asker: Asker | None, name: bytes, key: bytes) -> tuple[bytes, "Ended"]:
        """Begin an operation: its traceparent, and what to call when it has ended."""
        span_id = self._span_id()
        operations: Operations | None = None
        trail: Trail | None = None
        if asker is None:
            traceparent = f"00-{self._trace_id}-{span_id}-00"
        else:
            traceparent = f"00-{asker.trace.trace_id}-{span_id}-{asker.trace.flags:02x}"
            operations = asker.operations
            if operations is None:
                operations = asker.operations = Operations()
            operations.pending += 1
            if self._trail is not None and self._trail.has(asker.trace.trace_id):
                trail, trace_id = self._trail, asker.trace.trace_id
        self._under_way += 1
        self.operations += 1
        started = time.monotonic()

        def ended(op: str, node: Node | None, outcome: Outcome, error: str) -> None:
            self._under_way -= 1
            if operations is not None:
                us = int((time.monotonic() - started) * 1e6)
                where = "" if node is None else node.name
                operation = Operation(op, span_id, where, key_slot(name), us, outcome, error)
                operations.ended(operation)
                if trail is not None:
                    trail.note(operation, trace_id, name, key, time.time_ns() - us * 1000)
            if not self._under_way:
                self._idle.set()

        return traceparent.encode(), ended

    # --- looking at it

    async def show(self, url: bytes) -> list[tuple[Stored, int]]:
        """What is stored for a URL as keyed, with each body's size in bytes; nothing where Redis does not answer."""
        beginning = self._names.url(url)
        slot = key_slot(beginning)
        keys = await self.cluster.request(beginning, command("CLUSTER", "GETKEYSINSLOT", slot, 1_000_000))
        if isinstance(keys, RedisError):
            return []
        heads = [name for name in keys if name.startswith(beginning) and not name.endswith(b".b")]
        marks: dict[bytes, VaryMark] = {}
        found: list[tuple[bytes, Head]] = []
        for name in heads:
            value = await self.cluster.request(name, command("GET", name))
            if value is None or isinstance(value, RedisError):
                continue
            try:
                read = layout.read(value)
            except DamagedError:
                continue
            if isinstance(read, VaryMark):
                marks[name] = read
            elif read.stored.url == url:
                found.append((name, read))
        is_reachable = self._names.is_reachable
        return [(head.stored, head.body_bytes) for name, head in found if is_reachable(name, head.stored, marks)]

    async def status(self) -> StoreStats:
        """How it is: what the masters say of themselves, other tenants' keys included."""
        entries = size_bytes = capacity = evictions = 0
        for node in self.cluster.masters:
            count = await self.cluster.request_node(node, command("DBSIZE"))
            text = await self.cluster.request_node(node, command("INFO", "memory", "stats"))
            if isinstance(count, RedisError) or isinstance(text, RedisError):
                continue
            info = dict(line.split(":", 1) for line in _text(text).splitlines() if ":" in line)
            entries += count
            size_bytes += int(info.get("used_memory", 0))
            capacity += int(info.get("maxmemory", 0))
            evictions += int(info.get("evicted_keys", 0))
        return StoreStats(
            kind=TIER,
            entries=entries,
            size_bytes=size_bytes,
            capacity_bytes=capacity,
            evictions=evictions,
            failures=self.failures,
            path=", ".join(node.name for node in self.cluster.masters),
        )

    def health(self) -> StoreHealth:
        """How the cluster is, as this worker has seen it."""
        nodes = self.cluster.nodes.values()
        self._breaks = max(self._breaks, sum(node.breaker.opened for node in nodes))  # nodes may leave
        return StoreHealth(
            operations=self.operations,
            failures=self.failures,
            dropped=self.dropped,
            damaged=self.damaged,
            breaks=self._breaks,
            nodes=len(nodes),
            nodes_well=sum(node.is_well for node in nodes),
            is_usable=self.rules.is_current,
        )

    async def finish(self) -> None:
        """Wait until every operation has ended; none takes long."""
        while self._under_way:
            self._idle.clear()
            await self._idle.wait()
        if self._trail is not None:
            await self._trail.finish()

    def close(self) -> None:
        """Let go; what is under way is given up."""
        if self._trail is not None:
            self._trail.close()
        self.rules.close()
        self.cluster.close()


Ended = Callable[[str, Node | None, Outcome, str], None]
"""An operation has ended: as which command, at which node, how, and what went wrong."""


def _text(reply: Reply) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)
