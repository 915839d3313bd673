"""The worker's side of the ledger: opens a slot for each request, publishes each finished record, counts.

On every request's way, therefore synchronous and allocating little. Its only I/O is the shared mapping; what happens
to a line when the ring is full is the caller's (`overflow`), since a request never waits for a reader.
"""

import fcntl
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

from edgeproxy.ledger.layout import (
    FILE_PREFIX,
    HEADER_BYTES,
    MAGIC,
    SLOT_BYTES,
    SLOT_HEADER,
    SLOT_STAGE,
    SLOT_STATE,
    SLOT_TEXT,
    VERSION,
    Counter,
    SlotState,
    Stage,
    Word,
    file_bytes,
    ring_offset,
)

_OPEN = int(SlotState.OPEN)
_FREE = int(SlotState.FREE)
_APPENDING = int(SlotState.APPENDING)


class LedgerWriter:
    """One worker's ledger, held under an exclusive lock for the worker's life: the lock's end tells readers that the
    owner is dead.
    """

    def __init__(self, path: Path, fd: int, mapping: mmap.mmap, slots: int, ring_bytes: int) -> None:
        """Use `create`."""
        self.path = path
        self._fd = fd
        self._map = mapping
        self._words = memoryview(mapping)[:HEADER_BYTES].cast("Q")
        self.counters = self._words[Word.COUNTERS :]
        """Shared counters, indexed by `Counter`."""
        self._free = [HEADER_BYTES + index * SLOT_BYTES for index in reversed(range(slots))]
        self._ring = ring_offset(slots)
        self._capacity = ring_bytes
        self._head = 0
        self._limit = ring_bytes // 2
        self.overflow: Callable[[bytes], bool] = _refuse
        """Called with a line that the ring has no room for; says whether the line was kept."""

    @classmethod
    def create(cls, directory: Path, worker: int, generation: int, *, slots: int, ring_bytes: int) -> "LedgerWriter":
        """Make and lock this incarnation's file in `directory` (`slots` requests in flight, `ring_bytes` of records).

        The space is allocated, not only reserved: a full file system is an error here and not a SIGBUS later.
        Raises OSError when the file can't be made.
        """
        started = time.time_ns()
        path = directory / f"{FILE_PREFIX}{worker}-{started:x}"
        # Under a name that no reader looks for until the lock is held: an unlocked ledger is a dead worker's.
        temporary = directory / f".{path.name}"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = file_bytes(slots, ring_bytes)
            os.posix_fallocate(fd, 0, size)
            mapping = mmap.mmap(fd, size)
        except OSError:
            temporary.unlink(missing_ok=True)
            os.close(fd)
            raise
        ledger = cls(path, fd, mapping, slots, ring_bytes)
        identity = {
            Word.VERSION: VERSION,
            Word.PID: os.getpid(),
            Word.WORKER: worker,
            Word.GENERATION: generation,
            Word.STARTED: started,
            Word.SLOTS: slots,
            Word.RING_BYTES: ring_bytes,
            Word.MAGIC: MAGIC,
        }
        for word, value in identity.items():
            ledger._words[word] = value
        temporary.rename(path)
        return ledger

    @property
    def in_flight(self) -> int:
        """Requests that have a slot now."""
        words = self._words
        return int(words[Word.SLOTS]) - len(self._free)

    @property
    def free(self) -> int:
        """Slots that no request has."""
        return len(self._free)

    def open(self, seq: int, text: bytes) -> int:
        """Give a request its slot and return the slot's handle; `text` is the beginning of its record, at most
        `SLOT_TEXT_BYTES`.

        Raises IndexError when every slot is taken.
        """
        slot = self._free.pop()
        length = len(text)
        self._map[slot + SLOT_TEXT : slot + SLOT_TEXT + length] = text
        SLOT_HEADER.pack_into(self._map, slot, seq, length, 0, _OPEN)
        return slot

    def stage(self, slot: int, stage: Stage) -> None:
        """Say how far the request has come."""
        self._map[slot + SLOT_STAGE] = stage

    def publish(self, slot: int, line: bytes) -> None:
        """Put a request's record (one line, with its newline) into the ring and close its slot; never waits.

        A slot of 0 stands for none: the request could not be given one.
        """
        head = self._head
        end = head + len(line)
        if end > self._limit:
            # Half the ring at most for one line: what is being copied when the worker dies must not overwrite the last
            # published line, which recovery reads behind `HEAD`. Held by asking for a new limit each half ring, so
            # that it costs nothing here.
            tail = self._words[9]  # Word.TAIL; an enum member costs 20 ns on every request
            self._limit = min(tail + self._capacity, head + self._capacity // 2)
            if end > self._limit:
                self._append(slot, line)
                return
        position = head % self._capacity
        start = self._ring + position
        room = self._capacity - position
        if len(line) <= room:
            self._map[start : start + len(line)] = line
        else:
            self._map[start : start + room] = line[:room]
            self._map[self._ring : self._ring + len(line) - room] = line[room:]
        self._words[8] = self._head = end  # Word.HEAD
        if slot:
            self._map[slot + SLOT_STATE] = _FREE
            self._free.append(slot)

    def _append(self, slot: int, line: bytes) -> None:
        if slot:
            self._map[slot + SLOT_STATE] = _APPENDING
        self.counters[Counter.RING_FULL] += 1
        if not self.overflow(line):
            self.counters[Counter.LINES_LOST] += 1
        if slot:
            self._map[slot + SLOT_STATE] = _FREE
            self._free.append(slot)

    def acknowledge(self, epoch: int, *, tracing: bool) -> None:
        """Show readers which state of the control page this worker acts on."""
        self._words[Word.ACK_TRACING] = int(tracing)
        self._words[Word.ACK_EPOCH] = epoch

    def acknowledge_purge(self, seq: int) -> None:
        """Show readers up to which rule of the purge log this worker acts: what that purged it serves no more."""
        self._words[Word.ACK_PURGE] = seq

    def draining(self) -> None:
        """Show readers that this worker takes no new connections."""
        self._words[Word.DRAINING] = 1

    def close(self) -> None:
        """Let the lock go; the file stays until the scribe has drained it."""
        self.counters.release()
        self._words.release()
        self._map.close()
        os.close(self._fd)


def _refuse(_line: bytes) -> bool:
    return False
