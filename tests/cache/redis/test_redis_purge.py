"""Purges across the nodes that share a Redis Cluster: what goes, on which nodes, how soon, and what stays gone."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import pytest

from tests.cache.redis.load import is_busy
from tests.cache.redis.purging import FRESH, LENIENT, SITE, WITHIN_S, by_all, by_api, get, is_hot, ready, stream, tables
from tests.cache.scripted import steps
from tests.support import Conversation, Node, Origin, RedisServers, gated, reply, request, until

_paths = count()


class Pair(NamedTuple):
    """Two nodes on one cluster."""

    first: Node
    """Of two workers."""
    second: Node
    """Of one."""


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture(scope="module")
def pair(origin: Origin, shared_redis_cluster: RedisServers) -> Iterator[Pair]:
    settings = tables(shared_redis_cluster)
    with Node(origin.url, workers=2, **settings) as first, Node(origin.url, **settings) as second:
        yield Pair(ready(first), ready(second))


@pytest.fixture
def path() -> str:
    return f"/page/{next(_paths)}"


def hot(pair: Pair, origin: Origin, path: str, *fields: str, cache: str = FRESH) -> str:
    """Have `old` in Redis and in each worker's memory, then `new` at the origin; the path."""
    origin.on(path, reply(b"old", cache, *fields))
    until(lambda: get(pair.first, path).body == b"old", "the old to be there")
    for node in pair:
        assert by_all(node, path, is_hot) == {b"old"}
    origin.on(path, reply(b"new", cache, *fields))
    return path


def gone(pair: Pair, path: str, since: float) -> None:
    """All workers of both nodes serve `new`, the last `old` was within a second, and none comes again."""
    last = since

    def new(node: Node) -> bool:
        nonlocal last
        bodies = {get(node, path).body for _ in range(8)}
        if b"old" in bodies:
            last = time.monotonic()
        return bodies == {b"new"}

    until(lambda: {new(node) for node in pair} == {True}, f"{path} to be gone")
    assert last - since < WITHIN_S or is_busy()
    for node in pair:
        assert by_all(node, path) == {b"new"}


def stays(pair: Pair, path: str) -> None:
    """What was not purged is still served."""
    for node in pair:
        assert by_all(node, path) == {b"old"}


# --- what goes, by which way

Way = Callable[[Node, str, str], None]


def by_command(node: Node, kind: str, value: str, *options: str) -> None:
    names = {"url": [SITE + value], "prefix": ["--prefix", SITE + value], "tag": ["--tag", value], "all": ["--all"]}
    done = node.command("purge", *names[kind], *options)
    assert f"confirmed by {len(node.worker_pids)} worker" in done.stdout
    assert done.stderr == ""


def by_method(node: Node, kind: str, value: str) -> None:
    fields = [f"Surrogate-Key: {value}"] if kind == "tag" else []
    target = {"url": value, "prefix": value + "*", "tag": "/", "all": "/*"}[kind]
    answer = get(node, target, *fields, method="PURGE")
    assert answer.status == 200, answer


@pytest.mark.parametrize("kind", ["url", "prefix", "tag", "all"])
@pytest.mark.parametrize("way", [by_command, by_api, by_method], ids=["command", "api", "method"])
def test_what_one_node_purges_is_gone_from_all_nodes_within_a_second(
    pair: Pair, origin: Origin, path: str, way: Way, kind: str
) -> None:
    tag = f"tag-{path}"
    hot(pair, origin, path, f"Surrogate-Key: other {tag}")
    other = hot(pair, origin, f"/other{path}", "Cache-Tag: other")
    begun = time.monotonic()
    way(pair.first, kind, {"tag": tag, "prefix": path[:-1]}.get(kind, path))
    if way is not by_command:  # which has a process to start
        assert time.monotonic() - begun < WITHIN_S or is_busy()
    gone(pair, path, time.monotonic())
    if kind != "all":
        stays(pair, other)


def test_a_purge_through_the_second_node_reaches_every_worker_of_the_first(
    pair: Pair, origin: Origin, path: str
) -> None:
    hot(pair, origin, path)
    by_method(pair.second, "url", path)
    gone(pair, path, time.monotonic())


def test_who_has_the_answer_to_a_purge_gets_nothing_old_from_that_worker(pair: Pair, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"0", FRESH))
    with pair.second.connect() as client:
        for number in range(1, 20):
            assert client.get(path).body == b"%d" % (number - 1)
            origin.on(path, reply(b"%d" % number, FRESH))
            client.send(request(path, method="PURGE") + request(path))
            assert client.response("PURGE").status == 200
            assert client.response().body == b"%d" % number


