"""Purges across the nodes that share a Redis Cluster: what goes, on which nodes, how soon, and what stays gone."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import httpx
import pytest

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.purge import Kind, Purge
from edgeproxy.cache.redis import RedisStore, giver, open_store, rules
from edgeproxy.cache.redis.access import Access
from edgeproxy.cache.redis.layout import Names
from edgeproxy.cache.tiers import Tiers
from edgeproxy.config import RedisCache
from tests.cache.redis.load import is_busy
from tests.cache.scripted import steps
from tests.cache.stores import URL, entry, put
from tests.support import Conversation, Node, Origin, RedisServers, Response, gated, reply, request, until

SITE = "http://edge.test"
PREFIX = "shared"
WITHIN_S = 1.0
FRESH = "Cache-Control: max-age=3600"
LENIENT = "Cache-Control: max-age=3600, stale-while-revalidate=600, stale-if-error=600"
API = httpx.Client(trust_env=False, verify=False)
"""Made beforehand, and for plain HTTP: getting ready for TLS takes a client some time, which is not the purge's."""
_paths = count()


class Pair(NamedTuple):
    """Two nodes on one cluster."""

    first: Node
    """Of two workers."""
    second: Node
    """Of one."""


def tables(cluster: RedisServers, *, prefix: str = PREFIX, **cache: object) -> dict[str, dict[str, object]]:
    redis = {"nodes": cluster.addresses, "prefix": prefix}
    return {"cache": {"store": "redis", "purge_allow": ["127.0.0.1"], "redis": redis, **cache}}


def ready(node: Node) -> Node:
    """Wait until each worker uses Redis."""
    workers = len(node.worker_pids)
    until(lambda: node.stderr.count("the purge rules are known") >= workers, "the rules to be known")
    return node


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


def stream(cluster: RedisServers, prefix: str = PREFIX) -> tuple[Any, bytes]:
    """A client, and the name of the rules' stream."""
    return cluster.cluster_client(), Names(prefix).purges


# --- what goes, by which way

Way = Callable[[Node, str, str], None]


def by_command(node: Node, kind: str, value: str, *options: str) -> None:
    names = {"url": [SITE + value], "prefix": ["--prefix", SITE + value], "tag": ["--tag", value], "all": ["--all"]}
    done = node.command("purge", *names[kind], *options)
    assert f"confirmed by {len(node.worker_pids)} worker" in done.stdout
    assert done.stderr == ""


def by_api(node: Node, kind: str, value: str) -> None:
    wanted = {"url": {"urls": [SITE + value]}, "prefix": {"prefixes": [SITE + value]}, "tag": {"tags": [value]}}
    answer = API.post(f"{node.admin_url}/purge", json=wanted.get(kind, {"all": True}))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (len(found["confirmed"]), found["late"], found["rules"]) == (len(node.worker_pids), [], 1)
    assert "warning" not in found


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


# --- when Redis is not as it should be


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


def test_rules_that_are_lost_while_no_node_runs_do_not_bring_back_what_they_purged(
    origin: Origin, path: str, redis_cluster: RedisServers
) -> None:
    settings = tables(redis_cluster)
    client, name = stream(redis_cluster)
    url = f"{SITE}{path}".encode()
    origin.on(path, reply(b"old", FRESH))
    with Node(origin.url, **settings) as node:
        ready(node)
        assert get(node, path).body == b"old"
        until(lambda: client.exists(Names(PREFIX).primary(url, url)), "it to be stored")
        by_api(node, "url", path)
    origin.on(path, reply(b"new", FRESH))
    client.delete(name)
    with Node(origin.url, **settings) as later:
        ready(later)
        assert get(later, path).body == b"new"


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


# --- how many rules, how many commands


def access(cluster: RedisServers) -> Access:
    return Access(RedisCache(nodes=cluster.addresses), {})


def give(cluster: RedisServers, *purges: Purge) -> int:
    """Give rules as the command line does."""
    return giver.give(access(cluster), Names(PREFIX), purges).seq


