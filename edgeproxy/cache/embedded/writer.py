"""Everything that is written to an embedded store by one process goes through one thread, in batches.

The loop hands jobs over and goes on; the thread takes what waits, up to a batch, and writes it in one transaction.
Processes take turns by LMDB's lock. Where there is no room, entries are evicted and the batch is tried once more; what
can't be written then is dropped and counted. Knows when to write, not what: that is `tables`' business.
"""

import errno
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

import lmdb
import structlog

from edgeproxy.cache.embedded.environment import Environment
from edgeproxy.cache.embedded.tables import Change, applied
from edgeproxy.cache.purge import Purges
from edgeproxy.cache.purge_log import PurgeLog
from edgeproxy.cache.stored import Stored

BATCH_JOBS = 64
BATCH_BYTES = 4 * 1024 * 1024
TOUCHED_BYTES = 32 * 1024
"""Of pages that one small entry and the one evicted for it touch at most: one or two in each table."""
QUEUE_BYTES = 64 * 1024 * 1024
"""What may wait to be written; what comes while more waits is dropped."""
LINGER_S = 0.002
"""How long the first job of a batch waits for others: a transaction of its own costs each as much as ten in one."""
SWITCH_S = 0.0005
"""How long this thread may keep the interpreter from a loop that has something to do; Python's default is 5 ms."""
READERS_S = 1.0
"""How often readers that died in the middle of a look-up are cleared away: they keep pages from being used again."""
REPORT_S = 60.0
"""A lack of room is reported at most this often."""
RESERVE = 8
"""One part in so many of the file is kept free: changes are written to free pages before the old ones become free."""

_log = structlog.get_logger()
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


type Work = Callable[[Change, "Job"], None]
"""What a job does to the store."""


class Job:
    """Something to write."""

    __slots__ = ("body", "done", "key", "name", "size_bytes", "stored", "work")

    def __init__(
        self,
        work: Work,
        *,
        key: bytes = b"",
        name: bytes = b"",
        stored: Stored | None = None,
        body: bytes = b"",
        done: Callable[[], None] | None = None,
    ) -> None:
        self.work = work
        self.key = key
        self.name = name
        self.stored = stored
        self.body = body
        self.done = done
        self.size_bytes = 4096 + len(body)


class Rules:
    """The purge rules as the thread knows them: those that hold at the moment of writing."""

    def __init__(self, log: PurgeLog | None) -> None:
        self._log = log
        self._purges = Purges()

    def refresh(self) -> None:
        """Know what the log says by now."""
        if self._log is not None:
            for rule in self._log.read_new():
                self._purges.add(rule)

    def apply(self, stored: Stored) -> Stored | None:
        """A response as it may be stored: stale where a soft rule says so; None when it has been purged."""
        purges = self._purges
        if stored.purge_seq >= purges.seq:
            return stored
        verdict = purges.check(stored.url, stored.tags, stored.purge_seq)
        if verdict.purged:
            return None
        return stored if verdict.stale_at_ns is None else applied(stored, verdict.stale_at_ns, purges.seq)

    def close(self) -> None:
        """Let go of the log."""
        if self._log is not None:
            self._log.close()


