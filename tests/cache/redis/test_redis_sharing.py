"""What nodes that share a cluster see of one another: hot memory that stays true, and asks nothing it knows."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.redis import open_store
from edgeproxy.cache.store import Store
from edgeproxy.cache.tiers import Tiers
from edgeproxy.config import RedisCache
from tests.cache.redis.load import is_busy
from tests.cache.redis.scripted import soon
from tests.cache.stores import URL, entry, find, put
from tests.support import Node, Origin, RedisServers, reply, until

type Start = Callable[..., Node]
MIB = 1024 * 1024
FIRST, SECOND = b"first", b"second"
_paths = itertools.count()


@pytest.fixture
def path() -> str:
    return f"/shared/{next(_paths)}"


@pytest.fixture
def start(start_node: Callable[..., Node], redis_cluster: RedisServers) -> Start:
    """Start nodes on the cluster: `start(memory_bytes=0, read_from_replicas=True)`."""

    def started(memory_bytes: int = 16 * MIB, **redis: object) -> Node:
        table = {"nodes": redis_cluster.addresses, **redis}
        node = start_node(cache={"store": "redis", "memory_bytes": memory_bytes, "redis": table})
        until(lambda: "the purge rules are known" in node.stderr, "the node to use Redis")
        until(lambda: node.worker().store and node.worker().store.nodes_well >= 3, "all masters to be connected")
        return node

    return started


def body(node: Node, path: str, *fields: str) -> bytes:
    with node.connect() as client:
        response = client.get(path, *fields)
    assert response.status == 200
    return response.body


def trusts_redis(node: Node) -> bool:
    """Whether a node has done so all the while: where a machine stalls for long, none does, and rightly."""
    return "can't be read" not in node.stderr and "given a rest" not in node.stderr


def asked(node: Node, path: str, count: int) -> list[list[str]]:
    """The operations of each of so many requests for a path. A line is written when the last of them has ended, so a
    hit's may come before that of the fill.
    """

    def found() -> list[list[str]] | None:
        lines = sorted((line for line in node.lines() if line["path"] == path), key=lambda line: line["seq"])
        return [[one["op"] for one in line["store"]] for line in lines] if len(lines) == count else None

    return until(found, f"{count} lines")


def test_repeated_hits_ask_redis_nothing(start: Start, origin: Origin, path: str) -> None:
    origin.on(path, reply(FIRST, "Cache-Control: max-age=600"))
    node = start()
    for _ in range(10):
        assert body(node, path) == FIRST
    found = asked(node, path, 10)
    tiers = {line["cache_tier"] for line in node.flushed() if line["cache"] == "HIT"}
    assert (found, tiers) == ([["MGET", "SET"], *[[]] * 9], {"memory"}) or not trusts_redis(node)


def test_without_hot_memory_a_hit_is_one_look_up(start: Start, origin: Origin, path: str) -> None:
    origin.on(path, reply(FIRST, "Cache-Control: max-age=600"))
    node = start(memory_bytes=0)
    for _ in range(10):
        assert body(node, path) == FIRST
    found = asked(node, path, 10)
    tiers = {line["cache_tier"] for line in node.flushed() if line["cache"] == "HIT"}
    assert (found, tiers) == ([["MGET", "SET"], *[["MGET"]] * 9], {"redis"}) or not trusts_redis(node)


def test_a_hit_on_what_varies_is_one_look_up_but_a_workers_first(start: Start, origin: Origin, path: str) -> None:
    origin.on(path, reply(FIRST, "Cache-Control: max-age=600", "Vary: Accept-Language"))
    one, other = start(memory_bytes=0), start(memory_bytes=0)
    assert body(one, path, "Accept-Language: de") == FIRST
    asked(one, path, 1)  # it is stored by then
    for node in (one, other, other):
        assert body(node, path, "Accept-Language: de") == FIRST
    found = (asked(one, path, 2), asked(other, path, 2))
    expected = ([["MGET", "SET"], ["MGET"]], [["MGET", "MGET"], ["MGET"]])
    assert found == expected or not (trusts_redis(one) and trusts_redis(other))


def test_what_one_node_has_stored_another_one_finds(start: Start, origin: Origin, path: str) -> None:
    origin.on(path, reply(FIRST, "Cache-Control: max-age=600"))
    one, other = start(), start()
    filled = body(one, path)
    asked(one, path, 1)  # it is stored by then
    assert body(other, path) == filled
    if not (trusts_redis(one) and trusts_redis(other)):
        return
    assert len(origin.seen(path)) == 1
    (line,) = (line for line in other.flushed() if line["path"] == path)
    (filler,) = (line for line in one.flushed() if line["path"] == path)
    assert filler["trace_id"] in line["filled_by"]


def test_what_another_node_replaces_is_gone_from_hot_memory_within_a_second(
    start: Start, origin: Origin, path: str
) -> None:
    origin.on(path, reply(FIRST, "Cache-Control: max-age=600"))
    one, other = start(), start()
    for node in (one, other):
        assert body(node, path) == FIRST
        asked(node, path, 1)  # it is stored by then
    origin.on(path, reply(SECOND, "Cache-Control: max-age=600"))
    assert body(one, path) == FIRST or not trusts_redis(one), "nobody has told it yet"
    assert body(other, path, "Cache-Control: no-cache") == SECOND
    replaced = time.monotonic()
    until(lambda: body(one, path) == SECOND, "the new one")
    assert time.monotonic() - replaced < 1 or is_busy()
    assert len(origin.seen(path)) == 2 or not (trusts_redis(one) and trusts_redis(other))


def test_what_another_node_replaces_by_what_is_too_large_for_redis_is_gone_all_the_same(
    start: Start, origin: Origin, path: str
) -> None:
    origin.on(path, reply(FIRST, "Cache-Control: max-age=600"))
    one, other = start(max_object_bytes=100), start(max_object_bytes=100)
    for node in (one, other):
        assert body(node, path) == FIRST
        asked(node, path, 1)  # it is stored by then
    large = SECOND * 100
    origin.on(path, reply(large, "Cache-Control: max-age=600"))
    assert body(other, path, "Cache-Control: no-cache") == large
    until(lambda: body(one, path) == large, "the new one")


def test_a_lost_connection_hides_no_change(
    start: Start, origin: Origin, path: str, redis_cluster: RedisServers
) -> None:
    origin.on(path, reply(FIRST, "Cache-Control: max-age=600"))
    one, other = start(), start()
    for node in (one, other):
        assert body(node, path) == FIRST
        asked(node, path, 1)  # it is stored by then
    origin.on(path, reply(SECOND, "Cache-Control: max-age=600"))
    for server in redis_cluster.masters():
        redis_cluster.client(server).client_kill_filter(_type="normal", skipme=True)
    until(lambda: other.worker().store and other.worker().store.nodes_well >= 3, "the other one to be connected")
    until(lambda: body(other, path, "Cache-Control: no-cache") == SECOND, "the new one to be stored")
    replaced = time.monotonic()
    until(lambda: body(one, path) == SECOND, "the new one")
    assert time.monotonic() - replaced < 1 or is_busy()


def test_replicas_are_read_from_where_that_is_asked_for(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    node = start(memory_bytes=0, read_from_replicas=True)
    until(lambda: node.worker().store.nodes_well == 6, "replicas to be connected")  # type: ignore[union-attr]
    origin.default = reply(FIRST, "Cache-Control: max-age=600")
    paths = [f"/replicated/{number}" for number in range(12)]
    for each in paths:
        assert body(node, each) == FIRST
    masters = {server.address for server in redis_cluster.masters()}

    def hits() -> list[str]:
        for each in paths:
            assert body(node, each) == FIRST
        lines = [line for line in node.flushed() if line["cache"] == "HIT"]
        return [one["node"] for line in lines for one in line["store"] if one["outcome"] == "hit"]

    found = [*hits(), *hits()]
    assert masters < set(found)
    assert len(set(found)) == 6


# --- in one process, to have things happen in an order


@asynccontextmanager
async def opened(cluster: RedisServers, memory_bytes: int) -> AsyncIterator[tuple[Store, Tiers]]:
    """The cache of a node's only worker."""
    memory = HotMemory(memory_bytes)
    store = open_store(RedisCache(nodes=cluster.addresses, timeout_ms=5000), memory, lambda: "0" * 16, {})
    tiers = Tiers(memory, store, store.rules, None)
    tiers.start()
    try:
        await soon(lambda: store.rules.is_current and len(store.cluster.masters) == 3, "Redis to be used")
        await soon(lambda: all(node.is_well for node in store.cluster.masters), "all masters to be connected")
        tiers.take_rules()
        yield store, tiers
    finally:
        tiers.close()


