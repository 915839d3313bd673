"""Stored responses in a Redis Cluster that several nodes share."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.redis.access import Access
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import LIBRARY, SOURCE, Command, Commands, command
from edgeproxy.cache.redis.layout import Compression, Names
from edgeproxy.cache.redis.link import RedisError, Reply
from edgeproxy.cache.redis.node import Node
from edgeproxy.cache.redis.operating import Operating
from edgeproxy.cache.redis.reading import Reader
from edgeproxy.cache.redis.rules import SharedRules
from edgeproxy.cache.redis.store import RedisStore
from edgeproxy.cache.redis.trail import Trail
from edgeproxy.config import RedisCache

__all__ = ["RedisStore", "open_store"]

_log = structlog.get_logger()


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

    def pushed(message: list[Any]) -> None:
        """Keys have changed: by another node's writes, or as they expired (client tracking)."""
        if message[0] != b"invalidate":
            return
        if message[1] is None:  # everything: FLUSHALL
            memory.suspect()
            rules.read()
            return
        for name in message[1]:
            if name == names.purges:
                rules.read()
            elif (key := names.key_of(name)) is not None:
                memory.discard(key)
                store.forget(key)

    cluster.on_push = pushed
    cluster.on_lost = lambda _: memory.suspect()
    rules.on_stale = memory.suspect
    if commands.needs_library:
        cluster.on_connected = lambda node: _load(cluster, node)
    return store


def _load(cluster: Cluster, node: Node) -> None:
    """Have a node know the function library; replicas get it from their masters."""
    cluster.ask_node(node, command("FUNCTION", "LOAD", SOURCE), lambda reply, _: _loaded(node, reply))


def _loaded(node: Node, reply: Reply) -> None:
    if isinstance(reply, RedisError) and "already exists" not in str(reply) and reply.code != "READONLY":
        _log.error(
            f"redis node does not take the function library {LIBRARY}; allow FUNCTION LOAD, "
            'or set cache.redis.tag_operations = "plain"',
            node=node.name,
            error=str(reply),
        )
