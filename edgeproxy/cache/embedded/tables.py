"""The embedded store's tables, and what one write transaction may do with them.

Knows LMDB and the layout; nothing of threads, files or why something is written. Everything that belongs to an entry
(record, chunks, place in the order, indices) comes and goes in one transaction, so no reader ever sees half of one.
What damage has left dangling is cleared away where it is met.
"""

import zlib
from collections.abc import Iterator

import lmdb
import msgspec

from edgeproxy.cache.embedded import layout
from edgeproxy.cache.embedded.layout import Counters, Damaged, Place, Record, VaryMark
from edgeproxy.cache.embedded.marks import Marks
from edgeproxy.cache.stored import Stored

STEPS_MAX = 512
"""How many used entries SIEVE's hand passes by before it takes the next, used or not: bounds a transaction's time."""

Index = set[tuple[lmdb._Database, bytes]]  # noqa: SLF001  the binding's own name for what `open_db` returns


class Tables:
    """Handles of the tables in an open environment."""

    def __init__(self, env: lmdb.Environment, *, create: bool = False) -> None:
        """Raises lmdb.NotFoundError where they are missing and are not to be made."""
        handles = [env.open_db(name, create=create) for name in layout.TABLES]
        self.meta, self.heads, self.bodies, self.order, self.urls, self.tags, self.variants = handles
        self.all = handles

    def live_bytes(self, txn: "lmdb.Transaction[bytes]") -> int:
        """Of all pages that hold something."""
        pages = 0
        for handle in self.all:
            stat = txn.stat(handle)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * layout.PAGE_BYTES

    def counters(self, txn: "lmdb.Transaction[bytes]") -> Counters:
        """What the store knows of itself. Raises Damaged."""
        return layout.unpack_counters(txn.get(layout.META_COUNTERS, db=self.meta))

    def keys(self, txn: "lmdb.Transaction[bytes]", table: lmdb._Database, prefix: bytes) -> Iterator[bytes]:
        """A table's keys with a prefix, in order; the table must not be changed meanwhile."""
        with txn.cursor(db=table) as cursor:
            found = cursor.set_range(prefix)
            while found and (key := cursor.key()).startswith(prefix):
                yield key
                found = cursor.next()

    def head(self, txn: "lmdb.Transaction[bytes]", name: bytes) -> tuple[Record, Stored] | None:
        """An entry's record and head; None when there is none by this name. Raises Damaged."""
        value = txn.get(name, db=self.heads)
        if value is None:
            return None
        record = layout.unpack(memoryview(value))
        return None if isinstance(record, VaryMark) else (record, layout.stored_of(record.head))


