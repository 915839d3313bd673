"""Nodes come and go, and move what they have: a worker's view of the cluster follows, and leaks nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from redis.crc import key_slot
from structlog.testing import capture_logs

from edgeproxy.cache.redis import cluster as module
from edgeproxy.cache.redis import rules
from edgeproxy.cache.redis.access import Access, Address
from edgeproxy.cache.redis.breaker import State
from edgeproxy.cache.redis.cluster import SLOTS, Cluster, ranges_of
from edgeproxy.cache.redis.commands import command
from edgeproxy.cache.redis.layout import Names
from edgeproxy.cache.redis.link import NoAnswerError, RedisError
from edgeproxy.config import RedisCache
from tests.cache.redis.scripted import OK, Scripted, soon

TIMEOUT_S = 0.05
GET = command("GET", "a")


class Seen:
    """A cluster, and what it has said."""

    def __init__(self, *servers: Scripted, with_replicas: bool = False, nodes: list[str] | None = None) -> None:
        """Beginning with these servers."""
        addresses = nodes or [f"127.0.0.1:{server.port}" for server in servers]
        self.cluster = Cluster(
            Access(RedisCache(nodes=addresses), {}),
            TIMEOUT_S,
            greeting=lambda is_replica: [command("READONLY")] if is_replica else [],
            read_from_replicas=with_replicas,
        )
        self.lost: list[str] = []
        self.cluster.on_lost = lambda node: self.lost.append(node.name)
        self.servers = servers

    def __enter__(self) -> Self:
        self.cluster.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()

    async def ready(self) -> "Seen":
        """Wait until all slots have a node that is well."""
        masters = lambda: self.cluster.masters  # noqa: E731
        await soon(lambda: masters() and all(node.is_well for node in masters()), "the cluster to be known")
        return self

    async def get(self) -> Any:
        """Ask for a key."""
        return await self.cluster.request(key_slot(b"a"), GET)


def slots(*ranges: tuple[int, int, int], host: str = "127.0.0.1") -> bytes:
    """What CLUSTER SLOTS says: first and last slot, and the port that has them."""
    said = b"*%d\r\n" % len(ranges)
    for first, last, port in ranges:
        said += b"*3\r\n:%d\r\n:%d\r\n*3\r\n$%d\r\n%b\r\n:%d\r\n$1\r\nx\r\n" % (
            *(first, last, len(host), host.encode()),
            port,
        )
    return said


def serving(server: Scripted, **replies: bytes) -> None:
    """Have a server be a cluster by itself, with replies for some commands."""

    def answer(words: list[bytes]) -> bytes | None:
        name = words[0].decode()
        return replies[name] if name in replies else slots((0, SLOTS - 1, server.port)) if name == "CLUSTER" else OK

    server.answer = answer


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as started:
        serving(started)
        yield started


@pytest.fixture
async def other() -> AsyncIterator[Scripted]:
    async with Scripted() as started:
        serving(started)
        yield started


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have done in milliseconds what takes seconds."""
    monkeypatch.setattr(module, "TICK_S", 0.001)
    monkeypatch.setattr(module, "DISCOVER_AGAIN_S", 0.001)
    monkeypatch.setattr("edgeproxy.cache.redis.breaker.REST_S", 0.001)
    monkeypatch.setattr("edgeproxy.cache.redis.breaker.REST_MAX_S", 0.002)


def open_files() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


# --- being well


async def test_a_node_that_nothing_is_asked_of_is_missed_within_a_second(server: Scripted) -> None:
    with Seen(server) as seen:
        await seen.ready()
        seen.lost.clear()
        server.answer = lambda _: None
        started = time.monotonic()
        await soon(lambda: seen.lost, "the loss to be noticed")
        assert time.monotonic() - started < 1.5, "a second, and what a busy machine takes"


async def test_what_a_node_may_have_said_in_vain_is_doubted_as_it_goes_and_as_it_comes(
    server: Scripted, hurried: None
) -> None:
    with Seen(server) as seen:
        await seen.ready()
        name = f"127.0.0.1:{server.port}"
        assert seen.lost == [name], "as it came"
        await server.stop()
        await soon(lambda: len(seen.lost) == 2, "the loss")
        breaker = seen.cluster.nodes[Address("127.0.0.1", server.port)].breaker
        for _ in range(20):  # not once more with each attempt in vain
            await soon(lambda: breaker.state is State.HALF_OPEN, "a probe")
            await soon(lambda: breaker.state is State.OPEN, "its end")
        assert seen.lost == [name] * 2
        await server.listen()
        await seen.ready()
        assert seen.lost == [name] * 3


