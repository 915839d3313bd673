"""The edge never fails because Redis does. All of these happen under load: no client may notice more than that
something takes longer, nobody waits for longer than was configured, and nothing has to be restarted.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from edgeproxy.cache.redis import layout
from edgeproxy.cache.redis.breaker import FAILURES
from tests.cache.redis.load import HOT, THREADS, Load, answer, body_of, operations
from tests.support import Node, Origin, RedisServers, slot_of, until

TIMEOUT_MS = 50
SLACK_MS = 450
"""What a machine on which much else runs may add to that."""
STALLED_S = 5
"""For how long a worker may be kept from running there."""
AT_ONCE_MS = 5
OPENED = "redis node is given a rest"
BACK = "redis node is back"
READY = "redis: the purge rules are known"
UNKNOWN = "redis: the purge rules can't be read"
LATE = "no reply in time"
REFUSED = (
    "the node's circuit breaker is open",
    "there is no connection to the node",
    "no node is known for the key's slot",
)
type StartCluster = Callable[..., RedisServers]
type StartEdges = Callable[..., "Edges"]


class Edges:
    """Two nodes before one origin that share a cluster: one has hot memory, one asks Redis for everything."""

    def __init__(self, origin: Origin, cluster: RedisServers, **redis: Any) -> None:
        """Prepare them; `redis` is what their configuration says about the cluster beside its nodes."""
        self.origin = origin
        self.cluster = cluster
        self._stack = ExitStack()
        origin.default = answer
        table = {"nodes": cluster.addresses, **redis}
        self.bare = Node(origin.url, cache={"store": "redis", "memory_bytes": 0, "redis": table})
        self.hot = Node(origin.url, cache={"store": "redis", "redis": table})
        self._said_before = dict.fromkeys(self.all, 0)
        self._lines_before = dict.fromkeys(self.all, 0)

    def __enter__(self) -> Self:
        with self._stack:
            for node in self.all:
                self._stack.enter_context(node)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def all(self) -> list[Node]:
        """Both."""
        return [self.bare, self.hot]

    def begin(self) -> None:
        """Leave out from here on what they have said and logged so far."""
        for node in self.all:
            self._said_before[node] = len(node.stderr)
            self._lines_before[node] = len(node.flushed())

    def stderr(self, node: Node) -> str:
        """What a node has said."""
        return node.stderr[self._said_before[node] :]

    def said(self, node: Node, event: str, times: int = 1) -> None:
        """Wait until a node has said something in its log, so many times."""
        until(lambda: self.stderr(node).count(event) >= times, f"{times} times {event!r} in the log")

    def load(self) -> Load:
        """Load on both."""
        return Load(*(node.port for node in self.all))

    def wait_ready(self) -> None:
        """Wait until both use Redis."""
        for node in self.all:
            self.said(node, READY)
        self.wait_hits()

    def wait_hits(self) -> None:
        """Wait until all that is asked for often comes from Redis."""
        for path in HOT:
            until(lambda path=path: self.is_hit(path), f"{path} to come from Redis")

    def is_hit(self, path: str) -> bool:
        """Whether a response comes from Redis: from where else, where there is no hot memory."""
        with self.bare.connect() as client:
            response = client.get(path)
        assert response.status == 200
        assert response.body == body_of(path)
        return "; hit" in response["cache-status"]

    def ask(self, path: str) -> str:
        """Ask the one without hot memory; the trace id."""
        with self.bare.connect() as client:
            response = client.get(path)
        assert (response.status, response.body) == (200, body_of(path))
        return response.trace_id

    def wait_connections(self) -> None:
        """Wait until each has one connection to each master, and no other one to any server: nothing has leaked."""
        wanted = {node.port: 1 for node in self.cluster.masters()}
        for node in self.all:
            until(lambda node=node: sockets(node, self.cluster) == wanted, f"connections {wanted}")

    def errors_of(self, node: Node) -> Counter[str]:
        """With what operations have failed, and how often. None has taken longer than it may, but for those that were
        under way while the machine did not let the worker run; those that were refused took no time at all.
        """
        done = operations(node.flushed()[self._lines_before[node] :])
        took = sorted(operation["us"] for operation in done)
        assert took[len(took) * 98 // 100] < (TIMEOUT_MS + SLACK_MS) * 1000
        assert took[-1] < STALLED_S * 1e6
        refused = [operation["us"] for operation in done if operation["error"] in REFUSED]
        assert not refused or statistics.median(refused) < AT_ONCE_MS * 1000
        return Counter(operation["error"] for operation in done if operation["outcome"] == "error")

    def check_few_waited(self, *, nodes: int = 1) -> Counter[str]:
        """Few requests have waited in vain for nodes that were lost, before everyone else was refused at once."""
        errors = self.errors_of(self.bare)
        assert errors[LATE] <= nodes * (FAILURES + THREADS), errors
        assert sum(errors[why] for why in REFUSED) > 0, errors
        return errors


def sockets(node: Node, cluster: RedisServers) -> dict[int, int]:
    """How many sockets a worker has to each server of a cluster, by port."""
    pid = node.worker().pid
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue  # closed meanwhile
    ports = {server.port for server in cluster.nodes}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    remote = [int(row[2].rpartition(":")[2], 16) for row in rows if row[9] in inodes]
    return dict(Counter(port for port in remote if port in ports))


@pytest.fixture(scope="module")
def module_cluster() -> Iterator[RedisServers]:
    with RedisServers(proxied=True, node_timeout_ms=60_000) as started:  # whatever happens: no failover
        yield started


@pytest.fixture
def cluster(module_cluster: RedisServers) -> RedisServers:
    """A cluster behind proxies; all that is done to it is undone."""
    module_cluster.wait_ready()
    module_cluster.flush()
    return module_cluster


@pytest.fixture(scope="module")
def module_edges(module_cluster: RedisServers) -> Iterator[Edges]:
    module_cluster.wait_ready()
    with Origin() as origin, Edges(origin, module_cluster) as edges:
        edges.wait_ready()
        yield edges


@pytest.fixture
def edges(cluster: RedisServers, module_edges: Edges) -> Edges:
    """Nodes that tests share, in use and with all their connections: as they have to be left."""
    module_edges.wait_hits()
    module_edges.wait_connections()
    module_edges.begin()
    return module_edges


@pytest.fixture
def start_edges(origin: Origin) -> Iterator[StartEdges]:
    with ExitStack() as stack:

        def start(cluster: RedisServers, **redis: Any) -> Edges:
            return stack.enter_context(Edges(origin, cluster, **redis))

        yield start


def configure(cluster: RedisServers, *, maxmemory: str, policy: str) -> None:
    """How much memory every master may use, and what it does when it has no more."""
    for master in cluster.masters():
        master.control.config_set("maxmemory-policy", policy)
        master.control.config_set("maxmemory", maxmemory)


class Values:
    """What lies in Redis, changed behind the edge's back."""

    PATH = "/value"

    def __init__(self, edges: Edges) -> None:
        """With a response that is stored."""
        self._edges = edges
        self._client = edges.cluster.cluster_client()
        url = f"http://edge.test{self.PATH}".encode()
        self._name = layout.Names("edgeproxy").primary(url, url)

    def change(self, suffix: str, damage: Callable[[bytes], bytes | None]) -> None:
        """Change a value, with its TTL: the edge notices, says so with the trace, and fetches it anew."""

        def changed(client: Any, name: bytes) -> None:
            value = damage(client.get(name))
            if value is None:
                client.delete(name)
            else:
                client.set(name, value, keepttl=True)

        self.spoil(suffix, changed, is_damage=True)

    def spoil(self, suffix: str, spoil: Callable[[Any, bytes], None], *, is_damage: bool) -> None:
        """Have something done to a value, and see that no client notices."""
        edges = self._edges
        until(lambda: edges.is_hit(self.PATH), "it to be stored")
        name = self._name + suffix.encode()
        before = len(edges.origin.seen(self.PATH))
        spoil(self._client, name)
        trace_id = edges.ask(self.PATH)
        assert len(edges.origin.seen(self.PATH)) == before + 1, "it was fetched anew"
        looked_up = edges.bare.record(trace_id)["store"][0]
        assert looked_up["outcome"] == ("error" if is_damage else "miss"), looked_up
        assert not is_damage or trace_id in edges.bare.stderr, "the log says for whom"
        until(lambda: edges.is_hit(self.PATH), "it to be stored anew")


