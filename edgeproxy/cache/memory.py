"""The worker's hot memory: stored responses bounded in bytes, evicted by SIEVE. Synchronous: a hit is answered in the
tick that asks. Knows nothing of freshness, nor of purges: its callers look at what they get.

SIEVE (Zhang et al., NSDI '24): entries queue in the order they came; a hit only sets a bit; the hand walks from the
oldest towards the newest, clears set bits and evicts the first entry whose bit was clear. A hit moves nothing, so it
costs one attribute store.

Large entries have a queue of their own, so that they push out each other before they push out the small:

- where they would hold more than half of the capacity, only they are evicted. Small ones that fit into the other half
  are therefore never lost to large ones;
- otherwise small ones are evicted, and each time that this has freed as many bytes as the next large one has, the hand
  of the large looks at that. Large ones that nobody asks for therefore leave, too.
"""

from collections.abc import Mapping

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import variant

VARIANT_BYTES = 512
"""What an entry that varies costs beside its own size: its resource's place in the index, and its own there."""
SUSPECT = -1
"""In place of an entry's `purge_seq`: no other number is like it, so every look-up asks whether it may be used."""
LARGE_SHARE = 64
"""An entry is large from this part of the capacity on."""


class HotMemory:
    """Entries by key and variant, at most `capacity_bytes` of them."""

    def __init__(self, capacity_bytes: int) -> None:
        """Hold nothing yet; a capacity of 0 holds nothing ever."""
        self.capacity_bytes = capacity_bytes
        self.evictions = 0
        self.suspected_ns = 0
        """Since when entries are stale that were doubted."""
        self._entries: dict[bytes, Entry] = {}
        self._varying: dict[bytes, Varying] = {}
        self._small = Sieve()
        self._large = Sieve()
        self._freed_bytes = 0
        """By small ones that were evicted since a large one was last looked at."""

    def __len__(self) -> int:
        """How many responses are stored."""
        return self._small.entries + self._large.entries

    @property
    def size_bytes(self) -> int:
        """What the stored responses take up, as they count."""
        return self._small.size_bytes + self._large.size_bytes

    def get(self, key: bytes, names: Mapping[bytes, bytes]) -> Entry | None:
        """The response stored for a primary key and the request's fields (lower-case names), fresh or not."""
        entry = self._entries.get(key)
        if entry is None:
            varying = self._varying.get(key)
            if varying is None:
                return None
            entry = varying.entries.get(variant(varying.vary, names))
            if entry is None:
                return None
        entry.visited = True
        return entry

    def put(self, entry: Entry) -> bool:
        """Store a response in place of the one for the same key and variant; False if it can't fit at all, and then
        there is none for them.

        A primary key's latest Vary counts: what was stored under another one goes (RFC 9111 §4.1).
        """
        stored = entry.stored
        size = _size(entry)
        if stored.vary:
            varying = self._varying.get(stored.key)
            if varying is None or varying.vary != stored.vary:
                self.discard(stored.key)
            else:
                self._drop(varying.entries.get(stored.variant))
        else:
            self.discard(stored.key)
        if size > self.capacity_bytes // 2:
            return False
        queue = self._queue(size)
        while self.size_bytes + size > self.capacity_bytes:
            if self._large.size_bytes + (size if queue is self._large else 0) > self.capacity_bytes // 2:
                self._evict_large()
            else:
                self._evict()
        if stored.vary:
            varying = self._varying.get(stored.key)  # anew: it leaves with its last entry, which may just have gone
            if varying is None:
                varying = self._varying[stored.key] = Varying(stored.vary)
            varying.entries[stored.variant] = entry
        else:
            self._entries[stored.key] = entry
        queue.push(entry, size)
        return True

    def vary_of(self, key: bytes) -> tuple[bytes, ...]:
        """The request fields that select among the responses stored for a primary key; none where nothing varies."""
        varying = self._varying.get(key)
        return () if varying is None else varying.vary

    def remove(self, entry: Entry) -> None:
        """Forget one response, if it is still the one that is stored."""
        if self._find(entry) is entry:
            self._drop(entry)

    def discard(self, key: bytes) -> bool:
        """Forget what is stored for a primary key, all variants of it; says whether there was anything."""
        entry = self._entries.get(key)
        varying = self._varying.get(key)
        self._drop(entry)
        if varying is not None:
            for each in list(varying.entries.values()):
                self._drop(each)
        return entry is not None or varying is not None

    def suspect(self, now_ns: int) -> None:
        """Doubt all that is stored: it may have been replaced or purged elsewhere unnoticed, from now on."""
        self.suspected_ns = now_ns
        for queue in (self._small, self._large):
            entry = queue.newest
            while entry is not None and entry.purge_seq != SUSPECT:  # what is older than that was doubted with it
                entry.purge_seq = SUSPECT
                entry = entry.older

    def entries_of(self, url: bytes) -> list[Entry]:
        """What is stored for a URL as keyed, not marked as asked for.

        For inspection: it looks at every key, since a route's key may have more in it than the URL.
        """
        keys = [key for key in self._entries if key.startswith(url)]
        found = [self._entries[key] for key in keys]
        for key, varying in self._varying.items():
            if key.startswith(url):
                found.extend(varying.entries.values())
        return [entry for entry in found if entry.stored.url == url]

    def _queue(self, size: int) -> "Sieve":
        return self._large if size * LARGE_SHARE > self.capacity_bytes else self._small

    def _find(self, entry: Entry) -> Entry | None:
        stored = entry.stored
        if not stored.vary:
            return self._entries.get(stored.key)
        varying = self._varying.get(stored.key)
        return None if varying is None or varying.vary != stored.vary else varying.entries.get(stored.variant)

    def _evict(self) -> None:
        """Evict an entry, small rather than large; there must be one."""
        large = self._large.next
        if large is None:
            self._freed_bytes = 0
        elif self._freed_bytes >= _size(large):
            self._freed_bytes -= _size(large)
            if not large.visited:
                self._evict_large()
                return
            self._large.spare(large)
        small = self._small.victim()
        if small is None:
            self._evict_large()
            return
        self._freed_bytes += _size(small)
        self._drop(small)
        self.evictions += 1

    def _evict_large(self) -> None:
        self._drop(self._large.victim())
        self.evictions += 1

    def _drop(self, entry: Entry | None) -> None:
        if entry is None:
            return
        stored = entry.stored
        if stored.vary:
            varying = self._varying[stored.key]
            del varying.entries[stored.variant]
            if not varying.entries:
                del self._varying[stored.key]
        else:
            del self._entries[stored.key]
        size = _size(entry)
        self._queue(size).remove(entry, size)


