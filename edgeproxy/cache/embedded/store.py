"""`EmbeddedStore`: stored responses in LMDB, shared by all workers of a host and kept over restarts.

Look-ups are synchronous, one read transaction on mapped memory; a body is copied once. Writes go through a thread
(`writer`), so a call never waits for a disk or for another process. Nothing raises: a store that can't go on is empty.
"""

import asyncio
import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import lmdb
import structlog

from edgeproxy.cache.embedded import layout
from edgeproxy.cache.embedded.environment import Environment
from edgeproxy.cache.embedded.files import StoreError, StoreFiles
from edgeproxy.cache.embedded.layout import Damaged, Record, VaryMark
from edgeproxy.cache.embedded.sweep import Sweep
from edgeproxy.cache.embedded.writer import Job, Work, Writer
from edgeproxy.cache.entry import Entry
from edgeproxy.cache.key import variant
from edgeproxy.cache.operations import Asker
from edgeproxy.cache.purge import Rule
from edgeproxy.cache.purge_log import PurgeLog, PurgeLogError
from edgeproxy.cache.store import Found, StoreStats
from edgeproxy.cache.stored import Stored

TIER = "embedded"
OBJECT_PART = 16
"""An entry may take up one part in so many of the store's capacity; a larger one is not stored."""
DAMAGE = (Damaged, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)
"""What says that the store is not as it was written."""

_log = structlog.get_logger()


