"""What nodes that share a cluster see of one another: hot memory that stays true, and asks nothing it knows."""

import itertools
import time
from collections.abc import Callable

import pytest

from tests.cache.redis.load import is_busy
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