def test_the_oldest_rules_go_and_what_knows_none_as_late_counts_as_purged(
    origin: Origin, path: str, redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_RULES", 20)
    monkeypatch.setattr(rules, "TRIM_RULES", 5)
    settings = tables(redis_cluster)
    origin.on(path, reply(b"old", FRESH))
    origin.on("/late", reply(b"late", FRESH))
    with Node(origin.url, **settings) as node:
        ready(node)
        assert get(node, path).body == b"old"
        for number in range(24):
            give(redis_cluster, Purge(Kind.TAG, b"t%d" % number))
        seq = give(redis_cluster, Purge(Kind.TAG, b"t"))
        until(lambda: node.worker().purge_seq >= seq, "the rules to be known")
        origin.on(path, reply(b"new", FRESH))
        assert get(node, path).body == b"old"  # it has read all of them, and none is about it
        assert get(node, "/late").body == b"late"
        until(lambda: redis_cluster.cluster_client().get(Names(PREFIX).primary(*[f"{SITE}/late".encode()] * 2)), "it")
        origin.on("/late", reply(b"later", FRESH))
    client, name = stream(redis_cluster)
    assert 20 <= client.xlen(name) <= 26
    with Node(origin.url, **settings) as later:
        ready(later)
        assert get(later, path).body == b"new"
        assert get(later, "/late").body == b"late"


async def test_a_worker_keeps_the_stream_bounded_and_has_it_stay(
    redis_cluster: RedisServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_RULES", 20)
    monkeypatch.setattr(rules, "TRIM_RULES", 5)
    store, tiers = opened(redis_cluster)
    client, name = stream(redis_cluster)
    try:
        await settled(lambda: store.rules.is_current)
        given: list[int] = []
        for number in range(100):
            tiers.purge(
                Purge(Kind.TAG, b"%d" % number), 0, lambda seq, error: given.append(seq if error is None else -1)
            )
            await settled(lambda number=number: len(given) == number + 1)  # type: ignore[misc]
        assert given == sorted(set(given))
        assert given[-1] <= tiers.purges.seq
        await settled(lambda: client.xlen(name) <= 26)
        assert client.pttl(name) > 300 * 86_400_000
        assert tiers.purges.check(b"", [b"99"], given[-2]).purged
        assert not tiers.purges.check(b"", [b"98"], given[-2]).purged
    finally:
        store.close()


async def test_many_rules_are_read_in_parts(redis_cluster: RedisServers) -> None:
    client, name = stream(redis_cluster)
    pipeline = client.pipeline()
    for number in range(2 * rules.PAGE + 1):
        pipeline.execute_command(*rules.adding(name, Purge(Kind.TAG, b"%d" % number), 0))
    ids = pipeline.execute()
    store, tiers = opened(redis_cluster)
    try:
        await settled(lambda: store.rules.is_current)
        assert store.rules.seq == rules.seq_of(ids[-1])
        tiers.take_rules()
        for number in (0, rules.PAGE, 2 * rules.PAGE):
            seq = rules.seq_of(ids[number])
            assert tiers.purges.check(b"", [b"%d" % number], seq - 1).purged
            assert not tiers.purges.check(b"", [b"%d" % number], seq).purged
    finally:
        store.close()


def opened(cluster: RedisServers) -> tuple[RedisStore, Tiers]:
    """A worker's cache, in this process; a busy machine is no time-out."""
    memory = HotMemory(0)
    config = RedisCache(nodes=cluster.addresses, prefix=PREFIX, timeout_ms=5000)
    store = open_store(config, memory, lambda: "0" * 16, {})
    tiers = Tiers(memory, store, store.rules, None)
    tiers.start()
    return store, tiers


async def settled(condition: Callable[[], object]) -> None:
    """Let the loop run until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  Redis tells nobody
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    "purge", [Purge(Kind.URL, URL), Purge(Kind.PREFIX, URL[:-1]), Purge(Kind.TAG, b"t"), Purge(Kind.ALL, b"")],
    ids=["url", "prefix", "tag", "all"],
)  # fmt: skip
async def test_what_a_node_stores_before_it_hears_of_a_purge_is_found_by_none(
    redis_cluster: RedisServers, purge: Purge
) -> None:
    (purging, purging_tiers), (filling, filling_tiers) = opened(redis_cluster), opened(redis_cluster)
    try:
        for store, tiers in ((purging, purging_tiers), (filling, filling_tiers)):
            await settled(lambda store=store: store.rules.seq)  # type: ignore[misc]
            tiers.take_rules()
        asked_at = filling_tiers.purges.seq  # its fetch begins, and it takes no rule any more
        given: list[int] = []
        purging_tiers.purge(purge, 0, lambda seq, _: given.append(seq))
        await settled(lambda: given)
        await put(filling, entry(tags=(b"t",), purge_seq=asked_at))
        assert await found(purging_tiers) is None
        filling_tiers.take_rules()
        assert await found(filling_tiers) is None
        await put(filling, entry(tags=(b"t",), purge_seq=given[0]))
        assert await found(purging_tiers) is not None
    finally:
        purging.close()
        filling.close()


async def found(tiers: Tiers) -> Entry | None:
    """What a worker has for the URL."""
    future: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
    tiers.lookup(URL, {}, None, future.set_result)
    return await asyncio.wait_for(future, 10)


@pytest.mark.parametrize("kind", [Kind.PREFIX, Kind.ALL], ids=["prefix", "all"])
def test_a_purge_takes_as_few_commands_with_20_000_entries_as_with_10(redis_cluster: RedisServers, kind: Kind) -> None:
    names = Names(PREFIX)
    client = redis_cluster.cluster_client()
    purge = Purge(kind, b"" if kind == Kind.ALL else SITE.encode())
    give(redis_cluster, purge)
    used = []
    for entries in (10, 20_000):
        pipeline = client.pipeline()
        for number in range(entries):
            url = f"{SITE}/{number}".encode()
            pipeline.set(names.primary(url, url), b"x", px=600_000)
        pipeline.execute()
        before = calls(redis_cluster)
        begun = time.monotonic()
        give(redis_cluster, purge)
        assert time.monotonic() - begun < WITHIN_S or is_busy()
        after = calls(redis_cluster)
        used.append({name: number - before.get(name, 0) for name, number in after.items()})
    few, many = used
    assert sum(many.values()) <= sum(few.values()) + 2, json.dumps([few, many])
    assert not {name for name, number in many.items() if number} & {"keys", "scan", "del", "unlink", "fcall", "eval"}


COMING_AND_GOING = ("cluster", "hello", "auth", "client", "info", "xrange", "ping", "replconf", "echo", "command")
"""What connections, the tests' nodes and the replicas ask for by themselves."""


def calls(cluster: RedisServers) -> dict[str, int]:
    """How often each command was executed by the masters."""
    found: dict[str, int] = {}
    for master in cluster.masters():
        for line, stats in master.control.info("commandstats").items():
            name = line.removeprefix("cmdstat_")
            if not name.startswith(COMING_AND_GOING):
                found[name] = found.get(name, 0) + stats["calls"]
    return found