class EmbeddedStore:
    """A process's use of the store; one a process."""

    is_remote = False

    def __init__(self, environment: Environment, log: PurgeLog | None) -> None:
        """Use `open`."""
        self._environment = environment
        self._files = environment.files
        self._env = environment.env
        self._marks = environment.marks
        self._tables = environment.tables
        self._capacity_bytes = environment.capacity_bytes
        self._writer = Writer(environment, log, self._failed)
        self._heads = self._tables.heads
        self._discarding: dict[bytes, int] = {}
        self._broken = False
        self._closed = False
        self._failures = 0
        self._reported = ""

    @classmethod
    def open(cls, folder: Path, purge_log: Path | None = None) -> "EmbeddedStore":
        """Use the store in a directory that was prepared (`prepare`); what was purged by `purge_log` is not stored.

        Raises StoreError when it can't be used.
        """
        environment = Environment.acquire(StoreFiles(folder))
        try:
            return cls(environment, PurgeLog.open(purge_log) if purge_log else None)
        except (OSError, PurgeLogError) as error:
            environment.release()
            raise StoreError(f"cache store {folder} can't be used: {error}") from error

    def start(self) -> None:
        """Nothing needs a loop."""

    # Reading.

    def lookup(self, key: bytes, names: Mapping[bytes, bytes], found: Found, asker: Asker | None = None) -> None:  # noqa: ARG002
        """Call `found`, before this returns, with what is stored; no rule up to its `purge_seq` is about it."""
        found(self._find(key, names))

    def _find(self, key: bytes, names: Mapping[bytes, bytes]) -> Entry | None:
        if self._broken or key in self._discarding:
            return None
        # Before the transaction begins: what was applied by then is gone from what it sees.
        applied_seq = self._marks.applied_seq
        name = layout.key_name(key)
        try:
            with self._env.begin(buffers=True) as txn:
                value = txn.get(name, db=self._heads)
                if value is None:
                    return None
                record = layout.unpack(value)
                if isinstance(record, VaryMark):
                    if record.key != key:
                        return None
                    name = layout.variant_name(name, variant(record.vary, names))
                    value = txn.get(name, db=self._heads)
                    if value is None:
                        return None
                    record = layout.unpack(value)
                    if isinstance(record, VaryMark):
                        return None
                stored = layout.stored_of(record.head)
                if stored.key != key or (stored.vary and stored.variant != variant(stored.vary, names)):
                    return None
                body = self._body(txn, record)
        except Damaged as error:
            self._bad_record(name, error)
            return None
        except (lmdb.Error, OSError) as error:
            self._failed(error)
            return None
        self._marks.used[record.number & self._marks.mask] = 1
        entry = Entry(stored, body, tier=TIER)
        entry.purge_seq = max(stored.purge_seq, applied_seq)
        return entry

    def _body(self, txn: "lmdb.Transaction[memoryview]", record: Record) -> bytes:
        if record.body is not None:
            return bytes(record.body)
        chunks: list[memoryview] = []
        for index in range(record.chunks):
            chunk = txn.get(layout.chunk_key(record.number, index), db=self._tables.bodies)
            if chunk is None:
                raise Damaged("a part of a body is missing")
            chunks.append(chunk)
        body = b"".join(chunks)
        if len(body) != record.body_bytes or zlib.crc32(body) != record.body_crc:
            raise Damaged("a body's checksum does not fit")
        return body

    def variants(self, url: bytes) -> Iterator[tuple[Stored, int]]:
        """What is stored for a URL as keyed, with each body's size in bytes."""
        found: list[tuple[Stored, int]] = []
        try:
            with self._env.begin() as txn:
                prefix = layout.url_key(url, b"")
                for key in self._tables.keys(txn, self._tables.urls, prefix):
                    if len(key) != len(prefix) + layout.NAME_BYTES:
                        continue
                    name = key[-layout.NAME_BYTES :]
                    try:
                        entry = self._tables.head(txn, name)
                    except Damaged as error:
                        self._bad_record(name, error)
                        continue
                    if entry is not None and entry[1].url == url:
                        found.append((entry[1], entry[0].body_bytes))
        except (lmdb.Error, OSError) as error:
            self._failed(error)
        return iter(found)

    def stats(self) -> StoreStats:
        """How it is; sizes are those of pages in use."""
        entries = size_bytes = evictions = 0
        try:
            with self._env.begin() as txn:
                counters = self._tables.counters(txn)
                entries, evictions = counters.entries, counters.evictions
                size_bytes = self._tables.live_bytes(txn)
        except (Damaged, lmdb.Error, OSError) as error:
            self._failed(error)
        return StoreStats(
            kind=TIER,
            entries=entries,
            size_bytes=size_bytes,
            capacity_bytes=self._capacity_bytes,
            evictions=evictions,
            failures=self._failures + self._writer.dropped,
            path=str(self._files.folder),
        )

    async def show(self, url: bytes) -> list[tuple[Stored, int]]:
        """As `variants`, for whoever asks any store."""
        return list(self.variants(url))

    async def status(self) -> StoreStats:
        """As `stats`, for whoever asks any store."""
        return self.stats()

    def health(self) -> None:
        """It is on this host."""

    async def finish(self) -> None:
        """`close` waits for it."""

    # Writing.

    def put(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:  # noqa: ARG002
        """Store in place of what there is for the same key and variant."""
        self._write(self._writer.put, entry, done)

    def freshen(self, entry: Entry, done: Callable[[], None] | None = None, asker: Asker | None = None) -> None:  # noqa: ARG002
        """Store the entry's head anew; all of it where another response is stored by now."""
        self._write(self._writer.freshen, entry, done)

    def _write(self, work: Work, entry: Entry, done: Callable[[], None] | None) -> None:
        fits = entry.size_bytes <= self._capacity_bytes // OBJECT_PART
        job = Job(work, stored=entry.stored, body=entry.body, done=_in_loop(done))
        if (self._broken or not fits or not self._writer.give(job)) and done is not None:
            asyncio.get_running_loop().call_soon(done)

    def discard(self, key: bytes, asker: Asker | None = None) -> None:  # noqa: ARG002
        """Forget all variants of a primary key; from this call on this process does not find them."""
        if self._broken:
            return
        self._discarding[key] = self._discarding.get(key, 0) + 1

        def done() -> None:
            left = self._discarding[key] - 1
            if left:
                self._discarding[key] = left
            else:
                del self._discarding[key]

        if not self._writer.give(Job(self._writer.discard, key=key, done=_in_loop(done))):
            done()

    def close(self) -> None:
        """Finish what is under way, and let go."""
        if not self._closed:
            self._closed = self._broken = True
            self._writer.close()
            self._environment.release()

    def sweep(self, rules: Sequence[Rule], stopping: threading.Event | None = None) -> bool:
        """Take out what these purge rules are about, all that came before them having been swept: some milliseconds,
        seconds for very many entries. False when it could not be done, or was told to stop.
        """
        try:
            return Sweep(self._environment, stopping).run(rules)
        except (Damaged, lmdb.Error, OSError) as error:
            self._failed(error)
            return False

    @property
    def applied_seq(self) -> int:
        """Number of the last purge rule that has been swept."""
        return self._marks.applied_seq

    # What goes wrong.

    def _bad_record(self, name: bytes, error: Damaged) -> None:
        """An entry that is not as it was written: it goes, the rest stays."""
        self._failures += 1
        _log.error("cache store: an entry is damaged, and removed", path=str(self._files.folder), error=str(error))
        self._writer.give(Job(self._writer.remove, name=name))

    def _failed(self, error: Exception) -> None:
        """LMDB refuses; where the store itself is not as it was written, use it no more, and have the next start set it
        aside.
        """
        self._failures += 1
        if not isinstance(error, DAMAGE):
            if str(error) != self._reported:
                self._reported = str(error)
                _log.error("cache store: a look-up or change failed", path=str(self._files.folder), error=str(error))
        elif not self._broken:
            self._broken = True
            _log.error(
                "cache store is damaged, and not used any more; the next start sets it aside",
                path=str(self._files.folder),
                error=str(error),
            )
            self._files.mark_damaged(str(error))


def _in_loop(done: Callable[[], None] | None) -> Callable[[], None] | None:
    """A call from the thread as a call in the loop that asked for it."""
    if done is None:
        return None
    call = done
    loop = asyncio.get_running_loop()

    def later() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(call)

    return later