async def test_what_was_stored_while_redis_was_asked_is_not_replaced_by_what_it_had(
    redis_cluster: RedisServers,
) -> None:
    async with opened(redis_cluster, 16 * MIB) as (store, tiers):
        await put(store, entry(body=FIRST, purge_seq=tiers.purges.seq))
        found: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        tiers.lookup(URL, {}, None, found.set_result)
        tiers.put(entry(body=SECOND, purge_seq=tiers.purges.seq))
        answer = await found
        assert answer is not None
        assert answer.body == SECOND
        kept = tiers.get(URL, {})
        assert kept is not None
        assert kept.body == SECOND


async def test_what_one_node_drops_no_other_one_brings_back(redis_cluster: RedisServers) -> None:
    german, english, french = ({b"accept-language": value} for value in (b"de", b"en", b"fr"))
    async with opened(redis_cluster, 0) as (_, dropping), opened(redis_cluster, 0) as (store, filling):
        seq = filling.purges.seq
        await put(store, entry(vary=german, purge_seq=seq), entry(vary=english, purge_seq=seq))
        wrong = await find(store, names=german)
        assert wrong is not None
        dropping.drop(wrong, 0)
        await soon(lambda: dropping.purges.seq > seq, "the others to be told")
        await put(store, entry(vary=french, purge_seq=seq))  # whose fetch began before, so it goes by what was there
        await soon(lambda: filling.purge_word[0] >= dropping.purges.seq, "the other one to know")
        for tiers in (dropping, filling):
            tiers.take_rules()
            found: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
            tiers.lookup(URL, english, None, found.set_result)
            assert await found is None