def test_what_a_post_changes_is_gone_from_all_nodes(pair: Pair, origin: Origin, path: str) -> None:
    hot(pair, origin, path)
    assert get(pair.first, path, "Content-Length: 0", method="POST").status == 200
    gone(pair, path, time.monotonic())


def test_a_soft_purge_makes_stale_on_all_nodes_and_no_more(pair: Pair, origin: Origin, path: str) -> None:
    hot(pair, origin, path)
    by_command(pair.first, "url", path, "--soft")
    until(lambda: pair.second.status().workers[0].purge_seq == pair.first.status().workers[0].purge_seq, "the rule")
    for node in pair:
        stale = get(node, path, "Cache-Control: max-stale=60")
        assert (stale.body, node.record(stale.trace_id)["cache"]) == (b"old", "STALE")
    gone(pair, path, time.monotonic())


@pytest.mark.parametrize("kind", ["tag", "all"])
def test_what_is_purged_is_never_served_stale(pair: Pair, origin: Origin, path: str, kind: str) -> None:
    hot(pair, origin, path, f"Cache-Tag: tag{path}", cache=LENIENT)
    origin.on(path, reply(b"broken", status="503 Service Unavailable"))
    by_api(pair.first, kind, f"tag{path}")
    seq = pair.first.status().workers[0].purge_seq
    until(lambda: pair.second.status().workers[0].purge_seq >= seq, "the rule to be known")
    for node in pair:
        for _ in range(5):
            assert get(node, path, "Cache-Control: max-stale").body == b"broken"


def test_one_tags_purge_leaves_the_other_tags_working(pair: Pair, origin: Origin, path: str) -> None:
    one, both, other = (
        hot(pair, origin, f"{path}/{tags.replace(' ', '-')}", f"Surrogate-Key: {tags}")
        for tags in (f"one{path}", f"one{path} other{path}", f"other{path}")
    )
    by_api(pair.first, "tag", f"one{path}")
    gone(pair, one, time.monotonic())
    gone(pair, both, time.monotonic())
    stays(pair, other)
    by_api(pair.second, "tag", f"other{path}")
    gone(pair, other, time.monotonic())


def test_cache_stats_tell_the_last_rule_that_the_workers_know(pair: Pair, path: str) -> None:
    by_api(pair.first, "url", path)
    stats = json.loads(pair.first.command("cache", "stats", "--json").stdout)
    assert stats["purge_seq"] == pair.first.status().workers[0].purge_seq > 0


# --- fills that began before


@pytest.mark.parametrize("filler", [0, 1], ids=["purging node", "other node"])
@pytest.mark.parametrize("kind", ["url", "tag", "all"])
def test_a_fill_that_began_before_a_purge_does_not_bring_it_back(
    pair: Pair, origin: Origin, path: str, filler: int, kind: str
) -> None:
    gate, begun = threading.Event(), threading.Event()

    def slowly(talk: Conversation) -> None:
        head = f"HTTP/1.1 200 OK\r\n{FRESH}\r\nCache-Tag: tag{path}\r\nContent-Length: 3\r\n\r\n"
        talk.send(head.encode())
        begun.set()
        talk.wait(gate)
        talk.send(b"old")

    origin.on(path, steps(slowly, reply(b"new", FRESH)))
    with pair[filler].connect() as client:
        client.send(request(path))
        begun.wait(20)
        by_api(pair.first, kind, f"tag{path}" if kind == "tag" else path)
        gate.set()
        assert client.response().body == b"old"
        gone(pair, path, time.monotonic())


@pytest.mark.parametrize("filler", [0, 1], ids=["purging node", "other node"])
def test_who_asks_after_a_purge_gets_nothing_that_was_asked_for_before(
    pair: Pair, origin: Origin, path: str, filler: int
) -> None:
    gate = threading.Event()
    origin.on(path, steps(gated(gate, reply(b"old", FRESH)), reply(b"new", FRESH)))
    with pair[filler].connect() as early:
        early.send(request(path))
        origin.wait_for(path)
        by_method(pair.first, "url", path)
        until(lambda: get(pair.first, path).body == b"new", "the new")
        gate.set()
        assert early.response().body == b"old"
    gone(pair, path, time.monotonic())


