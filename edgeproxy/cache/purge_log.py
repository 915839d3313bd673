"""The purge log: the rules that all processes of a node share, in a ring in one mapped file.

Any process may append; every process reads for itself. The file lies beside the store that its rules are about and
lives as long as that: entries carry the numbers of its rules, so another log's numbers mean nothing to them (`instance`
tells logs apart). This module knows the file; what a rule is about is `purge`'s, where things lie `purge_layout`'s.

Rules that keep it whole:
- who appends holds the file's lock, for some microseconds; nobody locks to read;
- `START` moves past the oldest rules before their bytes are overwritten: a reader that finds `START` where it was has
  read whole rules;
- where rule n ends stands in `ENDS + n % 2`, so that writing `SEQ` publishes number and end at once, whatever moment
  the writer dies at;
- a reader that was overrun, or finds rules damaged, gets a rule about everything in their place;
- a power failure may take back rules that nobody was told of, but not their numbers, which entries may carry by then:
  after each boot numbers go on from far above (`purge_layout.leap`).
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgeproxy.cache.purge import Kind, Purge, Rule
from edgeproxy.cache.purge_layout import (
    HEADER_BYTES,
    MAGIC,
    PURGE_SEQ,
    RECORD,
    RING_BYTES,
    VERSION,
    PurgeWord,
    check_purge,
    decode,
    encode,
    everything,
    follows,
    leap,
    problem,
    record_bytes,
    value_bytes,
)

__all__ = ["PURGE_SEQ", "PurgeLog", "PurgeLogError", "PurgeWord"]

LOCK_PATIENCE_S = 2.0
_LOCK_POLL_S = 0.002
_READ_TRIES = 100


class PurgeLogError(Exception):
    """A file that should be a purge log is none, one of another version or damaged, or can't be written to; the message
    says which.
    """

    code = "purge_log"


class PurgeLog:
    """The log, mapped; one reader's place in it. Threads may share it to append, not to read."""

    def __init__(self, path: Path, fd: int, mapping: mmap.mmap) -> None:
        """Use `create`, `open` or `ensure`."""
        self.path = path
        self._fd = fd
        self._map = mapping
        self.words = memoryview(mapping)[:HEADER_BYTES].cast("Q")
        """The header's words, indexed by `PurgeWord`."""
        self.seq_word = self.words[PURGE_SEQ : PURGE_SEQ + 1]
        """The number of the last rule, as a hot path compares it."""
        self.instance = self.words[PurgeWord.INSTANCE]
        self._capacity = self.words[PurgeWord.RING_BYTES]
        self._threads = threading.Lock()
        self._read_seq = 0
        self._read_at: int | None = None

    @classmethod
    def create(cls, path: Path, *, ring_bytes: int = RING_BYTES) -> "PurgeLog":
        """Put a new, empty log at `path`, in place of what is there. Raises OSError when it can't be made."""
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        size = HEADER_BYTES + ring_bytes
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # Allocated, not only reserved: a full file system is an error here and not a SIGBUS later.
            os.posix_fallocate(fd, 0, size)
            mapping = mmap.mmap(fd, size)
            words = struct.pack("=7Q", MAGIC, VERSION, secrets.randbits(64) or 1, ring_bytes, 0, 0, _boot())
            mapping[: len(words)] = words
            os.fsync(fd)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            os.close(fd)
            raise
        return cls(path, fd, mapping)

    @classmethod
    def open(cls, path: Path) -> "PurgeLog":
        """Map the log at `path`.

        Raises OSError when there is none (FileNotFoundError) or it can't be had, PurgeLogError when it is none of this
        version, or damaged.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            wrong = problem(os.pread(fd, HEADER_BYTES, 0), size)
            mapping = None if wrong else mmap.mmap(fd, size)
        except BaseException:
            os.close(fd)
            raise
        if mapping is None:
            os.close(fd)
            raise PurgeLogError(f"{path} {wrong}")
        return cls(path, fd, mapping)

    @classmethod
    def ensure(cls, path: Path) -> "PurgeLog":
        """Open the log at `path`, made anew where there is none, and `mend` it: for the one who prepares a node, before
        others open it.

        Raises OSError or PurgeLogError, as `open` does.
        """
        try:
            log = cls.open(path)
        except FileNotFoundError:
            return cls.create(path)
        try:
            log.mend()
        except BaseException:
            log.close()
            raise
        return log

    @property
    def seq(self) -> int:
        """Number of the last rule; 0 before the first."""
        return self.words[PURGE_SEQ]

    # Appending.

    def append(self, kind: Kind, value: bytes, soft: bool, now_ns: int, *, durable: bool = True) -> int:
        """Add one rule and return its number; as `append_all`."""
        return self.append_all([Purge(kind, value, soft)], now_ns, durable=durable)

    def append_all(self, purges: Sequence[Purge], now_ns: int, *, durable: bool = True) -> int:
        """Add rules and return the last one's number.

        They hold at once. With `durable` it waits until they are on disk, which may take milliseconds there: not for an
        event loop. Without, they outlive every process, but a power failure in the next half minute may undo them.
        Raises ValueError when one can't be a rule, PurgeLogError when another process holds the log and does not go on,
        OSError when the disk fails.
        """
        for purge in purges:
            check_purge(purge)
        with self._threads, self._locked():
            for purge in purges:
                self._add(Rule(purge.kind, purge.value, purge.soft, now_ns, self.seq + 1))
            seq = self.seq
        if durable:
            os.fdatasync(self._fd)  # takes mapped pages in, and lets other threads run
        return seq

    def give(self, purge: Purge, now_ns: int, given: Callable[[int, Exception | None], None]) -> None:
        """As `append`, not durable, for whoever goes on with what came of it: the rule's number, or what went wrong.
        Raises ValueError for a purge that can't be a rule.

        The disk is not waited for: a store that was in use when its machine failed is set aside with all its entries.
        """
        try:
            seq = self.append(purge.kind, purge.value, purge.soft, now_ns, durable=False)
        except (PurgeLogError, OSError) as error:
            given(0, error)
        else:
            given(seq, None)

    def _add(self, rule: Rule) -> None:
        words = self.words
        begin = self._end()
        record = encode(rule)
        end = begin + len(record)
        self._make_room(begin, end)
        self._put(begin, record)
        words[PurgeWord.ENDS + rule.seq % 2] = end
        words[PURGE_SEQ] = rule.seq

    def mend(self) -> None:
        """Drop all rules where one is damaged, so that readers take them for overwritten; and leap after a boot."""
        with self._threads, self._locked():
            words = self.words
            end = self._end()
            at = words[PurgeWord.START]
            last = None
            while at < end:
                found = self._record(at, end)
                if found is None or (last is not None and not follows(found[0], last)):
                    words[PurgeWord.START] = end
                    break
                last = found[0].seq
                at = found[1]
            boot = _boot()
            if words[PurgeWord.BOOT] != boot:
                self._add(leap(self.seq))
                words[PurgeWord.BOOT] = boot
        os.fdatasync(self._fd)

    def _end(self) -> int:
        return self.words[PurgeWord.ENDS + self.seq % 2]

    def _make_room(self, begin: int, end: int) -> None:
        """Let the oldest rules go that what comes between these positions will overwrite."""
        start = self.words[PurgeWord.START]
        while end - start > self._capacity:
            found = self._record(start, begin)
            start = begin if found is None else found[1]
        self.words[PurgeWord.START] = start

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PurgeLogError(f"{self.path} is held by another process that does not go on") from None
                time.sleep(_LOCK_POLL_S)
            else:
                break
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    # Reading.

    def seek(self, seq: int) -> None:
        """Read on behind rule `seq`: what was known of the log when it was last open."""
        self._read_seq = seq
        self._read_at = None

    def read_new(self) -> list[Rule]:
        """The rules since the last call, in order; the first call gives all that are there.

        Rules that are no longer there, or damaged, are represented by one about everything that has the last one's
        number.
        """
        target = self.words[PURGE_SEQ]
        if target == self._read_seq:
            return []
        rules = self._read(target)
        self._read_seq = target
        return rules

    def _read(self, target: int) -> list[Rule]:
        words = self.words
        for _ in range(_READ_TRIES):
            start = words[PurgeWord.START]
            at = start if self._read_at is None else max(start, self._read_at)
            rules: list[Rule] = []
            behind, last = at, -1
            while last < target and (found := self._record(behind, behind + self._capacity)) is not None:
                rule, behind = found
                if rule.seq > target or (last >= 0 and not follows(rule, last)):
                    break
                last = rule.seq
                if last > self._read_seq:
                    if not rules and not follows(rule, self._read_seq):
                        rules.append(everything(last - 1))
                    rules.append(rule)
            if words[PurgeWord.START] > at:
                continue  # written over while it was read
            if last == target:
                self._read_at = behind
                return rules
            break
        self._read_at = None
        return [everything(target)]

    def _record(self, at: int, limit: int) -> tuple[Rule, int] | None:
        """The rule at a position and where it ends; None when there is none that could be."""
        head = self._get(at, RECORD.size)
        length = value_bytes(head)
        if length is None or at + record_bytes(length) > limit:
            return None
        rule = decode(head, self._get(at + RECORD.size, length))
        return None if rule is None else (rule, at + record_bytes(length))

    def _get(self, at: int, size: int) -> bytes:
        begin = HEADER_BYTES + at % self._capacity
        room = HEADER_BYTES + self._capacity - begin
        if size <= room:
            return self._map[begin : begin + size]
        return self._map[begin : begin + room] + self._map[HEADER_BYTES : HEADER_BYTES + size - room]

    def _put(self, at: int, record: bytes) -> None:
        begin = HEADER_BYTES + at % self._capacity
        room = HEADER_BYTES + self._capacity - begin
        self._map[begin : begin + min(room, len(record))] = record[:room]
        if len(record) > room:
            self._map[HEADER_BYTES : HEADER_BYTES + len(record) - room] = record[room:]

    def close(self) -> None:
        """Unmap the log."""
        self.seq_word.release()
        self.words.release()
        self._map.close()
        os.close(self._fd)


def _boot() -> int:
    return int(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8], 16)
