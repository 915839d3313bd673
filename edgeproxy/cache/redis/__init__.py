"""Stored responses in a Redis Cluster that several nodes share."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.redis.access import Access
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import Command, Commands, command
from edgeproxy.cache.redis.layout import Compression, Names
from edgeproxy.cache.redis.library import Library
from edgeproxy.cache.redis.operating import Operating
from edgeproxy.cache.redis.reading import Reader
from edgeproxy.cache.redis.rules import SharedRules
from edgeproxy.cache.redis.store import RedisStore
from edgeproxy.cache.redis.trail import Trail
from edgeproxy.config import RedisCache

__all__ = ["RedisStore", "open_store"]


def open_store(
    config: RedisCache, memory: HotMemory, span_id: Callable[[], str], environ: Mapping[str, str], edge: str = ""
) -> RedisStore:
    """A worker's store, under its hot memory, in the node of that name; `start` connects. Raises OSError or ValueError
    when a password or a certificate can't be read.
    """
    names = Names(config.prefix)
    # Not all of the names: every worker writes the trail, and none is to hear of it each time.
    watched = [b"PREFIX", names.purges, *((b"PREFIX", names.urls) if memory.capacity_bytes else ())]

    def greeting(is_replica: bool) -> Sequence[Command]:
        track = command("CLIENT", "TRACKING", "ON", "BCAST", *watched, "NOLOOP")
        return [track, command("READONLY")] if is_replica else [track]

    commands = Commands(config.tag_operations)
    cluster = Cluster(
        Access(config, environ),
        config.timeout_ms / 1e3,
        greeting=greeting,
        read_from_replicas=config.read_from_replicas,
    )
    rules = SharedRules(cluster, names)
    trail = None
    if config.trail_ratio:
        trail = Trail(cluster, names, ratio=config.trail_ratio, max_entries=config.trail_entries, edge=edge)
    operating = Operating(span_id, secrets.token_hex(16), trail)
    reader = Reader(cluster, names, commands, operating, knows=not memory.capacity_bytes)
    compression = Compression(config.compress_min_bytes, tuple(one.lower().encode() for one in config.compress_types))
    store = RedisStore(cluster, rules, reader, compression, max_object_bytes=config.max_object_bytes)

    def suspect() -> None:
        memory.suspect(time.time_ns())

    def pushed(message: list[Any]) -> None:
        """Keys have changed: by another node's writes, or as they expired (client tracking)."""
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # everything: FLUSHALL
            suspect()
            rules.read()
            return
        for name in message[1]:
            if name == names.purges:
                rules.read()
            elif (key := names.key_of(name)) is not None:
                memory.discard(key)
                store.forget(key)

    cluster.on_push = pushed
    cluster.on_lost = lambda _: suspect()
    rules.on_stale = suspect
    if commands.needs_library:
        library = Library(cluster)
        cluster.on_connected = library.load
        cluster.on_unknown_function = library.load_again
    return store