class Writer:
    """The thread, started with its first job."""

    def __init__(
        self,
        environment: Environment,
        log: PurgeLog | None,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._environment = environment
        self._env = environment.env
        self._capacity_bytes = environment.capacity_bytes
        # A change takes free pages for all that it touches, and what it frees can be used by the one after the next:
        # three changes' pages are in flight.
        reserve = self._capacity_bytes // RESERVE
        self._batch_bytes = min(BATCH_BYTES, reserve // 8)
        self._batch_jobs = min(BATCH_JOBS, reserve // (4 * TOUCHED_BYTES))
        self._rules = Rules(log)
        self._on_error = on_error
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._given_bytes = 0
        self._taken_bytes = 0
        self._thread: threading.Thread | None = None
        self._readers_at = 0.0
        self._full = False
        self._report_at = 0.0
        self.dropped = 0
        """Jobs that could not be done, or were not taken on."""

    def give(self, job: Job) -> bool:
        """Have a job done in its turn; False when too much waits already."""
        if self._given_bytes - self._taken_bytes > QUEUE_BYTES:
            self.dropped += 1
            return False
        if self._thread is None:
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
            self._thread = threading.Thread(target=self._run, name="embedded store", daemon=True)
            self._thread.start()
        self._given_bytes += job.size_bytes
        self._jobs.put(job)
        return True

    def close(self) -> None:
        """Do what waits, then end the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
        self._rules.close()

    # In the thread.

    def _run(self) -> None:
        while batch := self._next_batch():
            size_bytes = sum(job.size_bytes for job in batch)
            try:
                self.write(batch, size_bytes)
            except Exception as error:  # noqa: BLE001  whatever it is, who waits is told, and the thread goes on
                self.dropped += len(batch)
                self._on_error(error)
            self._taken_bytes += size_bytes
            for job in batch:
                if job.done is not None:
                    job.done()

    def _next_batch(self) -> list[Job]:
        """Wait for jobs; none when it is time to end."""
        batch: list[Job] = []
        size_bytes = 0
        job = self._jobs.get()
        time.sleep(LINGER_S)
        while job is not None:
            batch.append(job)
            size_bytes += job.size_bytes
            if size_bytes >= self._batch_bytes or len(batch) >= self._batch_jobs:
                break
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
        else:
            if batch:
                self._jobs.put(None)  # nothing comes behind it: the next batch is the empty one
        return batch

    def write(self, batch: list[Job], size_bytes: int) -> None:
        """Do these jobs in one transaction, or none of them where there is no room. Raises what else LMDB does."""
        self._check_readers()
        try:
            try:
                self._try(batch, size_bytes)
            except lmdb.Error as error:
                if not _is_lack_of_room(error):
                    raise
                self._retry(batch, size_bytes)
        except lmdb.Error as error:
            if not _is_lack_of_room(error):
                raise
            self.dropped += len(batch)
            self._report_full(error)
        else:
            if self._full:
                self._full = False
                _log.warning("cache store can be written again", path=self._env.path())

    def _report_full(self, error: Exception) -> None:
        """Say it when it begins, and not at each end and new beginning."""
        now = time.monotonic()
        if not self._full and now >= self._report_at:
            self._full = True
            self._report_at = now + REPORT_S
            _log.error("cache store is full; responses are not stored", path=self._env.path(), error=str(error))

    def _retry(self, batch: list[Job], size_bytes: int) -> None:
        self._env.reader_check()
        self._age()
        with self._environment.change() as change:
            change.evict(max(2 * size_bytes, self._capacity_bytes // 32), time.time_ns())
        self._age()
        self._try(batch, size_bytes)

    def _age(self) -> None:
        """Let the pages that the last changes freed be used again: two changes that are nearly empty."""
        for _ in range(2):
            with self._environment.change():
                pass

    def _try(self, batch: list[Job], size_bytes: int) -> None:
        with self._environment.change() as change:
            self._make_room(change, size_bytes)
            self._rules.refresh()
            for job in batch:
                job.work(change, job)

    def _make_room(self, change: Change, size_bytes: int) -> None:
        """Evict until what is to come fits; where it is far from fitting, a part of it with each batch."""
        room = self._capacity_bytes - self._capacity_bytes // RESERVE
        over = change.live_bytes() + size_bytes - room
        if over > 0:
            change.evict(min(over, 2 * size_bytes), time.time_ns())

    def _check_readers(self) -> None:
        now = time.monotonic()
        if now >= self._readers_at:
            self._readers_at = now + READERS_S
            self._env.reader_check()

    # Jobs.

    def put(self, change: Change, job: Job) -> None:
        """Store a response, unless it has been purged by now."""
        assert job.stored is not None  # noqa: S101  made so by who gives the job
        stored = self._rules.apply(job.stored)
        if stored is not None:
            change.put(stored, job.body)

    def freshen(self, change: Change, job: Job) -> None:
        """Store a head anew, unless its response has been purged by now."""
        assert job.stored is not None  # noqa: S101  made so by who gives the job
        stored = self._rules.apply(job.stored)
        if stored is not None:
            change.freshen(stored, job.body)

    def discard(self, change: Change, job: Job) -> None:
        """Forget all variants of a primary key."""
        change.discard(job.key)

    def remove(self, change: Change, job: Job) -> None:
        """Forget one entry, by its name."""
        change.remove(job.name)


def _is_lack_of_room(error: lmdb.Error) -> bool:
    return isinstance(error, lmdb.MapFullError | lmdb.TxnFullError) or error.code in _NO_ROOM
