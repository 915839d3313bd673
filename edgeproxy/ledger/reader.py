"""A reader's side of the ledger: what a worker finished, what it has in flight, what it counted, and whether it still
lives.

The scribe drains the ring through it and, once the worker is dead and the lock is the scribe's, finishes the ledger in
the dead worker's stead; commands and the admin API only look (`writable=False`). It knows the memory's layout and
nothing of what is done with a line.
"""

import contextlib
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from edgeproxy.ledger.layout import (
    FILE_PREFIX,
    HEADER_BYTES,
    MAGIC,
    SLOT_BYTES,
    SLOT_HEADER,
    SLOT_STATE,
    SLOT_TEXT,
    SLOT_TEXT_BYTES,
    VERSION,
    SlotState,
    Stage,
    Word,
    file_bytes,
    ring_offset,
)

_PIECE = 65536
_UNFINISHED_S = 60.0


class LedgerError(Exception):
    """A file that should be a ledger is none, one of another version, or damaged; the message says which."""

    code = "ledger"


class OpenSlot(NamedTuple):
    """A request in flight."""

    slot: int
    """Which slot, for `close_slot`."""
    seq: int
    stage: Stage
    state: SlotState
    text: bytes
    """The beginning of its record, as far as it was known when the request began."""


class Batch(NamedTuple):
    """A write under way: noted before a log file is written to, so that whoever takes over can tell what of it
    arrived.
    """

    inode: int
    offset: int
    """Size of the log file before the write."""
    end: int
    """What `tail` will be after it."""


def ledger_files(directory: Path) -> list[Path]:
    """List the ledgers in a runtime directory, by worker; a directory that can't be read has none."""
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.name.startswith(FILE_PREFIX))
    except OSError:
        return []


