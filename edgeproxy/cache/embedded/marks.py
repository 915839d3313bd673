"""Memory that all users of an embedded store share beside LMDB: which entries were used lately, so that a hit writes
nothing to the database, and how far purges have been applied.

An entry's mark is a byte at its number modulo their count: entries that share one are both kept for the other's hit.
Nothing here needs to survive: at worst an entry is evicted early, and `applied` is written anew from the database.
"""

import mmap
import os
from pathlib import Path

from edgeproxy.cache.embedded.layout import PAGE_BYTES

MAGIC = b"EDGEMRK\x01"
_APPLIED = 1
_BYTES_PER_MARK = 1024
_LEAST, _MOST = 1 << 12, 1 << 24


class Marks:
    """The mapped file."""

    def __init__(self, mapping: mmap.mmap) -> None:
        """Use `open`."""
        self._map = mapping
        self._words = memoryview(mapping)[:PAGE_BYTES].cast("Q")
        self.used = memoryview(mapping)[PAGE_BYTES:]
        """A byte for each number modulo their count; 1 when it was used since SIEVE's hand came by."""
        self.mask = len(self.used) - 1

    @classmethod
    def ensure(cls, path: Path, capacity_bytes: int) -> None:
        """Make the file for a store of this size, unless it is there. Raises OSError.

        It gets all its room at once: a full disk is an error here, and can't end a process later.
        """
        count = min(max(1 << (capacity_bytes // _BYTES_PER_MARK).bit_length(), _LEAST), _MOST)
        size = PAGE_BYTES + count
        if path.exists() and path.stat().st_size == size and path.read_bytes()[: len(MAGIC)] == MAGIC:
            return
        temporary = path.with_suffix(".new")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            os.pwrite(fd, MAGIC, 0)
            temporary.rename(path)  # others may have the old one mapped
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    @classmethod
    def open(cls, path: Path) -> "Marks":
        """Map the file. Raises OSError, or ValueError when it is another one."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            count = size - PAGE_BYTES
            if count < 1 or count & (count - 1) or os.pread(fd, len(MAGIC), 0) != MAGIC:
                raise ValueError(f"{path} is no file of marks")
            return cls(mmap.mmap(fd, size))
        finally:
            os.close(fd)

    @property
    def applied_seq(self) -> int:
        """The purge log's last rule whose entries are all gone, or a somewhat older one: never a later one."""
        return self._words[_APPLIED]

    @applied_seq.setter
    def applied_seq(self, seq: int) -> None:
        self._words[_APPLIED] = seq

    def take(self, number: int) -> bool:
        """Whether an entry was used since this was last asked."""
        at = number & self.mask
        was = self.used[at]
        self.used[at] = 0
        return bool(was)

    def close(self) -> None:
        """Unmap the file."""
        self._words.release()
        self.used.release()
        self._map.close()
