"""The library of Redis Functions that operations are calls of with "function": has every node know it."""

import structlog

from edgeproxy.cache.redis.cluster import Cluster
from edgeproxy.cache.redis.commands import LIBRARY, SOURCE, command
from edgeproxy.cache.redis.link import NoAnswerError, RedisError, Reply
from edgeproxy.cache.redis.node import Node

_log = structlog.get_logger()


class Library:
    """One worker's telling; replicas hear of it from their masters."""

    def __init__(self, cluster: Cluster) -> None:
        """None knows it yet."""
        self._cluster = cluster
        self._loading: set[Node] = set()
        """Those that are being told, or have refused it: they are told again when they are connected again."""

    def load(self, node: Node) -> None:
        """Tell one that is connected."""
        self._loading.add(node)
        self._cluster.ask_node(node, command("FUNCTION", "LOAD", SOURCE), lambda reply, _: self._loaded(node, reply))

    def load_again(self, node: Node) -> None:
        """Tell one that has forgotten it (FUNCTION FLUSH, a failover to a replica that had not heard of it)."""
        if node not in self._loading:
            self.load(node)

    def _loaded(self, node: Node, reply: Reply) -> None:
        is_refused = isinstance(reply, RedisError) and not isinstance(reply, NoAnswerError)
        if is_refused and reply.code != "READONLY" and "already exists" not in str(reply):
            _log.error(
                f"redis node does not take the function library {LIBRARY}; allow FUNCTION LOAD, "
                'or set cache.redis.tag_operations = "plain"',
                node=node.name,
                error=str(reply),
            )
        else:
            self._loading.discard(node)
