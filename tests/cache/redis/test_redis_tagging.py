"""What Redis shows of traces: MONITOR and SLOWLOG have the traceparent of each operation; nothing stays for ever."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from edgeproxy.cache.redis.layout import Names
from tests.support import Monitored, Node, Origin, RedisServers
from tests.support.origin import reply
from tests.support.wait import until

READY = "redis: the purge rules are known"
CACHED = "Cache-Control: max-age=600"
MODES = ("plain", "function")
NAMES = Names("edgeproxy")
LONG = "/" + "a-long-path-" * 10
"""Longer than what SLOWLOG shows of a word."""
type Start = Callable[..., Node]


@pytest.fixture
def start(start_node: Start, redis_cluster: RedisServers) -> Start:
    """Start a node that keeps everything in Redis: `start(tag_operations="function")`."""

    def started(**redis: Any) -> Node:
        node = start_node(
            cache={"store": "redis", "memory_bytes": 0, "redis": {"nodes": redis_cluster.addresses, **redis}}
        )
        until(lambda: READY in node.stderr, "the node to use Redis")
        return node

    return started


@pytest.fixture
def monitors(redis_cluster: RedisServers) -> Iterator[list[Monitored]]:
    with ExitStack() as stack:
        yield [stack.enter_context(redis_cluster.monitor(master)) for master in redis_cluster.masters()]


@pytest.fixture
def all_is_slow(redis_cluster: RedisServers) -> Iterator[None]:
    """Have SLOWLOG show every command."""
    clients = [redis_cluster.client(node) for node in redis_cluster.nodes]
    was = [client.config_get("slowlog-log-slower-than", "slowlog-max-len") for client in clients]
    for client in clients:
        client.config_set("slowlog-log-slower-than", 0)
        client.config_set("slowlog-max-len", 4096)
    yield
    for client, settings in zip(clients, was, strict=True):
        for name, value in settings.items():
            client.config_set(name, value)


def ask(node: Node, path: str, *fields: str, method: str = "GET") -> dict[str, Any]:
    """Ask the node; the request's record."""
    with node.connect() as client:
        trace_id = client.get(path, *fields, method=method).trace_id
    return node.record(trace_id)


def tagged(record: dict[str, Any], op: str, lines: list[str]) -> list[str]:
    """The lines that show the traceparent of the record's operation; it has just one of that name."""
    (operation,) = [one for one in record["store"] if one["op"] == op]
    return [line for line in lines if f"00-{record['trace_id']}-{operation['span_id']}-0" in line]


def slow(cluster: RedisServers) -> list[str]:
    """The commands that SLOWLOG shows, on all servers."""
    return [
        entry["command"].decode("latin-1")
        for node in cluster.running()
        for entry in cluster.client(node).slowlog_get(4096)
    ]


def test_a_miss_its_store_and_a_hit_show_their_traceparents_in_monitor(
    start: Start, origin: Origin, monitors: list[Monitored], subtests: pytest.Subtests
) -> None:
    origin.on("/page", reply(b"page", CACHED))
    for mode in MODES:
        with subtests.test(mode=mode):
            node = start(tag_operations=mode, prefix=mode)
            miss = ask(node, "/page")
            hit = ask(node, "/page")
            assert [(one["op"], one["outcome"]) for one in miss["store"]] == [("MGET", "miss"), ("SET", "ok")]
            assert [(one["op"], one["outcome"]) for one in hit["store"]] == [("MGET", "hit")]
            lines = [line for monitor in monitors for line in monitor.flushed()]
            word = {"plain": ("MGET", "SET"), "function": ("FCALL_RO", "FCALL")}[mode]
            for record, op, command in ((miss, "MGET", word[0]), (miss, "SET", word[1]), (hit, "MGET", word[0])):
                assert any(f'"{command}"' in line for line in tagged(record, op, lines)), (op, lines)
            writes = [line for line in lines if f'"{word[1]}"' in line and f"{mode}:1:{{" in line and "/page}" in line]
            assert writes
            assert set(writes) <= set(tagged(miss, "SET", lines)), "head and body"
            assert miss["store"][0]["span_id"] != miss["store"][1]["span_id"] != miss["span_id"]