class Varying:
    """A resource whose responses vary: request fields that select them, and the responses by these fields' values."""

    __slots__ = ("entries", "vary")

    def __init__(self, vary: tuple[bytes, ...]) -> None:
        """None stored yet."""
        self.vary = vary
        self.entries: dict[bytes, Entry] = {}


class Sieve:
    """A queue of entries in the order they came, and the hand that walks it."""

    __slots__ = ("entries", "hand", "newest", "oldest", "size_bytes")

    def __init__(self) -> None:
        """Nobody queues yet."""
        self.entries = 0
        self.size_bytes = 0
        self.newest: Entry | None = None
        self.oldest: Entry | None = None
        self.hand: Entry | None = None
        """The next to be looked at; None is the oldest."""

    def push(self, entry: Entry, size_bytes: int) -> None:
        """Queue an entry as the newest, not asked for yet."""
        entry.visited = False
        entry.newer = None
        entry.older = self.newest
        if self.newest is not None:
            self.newest.newer = entry
        else:
            self.oldest = entry
        self.newest = entry
        self.entries += 1
        self.size_bytes += size_bytes

    def remove(self, entry: Entry, size_bytes: int) -> None:
        """Take an entry out; a hand that stands at it goes on."""
        if self.hand is entry:
            self.hand = entry.newer
        if entry.newer is not None:
            entry.newer.older = entry.older
        else:
            self.newest = entry.older
        if entry.older is not None:
            entry.older.newer = entry.newer
        else:
            self.oldest = entry.newer
        entry.newer = entry.older = None
        self.entries -= 1
        self.size_bytes -= size_bytes

    @property
    def next(self) -> Entry | None:
        """What the hand stands at; None when nobody queues."""
        return self.hand or self.oldest

    def spare(self, entry: Entry) -> None:
        """Pass over the next entry, which was asked for since the hand last came by."""
        entry.visited = False
        self.hand = entry.newer

    def victim(self) -> Entry | None:
        """Walk on to the first entry that was not asked for since the hand last came by; None when nobody queues."""
        entry = self.hand or self.oldest
        while entry is not None and entry.visited:
            entry.visited = False
            entry = entry.newer or self.oldest
        self.hand = entry
        return entry


def _size(entry: Entry) -> int:
    return entry.size_bytes + (VARIANT_BYTES if entry.stored.vary else 0)
