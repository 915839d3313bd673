"""What tests of purges in Redis share: nodes that use a cluster, what they serve, and a purge through the admin API."""

from collections.abc import Callable
from typing import Any

import httpx

from edgeproxy.cache.redis.layout import Names
from tests.support import Node, RedisServers, Response, until

SITE = "http://edge.test"
PREFIX = "shared"
WITHIN_S = 1.0
FRESH = "Cache-Control: max-age=3600"
LENIENT = "Cache-Control: max-age=3600, stale-while-revalidate=600, stale-if-error=600"
API = httpx.Client(trust_env=False, verify=False)
"""Made beforehand, and for plain HTTP: getting ready for TLS takes a client some time, which is not the purge's."""


def tables(cluster: RedisServers, *, prefix: str = PREFIX, **cache: object) -> dict[str, dict[str, object]]:
    redis = {"nodes": cluster.addresses, "prefix": prefix}
    return {"cache": {"store": "redis", "purge_allow": ["127.0.0.1"], "redis": redis, **cache}}


def ready(node: Node) -> Node:
    """Wait until each worker uses Redis."""
    workers = len(node.worker_pids)
    until(lambda: node.stderr.count("the purge rules are known") >= workers, "the rules to be known")
    return node


def get(node: Node, path: str, *fields: str, method: str = "GET") -> Response:
    """An answer, from whichever worker."""
    with node.connect() as client:
        return client.get(path, "Connection: close", *fields, method=method)


def by_all(node: Node, path: str, is_served: Callable[[dict[str, Any]], bool] = lambda _: True) -> set[bytes]:
    """Ask until each worker has answered in the way that is waited for; the bodies in these answers."""
    bodies: dict[int, bytes] = {}

    def served() -> bool:
        response = get(node, path)
        record = node.record(response.trace_id)
        if is_served(record):
            bodies[record["worker"]] = response.body
        return len(bodies) == len(node.worker_pids)

    until(served, f"every worker to answer for {path}")
    return set(bodies.values())


def is_hot(record: dict[str, Any]) -> bool:
    """Whether hot memory had the answer."""
    return record["cache"] == "HIT" and record["cache_tier"] == "memory"


def stream(cluster: RedisServers, prefix: str = PREFIX) -> tuple[Any, bytes]:
    """A client, and the name of the rules' stream."""
    return cluster.cluster_client(), Names(prefix).purges


def by_api(node: Node, kind: str, value: str) -> None:
    wanted = {"url": {"urls": [SITE + value]}, "prefix": {"prefixes": [SITE + value]}, "tag": {"tags": [value]}}
    answer = API.post(f"{node.admin_url}/purge", json=wanted.get(kind, {"all": True}))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (len(found["confirmed"]), found["late"], found["rules"]) == (len(node.worker_pids), [], 1)
    assert "warning" not in found