def test_functions_that_redis_has_forgotten_are_loaded_again(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/forgotten", reply(b"kept", CACHED))
    node = start(tag_operations="function")
    until(lambda: ask(node, "/forgotten")["cache"] == "HIT", "a hit")
    for master in redis_cluster.masters():
        master.command("FUNCTION", "FLUSH", "SYNC")
    until(lambda: ask(node, "/forgotten")["cache"] == "HIT", "a hit again")


def test_a_discard_shows_its_traceparent_in_monitor(
    start: Start, origin: Origin, monitors: list[Monitored], subtests: pytest.Subtests
) -> None:
    for mode in MODES:
        with subtests.test(mode=mode):
            origin.on("/page", reply(b"page", "Cache-Control: max-age=600", 'ETag: "1"'))
            node = start(tag_operations=mode, prefix=mode)
            ask(node, "/page")
            origin.on("/page", reply(b"mine", "Cache-Control: no-store"))
            record = ask(node, "/page", "Cache-Control: no-cache")
            assert [one["op"] for one in record["store"]] == ["MGET", "UNLINK", "SET"], record  # SET: not to be stored
            lines = [line for monitor in monitors for line in monitor.flushed()]
            word = {"plain": "UNLINK", "function": "FCALL"}[mode]
            assert any(f'"{word}"' in line for line in tagged(record, "UNLINK", lines)), lines


def test_slowlog_shows_the_traceparents_of_long_urls_too(
    start: Start, origin: Origin, redis_cluster: RedisServers, all_is_slow: None, subtests: pytest.Subtests
) -> None:
    for mode in MODES:
        with subtests.test(mode=mode):
            origin.on(LONG, reply(b"page", CACHED, 'ETag: "1"'))
            node = start(tag_operations=mode, prefix=mode)
            miss, hit = ask(node, LONG), ask(node, LONG)
            origin.on(LONG, reply(b"mine", "Cache-Control: no-store"))
            gone = ask(node, LONG, "Cache-Control: no-cache")
            lines = slow(redis_cluster)
            for record, op in ((miss, "MGET"), (miss, "SET"), (hit, "MGET"), (gone, "UNLINK")):
                assert tagged(record, op, lines), (op, lines)


def test_without_tags_no_command_shows_a_trace_but_what_is_stored_still_says_who_filled_it(
    start: Start, origin: Origin, redis_cluster: RedisServers, monitors: list[Monitored]
) -> None:
    origin.on("/page", reply(b"page", CACHED))
    node = start(tag_operations="off", trail_ratio=0)
    miss, hit = ask(node, "/page"), ask(node, "/page")
    lines = [line for monitor in monitors for line in monitor.flushed()]
    assert not [line for line in lines if hit["trace_id"] in line]
    (name,) = (key for key in keys(redis_cluster) if key.endswith(b"/page}"))
    value = redis_cluster.cluster_client().get(name)
    (_, stored) = miss["store"]
    assert value.startswith(f"1e00-{miss['trace_id']}-{stored['span_id']}-0".encode())


def test_all_that_a_run_leaves_in_redis_ends_by_itself_but_the_purge_rules(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/page", reply(b"page", CACHED, 'ETag: "1"'))
    origin.on("/empty", reply(b"", CACHED))
    origin.on("/varies", reply(b"varies", CACHED, "Vary: Accept-Language"))
    origin.on("/mine", reply(b"mine", "Cache-Control: no-store"))
    origin.on("/large", reply(b"x" * 300_000, CACHED))
    node = start(trail_ratio=1, max_object_bytes=200_000, compress_types=["text/"], compress_min_bytes=1)
    for path in ("/page", "/empty", "/varies", "/mine", "/large", "/absent"):
        ask(node, path)
        ask(node, path, "Cache-Control: no-cache")
    ask(node, "/varies", "Accept-Language: de")
    node.command("purge", f"{node.url}/page")
    ask(node, "/page", method="POST")
    client = redis_cluster.cluster_client()
    until(lambda: client.exists(NAMES.trail), "the trail")
    found = keys(redis_cluster)
    assert len(found) > 8
    assert all(name.startswith(NAMES.root) for name in found), found
    assert {name for name in found if client.pttl(name) < 0} <= {NAMES.purges}


def keys(cluster: RedisServers) -> set[bytes]:
    """All there are."""
    return {key for master in cluster.masters() for key in cluster.client(master).keys("*")}
