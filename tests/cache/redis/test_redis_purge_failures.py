"""Purges while Redis is down, cut off, or has lost what it was told: nothing old is served because of that."""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from edgeproxy.cache.redis.layout import Names
from tests.cache.redis.load import is_busy
from tests.cache.redis.purging import (
    API,
    FRESH,
    LENIENT,
    PREFIX,
    SITE,
    WITHIN_S,
    by_all,
    get,
    is_hot,
    ready,
    tables,
)
from tests.support import Node, Origin, RedisServers, reply, until

_paths = count()


@pytest.fixture
def path() -> str:
    return f"/page/{next(_paths)}"


def test_a_purge_is_refused_while_redis_is_down(
    origin: Origin, path: str, start_redis_cluster: Callable[..., RedisServers]
) -> None:
    cluster = start_redis_cluster()
    with Node(origin.url, **tables(cluster)) as node:
        ready(node)
        for server in cluster.nodes:
            server.kill()
        refused = node.command("purge", f"{SITE}{path}", check=False)
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert "the purge can't be given to Redis; nothing counts as purged" in refused.stderr
        answer = API.post(f"{node.admin_url}/purge", json={"all": True}, timeout=20)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "redis")
        response = get(node, path, method="PURGE")
        assert (response.status, response.problem["code"]) == (500, "purge_failed")
        node.stop()
        stopped = node.command("purge", "--all", check=False)
        assert stopped.returncode == 1
        assert "nothing counts as purged" in stopped.stderr


def test_what_a_post_changes_while_redis_is_down_is_not_served_when_it_is_back(
    origin: Origin, start_redis_cluster: Callable[..., RedisServers]
) -> None:
    cluster = start_redis_cluster()
    dead = cluster.node_of(Names(PREFIX).purges)
    paths = (f"/page/{number}" for number in _paths)
    path = next(each for each in paths if cluster.node_of(Names(PREFIX).url(f"{SITE}{each}".encode())) is dead)
    with Node(origin.url, **tables(cluster)) as first, Node(origin.url, **tables(cluster)) as second:
        nodes = (ready(first), ready(second))
        origin.on(path, reply(b"old", FRESH))
        get(first, path)
        for node in nodes:
            assert by_all(node, path, is_hot) == {b"old"}
        until(lambda: cluster.client(cluster.replica_of(dead)).dbsize() >= 3, "the replica to have it")
        dead.kill()
        for node in nodes:
            until(lambda node=node: "can't be read" in node.stderr, "the loss to be noticed")  # type: ignore[misc]
        origin.on(path, reply(b"new", FRESH))
        assert get(first, path, "Content-Length: 0", method="POST").status == 200
        until(lambda: "invalidation_failed" in first.stderr, "the invalidation to fail")
        cluster.wait_failover(dead)
        for node in nodes:
            until(lambda node=node: node.stderr.count("rules are known") > 1, "Redis to be used")  # type: ignore[misc]
            until(lambda node=node: by_all(node, path) == {b"new"}, "the new one")  # type: ignore[misc]


def test_a_purge_that_no_replica_has_is_done_with_a_warning(
    origin: Origin, path: str, start_redis_cluster: Callable[..., RedisServers]
) -> None:
    cluster = start_redis_cluster()
    cluster.replica_of(cluster.node_of(Names(PREFIX).purges)).stop()
    with Node(origin.url, **tables(cluster)) as node:
        ready(node)
        done = node.command("purge", f"{SITE}{path}")
        assert done.stdout == "1 URL purged: confirmed by 1 worker\n"
        assert "a failover in Redis could undo the purge: no replica has confirmed that it has it" in done.stderr
        answer = API.post(f"{node.admin_url}/purge", json={"all": True})
        assert "no replica" in answer.json()["warning"]


def test_a_node_that_can_not_read_the_rules_trusts_nothing_for_more_than_a_second(
    origin: Origin, path: str, start_redis_cluster: Callable[..., RedisServers]
) -> None:
    cluster = start_redis_cluster(proxied=True, node_timeout_ms=20_000)
    name = Names(PREFIX).purges
    server = cluster.node_of(name)
    origin.on(path, reply(b"old", FRESH))
    with Node(origin.url, **tables(cluster)) as node:
        ready(node)
        assert by_all(node, path, is_hot) == {b"old"}
        origin.on(path, reply(b"new", FRESH))
        cluster.cut(server)
        begun = last = time.monotonic()
        while (body := get(node, path).body) == b"old":
            last = time.monotonic()
        assert body == b"new"
        assert last - begun < WITHIN_S or is_busy()
        origin.on(path, reply(b"newer", FRESH))  # what is fetched meanwhile could be purged as well
        begun = time.monotonic()
        until(lambda: get(node, path).body == b"newer", "what was fetched meanwhile to be doubted")
        assert time.monotonic() - begun < WITHIN_S or is_busy()
        cluster.mend(server)
        until(lambda: by_all(node, path, is_hot) == {b"newer"}, "the cache to be used again")


def test_what_may_be_served_stale_is_served_from_hot_memory_while_redis_is_down(
    origin: Origin, path: str, start_redis_cluster: Callable[..., RedisServers]
) -> None:
    cluster = start_redis_cluster()
    origin.on(path, reply(b"old", LENIENT))
    with Node(origin.url, **tables(cluster)) as node:
        ready(node)
        assert by_all(node, path, is_hot) == {b"old"}
        origin.on(path, reply(b"broken", status="503 Service Unavailable"))
        for server in cluster.nodes:
            server.kill()
        until(lambda: "can't be read" in node.stderr, "the loss to be noticed")
        stale = get(node, path)
        record = node.record(stale.trace_id)
        assert (stale.body, record["cache"], record["cache_tier"]) == (b"old", "STALE", "memory")


def test_a_node_without_its_password_caches_nothing_that_can_not_be_purged(
    origin: Origin, path: str, redis_cluster: RedisServers, tmp_path: Any
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    settings = tables(redis_cluster)
    settings["cache"]["redis"]["password_file"] = str(secret)  # type: ignore[index]
    origin.on(path, reply(b"old", FRESH))
    with Node(origin.url, **settings) as node:
        secret.unlink()
        node.kill_worker()
        for text in (b"1", b"2"):
            origin.on(path, reply(text, FRESH))
            assert get(node, path).body == text
        refused = node.command("purge", "--all", check=False)
        assert refused.returncode == 1
        assert "nothing is purged: Redis can't be asked" in refused.stderr
