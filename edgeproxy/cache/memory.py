"""The worker's hot memory: stored responses bounded in bytes, evicted by SIEVE. Synchronous: a hit is answered in the
tick that asks.

SIEVE (Zhang et al., NSDI '24): entries queue in the order they came; a hit only sets a bit; the hand walks from the
oldest towards the newest, clears set bits and evicts the first entry whose bit was clear. A hit moves nothing, so it
costs one attribute store.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import variant_key


class _Variants:
    """Stands in the index for a resource whose responses vary: which request fields select among them."""

    __slots__ = ("generation", "vary")
    SIZE_BYTES: Final = 256

    def __init__(self, vary: tuple[bytes, ...], generation: int) -> None:
        self.vary = vary
        self.generation = generation


class HotMemory:
    """Entries by key, at most `capacity_bytes` of them."""

    def __init__(self, capacity_bytes: int) -> None:
        """Hold nothing yet; a capacity of 0 holds nothing ever."""
        self.capacity_bytes = capacity_bytes
        self.size_bytes = 0
        self.evictions = 0
        self._entries: dict[bytes, Entry] = {}
        self._variants: dict[bytes, _Variants] = {}
        self._newest: Entry | None = None
        self._oldest: Entry | None = None
        self._hand: Entry | None = None
        self._generation = 0

    def __len__(self) -> int:
        """How many responses are stored."""
        return len(self._entries)

    def get(self, key: bytes, names: Mapping[bytes, bytes]) -> Entry | None:
        """The response stored for a primary key and the request's fields (lower-case names), fresh or not."""
        entry = self._entries.get(key)
        if entry is None:
            variants = self._variants.get(key)
            if variants is None:
                return None
            entry = self._entries.get(variant_key(key, variants.generation, variants.vary, names))
            if entry is None:
                return None
        entry.visited = True
        return entry

    def put(self, key: bytes, vary: Sequence[bytes], names: Mapping[bytes, bytes], entry: Entry) -> bool:
        """Store a response in place of the one for the same key and variant; False if it can't fit at all."""
        if vary:
            key = self._variant(key, tuple(sorted(set(vary))), names)
        else:
            self._variants.pop(key, None)
        size = entry.size_bytes + len(key)
        previous = self._entries.get(key)
        if previous is not None:
            self._remove(previous)
        if size > self.capacity_bytes:
            return False
        entry.key = key
        entry.size_bytes = size
        while self.size_bytes + size > self.capacity_bytes and self._entries:
            self._evict()
        self._entries[key] = entry
        self.size_bytes += size
        entry.older = self._newest
        if self._newest is not None:
            self._newest.newer = entry
        else:
            self._oldest = entry
        self._newest = entry
        return True

    def discard(self, key: bytes) -> bool:
        """Forget what is stored for a primary key, all variants of it; says whether there was anything."""
        entry = self._entries.get(key)
        if entry is not None:
            self._remove(entry)
        # The variants' entries can no longer be found, and SIEVE takes them in their turn.
        variants = self._variants.pop(key, None)
        return entry is not None or variants is not None

    def _variant(self, key: bytes, vary: tuple[bytes, ...], names: Mapping[bytes, bytes]) -> bytes:
        variants = self._variants.get(key)
        if variants is None or variants.vary != vary:
            unvaried = self._entries.get(key)
            if unvaried is not None:
                self._remove(unvaried)
            self._generation += 1
            # The index of variants is bounded by count: each is far smaller than the smallest entry.
            if len(self._variants) * _Variants.SIZE_BYTES > self.capacity_bytes // 4:
                self._variants.clear()
            variants = self._variants[key] = _Variants(vary, self._generation)
        return variant_key(key, variants.generation, variants.vary, names)

    def _evict(self) -> None:
        hand = self._hand or self._oldest
        while hand is not None and hand.visited:
            hand.visited = False
            hand = hand.newer or self._oldest
        if hand is not None:
            self._hand = hand.newer
            self._remove(hand)
            self.evictions += 1

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self.size_bytes -= entry.size_bytes
        if self._hand is entry:
            self._hand = entry.newer
        if entry.newer is not None:
            entry.newer.older = entry.older
        else:
            self._newest = entry.older
        if entry.older is not None:
            entry.older.newer = entry.newer
        else:
            self._oldest = entry.newer
        entry.newer = entry.older = None
