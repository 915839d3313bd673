"""The cluster as a worker sees it: which node has which slot, and a way to ask for a key wherever it is.

The nodes themselves are asked for the topology, each in its turn, over the connections that there are: when one of them
redirects, goes or comes, and from time to time. Between those times redirections are followed, so a slot that moves
costs one round trip more and no request. (redis-py's client of clusters would do this on connections of its own, and
hold up the loop for 8 to 15 ms each time.)
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from edgeproxy.cache.redis.access import Access, Address
from edgeproxy.cache.redis.commands import Command, command
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
Range = tuple[int, int, Sequence[Address]]
"""First and last slot, and who has them: the master, its replicas."""
_SLOTS = command("CLUSTER", "SLOTS")
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
        """Called when a node may have said in vain what has changed: as it goes, and as it comes."""
        self.on_connected: Callable[[Node], None] = lambda _: None
        self.on_unknown_function: Callable[[Node], None] = lambda _: None
        """Called when a node has forgotten the functions that it was told as it came."""
        self.redirections = 0
        self._access = access
        self._greeting = greeting
        self._with_replicas = read_from_replicas
        self._slots: list[Node | None] = [None] * SLOTS
        self._replicas: dict[Node, list[Node]] = {}
        self._turn = 0
        self._is_asking = False
        self._timer: asyncio.TimerHandle | None = None
        self._discover_at = 0.0
        self._reported = ""

    def start(self) -> None:
        """Begin to connect; needs a running loop. What is asked for before it is done fails at once."""
        self._tick()

    def close(self) -> None:
        """Let go; whoever waits gets an error."""
        if self._timer is not None:
            self._timer.cancel()
        for node in list(self.nodes.values()):
            node.close()

    # --- asking

    def ask(self, slot: int, asked: Command, answer: Answer, *, is_read: bool = False) -> None:
        """Give a command to the node that has a slot; `answer` is called in a later turn of the loop."""
        node = self._slots[slot]
        if is_read and self._with_replicas and node is not None:
            node = self._reader(node)
        self._ask(slot, node, asked, answer, 0, asking=False)

    def ask_node(self, node: Node, asked: Command, answer: Answer) -> None:
        """Give a command to one node."""
        self._ask(-1, node, asked, answer, REDIRECTIONS, asking=False)

    async def request(self, slot: int, asked: Command) -> Reply:
        """As `ask`, for whoever can wait: the reply, or a RedisError."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.ask(slot, asked, lambda reply, _: _settle(future, reply))
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
                    self._redirected(slot, node, reply, asked, answer, hops)
                    return
                if reply.code == "CLUSTERDOWN":
                    self._discover_soon()
                elif "Function not found" in str(reply):
                    self.on_unknown_function(node)
            answer(reply, node)

        node.ask(asked, answered, asking=asking)

    def _redirected(
        self, slot: int, source: Node, reply: RedisError, asked: Command, answer: Answer, hops: int
    ) -> None:
        self.redirections += 1
        try:
            where = str(reply).split(" ")[2]
            host, _, port = where.rpartition(":")
            # A node that does not know under which name clients find the other one leaves the host out.
            address = Address.parse(where) if _host(host.encode()) else source.address._replace(port=int(port))
        except (IndexError, ValueError):
            answer(reply, source)
            return
        node = self._node(address)
        if reply.code == "MOVED":
            self._slots[slot] = node
            self._discover_soon()
        self._ask(slot, node, asked, answer, hops + 1, asking=reply.code == "ASK")

    def _reader(self, master: Node) -> Node:
        choices = [one for one in (master, *self._replicas.get(master, ())) if one.is_well]
        if not choices:
            return master
        master.reads += 1
        chosen: Node = choices[master.reads % len(choices)]
        return chosen

    @property
    def masters(self) -> list[Node]:
        """The nodes that have slots."""
        return list(dict.fromkeys(node for node in self._slots if node is not None))

    # --- a node's calls

    def greeting(self) -> Sequence[Command]:
        """What every connection to a node begins with. Where replicas are read from, every one of them may become a
        replica's: masters pay no heed to READONLY.
        """
        return [self._access.greeting("edgeproxy"), *self._greeting(self._with_replicas)]

    def connected(self, node: Node) -> None:
        """A node can be asked."""
        self._discover_soon()
        self.on_lost(node)
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
        for node in list(self.nodes.values()):
            node.maintain(now)
        if not self._is_asking and now >= self._discover_at:
            self._discover_at = now + DISCOVER_AGAIN_S
            self._discover()

    def _discover_soon(self) -> None:
        self._discover_at = min(self._discover_at, time.monotonic() + TICK_S)

    def _discover(self) -> None:
        """Ask a node that is well, another one each time: it may be cut off from the others. Where none is, begin with
        those that are configured, as in the beginning.
        """
        well = [node for node in self.nodes.values() if node.is_well]
        if not well:
            for address in self._access.addresses:
                self._node(address)
            return
        self._turn += 1
        self._is_asking = True
        self.ask_node(well[self._turn % len(well)], _SLOTS, self._told)

    def _told(self, reply: Reply, node: Node | None) -> None:
        self._is_asking = False
        if isinstance(reply, NoAnswerError) or node is None:
            return
        try:
            if isinstance(reply, RedisError):
                raise reply
            found = ranges_of(reply, node.address)
        except RedisError as error:
            if str(error) != self._reported:
                self._reported = str(error)
                _log.error("redis cluster can't be asked for its nodes", node=node.name, error=str(error))
            return
        self._reported = ""
        self._take(found)

    def _take(self, found: Sequence[Range]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        replicas: dict[Node, list[Node]] = {}
        known: set[Node] = set()
        for first, last, (master, *others) in found:
            node = self._node(master)
            known.add(node)
            slots[first : last + 1] = [node] * (last + 1 - first)
            if self._with_replicas:
                replicas[node] = [self._node(one) for one in others]
                known.update(replicas[node])
        self._slots = slots
        self._replicas = replicas
        for address, node in list(self.nodes.items()):
            if node not in known:
                del self.nodes[address]
                node.close()
                self.on_lost(node)
        if None not in slots and all(node.is_well for node in known):
            self._discover_at = time.monotonic() + DISCOVER_S

    def _node(self, address: Address) -> Node:
        node = self.nodes.get(address)
        if node is None:
            node = self.nodes[address] = Node(self, self._access, address, self.timeout_s)
            node.maintain(time.monotonic())
        return node


def _settle(future: asyncio.Future[Reply], reply: Reply) -> None:
    if not future.done():
        future.set_result(reply)


def ranges_of(reply: Reply, asked: Address) -> list[Range]:
    """What CLUSTER SLOTS says, where the node that was asked gives no host for itself or others: its own. Raises
    RedisError when that is not what a cluster says that serves anything.
    """
    try:
        found: list[Range] = [
            (int(first), int(last), [Address(_host(one[0]) or asked.host, int(one[1])) for one in nodes])
            for first, last, *nodes in reply
        ]
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise RedisError(f"CLUSTER SLOTS says what can't be read: {error}") from error
    for first, last, addresses in found:
        if not addresses or not 0 <= first <= last < SLOTS:
            raise RedisError(f"CLUSTER SLOTS says what can't be: slots {first} to {last} are with {addresses}")
    if not found:
        raise RedisError("the cluster serves no slots")
    return found


def _host(word: bytes | None) -> str:
    """A host as Redis gives it; empty where it knows none."""
    return "" if word in (None, b"?") else word.decode("ascii")
