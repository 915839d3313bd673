"""Giving purge rules to all nodes of a cluster from outside a worker: for the command line and the admin API.

Blocks, for some seconds where Redis does not answer. What a rule is in Redis is `rules`' business.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from edgeproxy.cache.purge import Purge
from edgeproxy.cache.purge_layout import check_purge
from edgeproxy.cache.redis import rules
from edgeproxy.cache.redis.access import Access
from edgeproxy.cache.redis.layout import Names

RETRIES = 1
"""How often the cluster is asked anew for its nodes when one of them does not answer."""
REPLICA_MS = 100
"""How long a replica may take to have the rules as well."""


class NotGivenError(Exception):
    """Redis has not taken all rules; the message says how many of them, and why not."""


class Given(NamedTuple):
    """What became of rules that Redis has taken."""

    seq: int
    """The last one's number."""
    doubt: str
    """Why a failover might lose them; empty where a replica has confirmed that it has them."""


def give(access: Access, names: Names, purges: Sequence[Purge]) -> Given:
    """Have rules hold on all nodes of the cluster, one after the other. Raises ValueError for what can be no rule, with
    none of them given, and NotGivenError.
    """
    for purge in purges:
        check_purge(purge)
    seq = done = 0
    try:
        with RedisCluster(
            startup_nodes=[ClusterNode(one.host, one.port) for one in access.addresses],  # type: ignore[no-untyped-call]
            retry=Retry(NoBackoff(), RETRIES),
            **access.client_arguments(),
        ) as client:
            stream = _Stream(client, names.purges)
            for purge in purges:
                seq = stream.add(purge)
                done += 1
            return Given(seq, stream.settle(done))
    except (RedisError, RedisClusterException, OSError) as error:
        held = f"only the first {done} of {len(purges)} rules hold" if done else "nothing counts as purged"
        raise NotGivenError(f"the purge can't be given to Redis; {held}: {error}") from error


class _Stream:
    """The stream of rules, as a client of redis-py's sees it."""

    def __init__(self, client: RedisCluster, name: bytes) -> None:
        self._client: Any = client  # most of it is untyped
        self._name = name

    def add(self, purge: Purge) -> int:
        entry_id: bytes = self._client.execute_command(*rules.adding(self._name, purge, time.time_ns()))
        return rules.seq_of(entry_id)

    def settle(self, added: int) -> str:
        """What is to be done once rules were added, which hold in any case; says why a failover might lose them."""
        try:
            replicated = self._is_replicated()
            self._bound(added)
        except (RedisError, RedisClusterException, OSError) as error:
            return str(error)
        return "" if replicated else "no replica has confirmed that it has it"

    def _bound(self, added: int) -> None:
        """Have the stream stay, with as many rules as it may have."""
        run = self._client.execute_command
        run(*rules.keeping(self._name))
        length: int = run("XLEN", self._name)
        if length <= added:  # it was empty, as after a loss
            run(*rules.beginning(self._name, time.time_ns()))
        if count := rules.surplus(length):
            last = rules.seq_of(run(*rules.oldest(self._name, count))[-1][0])
            run(*rules.telling(self._name, last))
            run(*rules.trimming(self._name, last))

    def _is_replicated(self) -> bool:
        """Wait for a replica of the node that has the stream. The connection is that of the writes, as it must be."""
        node = self._client.get_node_from_key(self._name)
        return bool(self._client.execute_command("WAIT", 1, REPLICA_MS, target_nodes=node))
