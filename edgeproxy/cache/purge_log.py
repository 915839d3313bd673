"""The purge log: the rules that all processes of a node share, in a ring in one mapped file.

Any process may append; every process reads for itself. The file lies beside the store that its rules are about and
lives as long as that: entries carry the numbers of its rules, so another log's numbers mean nothing to them (`instance`
tells logs apart). This module knows the file; what a rule is about is `purge`'s.

Rules that keep it whole:
- who appends holds the file's lock; nobody locks to read;
- `START` moves past the oldest rules before their bytes are overwritten: a reader that finds `START` where it was has
  read whole rules;
- where rule n ends stands in `ENDS + n % 2`, so that writing `COMMITTED` publishes number and end at once, whatever
  moment the writer dies at;
- bytes are on disk before `COMMITTED` covers them, and that is before `SEQ` tells readers: no entry ever carries a
  number that a power failure could take back;
- a reader that was overrun, or finds rules damaged, gets a rule about everything in their place.
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path

from edgeproxy.cache.purge import MAX_TAG_BYTES, MAX_VALUE_BYTES, Kind, Purge, Rule

MAGIC = int.from_bytes(b"EDGEPRG\x01", "little")
VERSION = 1
HEADER_BYTES = 4096
RING_BYTES = 1024 * 1024
"""Room for some 10,000 rules; only what nobody is behind with needs to stay."""
LOCK_PATIENCE_S = 5.0
_LOCK_POLL_S = 0.005
_RECORD = struct.Struct("<IIQQBBxxxxxx")
"""A record's head: checksum of all that follows, length of the value, number, time, kind, soft."""
_ALIGN = 8
_READ_TRIES = 100


class PurgeLogError(Exception):
    """A file that should be a purge log is none, one of another version or damaged, or can't be written to; the message
    says which.
    """

    code = "purge_log"


class PurgeWord(IntEnum):
    """Indices of the header's 64-bit words."""

    MAGIC = 0
    VERSION = 1
    INSTANCE = 2
    """A random number that tells this log from all others."""
    RING_BYTES = 3
    SEQ = 4
    """Number of the last rule that readers are to know: what a hot path compares."""
    START = 5
    """Where the oldest rule begins, in bytes ever appended."""
    COMMITTED = 6
    """Number of the last rule that is wholly there."""
    ENDS = 8
    """Two words: where the rule ends whose number is even, and that whose number is odd."""


PURGE_SEQ = int(PurgeWord.SEQ)
"""The index in `PurgeLog.words` of the number to compare."""