async def test_what_a_node_may_have_said_in_vain_is_doubted_as_the_cluster_does_without_it(
    server: Scripted, other: Scripted, hurried: None
) -> None:
    shared = slots((0, 9999, server.port), (10000, SLOTS - 1, other.port))
    for one in (server, other):
        serving(one, CLUSTER=shared)
    with Seen(server, other) as seen:
        await seen.ready()
        await soon(lambda: len(seen.cluster.masters) == 2, "both to be known")
        await seen.ready()
        seen.lost.clear()
        for one in (server, other):
            serving(one, CLUSTER=slots((0, SLOTS - 1, server.port)))
        seen.cluster._discover_soon()
        await soon(lambda: len(seen.cluster.masters) == 1, "one to have gone")
        assert seen.lost == [f"127.0.0.1:{other.port}"]


async def test_a_node_that_says_no_is_well(server: Scripted) -> None:
    serving(server, PING=b"-NOPERM no\r\n", GET=b"-LOADING wait\r\n")
    with Seen(server) as seen:
        await seen.ready()
        for _ in range(10):
            assert (await seen.get()).code == "LOADING"
        await soon(lambda: server.asked(b"PING") > 1, "two heartbeats")
        (node,) = seen.cluster.masters
        assert node.is_well


async def test_a_node_that_is_slow_is_given_a_rest_and_comes_back(server: Scripted) -> None:
    serving(server, GET=b"")
    with Seen(server) as seen:
        await seen.ready()
        (node,) = seen.cluster.masters
        replies = await asyncio.gather(*(seen.get() for _ in range(5)))
        assert {str(reply) for reply in replies} == {"no reply in time"}
        assert node.breaker.state is State.OPEN
        started = time.monotonic()
        assert str(await seen.get()) == "the node's circuit breaker is open"
        assert time.monotonic() - started < TIMEOUT_S
        serving(server, GET=b"+a\r\n")
        server.say(b"+late\r\n" * 5)
        await soon(lambda: node.is_well, "the node to be back")
        assert await seen.get() == b"a"


# --- where nodes are


@pytest.mark.parametrize("host", ["a" * 64, "nobody.invalid", "256.0.0.1", "\x7f"])
async def test_a_name_that_leads_nowhere_is_tried_again(host: str, hurried: None) -> None:
    with Seen(nodes=["127.0.0.1:1"]) as seen:
        node = seen.cluster._node(Address(host, 6379))
        await soon(lambda: node.breaker.state is State.HALF_OPEN, "an attempt")
        await soon(lambda: node.breaker.state is State.OPEN, "its end")
        await soon(lambda: node.breaker.state is State.HALF_OPEN, "another attempt")
        assert node.last_error.startswith("can't be connected to")


@pytest.mark.parametrize(
    "where",
    ["127.0.0.1:%d", ":%d", "?:%d"],
    ids=["named", "a-host-that-is-left-out-is-that-of-the-node-itself", "and-so-is-one-that-is-not-known"],
)
@pytest.mark.parametrize("word", ["MOVED", "ASK"])
async def test_redirections_are_followed(server: Scripted, other: Scripted, word: str, where: str) -> None:
    serving(server, GET=f"-{word} 15495 {where % other.port}\r\n".encode())
    serving(other, GET=b"+there\r\n", CLUSTER=slots((0, SLOTS - 1, server.port)))
    with Seen(server) as seen:
        await seen.ready()
        await seen.get()  # the other node becomes known by that
        await soon(lambda: other.accepted and other.commands, "a connection")

        async def followed() -> bool:
            return bool(await seen.get() == b"there")

        for _ in range(200):
            if await followed():
                break
        else:
            raise AssertionError("the redirection is not followed")
        assert other.asked(b"ASKING") == (0 if word == "MOVED" else other.asked(b"GET"))


@pytest.mark.parametrize(
    "said", ["MOVED", "MOVED 1", "MOVED 1 nowhere", "MOVED 1 :x", "ASK 1 ", "MOVED 1 127.0.0.1:99999999"]
)
async def test_redirections_that_lead_nowhere_are_errors(server: Scripted, said: str) -> None:
    serving(server, GET=f"-{said}\r\n".encode())
    with Seen(server) as seen:
        await seen.ready()
        assert isinstance(await seen.get(), RedisError)


async def test_redirections_in_a_circle_end(server: Scripted, other: Scripted) -> None:
    shared = slots((0, 9999, server.port), (10000, SLOTS - 1, other.port))
    serving(server, GET=b"-MOVED 15495 127.0.0.1:%d\r\n" % other.port, CLUSTER=shared)
    serving(other, GET=b"-MOVED 15495 127.0.0.1:%d\r\n" % server.port, CLUSTER=shared)
    with Seen(server, other) as seen:
        await seen.ready()
        await soon(lambda: len(seen.cluster.masters) == 2, "both to be known")
        reply = await seen.get()
        assert reply.code == "MOVED"
        assert server.asked(b"GET") + other.asked(b"GET") == module.REDIRECTIONS + 1


