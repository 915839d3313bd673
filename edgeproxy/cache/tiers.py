"""The cache as a worker sees it: its hot memory, the store under it, and the purges that hold for both.

Synchronous where hot memory answers; a store may answer later. Whatever is handed out has been checked against the
purge rules; whatever is handed in is checked again when it is found.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec
import structlog

from edgeproxy.cache.claims import Claims
from edgeproxy.cache.entry import Entry
from edgeproxy.cache.memory import HotMemory
from edgeproxy.cache.purge import Kind, Purges, Rule
from edgeproxy.cache.purge_log import PurgeLogError
from edgeproxy.cache.store import Found, Store

Fields = Mapping[bytes, bytes]


class RuleLog(Protocol):
    """Where purge rules come from, and go to."""

    words: "memoryview[int]"

    def append(self, kind: Kind, value: bytes, soft: bool, now_ns: int, *, durable: bool = True) -> int:
        """Have a rule hold on this node from now on; its number. A `durable` one survives the machine's crash."""

    def read_new(self) -> list[Rule]:
        """The rules since the last call."""


class Tiers:
    """Hot memory over a store, under purge rules."""

    def __init__(
        self, memory: HotMemory, store: Store | None, log: RuleLog, seq_word: int, claims: Claims | None
    ) -> None:
        """`seq_word` is the index of the word in `log.words` that moves with every rule; `claims` is for nodes of
        several workers that share a store.
        """
        self.memory = memory
        self.store = store
        self.claims = claims if store is not None else None
        self.purges = Purges()
        self.purge_word = log.words[seq_word : seq_word + 1]
        self._log = log
        self.take_rules()

    def take_rules(self) -> None:
        """Act on the purge rules that are new."""
        for rule in self._log.read_new():
            self.purges.add(rule)

    def usable(self, entry: Entry) -> Entry | None:
        """The entry if no rule has purged it; made stale where one says so (a soft purge)."""
        purges = self.purges
        if entry.purge_seq == purges.seq:
            return entry
        stored = entry.stored
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

    def lookup(self, key: bytes, names: Fields, hot: Entry | None, found: Found) -> None:
        """Ask the store, if there is one, for something newer than what hot memory has; `found` gets the better."""
        if self.store is None:
            found(hot)
            return

        def answered(entry: Entry | None) -> None:
            if entry is not None:
                entry = self.usable(entry)
            if entry is None or (hot is not None and hot.stored.stored_ns >= entry.stored.stored_ns):
                found(hot)
                return
            self.memory.put(entry)
            found(entry)

        self.store.lookup(key, names, answered)

    def put(self, entry: Entry, claim: bytes | None = None) -> None:
        """Keep a response in every tier, unless it has been purged since it was asked for. `claim`, what was claimed
        for it, is given back when other workers can find it.
        """
        if self.usable(entry) is not None:
            self.memory.put(entry)
            if self.store is not None:
                self.store.put(entry, None if claim is None else partial(self.release, claim))
                return
        if claim is not None:
            self.release(claim)

    def freshen(self, old: Entry, entry: Entry, claim: bytes | None = None) -> bool:
        """Put a freshened entry in the place of the old one; False when it has been purged since it was asked for.
        `claim` is given back when other workers can find it; where the answer is False, it is the caller's.
        """
        if self.usable(entry) is None:
            return False
        self.memory.remove(old)
        self.memory.put(entry)
        if self.store is not None:
            self.store.freshen(entry, None if claim is None else partial(self.release, claim))
        elif claim is not None:
            self.release(claim)
        return True

    def drop(self, entry: Entry, now_ns: int) -> None:
        """Forget one entry and its siblings: the origin has said that they are no longer right."""
        self.memory.discard(entry.stored.key)
        if self.store is not None:
            self.store.discard(entry.stored.key)
        if self.claims is not None:  # other workers may have copies of their own
            self.invalidate(entry.stored.url, now_ns)

    def invalidate(self, url: bytes, now_ns: int) -> None:
        """Forget what is stored for a URL, in every worker, and what is being fetched for it (RFC 9111 §4.4)."""
        try:
            self.purge(Kind.URL, url, soft=False, now_ns=now_ns)
        except (PurgeLogError, OSError, ValueError) as error:
            structlog.get_logger().error("invalidation_failed", url=url.decode("latin-1"), error=str(error))
            self.memory.discard(url)
            if self.store is not None:
                self.store.discard(url)

    def purge(self, kind: Kind, value: bytes, *, soft: bool, now_ns: int) -> int:
        """Have a rule hold on this node from now on; its number. Raises PurgeLogError or OSError when the log can't be
        written, ValueError for a value that is too long.

        The disk is not waited for: a store that was in use when its machine failed is set aside with all its entries.
        """
        seq = self._log.append(kind, value, soft, now_ns, durable=False)
        self.take_rules()
        return seq

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

    def close(self) -> None:
        """Let go of the store."""
        if self.store is not None:
            self.store.close()