class PurgeLog:
    """The log, mapped; one reader's place in it. Threads may share it to append, not to read."""

    def __init__(self, path: Path, fd: int, mapping: mmap.mmap) -> None:
        """Use `create`, `open` or `ensure`."""
        self.path = path
        self._fd = fd
        self._map = mapping
        self.words = memoryview(mapping)[:HEADER_BYTES].cast("Q")
        """The header's words, indexed by `PurgeWord`."""
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
            words = struct.pack("=4Q", MAGIC, VERSION, secrets.randbits(64) or 1, ring_bytes)
            mapping[: len(words)] = words
            mapping.flush()
            temporary.rename(path)
        except OSError:
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
            mapping = mmap.mmap(fd, size) if size > HEADER_BYTES else None
        except BaseException:
            os.close(fd)
            raise
        problem = _problem(mapping) if mapping is not None else "is not a purge log"
        if mapping is None or problem:
            if mapping is not None:
                mapping.close()
            os.close(fd)
            raise PurgeLogError(f"{path} {problem}")
        return cls(path, fd, mapping)

    @classmethod
    def ensure(cls, path: Path) -> "PurgeLog":
        """Open the log at `path`, made anew where there is none, and mend what a power failure did to it: for the one
        who prepares a node, before others open it.

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
        """Number of the last rule."""
        return self.words[PURGE_SEQ]

    # Appending.

    def append(self, kind: Kind, value: bytes, soft: bool, now_ns: int) -> int:
        """Add one rule and return its number once it is on disk: a few milliseconds there, so not for an event loop.

        Raises ValueError when it can't be a rule, PurgeLogError when another process holds the log, OSError when the
        file can't be written.
        """
        return self.append_all([Purge(kind, value, soft)], now_ns)

    def append_all(self, purges: Sequence[Purge], now_ns: int) -> int:
        """Add rules and return the last one's number: as `append`, with one wait for the disk for all of them."""
        for purge in purges:
            check_purge(purge)
        with self._threads, self._locked():
            words = self.words
            self._repair()
            # In portions, so that no rule of this call has to go for a later one before anybody could read it.
            portion: list[tuple[int, bytes]] = []
            size = 0
            seq = words[PurgeWord.COMMITTED]
            for purge in purges:
                seq += 1
                record = _encode(purge, now_ns, seq)
                if size + len(record) > self._capacity // 2:
                    self._write(portion)
                    portion, size = [], 0
                portion.append((seq, record))
                size += len(record)
            self._write(portion)
            return words[PURGE_SEQ]

    def mend(self) -> None:
        """Bring out what a writer left half done that died, and drop all rules where one is damaged: readers then take
        them for overwritten.
        """
        with self._threads, self._locked():
            self._repair()
            words = self.words
            end = self._end()
            at = words[PurgeWord.START]
            seq = 0
            while at < end:
                found = self._record(at, end)
                if found is None or (seq and found[0].seq != seq + 1):
                    words[PurgeWord.START] = end
                    return
                seq = found[0].seq
                at = found[1]

    def _write(self, records: list[tuple[int, bytes]]) -> None:
        words = self.words
        end = self._end()
        self._make_room(end, sum(len(record) for _, record in records))
        ends = []
        for _, record in records:
            self._put(end, record)
            end += len(record)
            ends.append(end)
        self._map.flush()
        for (seq, _), end in zip(records, ends, strict=True):
            words[PurgeWord.ENDS + seq % 2] = end
            words[PurgeWord.COMMITTED] = seq
        self._map.flush(0, HEADER_BYTES)
        words[PURGE_SEQ] = words[PurgeWord.COMMITTED]

    def _repair(self) -> None:
        """Let readers know what a writer had committed that died before it could tell them."""
        words = self.words
        if words[PURGE_SEQ] != words[PurgeWord.COMMITTED]:
            self._map.flush()
            words[PURGE_SEQ] = words[PurgeWord.COMMITTED]

    def _end(self) -> int:
        words = self.words
        return words[PurgeWord.ENDS + words[PurgeWord.COMMITTED] % 2]

    def _make_room(self, end: int, size: int) -> None:
        words = self.words
        start = words[PurgeWord.START]
        while end + size - start > self._capacity:
            found = self._record(start, end)
            start = end if found is None else found[1]
        words[PurgeWord.START] = start

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
            at = self._read_at if self._read_at is not None and self._read_at >= start else start
            rules: list[Rule] = []
            behind, last = at, 0
            while last < target and (found := self._record(behind, behind + self._capacity)) is not None:
                rule, behind = found
                if rule.seq > target or (last and rule.seq != last + 1):
                    break
                last = rule.seq
                if last > self._read_seq:
                    if not rules and last > self._read_seq + 1:
                        rules.append(_everything(last - 1))
                    rules.append(rule)
            if words[PurgeWord.START] > at:
                continue  # written over while it was read
            if last == target:
                self._read_at = behind
                return rules
            break
        self._read_at = None
        return [_everything(target)]

    def _record(self, at: int, limit: int) -> tuple[Rule, int] | None:
        """The rule at a position and where it ends; None when there is none that could be."""
        head = self._get(at, _RECORD.size)
        checksum, length, seq, at_ns, kind, soft = _RECORD.unpack(head)
        end = at + _record_bytes(length)
        if length > MAX_VALUE_BYTES or end > limit or kind > Kind.ALL or soft > 1:
            return None
        value = self._get(at + _RECORD.size, length)
        if zlib.crc32(value, zlib.crc32(head[4:])) != checksum:
            return None
        return Rule(Kind(kind), value, bool(soft), at_ns, seq), end

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
        self.words.release()
        self._map.close()
        os.close(self._fd)


def check_purge(purge: Purge) -> None:
    """Raise ValueError, with a sentence for whoever asked for it, when a purge can't be a rule."""
    if purge.kind == Kind.ALL:
        if purge.value:
            raise ValueError("a purge of everything has no value")
        return
    if not purge.value:
        raise ValueError(f"a purge by {purge.kind.name.lower()} needs a value")
    limit = MAX_TAG_BYTES if purge.kind == Kind.TAG else MAX_VALUE_BYTES
    if len(purge.value) > limit:
        raise ValueError(f"a {purge.kind.name.lower()} to purge has at most {limit} bytes, this one {len(purge.value)}")


def _encode(purge: Purge, now_ns: int, seq: int) -> bytes:
    value = purge.value
    head = _RECORD.pack(0, len(value), seq, now_ns, purge.kind, purge.soft)[4:]
    checksum = zlib.crc32(value, zlib.crc32(head))
    return checksum.to_bytes(4, "little") + head + value.ljust(_record_bytes(len(value)) - _RECORD.size, b"\0")


def _record_bytes(length: int) -> int:
    return _RECORD.size + (length + _ALIGN - 1) // _ALIGN * _ALIGN


def _everything(seq: int) -> Rule:
    return Rule(Kind.ALL, b"", soft=False, at_ns=0, seq=seq)


def _problem(mapping: mmap.mmap) -> str:
    """Say why a mapped file can't be used as a purge log; empty when it can."""
    magic, version, instance, ring_bytes, seq, start, committed, _, even, odd = struct.unpack_from("=10Q", mapping)
    if magic != MAGIC:
        return "is not a purge log"
    if version != VERSION:
        return f"has purge log version {version}; this edgeproxy reads {VERSION}"
    end = odd if committed % 2 else even
    # Its readers only look: they may see START of one moment and the end of another, but never a longer ring than this.
    if not instance or len(mapping) != HEADER_BYTES + ring_bytes or seq > committed or start > end + 2 * ring_bytes:
        return "is damaged: its size or its positions can't be"
    return ""
