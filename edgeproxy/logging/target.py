"""Where the access log goes: a regular file, or a stream (pipe, terminal, socket, device) such as standard output.

What scribe and workers share when they open it. A stream never blocks its writer here: neither the scribe's loop nor a
worker's may hang on a reader that does not read. Knows bytes and descriptors, nothing of records.
"""

import contextlib
import fcntl
import os
import select
import socket
import stat
import time
from collections.abc import Buffer, Callable, Sequence
from typing import Self

STDOUT = "-"
_STDOUT_FD = 1
_STDOUT_LINK = f"/proc/self/fd/{_STDOUT_FD}"
_FLAGS = os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MODE = 0o640
_LOOK_S = 0.0005
_PATIENCE_S = 0.05
_LONGEST_LINE = 1024 * 1024
_BEGINNING = b'{"ts":"'
"""How every record begins."""


class Target:
    """An open log."""

    def __init__(
        self, fd: int, write: "Callable[[int, Sequence[Buffer]], int]", status: os.stat_result, *, is_file: bool
    ) -> None:
        """Use `open`."""
        self.fd = fd
        self._write = write
        self._device = status.st_dev
        self.inode = status.st_ino
        self.is_file = is_file
        """Whether it can be read back: a regular file that was opened by its path."""

    @classmethod
    def open(cls, path: str) -> Self:
        """Open `path` for appending, and create it where it is missing; "-" is standard output. Raises OSError."""
        if path == STDOUT:
            return cls._stdout()
        try:
            is_stream = not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  a str all the way
        except FileNotFoundError:
            is_stream = False
        # A log that can't be read back can't be continued where a dead scribe left it, hence O_RDWR for files.
        fd = os.open(path, _FLAGS | (os.O_WRONLY if is_stream else os.O_RDWR | os.O_CREAT), _MODE)
        return cls(fd, _write_pieces, os.fstat(fd), is_file=not is_stream)

    @classmethod
    def of(cls, fd: int) -> Self:
        """Take over a descriptor of a regular file, open for reading and appending."""
        return cls(fd, _write_pieces, os.fstat(fd), is_file=True)

    @classmethod
    def _stdout(cls) -> Self:
        status = os.fstat(_STDOUT_FD)
        if stat.S_ISSOCK(status.st_mode):
            return cls(os.dup(_STDOUT_FD), _send, status, is_file=False)
        if stat.S_ISREG(status.st_mode):
            # Its position is shared with standard error and with the supervisor: only this descriptor keeps it right.
            return cls(os.dup(_STDOUT_FD), _write_pieces, status, is_file=False)
        try:
            # A description of our own can be made non-blocking; the inherited one is shared with the shell.
            return cls(os.open(_STDOUT_LINK, _FLAGS | os.O_WRONLY), _write_pieces, status, is_file=False)
        except OSError:  # another user's pipe
            return cls(os.dup(_STDOUT_FD), _write_if_ready, status, is_file=False)

    def write(self, pieces: "Sequence[Buffer]") -> int:
        """Write as much as goes without waiting and return how many bytes that was. Raises OSError."""
        try:
            return self._write(self.fd, pieces)
        except BlockingIOError:
            return 0

    def size(self) -> int:
        """Return the file's size now, in bytes."""
        return os.fstat(self.fd).st_size

    # Writing to a file that others write to, any of whom may die in the middle of a line.
    #
    # A write that is under way shows piece by piece, so at any moment the file may seem to end within a line. Who
    # writes therefore holds a shared lock, and who gets the lock alone sees the file at rest: a line that is torn then
    # is torn for good. The lock is not waited for longer than `_PATIENCE_S`: whoever holds it is at work on a few
    # bytes, and if not, a line that may be glued to a torn one is better than none.

    def begin(self) -> bool:
        """Announce a write to a file; `end` must follow. The file then ends with a whole line.

        What is left of a record's line is cut off: its whole line is still in a ledger, or will be written as lost.
        Anything else is not ours to cut: True when the write must begin with a newline because of it.
        """
        self._lock(fcntl.LOCK_SH, _PATIENCE_S)
        if not self._seems_torn():
            return False
        if self._lock(fcntl.LOCK_EX):
            return self._seems_torn() and not self._cut()
        self._lock(fcntl.LOCK_SH, _PATIENCE_S)
        return False

    def lock_alone(self, patience_s: float = 0.0) -> bool:
        """See to it that nobody is in the middle of a write until `end`; False when someone keeps being."""
        return self._lock(fcntl.LOCK_EX, patience_s)

    def end(self) -> None:
        """The write is over, or was given up."""
        with contextlib.suppress(OSError):
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def _lock(self, kind: int, patience_s: float = 0.0) -> bool:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_LOOK_S)
            except OSError:  # a file system without locks
                return False
            else:
                return True

    def _seems_torn(self) -> bool:
        size = self.size()
        return size > 0 and os.pread(self.fd, 1, size - 1) != b"\n"

    def _cut(self) -> bool:
        """Cut a torn record off the file's end; False when what stands there is none."""
        size = self.size()
        start = max(0, size - _LONGEST_LINE)
        last = os.pread(self.fd, size - start, start)
        start += last.rfind(b"\n") + 1
        torn = last[last.rfind(b"\n") + 1 :]
        if not torn.startswith(_BEGINNING[: len(torn)]):
            return False
        os.ftruncate(self.fd, start)
        return True

    def has_moved(self, path: str) -> bool:
        """Whether `path` now means another file, or this file was deleted.

        A path that means nothing is a rotation half done: who rotates is about to create the file.
        """
        try:
            status = os.stat(path)  # noqa: PTH116  on a worker's way when its ring is full
        except FileNotFoundError:
            return os.fstat(self.fd).st_nlink == 0
        except OSError:
            return False
        return (status.st_dev, status.st_ino) != (self._device, self.inode)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def _write_pieces(fd: int, pieces: "Sequence[Buffer]") -> int:
    return os.writev(fd, pieces)


def _write_if_ready(fd: int, pieces: "Sequence[Buffer]") -> int:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    # Ready means that PIPE_BUF bytes fit: no more than that is written at a time, so it does not block.
    return os.write(fd, b"".join(pieces)[: select.PIPE_BUF]) if poll.poll(0) else 0


def _send(fd: int, pieces: "Sequence[Buffer]") -> int:
    connection = socket.socket(fileno=fd)
    try:
        return connection.send(b"".join(pieces), socket.MSG_DONTWAIT)
    finally:
        connection.detach()
