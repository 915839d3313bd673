"""Sweeping: what purge rules are about is taken out of the store, after the fact and at leisure.

Purges do not wait for it: a look-up says which rules may still be about what it found. When all entries of a rule are
gone, its number is noted (`applied_seq`), and look-ups need not ask about it again. What was fetched after a rule is
none of its business, but for a rule about everything: entries carry the last rule that was known when their request
went to the origin.
"""

import threading
import time
from collections.abc import Sequence

import lmdb

from edgeproxy.cache.embedded import layout
from edgeproxy.cache.embedded.environment import Environment
from edgeproxy.cache.embedded.tables import Change, applied
from edgeproxy.cache.purge import Kind, Rule
from edgeproxy.cache.stored import Stored

BATCH = 256
"""Entries that one transaction takes out; between two of them others write."""
PAUSE_S = 0.002
"""Between two transactions, so that the workers' writers get their turn."""


class Sweep:
    """One pass: what these rules are about goes, or becomes stale."""

    def __init__(self, environment: Environment, stopping: threading.Event | None = None) -> None:
        """Use the store of this process; leave off when `stopping` is set."""
        self._stopping = stopping
        self._environment = environment
        self._tables = environment.tables

    def run(self, rules: Sequence[Rule]) -> bool:
        """Act on rules in their order, then note the last one's number; False when it left off before that.

        Raises Damaged and lmdb.Error.
        """
        # Whoever has not seen these rules yet and is writing has written then; whoever comes later sees them.
        self._environment.env.begin(write=True).abort()
        for rule in rules:
            if rule.kind == Kind.ALL and not rule.soft:
                self._everything()
                self._note(rule.seq)  # a second time it would take what was stored meanwhile
            else:
                self._each(rule)
            if self._is_stopping():
                return False
        if rules:
            self._note(rules[-1].seq)
        return True

    def _is_stopping(self) -> bool:
        return self._stopping is not None and self._stopping.is_set()

    def _everything(self) -> None:
        # What was fetched since goes as well: to tell it apart would take a look at each entry.
        with self._environment.change() as change:
            change.forget_all()

    def _each(self, rule: Rule) -> None:
        table, prefix = self._where(rule)
        after = b""
        while not self._is_stopping() and (keys := self._keys(table, prefix, after)):
            after = keys[-1]
            with self._environment.change() as change:
                for key in keys:
                    self._act(change, rule, table, key)
            time.sleep(PAUSE_S)

    def _where(self, rule: Rule) -> tuple[lmdb._Database, bytes]:
        """The table that finds what a rule may be about, and how its keys begin."""
        if rule.kind == Kind.URL:
            return self._tables.urls, layout.url_key(rule.value, b"")
        if rule.kind == Kind.PREFIX:
            return self._tables.urls, rule.value[: layout.URL_BYTES]
        if rule.kind == Kind.TAG:
            return self._tables.tags, layout.tag_key(rule.value, b"")
        return self._tables.urls, b""

    def _keys(self, table: lmdb._Database, prefix: bytes, after: bytes) -> list[bytes]:
        found: list[bytes] = []
        with self._environment.env.begin() as txn, txn.cursor(db=table) as cursor:
            more = cursor.set_range(after or prefix)
            if more and cursor.key() == after:
                more = cursor.next()
            while more and len(found) < BATCH and (key := cursor.key()).startswith(prefix):
                found.append(key)
                more = cursor.next()
        return found

    def _act(self, change: Change, rule: Rule, table: lmdb._Database, key: bytes) -> None:
        name = key[-layout.NAME_BYTES :]
        entry = change.indexed(table, key)
        if entry is None:
            return
        record, stored = entry
        if stored.purge_seq >= rule.seq or not _is_about(rule, stored):
            return
        if rule.soft:
            change.rewrite(name, record, applied(stored, rule.at_ns, rule.seq))
        else:
            change.remove(name)

    def _note(self, seq: int) -> None:
        with self._environment.change() as change:
            change.counters.applied_seq = max(change.counters.applied_seq, seq)
        self._environment.marks.applied_seq = change.counters.applied_seq


def _is_about(rule: Rule, stored: Stored) -> bool:
    if rule.kind == Kind.URL:
        return stored.url == rule.value
    if rule.kind == Kind.PREFIX:
        return stored.url.startswith(rule.value)
    return rule.kind == Kind.ALL or rule.value in stored.tags