class Change:
    """What is done in one write transaction; `finish` comes last."""

    def __init__(self, tables: Tables, txn: "lmdb.Transaction[bytes]", marks: Marks) -> None:
        """Begin. Raises Damaged."""
        self._tables = tables
        self._txn = txn
        self._marks = marks
        self.counters = tables.counters(txn)

    def live_bytes(self) -> int:
        """Of all pages that hold something."""
        return self._tables.live_bytes(self._txn)

    def finish(self) -> None:
        """Write the counters."""
        self._txn.put(layout.META_COUNTERS, layout.pack_counters(self.counters), db=self._tables.meta)

    # Entries.

    def put(self, stored: Stored, body: bytes) -> None:
        """Store a response in place of what there is for the same key and variant."""
        name = self._name_for(stored)
        previous = self._take(name)
        self.counters.number += 1
        self.counters.entries += 1
        number = self.counters.number
        head = layout.encode(stored)
        inline = layout.fits_inline(head, len(body))
        crc = 0 if inline else zlib.crc32(body)
        record = layout.pack(head, body if inline else None, len(body), crc, number)
        chunks = 0 if inline else layout.chunk_count(len(body))
        view = memoryview(body)
        for index in range(chunks):
            start = index * layout.CHUNK_BYTES
            self._txn.put(
                layout.chunk_key(number, index), view[start : start + layout.CHUNK_BYTES], db=self._tables.bodies
            )
        self._txn.put(name, record, db=self._tables.heads)
        self._reindex(self._index(previous, name), self._index(stored, name))
        cost = layout.cost_bytes(stored, len(record), 0 if inline else len(body))
        self.counters.cost_bytes += cost
        self._marks.take(number)
        place = layout.pack_place(Place(name, cost, layout.useless_at_ns(stored)))
        self._txn.put(layout.number_key(number), place, append=True, db=self._tables.order)

    def freshen(self, stored: Stored, body: bytes) -> None:
        """Store a head anew; the whole response where the store has another body by now, or none."""
        name = self._name_for(stored)
        record = self._record(name)
        if record is None or not _has_body(record, body):
            self.put(stored, body)
            return
        self.rewrite(name, record, stored)

    def rewrite(self, name: bytes, record: Record, stored: Stored) -> None:
        """Give the record by this name another head."""
        old = self._stored(record)
        body = None if record.body is None else bytes(record.body)
        value = layout.pack(layout.encode(stored), body, record.body_bytes, record.body_crc, record.number)
        self._txn.put(name, value, db=self._tables.heads)
        self._reindex(self._index(old, name), self._index(stored, name))
        key = layout.number_key(record.number)
        place = self._place(key)
        cost = layout.cost_bytes(stored, len(value), 0 if body is not None else record.body_bytes)
        self.counters.cost_bytes += cost - (place.cost if place else 0)
        self._txn.put(key, layout.pack_place(Place(name, cost, layout.useless_at_ns(stored))), db=self._tables.order)

    def indexed(self, table: lmdb._Database, key: bytes) -> tuple[Record, Stored] | None:
        """The entry that an index finds by this key; where there is none, or it is damaged, the index forgets it."""
        name = key[-layout.NAME_BYTES :]
        try:
            entry = self._tables.head(self._txn, name)
        except Damaged:
            self.remove(name)
            entry = None
        if entry is None:
            self._txn.delete(key, db=table)
        return entry

    def discard(self, key: bytes) -> None:
        """Forget all variants of a primary key."""
        primary = layout.key_name(key)
        self.remove(primary)
        self._discard_variants(primary)

    def remove(self, name: bytes) -> None:
        """Forget what is stored by a name."""
        stored = self._take(name)
        self._txn.delete(name, db=self._tables.heads)
        self._reindex(self._index(stored, name), set())
        if stored is not None and stored.vary:
            self._unmark(layout.key_name(stored.key))

    def forget_all(self) -> None:
        """Empty all tables; numbers count on."""
        for handle in self._tables.all:
            if handle is not self._tables.meta:
                self._txn.drop(handle, delete=False)
        self.counters.entries = self.counters.cost_bytes = 0

    def evict(self, cost_bytes: int, now_ns: int) -> None:
        """Forget entries of this cost in all, by SIEVE, what can't be served any more without regard to its use."""
        counters = self.counters
        goal = counters.cost_bytes - cost_bytes
        passed = 0
        with self._txn.cursor(db=self._tables.order) as cursor:
            while counters.cost_bytes > goal:
                if not cursor.set_range(layout.number_key(counters.hand)) and not cursor.first():
                    break
                number = layout.number_of(cursor.key())
                place = layout.unpack_place(cursor.value())
                counters.hand = number + 1
                if self._marks.take(number) and place.useless_at_ns > now_ns and passed < STEPS_MAX:
                    passed += 1
                else:
                    self._evict(number, place)
                    counters.evictions += 1

    def _evict(self, number: int, place: Place) -> None:
        record = self._record(place.name)
        if record is not None and record.number == number:
            self.remove(place.name)
        else:
            # Left dangling: what lay by this name is another entry, or can't be read.
            chunks = sum(1 for _ in self._tables.keys(self._txn, self._tables.bodies, layout.number_key(number)))
            self._remove_place(number, chunks)

    # Parts of an entry.

    def _name_for(self, stored: Stored) -> bytes:
        """The name for a response, the Vary mark brought into line with it."""
        primary = layout.key_name(stored.key)
        value = self._txn.get(primary, db=self._tables.heads)
        mark = None
        if value is not None:
            try:
                found = layout.unpack(memoryview(value))
            except Damaged:
                self.remove(primary)
            else:
                mark = found if isinstance(found, VaryMark) else None
        if not stored.vary:
            if mark is not None:
                self.discard(stored.key)
            return primary
        if mark is None or mark.vary != stored.vary or mark.key != stored.key:
            self.discard(stored.key)
            self._txn.put(primary, layout.pack_vary(VaryMark(stored.key, stored.vary)), db=self._tables.heads)
        return layout.variant_name(primary, stored.variant)

    def _record(self, name: bytes) -> Record | None:
        value = self._txn.get(name, db=self._tables.heads)
        if value is None:
            return None
        try:
            record = layout.unpack(memoryview(value))
        except Damaged:
            return None
        return None if isinstance(record, VaryMark) else record

    @staticmethod
    def _stored(record: Record) -> Stored | None:
        try:
            return layout.stored_of(record.head)
        except Damaged:
            return None

    def _place(self, key: bytes) -> Place | None:
        value = self._txn.get(key, db=self._tables.order)
        return None if value is None else layout.unpack_place(value)

    def _take(self, name: bytes) -> Stored | None:
        """Remove chunks and place of the record by this name; its head, whose indices are still there."""
        record = self._record(name)
        if record is None:
            return None
        self._remove_place(record.number, record.chunks)
        return self._stored(record)

    def _remove_place(self, number: int, chunks: int) -> None:
        key = layout.number_key(number)
        place = self._place(key)
        if place is not None:
            self._txn.delete(key, db=self._tables.order)
            self.counters.entries -= 1
            self.counters.cost_bytes -= place.cost
        for index in range(chunks):
            self._txn.delete(layout.chunk_key(number, index), db=self._tables.bodies)

    def _index(self, stored: Stored | None, name: bytes) -> Index:
        """The keys by which indices find an entry."""
        if stored is None:
            return set()
        tables = self._tables
        index: Index = {(tables.tags, layout.tag_key(tag, name)) for tag in stored.tags}
        index.add((tables.urls, layout.url_key(stored.url, name)))
        if stored.vary:
            index.add((tables.variants, layout.key_name(stored.key) + name))
        return index

    def _reindex(self, old: Index, new: Index) -> None:
        for table, key in old - new:
            self._txn.delete(key, db=table)
        for table, key in new - old:
            self._txn.put(key, b"", db=table)

    def _discard_variants(self, primary: bytes) -> None:
        for key in list(self._tables.keys(self._txn, self._tables.variants, primary)):
            self.remove(key[layout.NAME_BYTES :])
            self._txn.delete(key, db=self._tables.variants)

    def _unmark(self, primary: bytes) -> None:
        """Forget the Vary mark when its last variant is gone."""
        if next(self._tables.keys(self._txn, self._tables.variants, primary), None) is None:
            self._txn.delete(primary, db=self._tables.heads)


def _has_body(record: Record, body: bytes) -> bool:
    if record.body_bytes != len(body):
        return False
    return record.body == body if record.body is not None else record.body_crc == zlib.crc32(body)


def applied(stored: Stored, at_ns: int, seq: int) -> Stored:
    """A head that a soft purge has made stale."""
    return msgspec.structs.replace(stored, fresh_until_ns=min(stored.fresh_until_ns, at_ns), purge_seq=seq)