@pytest.fixture(scope="module")
def values(module_edges: Edges) -> Values:
    return Values(module_edges)


# --- nodes that are lost


def test_a_master_that_is_killed_is_replaced(start_redis_cluster: StartCluster, start_edges: StartEdges) -> None:
    cluster = start_redis_cluster()
    edges = start_edges(cluster)
    edges.wait_ready()
    master = cluster.masters()[1]
    with edges.load() as load:
        master.kill()
        edges.said(edges.bare, OPENED)
        load.more()
        cluster.wait_failover(master)
        edges.wait_hits()
        load.more()
    assert not load.failures
    assert sum(edges.check_few_waited().values()) > 0
    edges.errors_of(edges.hot)
    edges.wait_connections()


def test_two_masters_that_are_killed_leave_the_third_one_s_share(
    start_redis_cluster: StartCluster, start_edges: StartEdges
) -> None:
    """Nobody can replace them: it takes most of the masters to agree on that."""
    cluster = start_redis_cluster()
    edges = start_edges(cluster)
    edges.wait_ready()
    masters = cluster.masters()
    with edges.load() as load:
        for master in masters[:2]:
            master.kill()
        edges.said(edges.bare, OPENED, 2)
        load.more()
        for master in masters[:2]:
            master.start()
        cluster.wait_ready()
        edges.wait_hits()
        load.more()
    assert not load.failures
    edges.check_few_waited(nodes=2)
    edges.errors_of(edges.hot)
    edges.wait_connections()