# --- nodes that were not there


def test_a_node_that_starts_later_honours_the_rules(
    pair: Pair, origin: Origin, path: str, shared_redis_cluster: RedisServers
) -> None:
    hot(pair, origin, path, f"Cache-Tag: tag{path}")
    kept = hot(pair, origin, f"{path}/kept")
    by_api(pair.first, "tag", f"tag{path}")
    with Node(origin.url, **tables(shared_redis_cluster, memory_bytes=0)) as later:
        ready(later)
        assert get(later, kept).body == b"old"
        assert get(later, path).body == b"new"


def test_a_purge_for_a_node_that_does_not_run_holds_for_all_others(
    pair: Pair, origin: Origin, path: str, shared_redis_cluster: RedisServers
) -> None:
    hot(pair, origin, path)
    absent = Node(origin.url, **tables(shared_redis_cluster))
    done = absent.command("purge", f"{SITE}{path}")
    assert "no node runs" in done.stderr
    assert "1 URL purged for all nodes that share its Redis Cluster" in done.stderr
    gone(pair, path, time.monotonic())


def test_other_prefixes_and_other_keys_are_not_touched_by_a_purge_of_all(
    pair: Pair, origin: Origin, path: str, shared_redis_cluster: RedisServers
) -> None:
    client = shared_redis_cluster.cluster_client()
    foreign = {f"foreign:{number}": f"{number}".encode() for number in range(50)} | {"shared:x": b"1", "{purges}": b"2"}
    for name, value in foreign.items():
        client.set(name, value)
    with Node(origin.url, **tables(shared_redis_cluster, prefix="tenant")) as tenant:
        ready(tenant)
        hot(pair, origin, path)
        origin.on(path, reply(b"tenant's", FRESH))
        assert get(tenant, path).body == b"tenant's"
        origin.on(path, reply(b"new", FRESH))
        by_api(pair.first, "all", "")
        gone(pair, path, time.monotonic())
        assert by_all(tenant, path, is_hot) == {b"tenant's"}
    assert {name: client.get(name) for name in foreign} == foreign


# --- rules that are not as they should be


def test_nothing_is_purged_where_one_rule_can_not_be(pair: Pair, origin: Origin, path: str) -> None:
    hot(pair, origin, path, "Cache-Tag: good")
    refused = pair.first.command("purge", "--tag", "good", "--tag", "x" * 2000, check=False)
    assert refused.returncode == 2
    assert "a tag to purge has at most" in refused.stderr
    stays(pair, path)


def test_a_damaged_rule_purges_everything(
    pair: Pair, origin: Origin, path: str, shared_redis_cluster: RedisServers
) -> None:
    hot(pair, origin, path)
    client, name = stream(shared_redis_cluster)
    client.xadd(name, {"kind": "nonsense"})
    gone(pair, path, time.monotonic())
    assert "a purge rule is damaged" in pair.second.stderr


def test_rules_that_are_lost_purge_everything_for_nodes_that_start_later_too(
    pair: Pair, origin: Origin, path: str, shared_redis_cluster: RedisServers
) -> None:
    hot(pair, origin, path)
    by_api(pair.first, "url", path)
    before = pair.first.status().workers[0].purge_seq
    client, name = stream(shared_redis_cluster)
    client.delete(name)
    until(lambda: client.xlen(name), "a rule to be in the place of those that are lost")
    until(lambda: all(w.purge_seq > before for node in pair for w in node.status().workers), "all to know it")
    with Node(origin.url, **tables(shared_redis_cluster, memory_bytes=0)) as later:
        ready(later)
        assert get(later, path).body == b"new"
    gone(pair, path, time.monotonic())
    again = hot(pair, origin, f"{path}/again")
    by_api(pair.second, "url", again)
    gone(pair, again, time.monotonic())


def test_the_last_rules_being_lost_shows_though_new_ones_came(
    pair: Pair, origin: Origin, path: str, shared_redis_cluster: RedisServers
) -> None:
    hot(pair, origin, path)
    client, name = stream(shared_redis_cluster)
    last = client.xrevrange(name, count=1)[0][0]
    pipeline = client.pipeline()  # what a failover may make of it
    pipeline.xdel(name, last)
    pipeline.xadd(name, {"kind": "tag", "value": "x", "soft": "0", "at": "0", "floor": "0"})
    pipeline.execute()
    gone(pair, path, time.monotonic())
