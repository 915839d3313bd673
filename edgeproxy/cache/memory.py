"""The worker's hot memory: stored responses bounded in bytes, evicted by SIEVE. Synchronous: a hit is answered in the
tick that asks.

SIEVE (Zhang et al., NSDI '24): entries queue in the order they came; a hit only sets a bit; the hand walks from the
oldest towards the newest, clears set bits and evicts the first entry whose bit was clear. A hit moves nothing, so it
costs one attribute store.
"""

from collections.abc import Mapping, Sequence

from edgeproxy.cache.entry import Entry, Variants
from edgeproxy.cache.key import variant_key


class HotMemory:
    """Entries by key, at most `capacity_bytes` of them."""

    def __init__(self, capacity_bytes: int) -> None:
        """Hold nothing yet; a capacity of 0 holds nothing ever."""
        self.capacity_bytes = capacity_bytes
        self.size_bytes = 0
        self.evictions = 0
        self._entries: dict[bytes, Entry] = {}
        self._variants: dict[bytes, Variants] = {}
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
        variants = None
        size = entry.size_bytes
        if vary:
            variants = self._varying(key, tuple(sorted(set(vary))))
            key = variant_key(key, variants.generation, variants.vary, names)
            size += Variants.SIZE_BYTES
        else:
            self._variants.pop(key, None)
        size += len(key)
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
        if variants is not None:
            # Put into the index last: it leaves with its last entry, which may have been one of those removed above.
            self._variants[variants.key] = variants
            variants.entries += 1
            entry.variants = variants
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

    def _varying(self, key: bytes, vary: tuple[bytes, ...]) -> Variants:
        variants = self._variants.get(key)
        if variants is not None and variants.vary == vary:
            return variants
        self.discard(key)
        self._generation += 1
        return Variants(key, vary, self._generation)

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
        variants = entry.variants
        if variants is not None:
            variants.entries -= 1
            if not variants.entries and self._variants.get(variants.key) is variants:
                del self._variants[variants.key]