async def test_connections_may_become_a_replicas(server: Scripted) -> None:
    with Seen(server, with_replicas=True) as seen:
        await seen.ready()
        assert server.asked(b"READONLY") == 1
    with Seen(server) as seen:
        await seen.ready()
        assert server.asked(b"READONLY") == 1


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param([], id="no-slots"),
        pytest.param(None, id="nothing"),
        pytest.param(b"OK", id="no-list"),
        pytest.param([[0, 1]], id="no-node"),
        pytest.param([[0]], id="no-range"),
        pytest.param([[0, SLOTS, [b"h", 1]]], id="too-many-slots"),
        pytest.param([[9, 8, [b"h", 1]]], id="from-behind"),
        pytest.param([[0, 1, [b"\xff", 1]]], id="no-host"),
        pytest.param([[0, 1, [b"h", b"x"]]], id="no-port"),
        pytest.param([[0, 1, [5, 1]]], id="a-number-for-a-host"),
    ],
)
def test_what_no_cluster_says_of_its_slots_is_refused(reply: object) -> None:
    with pytest.raises(RedisError):
        ranges_of(reply, Address("asked", 1))


@pytest.mark.parametrize("host", [None, b"", b"?"])
def test_a_node_that_does_not_know_its_host_is_where_it_was_asked(host: bytes | None) -> None:
    (found,) = ranges_of([[0, 5, [host, 7, b"id", []], [b"b", 8, b"id"]]], Address("asked", 1))
    assert found == (0, 5, [Address("asked", 7), Address("b", 8)])


async def test_a_slot_of_the_purge_rules_that_nobody_has_is_said_once(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "POLL_S", 0.001)
    monkeypatch.setattr(rules, "PATIENCE_S", 0.1)
    names = Names("edgeproxy")
    serving(server, CLUSTER=slots((0, key_slot(names.purges) - 1, server.port)))
    with Seen(server) as seen, capture_logs() as said:
        shared = rules.SharedRules(seen.cluster, names)
        shared.start()
        event = {"event": "redis: the purge rules are not known; nothing from Redis is used", "log_level": "error"}
        await soon(lambda: said, "a line in the log")
        stale = 0

        def on_stale() -> None:
            nonlocal stale
            stale += 1

        shared.on_stale = on_stale
        await soon(lambda: stale > 1, "some time to pass")
        shared.close()
    assert said == [{**event, "error": "no node is known for the key's slot"}]


# --- leaks


def lost_slots(server: Scripted) -> None:
    serving(server, CLUSTER=b"-ERR no\r\n")


def no_slots(server: Scripted) -> None:
    serving(server, CLUSTER=b"*0\r\n")


@pytest.mark.parametrize("fail", [lost_slots, no_slots])
async def test_a_topology_that_can_t_be_had_a_hundred_times_leaks_nothing(
    server: Scripted, hurried: None, fail: Callable[[Scripted], None]
) -> None:
    with Seen(server) as seen:
        await seen.ready()
        fail(server)
        seen.cluster._discover_soon()
        files, tasks = open_files(), len(asyncio.all_tasks())
        before = server.asked(b"CLUSTER")
        await soon(lambda: server.asked(b"CLUSTER") >= before + 100, "a hundred attempts")
        assert open_files() == files
        assert len(asyncio.all_tasks()) == tasks
        assert server.accepted == 1


async def test_a_hundred_connections_in_vain_leak_nothing(server: Scripted, hurried: None) -> None:
    with Seen(server) as seen:
        await seen.ready()
        files, tasks = open_files(), len(asyncio.all_tasks())
        serving(server, HELLO=b"-NOAUTH no\r\n")
        accepted = server.accepted
        server.writers.pop().transport.abort()
        await soon(lambda: server.accepted >= accepted + 100, "a hundred attempts")
        serving(server)
        await seen.ready()
        assert len(seen.lost) == 3, "as it came, as it went, as it came: not each time in vain"
        for writer in server.writers[:-1]:
            writer.transport.abort()
        await soon(lambda: open_files() <= files and len(asyncio.all_tasks()) <= tasks, "nothing to be left")


async def test_a_closed_cluster_leaves_nothing(server: Scripted) -> None:
    files, tasks = open_files(), len(asyncio.all_tasks())
    with Seen(server) as seen:
        await seen.ready()
        serving(server, GET=b"")
        asked = [asyncio.ensure_future(seen.get()) for _ in range(3)]
        await soon(lambda: server.asked(b"GET") == 3, "all to be asked")
    assert {type(reply) for reply in await asyncio.gather(*asked)} == {NoAnswerError}
    await soon(lambda: open_files() == files and len(asyncio.all_tasks()) == tasks, "nothing to be left")


async def test_taking_in_the_topology_does_not_hold_up_the_loop(server: Scripted) -> None:
    with Seen(server) as seen:
        await seen.ready()
        reply = [[at, at + 127, [b"127.0.0.1", server.port, b"id", []]] for at in range(0, SLOTS, 128)]
        took = []
        for _ in range(5):
            started = time.thread_time()
            seen.cluster._take(ranges_of(reply, Address("127.0.0.1", server.port)))
            took.append(time.thread_time() - started)
        assert min(took) < 0.005, "redis-py's client of clusters takes 8 to 15 ms"