def test_a_node_that_is_stopped_holds_nobody_up(cluster: RedisServers, edges: Edges) -> None:
    master = cluster.masters()[1]
    with edges.load() as load:
        master.stop()
        try:
            edges.said(edges.bare, OPENED)
            edges.said(edges.hot, OPENED)
            load.more(300)
        finally:
            master.cont()
        edges.said(edges.bare, BACK)
        edges.wait_hits()
        load.more()
    assert not load.failures
    edges.check_few_waited()
    edges.errors_of(edges.hot)
    edges.wait_connections()


def test_a_network_that_swallows_everything_holds_nobody_up(cluster: RedisServers, edges: Edges) -> None:
    master = cluster.masters()[0]
    with edges.load() as load:
        cluster.cut(master)
        try:
            edges.said(edges.bare, OPENED)
            load.more(300)
        finally:
            cluster.mend(master)
        edges.said(edges.bare, BACK)
        edges.wait_hits()
        load.more()
    assert not load.failures
    edges.check_few_waited()
    edges.wait_connections()


def test_all_nodes_lost_leave_the_origin(cluster: RedisServers, edges: Edges) -> None:
    with edges.load() as load:
        for master in cluster.masters():
            cluster.cut(master)
        try:
            edges.said(edges.bare, OPENED, 3)
            edges.said(edges.bare, UNKNOWN)
            load.more(300)
        finally:
            for master in cluster.masters():
                cluster.mend(master)
        edges.said(edges.bare, READY)
        edges.wait_hits()
        load.more()
    assert not load.failures
    edges.errors_of(edges.bare)
    edges.errors_of(edges.hot)
    edges.wait_connections()


def test_a_node_that_is_down_as_the_edge_starts_is_used_when_it_comes(
    cluster: RedisServers, start_edges: StartEdges
) -> None:
    down = cluster.nodes[0]
    cluster.cut(down)
    try:
        edges = start_edges(cluster)
        with edges.load() as load:
            edges.said(edges.bare, OPENED)
            load.more()
    finally:
        cluster.mend(down)
    assert not load.failures
    edges.wait_ready()
    edges.wait_connections()


def test_no_node_at_all_as_the_edge_starts_leaves_the_origin(cluster: RedisServers, start_edges: StartEdges) -> None:
    for node in cluster.nodes:
        cluster.cut(node)
    try:
        edges = start_edges(cluster)
        with edges.load() as load:
            edges.said(edges.bare, OPENED, 6)
            load.more()
    finally:
        for node in cluster.nodes:
            cluster.mend(node)
    assert not load.failures
    edges.wait_ready()
    edges.wait_connections()


# --- nodes that say no


