"""Looking at what the cluster has, for `edgeproxy cache`: nothing here is on a request's way."""

from redis.crc import key_slot

from edgeproxy.cache.redis import layout
from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import command
from edgeproxy.cache.redis.layout import DamagedError, Head, Names, VaryMark
from edgeproxy.cache.redis.link import RedisError, Reply
from edgeproxy.cache.redis.reading import TIER
from edgeproxy.cache.store import StoreStats
from edgeproxy.cache.stored import Stored

KEYS_MAX = 1_000_000
"""How many keys of a slot are looked at."""


async def stored_for(cluster: Cluster, names: Names, url: bytes) -> list[tuple[Stored, int]]:
    """What is stored for a URL as keyed, with each body's size in bytes; nothing where Redis does not answer."""
    beginning = names.url(url)
    slot = key_slot(beginning)
    keys = await cluster.request(slot, command("CLUSTER", "GETKEYSINSLOT", slot, KEYS_MAX))
    if isinstance(keys, RedisError):
        return []
    marks: dict[bytes, VaryMark] = {}
    found: list[tuple[bytes, Head]] = []
    for name in keys:
        if not name.startswith(beginning) or name.endswith(layout.BODY):
            continue
        value = await cluster.request(slot, command("GET", name))
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
    return [(head.stored, head.body_bytes) for name, head in found if names.is_reachable(name, head.stored, marks)]


async def stats(cluster: Cluster, failures: int) -> StoreStats:
    """How full the cluster is: what the masters say of themselves, other tenants' keys included."""
    entries = size_bytes = capacity = evictions = 0
    for node in cluster.masters:
        count = await cluster.request_node(node, command("DBSIZE"))
        text = await cluster.request_node(node, command("INFO", "memory", "stats"))
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
        failures=failures,
        path=", ".join(node.name for node in cluster.masters),
    )


def _text(reply: Reply) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)
