"""The cache as a worker sees it: its hot memory, the store under it, and the purges that hold for both.

Synchronous where hot memory answers; a store may answer later. Whatever is handed out has been checked against the
purge rules; whatever is handed in is checked again when it is found.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec
import structlog

from edgeproxy.cache.claims import Claims
from edgeproxy.cache.entry import Entry
from edgeproxy.cache.memory import SUSPECT, HotMemory
from edgeproxy.cache.operations import Asker
from edgeproxy.cache.owed import Given, Owed
from edgeproxy.cache.purge import Kind, Purge, Purges, Rule
from edgeproxy.cache.store import Found, Store
from edgeproxy.cache.stored import Stored

Fields = Mapping[bytes, bytes]


class RuleLog(Protocol):
    """Where purge rules come from, and go to."""

    seq_word: "memoryview[int]"
    """One word: the number of the last rule."""

    def give(self, purge: Purge, now_ns: int, given: Given) -> None:
        """Have a rule hold from now on; `given` gets its number, or what went wrong, at once or later. Raises
        ValueError for a purge that can't be a rule.
        """

    def read_new(self) -> list[Rule]:
        """The rules since the last call."""


class Tiers:
    """Hot memory over a store, under purge rules."""

    def __init__(self, memory: HotMemory, store: Store | None, log: RuleLog, claims: Claims | None) -> None:
        """`claims` is for nodes of several workers that share a store."""
        self.memory = memory
        self.store = store
        self.claims = claims if store is not None else None
        self._is_shared = store is not None and (store.is_remote or claims is not None)
        """Whether other workers have copies of their own."""
        self.purges = Purges()
        self.purge_word = log.seq_word
        self._log = log
        self._owed = Owed(self.purge)
        self.take_rules()

    def take_rules(self) -> None:
        """Act on the purge rules that are new, and give those again that could not be given; some times a second."""
        for rule in self._log.read_new():
            self.purges.add(rule)
        self._owed.retry(time.time_ns())

    def usable(self, entry: Entry) -> Entry | None:
        """The entry if no rule has purged it; made stale where one says so (a soft purge)."""
        purges = self.purges
        if entry.purge_seq == purges.seq:
            return entry
        stored = entry.stored
        if entry.purge_seq == SUSPECT:
            entry.purge_seq = stored.purge_seq
            entry.fresh_until_ns = min(entry.fresh_until_ns, self.memory.suspected_ns)
            entry.stored = stored = msgspec.structs.replace(stored, fresh_until_ns=entry.fresh_until_ns)
        verdict = purges.check(stored.url, stored.tags, entry.purge_seq)
        if verdict.purged:
            return None
        entry.purge_seq = purges.seq
        stale_ns = verdict.stale_at_ns
        if stale_ns is not None and stale_ns < stored.fresh_until_ns:
            entry.stored = msgspec.structs.replace(stored, fresh_until_ns=stale_ns)
            entry.fresh_until_ns = 0 if stored.uncacheable else stale_ns
        return entry

    def is_purged(self, url: bytes, tags: Sequence[bytes], since_seq: int) -> bool:
        """Whether a rule since that one says that a response may not be used any more."""
        return since_seq != self.purges.seq and self.purges.check(url, tags, since_seq).purged

    def get(self, key: bytes, names: Fields) -> Entry | None:
        """What hot memory has for a primary key and the request's fields, fresh or not."""
        entry = self.memory.get(key, names)
        if entry is None or entry.purge_seq == self.purges.seq:
            return entry
        if self.usable(entry) is None:
            self.memory.remove(entry)
            return None
        return entry

    def lookup(self, key: bytes, names: Fields, hot: Entry | None, found: Found, asker: Asker | None = None) -> None:
        """Ask the store, if there is one, for something newer than what hot memory has; `found` gets the better."""
        if self.store is None:
            found(hot)
            return

        def answered(entry: Entry | None) -> None:
            best = self.get(key, names) or hot  # something may have been put meanwhile
            if entry is not None:
                entry = self.usable(entry)
            if entry is None or (best is not None and _is_newer(best.stored, entry.stored)):
                found(best)
                return
            self.memory.put(entry)
            found(entry)

        self.store.lookup(key, names, answered, asker)

    def put(self, entry: Entry, claim: bytes | None = None, asker: Asker | None = None) -> None:
        """Keep a response in every tier, unless it has been purged since it was asked for. `claim`, what was claimed
        for it, is given back when other workers can find it.
        """
        if self.usable(entry) is not None:
            self.memory.put(entry)
            if self.store is not None:
                self.store.put(entry, None if claim is None else partial(self.release, claim), asker)
                return
        if claim is not None:
            self.release(claim)

    def freshen(self, old: Entry, entry: Entry, claim: bytes | None = None, asker: Asker | None = None) -> bool:
        """Put a freshened entry in the place of the old one; False when it has been purged since it was asked for.
        `claim` is given back when other workers can find it; where the answer is False, it is the caller's.
        """
        if self.usable(entry) is None:
            return False
        self.memory.remove(old)
        self.memory.put(entry)
        if self.store is not None:
            self.store.freshen(entry, None if claim is None else partial(self.release, claim), asker)
        elif claim is not None:
            self.release(claim)
        return True

    def drop(self, entry: Entry, now_ns: int, asker: Asker | None = None) -> None:
        """Forget one entry and its siblings: the origin has said that they are no longer right."""
        self.memory.discard(entry.stored.key)
        if self.store is not None:
            self.store.discard(entry.stored.key, asker)
        if self._is_shared:
            self.invalidate(entry.stored.url, now_ns)

    def invalidate(self, url: bytes, now_ns: int) -> None:
        """Forget what is stored for a URL, in every worker, and what is being fetched for it (RFC 9111 §4.4); as soon
        as that can be done.
        """

        def failed(error: Exception) -> None:
            structlog.get_logger().error("invalidation_failed", url=url.decode("latin-1"), error=str(error))
            self.memory.discard(url)
            if self.store is not None:
                self.store.discard(url)

        self._owed.give(Purge(Kind.URL, url), now_ns, failed)

    def purge(self, purge: Purge, now_ns: int, given: Given) -> None:
        """Have a rule hold from now on; `given` gets its number, or what went wrong, at once or later."""

        def noted(seq: int, error: Exception | None) -> None:
            self.take_rules()
            given(seq, error)

        try:
            self._log.give(purge, now_ns, noted)
        except ValueError as error:
            given(0, error)

    def claim(self, key: bytes) -> bytes | None:
        """Claim a key for this worker, and what to give back for it (`release`); None when another one of the node
        fetches for it. What is fetched from before a purge holds up nobody who comes after it.
        """
        claimed = b"%d\x00%b" % (self.purges.seq, key)
        return claimed if self.claims is None or self.claims.take(claimed) else None

    def release(self, claimed: bytes) -> None:
        """Let other workers fetch for a key."""
        if self.claims is not None:
            self.claims.release(claimed)

    def start(self) -> None:
        """Begin what needs a running loop."""
        if self.store is not None:
            self.store.start()

    async def finish(self) -> None:
        """Wait until the store has done what is under way."""
        if self.store is not None:
            await self.store.finish()

    def close(self) -> None:
        """Let go of the store."""
        if self.store is not None:
            self.store.close()


def _is_newer(hot: Stored, stored: Stored) -> bool:
    """Whether hot memory has something better than the store. Of like ones the store's is as good, and its freshness
    has not been doubted.
    """
    return (hot.stored_ns, hot.fresh_until_ns) >= (stored.stored_ns, stored.fresh_until_ns)