def test_slots_that_move_are_followed(cluster: RedisServers, edges: Edges) -> None:
    names = layout.Names("edgeproxy")
    url = f"http://edge.test{HOT[0]}".encode()
    name = names.primary(url, url)
    slot = slot_of(name)
    source = cluster.node_of_slot(slot)
    target = next(master for master in cluster.masters() if master is not source)
    with edges.load() as load:
        cluster.begin_move(slot, target, name, layout.body_name(name))
        asked = edges.bare.record(edges.ask(HOT[0]))
        load.more(200)
        cluster.end_move(slot)
        edges.wait_hits()
        load.more()
    assert not load.failures
    assert {operation["slot"] for operation in asked["store"]} == {slot}
    last = edges.bare.record(edges.ask(HOT[0]))
    assert [(operation["node"], operation["outcome"]) for operation in last["store"]] == [(target.address, "hit")]
    assert last["cache_tier"] == "redis"
    errors = edges.errors_of(edges.bare)
    assert not [why for why in errors if why.startswith(("MOVED", "ASK"))], errors
    edges.wait_connections()
    cluster.move_slot(slot, source)


def test_full_memory_is_read_from_all_the_same(cluster: RedisServers, edges: Edges) -> None:
    with edges.load() as load:
        configure(cluster, maxmemory="1", policy="noeviction")
        try:
            load.more(300)
            assert edges.is_hit(HOT[0])
            refused = edges.bare.record(edges.ask("/refused"))
        finally:
            configure(cluster, maxmemory="0", policy="noeviction")
        assert [(one["op"], one["outcome"], one["error"][:3]) for one in refused["store"]] == [
            ("MGET", "miss", ""),
            ("SET", "error", "OOM"),
        ]
        until(lambda: edges.is_hit("/refused"), "room for what was refused")
        load.more()
    assert not load.failures
    errors = set(edges.errors_of(edges.bare)) - {LATE}  # which on a busy machine may be, memory or not
    assert errors == {refused["store"][1]["error"]}
    assert OPENED not in edges.stderr(edges.bare), "a node that says no is there"


def test_a_wrong_password_is_said_once_and_may_become_right(cluster: RedisServers, start_edges: StartEdges) -> None:
    for node in cluster.nodes:
        node.command("ACL", "SETUSER", "edge", "on", ">another", "~*", "&*", "+@all")
    edges = start_edges(cluster, username="edge", password="right")
    with edges.load() as load:
        edges.said(edges.bare, OPENED, 6)
        load.more()
        for node in cluster.nodes:
            node.command("ACL", "SETUSER", "edge", ">right")
        edges.wait_ready()
        load.more()
    assert not load.failures
    assert edges.stderr(edges.bare).count("WRONGPASS") == 6, "once for each node"
    assert "right" not in edges.stderr(edges.bare).replace("copyright", "")
    edges.wait_connections()


# --- values that are not as they should be


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda value: b"", id="empty"),
        pytest.param(lambda value: b"2" + value[1:], id="another-version"),
        pytest.param(lambda value: b"1x" + value[2:], id="another-kind"),
        pytest.param(lambda value: value[:70], id="cut-off"),
        pytest.param(lambda value: value[:-1], id="one-byte-short"),
        pytest.param(lambda value: value + b"\xc0", id="one-byte-more"),
        pytest.param(lambda value: value.replace(b"text/plain", b"text/plaim"), id="another-field"),
        pytest.param(lambda value: value.replace(b"app", b"a\xffp"), id="no-utf-8"),
        pytest.param(lambda value: value[:60] + bytes(40), id="zeros"),
        pytest.param(lambda value: bytes(range(256)) * 4, id="noise"),
        pytest.param(lambda value: b"1v" + value[2:], id="a-vary-mark"),
    ],
)
def test_a_damaged_head_is_a_miss(values: "Values", damage: Callable[[bytes], bytes]) -> None:
    values.change("", damage)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda value: b"", id="empty"),
        pytest.param(lambda value: value[:-1] + b"x", id="another-byte"),
        pytest.param(lambda value: value + b"x", id="one-byte-more"),
        pytest.param(lambda value: None, id="none"),
    ],
)
def test_a_damaged_body_is_a_miss(values: "Values", damage: Callable[[bytes], bytes | None]) -> None:
    values.change(".b", damage)


def test_a_value_of_another_type_is_a_miss(values: "Values") -> None:
    def push(client: Any, name: bytes) -> None:
        client.delete(name)
        client.rpush(name, "a", "b")

    values.spoil("", push, is_damage=False)