def remove_unfinished(directory: Path) -> None:
    """Delete what workers left that died while they were making their ledger; nothing was ever in it."""
    for path in directory.glob(f".{FILE_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _UNFINISHED_S:
                path.unlink()


class LedgerReader:
    """One worker's ledger, mapped by another process."""

    def __init__(self, path: Path, fd: int, mapping: mmap.mmap) -> None:
        """Use `open`."""
        self.path = path
        self._fd = fd
        self._map = mapping
        self._view = memoryview(mapping)
        self._words = self._view[:HEADER_BYTES].cast("Q")
        self.counters = self._words[Word.COUNTERS :]
        """The worker's counters, indexed by `Counter`."""
        words = self._words
        self.pid = words[Word.PID]
        self.worker = words[Word.WORKER]
        self.generation = words[Word.GENERATION]
        self.started_ns = words[Word.STARTED]
        self.slots = words[Word.SLOTS]
        self.capacity = words[Word.RING_BYTES]
        """Bytes that the ring holds."""
        self._ring = ring_offset(self.slots)
        self.on_leaving: Callable[[list[memoryview]], None] | None = None
        """Called with what `advance` is about to take out, whole lines in at most two pieces; each line once. It must
        not raise, nor keep the pieces.
        """

    @classmethod
    def open(cls, path: Path, *, writable: bool = True) -> Self:
        """Map the ledger at `path`; with `writable=False` for those who only look.

        Raises OSError when the file can't be opened (FileNotFoundError: drained and gone), LedgerError when it is no
        ledger of this version.
        """
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        access = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        try:
            mapping = mmap.mmap(fd, 0, prot=access)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            os.close(fd)
            raise LedgerError(f"{path} can't be mapped: {error}") from error
        if problem := _problem(mapping):
            mapping.close()
            os.close(fd)
            raise LedgerError(f"{path} {problem}")
        return cls(path, fd, mapping)

    # Who writes it.

    def owner_is_dead(self) -> bool:
        """Say whether the worker is gone, leaving everything as it was."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return True

    def take_over(self) -> bool:
        """Take the dead worker's place until `close`: whoever holds the lock writes `HEAD` and the slots. False while
        it lives.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def acknowledged_epoch(self) -> int:
        """The control page's epoch that the worker acts on."""
        return self._words[Word.ACK_EPOCH]

    @property
    def acknowledged_tracing(self) -> bool:
        """Whether the worker traces, as of `acknowledged_epoch`."""
        return bool(self._words[Word.ACK_TRACING])

    @property
    def acknowledged_purge(self) -> int:
        """Number of the last purge rule that the worker acts on."""
        return self._words[Word.ACK_PURGE]

    @property
    def is_draining(self) -> bool:
        """Whether the worker takes no new connections."""
        return bool(self._words[Word.DRAINING])

    # The ring.

    @property
    def head(self) -> int:
        """Bytes ever published."""
        return self._words[Word.HEAD]

    @property
    def tail(self) -> int:
        """Bytes ever taken out."""
        return self._words[Word.TAIL]

    @property
    def fill(self) -> int:
        """Bytes that wait to be taken out."""
        return self.head - self.tail

    @property
    def fill_share(self) -> float:
        """The same as a share of the ring, 0 to 1."""
        return self.fill / self.capacity

    def pending(self, limit: int | None = None, *, end: int | None = None) -> list[memoryview]:
        """Show what waits to be taken out, in at most two pieces, without copying: always whole lines.

        `limit` holds it to about that many bytes (more where the first line alone is longer), `end` to what lies
        before that position. The pieces must be let go before `close`.
        """
        size = self.fill if end is None else end - self.tail
        if limit is not None and size > limit:
            size = self._whole_lines(limit, size)
        return [self._view[start:stop] for start, stop in self._spans(self.tail, size)]

    def advance(self, size: int) -> None:
        """Take `size` bytes out: the one place where lines leave the ring."""
        if self.on_leaving is not None and size:
            pieces = self.pending(end=self.tail + size)
            try:
                self.on_leaving(pieces)
            finally:
                for piece in pieces:
                    piece.release()
        self._words[Word.TAIL] += size

    def last_line(self) -> bytes:
        """Return the ring's newest line, which can be read even after it was taken out; empty when there never was one.

        The writer never publishes a line longer than half the ring, so a line that it was copying when it died has not
        overwritten this one.
        """
        head = self.head
        length = _PIECE
        while True:
            length = min(length, head, self.capacity)
            text = b"".join(self._map[start:stop] for start, stop in self._spans(head - length, length))
            begin = text.rfind(b"\n", 0, -1) + 1
            if begin or length in (head, self.capacity):
                return text[begin:]
            length *= 8

    def _spans(self, position: int, size: int) -> list[tuple[int, int]]:
        """Where `size` bytes from `position` on lie in the mapping: nothing, one stretch or two."""
        start = self._ring + position % self.capacity
        stop = self._ring + self.capacity
        if size <= stop - start:
            return [(start, start + size)] if size else []
        return [(start, stop), (self._ring, self._ring + size - (stop - start))]

    def _whole_lines(self, limit: int, size: int) -> int:
        before = limit
        for start, stop in reversed(self._spans(self.tail, limit)):
            before -= stop - start
            at = self._map.rfind(b"\n", start, stop)
            if at >= 0:
                return before + at + 1 - start
        after = limit
        for start, stop in self._spans(self.tail + limit, size - limit):
            at = self._map.find(b"\n", start, stop)
            if at >= 0:
                return after + at + 1 - start
            after += stop - start
        return size

    # The write under way.

    @property
    def batch(self) -> Batch | None:
        """The write that was begun and is not known to have ended."""
        words = self._words
        if words[Word.BATCH_END] <= words[Word.TAIL]:
            return None
        return Batch(words[Word.BATCH_INODE], words[Word.BATCH_OFFSET], words[Word.BATCH_END])

    def begin_batch(self, inode: int, offset: int, size: int) -> None:
        """Note that the next `size` bytes are about to be written to the end of a file; over once `advance` took them
        out.
        """
        words = self._words
        words[Word.BATCH_INODE] = inode
        words[Word.BATCH_OFFSET] = offset
        words[Word.BATCH_END] = words[Word.TAIL] + size

    def end_batch(self) -> None:
        """Note that no write is under way, whatever became of the last one."""
        self._words[Word.BATCH_END] = 0

    # The slots.

    @property
    def in_flight(self) -> int:
        """How many requests have a slot now."""
        states = self._map[HEADER_BYTES + SLOT_STATE : self._ring : SLOT_BYTES]
        return len(states) - states.count(SlotState.FREE)

    def open_slots(self) -> list[OpenSlot]:
        """List the requests in flight. Of a living worker it is a glance: a slot that changes hands meanwhile is left
        out.
        """
        states = self._map[HEADER_BYTES + SLOT_STATE : self._ring : SLOT_BYTES]
        found = []
        for index, state in enumerate(states):
            if state == SlotState.FREE:
                continue
            at = HEADER_BYTES + index * SLOT_BYTES
            seq, length, stage, state_now = SLOT_HEADER.unpack_from(self._map, at)
            text = self._map[at + SLOT_TEXT : at + SLOT_TEXT + min(length, SLOT_TEXT_BYTES)]
            again, _length, _stage, state_again = SLOT_HEADER.unpack_from(self._map, at)
            if again == seq and state_again == state_now != SlotState.FREE:
                found.append(OpenSlot(index, seq, _stage_of(stage), SlotState(state_now), text))
        return found

    # In a dead worker's stead, after `take_over`.

    def publish(self, line: bytes) -> bool:
        """Put a line into the ring as the worker would have; False when there is no room for it now."""
        head = self.head
        if len(line) > self.capacity - (head - self.tail) or len(line) > self.capacity // 2:
            return False
        done = 0
        for start, stop in self._spans(head, len(line)):
            self._map[start:stop] = line[done : done + stop - start]
            done += stop - start
        self._words[Word.HEAD] = head + len(line)
        return True

    def close_slot(self, index: int) -> None:
        """Free a slot whose record is in the ring or in the log."""
        self._map[HEADER_BYTES + index * SLOT_BYTES + SLOT_STATE] = SlotState.FREE

    def remove(self) -> None:
        """Delete the file; the mapping stays until `close`."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def close(self) -> None:
        """Unmap the ledger and let the lock go, if it was taken."""
        self.counters.release()
        self._words.release()
        self._view.release()
        self._map.close()
        os.close(self._fd)


def _problem(mapping: mmap.mmap) -> str:
    """Say why a mapped file can't be used as a ledger; empty when it can."""
    size = len(mapping)
    if size < HEADER_BYTES:
        return "is not a ledger"
    magic, version, *_identity, slots, ring_bytes, head, tail = struct.unpack_from("=10Q", mapping)
    if magic != MAGIC:
        return "is not a ledger"
    if version != VERSION:
        return f"has ledger version {version}; this edgeproxy reads {VERSION}"
    if size != file_bytes(slots, ring_bytes) or not 0 <= head - tail <= ring_bytes:
        return "is damaged: its size or its positions can't be"
    return ""


def _stage_of(value: int) -> Stage:
    return Stage(value) if value < len(Stage) else Stage.RECEIVED
