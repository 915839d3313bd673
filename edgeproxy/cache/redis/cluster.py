"""The cluster as a worker sees it: which node has which slot, and a way to ask for a key wherever it is.

Topology is redis-py's business (`discover`): it is asked anew when a node redirects, goes or comes, and from time to
time. Between those times redirections are followed, so a slot that moves costs one round trip more and no request.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError as ClientError

from edgeproxy.cache.redis.access import Access, Address
from edgeproxy.cache.redis.commands import Command
from edgeproxy.cache.redis.link import NoAnswerError, RedisError, Reply
from edgeproxy.cache.redis.node import Node

SLOTS = 16384
TICK_S = 0.05
"""How often nodes are looked after."""
DISCOVER_S = 30.0
DISCOVER_AGAIN_S = 0.5
"""How often the topology is asked for: at rest, and while something is wrong."""
REDIRECTIONS = 3
"""So many in a row are followed."""

Answer = Callable[[Reply, Node | None], None]
"""Gets a reply, or a RedisError, and the node that it is from."""
_log = structlog.get_logger()


class Cluster:
    """One worker's use of the cluster."""

    def __init__(
        self,
        access: Access,
        timeout_s: float,
        *,
        greeting: Callable[[bool], Sequence[Command]],
        read_from_replicas: bool,
    ) -> None:
        """Know where to begin; `start` connects. `greeting` gives what follows HELLO on a connection, to a replica or
        not.
        """
        self.timeout_s = timeout_s
        self.nodes: dict[Address, Node] = {}
        self.on_push: Callable[[list[Any]], None] = lambda _: None
        self.on_lost: Callable[[Node], None] = lambda _: None
        """Called when a node can't say any more what changes."""
        self.on_connected: Callable[[Node], None] = lambda _: None
        self.redirections = 0
        self._access = access
        self._greeting = greeting
        self._with_replicas = read_from_replicas
        self._slots: list[Node | None] = [None] * SLOTS
        self._replicas: dict[Node, list[Node]] = {}
        self._turn = 0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._discover_at = 0.0
        self._discovered = False
        self._reported = ""

    def start(self) -> None:
        """Begin to connect; needs a running loop. What is asked for before it is done fails at once."""
        self._tick()

    def close(self) -> None:
        """Let go; whoever waits gets an error."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        for node in list(self.nodes.values()):
            node.close()

    # --- asking

    def ask(self, name: bytes, asked: Command, answer: Answer, *, is_read: bool = False) -> None:
        """Give a command to the node that has a key's slot; `answer` is called in a later turn of the loop."""
        slot = key_slot(name)
        node = self._slots[slot]
        if is_read and self._with_replicas and node is not None:
            node = self._reader(node)
        self._ask(slot, node, asked, answer, 0, asking=False)

    def ask_node(self, node: Node, asked: Command, answer: Answer) -> None:
        """Give a command to one node."""
        self._ask(-1, node, asked, answer, REDIRECTIONS, asking=False)

    async def request(self, name: bytes, asked: Command) -> Reply:
        """As `ask`, for whoever can wait: the reply, or a RedisError."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.ask(name, asked, lambda reply, _: _settle(future, reply))
        return await future

    async def request_node(self, node: Node, asked: Command) -> Reply:
        """As `ask_node`, for whoever can wait: the reply, or a RedisError."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.ask_node(node, asked, lambda reply, _: _settle(future, reply))
        return await future

    def _ask(self, slot: int, node: Node | None, asked: Command, answer: Answer, hops: int, *, asking: bool) -> None:
        if node is None:
            error = NoAnswerError("no node is known for the key's slot")
            asyncio.get_running_loop().call_soon(answer, error, None)
            return

        def answered(reply: Reply) -> None:
            if not isinstance(reply, RedisError):
                node.answered()
            elif not isinstance(reply, NoAnswerError):
                node.answered()
                if reply.code in ("MOVED", "ASK") and hops < REDIRECTIONS:
                    self._redirected(slot, reply, asked, answer, hops)
                    return
                if reply.code == "CLUSTERDOWN":
                    self._discover_soon()
            answer(reply, node)

        node.ask(asked, answered, asking=asking)

    def _redirected(self, slot: int, reply: RedisError, asked: Command, answer: Answer, hops: int) -> None:
        self.redirections += 1
        try:
            where = Address.parse(str(reply).split(" ")[2])
        except (IndexError, ValueError):
            answer(reply, None)
            return
        node = self._node(where)
        if reply.code == "MOVED":
            self._slots[slot] = node
            self._discover_soon()
        self._ask(slot, node, asked, answer, hops + 1, asking=reply.code == "ASK")

    def _reader(self, master: Node) -> Node:
        choices = [one for one in (master, *self._replicas.get(master, ())) if one.is_well]
        if not choices:
            return master
        self._turn += 1
        chosen: Node = choices[self._turn % len(choices)]
        return chosen

    def master_of(self, name: bytes) -> Node | None:
        """The node that has a key's slot, as far as is known."""
        return self._slots[key_slot(name)]

    @property
    def masters(self) -> list[Node]:
        """The nodes that have slots."""
        return list(dict.fromkeys(node for node in self._slots if node is not None))

    # --- a node's calls

    def greeting(self, *, is_replica: bool) -> Sequence[Command]:
        """What every connection to a node begins with."""
        return [self._access.greeting("edgeproxy"), *self._greeting(is_replica)]

    def connected(self, node: Node) -> None:
        """A node can be asked."""
        self._discover_soon()
        self.on_connected(node)

    def disconnected(self, node: Node) -> None:
        """A node can't be asked any more."""
        self._discover_soon()
        self.on_lost(node)

    def pushed(self, message: list[Any]) -> None:
        """What a node says unasked."""
        self.on_push(message)

    # --- in the background

    def _tick(self) -> None:
        now = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        for node in self.nodes.values():
            node.maintain(now)
        if self._task is None and now >= self._discover_at:
            self._discover_at = now + DISCOVER_AGAIN_S
            self._task = asyncio.get_running_loop().create_task(self._discover())

    def _discover_soon(self) -> None:
        self._discover_at = min(self._discover_at, time.monotonic() + TICK_S)

    async def _discover(self) -> None:
        try:
            found = await discover(self._access, [node.address for node in self.nodes.values() if node.is_well])
        except (ClientError, OSError, TimeoutError) as error:
            if str(error) != self._reported:
                self._reported = str(error)
                _log.error("redis cluster can't be asked for its nodes", error=str(error))
        else:
            self._reported = ""
            self._take(found)
        finally:
            self._task = None

    def _take(self, found: Sequence[tuple[int, int, Sequence[Address]]]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        replicas: dict[Node, list[Node]] = {}
        for first, last, (master, *others) in found:
            node = self._node(master)
            node.is_replica = False
            slots[first : last + 1] = [node] * (last + 1 - first)
            if self._with_replicas:
                replicas[node] = [self._node(one) for one in others]
        for node in (one for several in replicas.values() for one in several):
            node.is_replica = True
        self._slots = slots
        self._replicas = replicas
        known = {*replicas, *(one for several in replicas.values() for one in several), *self.masters}
        for address, node in list(self.nodes.items()):
            if node not in known:
                del self.nodes[address]
                node.close()
        if None not in slots and all(node.is_well for node in known):
            self._discover_at = time.monotonic() + DISCOVER_S
        self._discovered = True

    def _node(self, address: Address) -> Node:
        node = self.nodes.get(address)
        if node is None:
            node = self.nodes[address] = Node(self, self._access, address, self.timeout_s)
            node.maintain(time.monotonic())
        return node


def _settle(future: asyncio.Future[Reply], reply: Reply) -> None:
    if not future.done():
        future.set_result(reply)


async def discover(access: Access, first: Iterable[Address]) -> list[tuple[int, int, list[Address]]]:
    """Ask the cluster who has which slots: first and last slot, master, its replicas. Those in `first` are asked rather
    than the configured ones, if there are any. Raises redis-py's errors or OSError when nobody answers.
    """
    asked = list(first) or access.addresses
    client: RedisCluster = RedisCluster(
        startup_nodes=[ClusterNode(one.host, one.port) for one in asked],
        retry=Retry(NoBackoff(), 0),
        **access.client_arguments(),
    )
    try:
        slots = (await client.initialize()).nodes_manager.slots_cache
        found: list[tuple[int, int, list[Address]]] = []
        last_nodes: object = None
        for slot in sorted(slots):
            nodes = slots[slot]
            if found and nodes is last_nodes and found[-1][1] == slot - 1:
                found[-1] = (found[-1][0], slot, found[-1][2])
            else:
                found.append((slot, slot, [Address(node.host, int(node.port)) for node in nodes]))
            last_nodes = nodes
        return found
    finally:
        await client.aclose()
