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
PATIENT_MS = 5000
"""For a reply of Redis: a busy machine is no time-out."""
LONG = "/" + "a-long-path-" * 10
"""Longer than what SLOWLOG shows of a word."""
type Start = Callable[..., Node]


@pytest.fixture
def start(start_node: Start, redis_cluster: RedisServers) -> Start:
    """Start a node that keeps everything in Redis: `start(tag_operations="function")`."""

    def started(**redis: Any) -> Node:
        table = {"nodes": redis_cluster.addresses, "timeout_ms": PATIENT_MS, **redis}
        node = start_node(cache={"store": "redis", "memory_bytes": 0, "redis": table})
        until(lambda: READY in node.stderr, "the node to use Redis")
        return node

    return started


@pytest.fixture
def monitors(shared_redis_cluster: RedisServers) -> Iterator[list[Monitored]]:
    with ExitStack() as stack:
        yield [stack.enter_context(shared_redis_cluster.monitor(master)) for master in shared_redis_cluster.masters()]


@pytest.fixture
def all_is_slow(shared_redis_cluster: RedisServers) -> Iterator[None]:
    """Have SLOWLOG show every command."""
    clients = [shared_redis_cluster.client(node) for node in shared_redis_cluster.nodes]
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


class TestEitherWay:
    @pytest.fixture(scope="class")
    @classmethod
    def site(cls) -> Iterator[Origin]:
        with Origin() as origin:
            yield origin

    @pytest.fixture(scope="class")
    @classmethod
    def edges(cls, site: Origin, shared_redis_cluster: RedisServers) -> Iterator[dict[str, Node]]:
        """A node for each way of tagging, by its name; each test asks for other paths."""
        shared_redis_cluster.wait_ready()
        shared_redis_cluster.flush()
        redis = {"nodes": shared_redis_cluster.addresses, "timeout_ms": PATIENT_MS}
        with ExitStack() as stack:
            nodes = {}
            for mode in MODES:
                own = {**redis, "tag_operations": mode, "prefix": mode}
                node = Node(site.url, cache={"store": "redis", "memory_bytes": 0, "redis": own})
                nodes[mode] = stack.enter_context(node)
                until(lambda node=node: READY in node.stderr, "the node to use Redis")  # type: ignore[misc]
            yield nodes

    def test_a_miss_its_store_and_a_hit_show_their_traceparents_in_monitor(
        self, edges: dict[str, Node], site: Origin, monitors: list[Monitored], subtests: pytest.Subtests
    ) -> None:
        site.on("/seen", reply(b"page", CACHED))
        for mode, node in edges.items():
            with subtests.test(mode=mode):
                miss = ask(node, "/seen")
                hit = ask(node, "/seen")
                assert [(one["op"], one["outcome"]) for one in miss["store"]] == [("MGET", "miss"), ("SET", "ok")]
                assert [(one["op"], one["outcome"]) for one in hit["store"]] == [("MGET", "hit")]
                lines = [line for monitor in monitors for line in monitor.flushed()]
                word = {"plain": ("MGET", "SET"), "function": ("FCALL_RO", "FCALL")}[mode]
                for record, op, command in ((miss, "MGET", word[0]), (miss, "SET", word[1]), (hit, "MGET", word[0])):
                    assert any(f'"{command}"' in line for line in tagged(record, op, lines)), (op, lines)
                writes = [
                    line for line in lines if f'"{word[1]}"' in line and f"{mode}:1:{{" in line and "/seen}" in line
                ]
                assert writes
                assert set(writes) <= set(tagged(miss, "SET", lines)), "head and body"
                assert miss["store"][0]["span_id"] != miss["store"][1]["span_id"] != miss["span_id"]

    def test_a_discard_shows_its_traceparent_in_monitor(
        self, edges: dict[str, Node], site: Origin, monitors: list[Monitored], subtests: pytest.Subtests
    ) -> None:
        for mode, node in edges.items():
            with subtests.test(mode=mode):
                site.on("/discarded", reply(b"page", "Cache-Control: max-age=600", 'ETag: "1"'))
                ask(node, "/discarded")
                site.on("/discarded", reply(b"mine", "Cache-Control: no-store"))
                record = ask(node, "/discarded", "Cache-Control: no-cache")
                # SET: that it is not to be stored
                assert [one["op"] for one in record["store"]] == ["MGET", "UNLINK", "SET"], record
                lines = [line for monitor in monitors for line in monitor.flushed()]
                word = {"plain": "UNLINK", "function": "FCALL"}[mode]
                assert any(f'"{word}"' in line for line in tagged(record, "UNLINK", lines)), lines

    def test_slowlog_shows_the_traceparents_of_long_urls_too(
        self,
        edges: dict[str, Node],
        site: Origin,
        shared_redis_cluster: RedisServers,
        all_is_slow: None,
        subtests: pytest.Subtests,
    ) -> None:
        for mode, node in edges.items():
            with subtests.test(mode=mode):
                site.on(LONG, reply(b"page", CACHED, 'ETag: "1"'))
                miss, hit = ask(node, LONG), ask(node, LONG)
                site.on(LONG, reply(b"mine", "Cache-Control: no-store"))
                gone = ask(node, LONG, "Cache-Control: no-cache")
                lines = slow(shared_redis_cluster)
                for record, op in ((miss, "MGET"), (miss, "SET"), (hit, "MGET"), (gone, "UNLINK")):
                    assert tagged(record, op, lines), (op, lines)


def test_functions_that_redis_has_forgotten_are_loaded_again(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/forgotten", reply(b"kept", CACHED))
    node = start(tag_operations="function")
    until(lambda: ask(node, "/forgotten")["cache"] == "HIT", "a hit")
    for master in redis_cluster.masters():
        master.command("FUNCTION", "FLUSH", "SYNC")
    until(lambda: ask(node, "/forgotten")["cache"] == "HIT", "a hit again")


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
