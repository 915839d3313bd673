"""The trail: which operations of which traces nodes note in Redis, and that it stays small and holds nothing up."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from edgeproxy.cache.operation import Operation
from edgeproxy.cache.redis.commands import Command
from edgeproxy.cache.redis.layout import DamagedError, Names
from edgeproxy.cache.redis.link import NoAnswerError, Reply
from edgeproxy.cache.redis.trail import (
    BATCH_OPERATIONS,
    TEXT_MAX_BYTES,
    TTL_MS,
    WAITING_OPERATIONS,
    Step,
    Trail,
    fields_of,
    step_of,
)
from edgeproxy.tracing.sampler import Sampler, SamplerKind
from tests.support import Node, Origin, RedisServers
from tests.support.origin import reply
from tests.support.wait import until

READY = "redis: the purge rules are known"
CACHED = "Cache-Control: max-age=600"
NAMES = Names("edgeproxy")
RATIO = 0.5
OPERATION = Operation(op="MGET", span_id="b" * 16, node="127.0.0.1:7000", slot=7, us=1200, outcome="hit")
type Start = Callable[..., Node]


@pytest.fixture
def start(start_node: Start) -> Start:
    """Start a node that keeps everything in a cluster: `start(cluster, trail_ratio=1.0)`."""

    def started(cluster: RedisServers, *, memory_bytes: int = 0, name: str = "edge-1", **redis: Any) -> Node:
        cache = {"store": "redis", "memory_bytes": memory_bytes, "redis": {"nodes": cluster.addresses, **redis}}
        node = start_node(cache=cache, node={"name": name})
        until(lambda: READY in node.stderr, "the node to use Redis")
        return node

    return started


def ask(node: Node, path: str, *fields: str) -> str:
    """Ask the node; the trace's id."""
    with node.connect() as client:
        return client.get(path, *fields).trace_id


def steps(cluster: RedisServers) -> list[Step]:
    """All that the trail has."""
    return [step_of(fields) for _, fields in cluster.cluster_client().xrange(NAMES.trail)]


# --- in a node


