"""How many spans each exporter was given, and what became of them: numbers in a small shared file, as the ledger's are.

The scribe alone writes, anyone may read at any moment, and the numbers outlive the scribe: what it had not settled when
it died is lost with it, and the next one counts that as dropped. So for each exporter it holds at every moment:
made = exported + failed + dropped + queued.
"""

import contextlib
import mmap
import os
import threading
from collections.abc import Collection
from enum import IntEnum
from pathlib import Path

import msgspec

from edgeproxy.config.checks import EXPORTERS

FILE = "exporters"
_MAGIC = int.from_bytes(b"EDGEEXP\x01", "little")
_WORDS = 8
"""64-bit words for each exporter, and before the first."""
_BYTES = 4096


class Word(IntEnum):
    """What is counted for each exporter, in spans."""

    MADE = 0
    EXPORTED = 1
    FAILED = 2
    DROPPED = 3
    ACTIVE = 4
    """1 while it is in use."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """An exporter's numbers, in spans, as of one moment."""

    name: str
    active: bool
    """Whether spans go there now."""
    exported: int
    """Those that arrived."""
    failed: int
    """Those that were refused, or that could not be sent in time."""
    dropped: int
    """Those for which there was no room, or no time before the end."""
    queued: int
    """Those that wait, or are being sent."""


class Counter:
    """One exporter's numbers, for those who count: on whatever thread."""

    def __init__(self, words: memoryview, lock: threading.Lock) -> None:
        """Use `CountsFile.counter`."""
        self._words = words
        self._lock = lock

    def add(self, word: Word, spans: int) -> None:
        """Count some more; fewer where an estimate is set right."""
        with self._lock:
            self._words[word] += spans


class CountsFile:
    """The file, as the scribe has it."""

    def __init__(self, directory: Path) -> None:
        """Open or make it; what the one before left unsettled is dropped. Raises OSError."""
        fd = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _BYTES)
            self._map = mmap.mmap(fd, _BYTES)
        finally:
            os.close(fd)
        self._words = memoryview(self._map).cast("Q")
        self._lock = threading.Lock()
        if self._words[0] != _MAGIC:
            self._words[0] = _MAGIC
        for index in range(len(EXPORTERS)):
            words = self._of(index)
            words[Word.DROPPED] += max(0, _queued(words))
            words[Word.ACTIVE] = 0

    def _of(self, index: int) -> memoryview:
        return self._words[_WORDS * (index + 1) : _WORDS * (index + 2)]

    def activate(self, names: Collection[str]) -> None:
        """Say which exporters are in use."""
        for index, name in enumerate(EXPORTERS):
            self._of(index)[Word.ACTIVE] = int(name in names)

    def counter(self, name: str) -> Counter:
        """The numbers of an exporter."""
        return Counter(self._of(EXPORTERS.index(name)), self._lock)


def read_counts(directory: Path) -> tuple[Counts, ...]:
    """What the exporters of a node have counted; those that never had anything to do are left out."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        words = memoryview((directory / FILE).read_bytes()).cast("Q")
        if len(words) * 8 != _BYTES or words[0] != _MAGIC:
            return ()
        for index, name in enumerate(EXPORTERS):
            of = words[_WORDS * (index + 1) : _WORDS * (index + 2)]
            if of[Word.ACTIVE] or of[Word.MADE]:
                found.append(
                    Counts(
                        name=name,
                        active=bool(of[Word.ACTIVE]),
                        exported=of[Word.EXPORTED],
                        failed=of[Word.FAILED],
                        dropped=of[Word.DROPPED],
                        queued=max(0, _queued(of)),
                    )
                )
    return tuple(found)


def _queued(words: memoryview) -> int:
    return int(words[Word.MADE] - words[Word.EXPORTED] - words[Word.FAILED] - words[Word.DROPPED])
