"""Numbers of a worker that no request bumps: how full its memory is, and how its store is."""

from edgeproxy.cache.tiers import Tiers
from edgeproxy.ledger import Counter

_STORE_COUNTERS = (
    Counter.STORE_OPERATIONS,
    Counter.STORE_FAILURES,
    Counter.STORE_DROPPED,
    Counter.STORE_DAMAGED,
    Counter.STORE_BREAKS,
    Counter.STORE_NODES,
    Counter.STORE_NODES_WELL,
    Counter.STORE_USABLE,
)
"""In the order of `StoreHealth`."""


def bring_up_to_date(counters: "memoryview[int]", cache: Tiers) -> None:
    """Write them to where readers look."""
    memory = cache.memory
    counters[Counter.CACHE_BYTES] = memory.size_bytes
    counters[Counter.CACHE_ENTRIES] = len(memory)
    counters[Counter.CACHE_EVICTIONS] = memory.evictions
    health = None if cache.store is None else cache.store.health()
    if health is not None:
        for counter, value in zip(_STORE_COUNTERS, health, strict=True):
            counters[counter] = int(value)