def test_an_operation_is_noted_as_it_stands_in_the_record(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/page", reply(b"page", CACHED))
    node = start(redis_cluster, trail_ratio=1.0, name="edge-7")
    miss, hit = ask(node, "/page?a=1"), ask(node, "/page?a=1")
    until(lambda: redis_cluster.cluster_client().xlen(NAMES.trail) == 3, "three operations")
    recorded = [
        (record["trace_id"], {**one, "at_ms": 0.0})  # the trail has the moment itself
        for record in map(node.record, (miss, hit))
        for one in record["store"]
    ]
    found = steps(redis_cluster)
    assert [(step.trace_id, vars_of(step.operation)) for step in found] == recorded
    assert {step.edge for step in found} == {"edge-7"}
    assert {step.url for step in found} == {b"http://edge.test/page?a=1"}
    assert [step.began_ns for step in found] == sorted(step.began_ns for step in found)
    (_, first), *_ = redis_cluster.cluster_client().xrange(NAMES.trail)
    assert first[b"key"] == NAMES.url(b"http://edge.test/page?a=1")
    assert {step.operation.node for step in found} == {redis_cluster.node_of(first[b"key"]).address}


def vars_of(operation: Operation) -> dict[str, Any]:
    return {name: getattr(operation, name) for name in operation.__struct_fields__}


def test_all_operations_of_a_trace_are_noted_or_none_as_the_sdks_sample(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/page", reply(b"page", CACHED))
    node = start(redis_cluster, trail_ratio=RATIO)
    traces = [secrets.token_hex(16) for _ in range(40)]
    edges = [secrets.token_hex(8) + low for low in ("7" + "f" * 15, "8" + "0" * 15)]
    for trace_id in traces + edges:
        ask(node, f"/page?{trace_id}", f"traceparent: 00-{trace_id}-{'c' * 16}-01", "Cache-Control: no-cache")
    sampler = Sampler(SamplerKind.TRACEIDRATIO, RATIO)
    wanted = {trace_id for trace_id in traces + edges if sampler.minted(trace_id)}
    assert edges[0] in wanted
    assert edges[1] not in wanted
    recorded = {one["span_id"] for trace_id in wanted for one in node.record(trace_id)["store"]}
    assert len(recorded) == 2 * len(wanted)
    until(lambda: len(steps(redis_cluster)) >= len(recorded), "the trail")
    assert {step.operation.span_id for step in steps(redis_cluster)} == recorded
    assert {step.trace_id for step in steps(redis_cluster)} == wanted


def test_with_no_share_there_is_no_trail(start: Start, redis_cluster: RedisServers) -> None:
    node = start(redis_cluster, trail_ratio=0.0)
    with redis_cluster.monitor(redis_cluster.node_of(NAMES.trail)) as monitor:
        node.record(ask(node, "/page"))
        node.stop()  # what waits would be sent now
        assert not [line for line in monitor.flushed() if "trail" in line]


def test_the_stream_keeps_the_last_operations_goes_out_in_batches_and_ends_by_itself(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/page", reply(b"page", CACHED))
    node = start(redis_cluster, trail_ratio=1.0, trail_entries=100)
    with redis_cluster.monitor(redis_cluster.node_of(NAMES.trail)) as monitor:
        with node.connect() as client:
            last = [client.get("/page").trace_id for _ in range(500)][-1]
        until(lambda: any(step.trace_id == last for step in steps(redis_cluster)), "the last operation")
        lines = monitor.flushed()
    added = [line for line in lines if '"XADD"' in line]
    batches = [line for line in lines if '"PEXPIRE"' in line and "trail" in line]
    assert len(added) == 501
    assert len(batches) <= len(added) / 5
    client = redis_cluster.cluster_client()
    assert 100 <= client.xlen(NAMES.trail) <= 200 + 1  # Redis takes out whole blocks of 100
    assert 0 < client.pttl(NAMES.trail) <= TTL_MS


def test_what_was_noted_last_is_sent_before_a_node_stops(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/page", reply(b"page", CACHED))
    node = start(redis_cluster, trail_ratio=1.0)
    traces = {ask(node, f"/page?{number}") for number in range(10)}
    node.stop()
    assert {step.trace_id for step in steps(redis_cluster)} == traces


def test_while_the_trail_cant_be_written_requests_go_on_and_what_is_noted_is_dropped(
    start: Start, origin: Origin, start_redis_cluster: Callable[..., RedisServers]
) -> None:
    origin.on("/page", reply(b"page", CACHED))
    cluster = start_redis_cluster(config={"cluster-replica-no-failover": "yes"})
    node = start(cluster, trail_ratio=1.0)
    dead = cluster.node_of(NAMES.trail)
    elsewhere = next(
        path for path in (f"/page?{n}" for n in range(100)) if cluster.node_of(NAMES.url(url(path))) is not dead
    )
    ask(node, elsewhere)
    until(lambda: cluster.cluster_client().xlen(NAMES.trail), "the trail")
    dead.kill()
    said = "the trail can't be written"
    until(lambda: ask(node, elsewhere) and said in node.stderr, "the loss to be noticed")
    for _ in range(50):
        record = node.record(ask(node, elsewhere))
        assert (record["status"], record["cache"]) == (200, "HIT")
    dead.restart()
    until(lambda: ask(node, elsewhere) and "the trail is written again" in node.stderr, "the trail to go on")
    assert node.stderr.count(said) == 1


def url(path: str) -> bytes:
    return f"http://edge.test{path}".encode()


def test_hot_memory_hears_of_what_other_nodes_replace_though_not_of_the_trail(
    start: Start, origin: Origin, redis_cluster: RedisServers
) -> None:
    origin.on("/page", reply(b"old", CACHED))
    first, second = (
        start(redis_cluster, memory_bytes=1_000_000, trail_ratio=1.0, name=name) for name in ("edge-1", "edge-2")
    )
    ask(first, "/page")
    until(lambda: first.record(ask(first, "/page"))["cache_tier"] == "memory", "a hit in hot memory")
    origin.on("/page", reply(b"new", CACHED))
    ask(second, "/page", "Cache-Control: no-cache")
    record = until(lambda: found if (found := first.record(ask(first, "/page")))["store"] else None, "a look-up")
    assert (record["cache_tier"], record["bytes_out"]) == ("redis", 3)


# --- by itself


class Silent:
    """A cluster that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Command] = []
        self.is_asked = asyncio.Event()
        self._answers: list[Callable[[Reply, None], None]] = []

    def ask(self, _name: bytes, asked: Command, answer: Callable[[Reply, None], None]) -> None:
        self.asked.append(asked)
        self.is_asked.set()
        self._answers.append(answer)

    def answer(self, reply: Reply) -> None:
        self._answers.pop(0)(reply, None)


def made(cluster: Silent) -> Trail:
    return Trail(cluster, NAMES, ratio=1.0, max_entries=1000, edge="edge-1")  # type: ignore[arg-type]


def note(trail: Trail, count: int, url: bytes = b"http://edge.test/") -> None:
    for _ in range(count):
        trail.note(OPERATION, "a" * 32, NAMES.url(url), url, 1)


async def test_what_waits_is_bounded_while_redis_does_not_answer_and_the_rest_is_counted() -> None:
    cluster = Silent()
    trail = made(cluster)
    note(trail, 5000)
    assert [len(one) for one in cluster.asked] == [BATCH_OPERATIONS + 1]
    assert trail.dropped == 5000 - BATCH_OPERATIONS - WAITING_OPERATIONS
    cluster.answer(NoAnswerError("no reply in time"))
    assert trail.dropped == 5000 - WAITING_OPERATIONS
    for _ in range(WAITING_OPERATIONS // BATCH_OPERATIONS):
        cluster.answer(1)
    assert trail.dropped == 5000 - WAITING_OPERATIONS
    trail.close()


async def test_a_few_operations_leave_together_after_a_moment() -> None:
    cluster = Silent()
    trail = made(cluster)
    note(trail, 3)
    assert not cluster.asked
    await asyncio.wait_for(cluster.is_asked.wait(), 10)
    assert len(cluster.asked[0]) == 4
    assert b"PEXPIRE" in cluster.asked[0][-1]
    cluster.answer(1)
    await trail.finish()


def test_an_entry_is_small_however_long_its_url() -> None:
    url = b"http://edge.test/" + b"x" * 100_000
    fields = fields_of((OPERATION, "a" * 32, NAMES.url(url), url + b"\x00\x03hx;", 1), b"edge-1")
    assert sum(map(len, fields)) < 3 * TEXT_MAX_BYTES
    step = step_of(dict(zip(fields[::2], fields[1::2], strict=True)))
    assert step == Step(OPERATION, "a" * 32, url[:TEXT_MAX_BYTES], "edge-1", 1)


@pytest.mark.parametrize("broken", [{}, {b"op": b"MGET"}, {b"slot": b"x"}])
def test_an_entry_that_is_none_is_called_damaged(broken: dict[bytes, bytes]) -> None:
    fields = fields_of((OPERATION, "a" * 32, b"name", b"http://edge.test/", 1), b"edge-1")
    whole = dict(zip(fields[::2], fields[1::2], strict=True))
    with pytest.raises(DamagedError):
        step_of({**whole, **broken} if b"slot" in broken else broken)
