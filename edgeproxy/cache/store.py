"""What lies under the workers' hot memory: the interface, and what every store promises.

- What `put` was given is found by `lookup`, by this process and all that share the store, until it is evicted,
  replaced, discarded or purged: whole or not at all, whatever dies in between.
- No call raises: a store that fails is a store that has nothing, counts what it could not do, and says so once.
- No call blocks for longer than a memory-mapped read may take. `put`, `freshen` and `discard` may return before they
  are done; `lookup` may answer before it returns or in a later turn of the loop.
- What takes a while is noted for the request that asked (`asker`, where there is one).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from edgeproxy.cache.entry import Entry
from edgeproxy.cache.operations import Asker
from edgeproxy.cache.stored import Stored

Found = Callable[[Entry | None], None]


class StoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """How full a store is, and what it has done."""

    kind: str
    entries: int
    size_bytes: int
    """Of heads, bodies and indices, as far as the store knows."""
    capacity_bytes: int
    evictions: int = 0
    failures: int = 0
    path: str = ""


class StoreHealth(NamedTuple):
    """How a store on other hosts is, as one worker has seen it."""

    operations: int
    failures: int
    """Operations that came to nothing."""
    dropped: int
    """Responses that could not be written."""
    damaged: int
    """Values that were not as they should be."""
    breaks: int
    """How often a node was given a rest."""
    nodes: int
    nodes_well: int
    """Those that answer."""
    is_usable: bool
    """Whether what is found may be used: the purge rules are known."""


class Store(Protocol):
    """A place for stored responses that outlives a worker."""

    is_remote: bool
    """Whether a look-up is answered in a later turn of the loop."""

    def start(self) -> None:
        """Begin what needs a running loop; what was put is found even before, where that can be."""

    def lookup(self, key: bytes, names: Mapping[bytes, bytes], found: Found, asker: Asker | None = None) -> None:
        """Call `found` with what is stored for a primary key and the request's fields (lower-case names), fresh or not;
        with None when there is nothing.
        """

    def put(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:
        """Store in place of what there is for the same key and variant; `done` is called once others can find it, or
        when it could not be stored.
        """

    def freshen(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:
        """Store the entry's head anew; its body is as it was. `done` is called as with `put`."""

    def discard(self, key: bytes, asker: Asker | None = None) -> None:
        """Forget all variants of a primary key."""

    async def show(self, url: bytes) -> list[tuple[Stored, int]]:
        """What is stored for a URL as keyed, with each body's size in bytes."""

    async def status(self) -> StoreStats:
        """How it is."""

    def health(self) -> StoreHealth | None:
        """How its hosts are; None where it is on this one."""

    async def finish(self) -> None:
        """Wait until what is under way is done, as far as it will be."""

    def close(self) -> None:
        """Finish what is under way, and let go."""
