"""Reads a log that others write: its last lines, then each new one, across rotation and truncation.

For `edgeproxy tail`. Gives whole lines as bytes, each once; knows nothing of what they say. Never waits: when to look
again is its caller's.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LINGER_S = 2.0
"""How long a file that was rotated away is still read: its writers let go of it one after another."""
_BLOCK = 256 * 1024


class Follower:
    """A log under one path, whatever file that is at the moment."""

    def __init__(self, path: Path) -> None:
        """Follow `path`; nothing is opened yet."""
        self._path = path
        self._current: _File | None = None
        self._leaving: list[tuple[float, _File]] = []

    def last(self) -> Iterator[bytes]:
        """Give the lines there are, the last one first; `new` goes on behind them. Raises OSError."""
        self._current = file = _File(self._path)
        return file.backwards()

    def new(self) -> list[bytes]:
        """Give the lines that came since the last call; none while there is no file. Raises OSError."""
        now = time.monotonic()
        lines = [line for _, file in self._leaving for line in file.read()]
        for since, file in list(self._leaving):
            if now - since > LINGER_S:
                self._leaving.remove((since, file))
                lines += file.rest()
                file.close()
        if self._current is not None:
            lines += self._current.read()
        if self._current is None or self._current.is_replaced(self._path):
            lines += self._switch(now)
        return lines

    def _switch(self, now: float) -> list[bytes]:
        try:
            file = _File(self._path)
        except FileNotFoundError:
            return []
        if self._current is not None:
            self._leaving.append((now, self._current))
        self._current = file
        return file.read()

    def rest(self) -> list[bytes]:
        """Give what there is of a line that has no end, for a last look."""
        return self._current.rest() if self._current else []

    def close(self) -> None:
        """Let go of all files."""
        for file in [self._current, *(file for _, file in self._leaving)]:
            if file is not None:
                file.close()
        self._current = None
        self._leaving = []


def _lines_backwards(fd: int, end: int) -> Iterator[bytes]:
    """Give the lines that end at `end` (behind a newline, or 0), last one first."""
    rest = None
    while end > 0:
        start = max(0, end - _BLOCK)
        block = os.pread(fd, end - start, start)
        end = start
        lines = (block[:-1] if rest is None else block + rest).split(b"\n")
        rest = lines[0]
        for line in reversed(lines[1:]):
            yield line + b"\n"
    if rest is not None:
        yield rest + b"\n"


class _File:
    """One file, read from a position on."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        status = os.fstat(self._file.fileno())
        self._identity = (status.st_dev, status.st_ino)
        self._begun = b""
        """The beginning of a line whose end is not there yet."""

    def backwards(self) -> Iterator[bytes]:
        """Give the whole lines there are now, last one first, and have `read` go on behind them."""
        end = self._file.seek(0, os.SEEK_END)
        fd = self._file.fileno()
        while end > 0:
            start = max(0, end - _BLOCK)
            at = os.pread(fd, end - start, start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        self._file.seek(end)
        return _lines_backwards(fd, end)

    def read(self) -> list[bytes]:
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._begun = b""
        lines = (self._begun + self._file.read()).split(b"\n")
        self._begun = lines.pop()
        return [line + b"\n" for line in lines]

    def rest(self) -> list[bytes]:
        begun, self._begun = self._begun, b""
        return [begun + b"\n"] if begun else []

    def is_replaced(self, path: Path) -> bool:
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) != self._identity

    def close(self) -> None:
        self._file.close()
