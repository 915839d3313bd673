"""Writes the ledgers' finished lines to the access log, each exactly once, though the scribe may die at any moment.

Moves lines in bulk and does not look into them, except for another format. It never waits, and never retries by
itself: a failure is an OSError to its caller, and everything is still in the ring.

How a line is written once:
- into the ledger, before the write: the log file's inode and size, and what `TAIL` will be after it. Then the write,
  then `TAIL`;
- a batch that is noted there and not over (the scribe died in between, or the disk was full) is settled first: the
  file, found by its inode even if it was renamed meanwhile, is read from the noted size on, and the lines of the batch
  that stand there are taken out of the ring. Workers whose ring was full may have appended whole lines of their own in
  between: those are passed over;
- a line that was torn, at the very end of the file, gets its rest. If someone else came first, they have cut the torn
  piece off (`Target.begin`), and the line is written once more.

On a stream (standard output, a pipe) nothing can be read back: a scribe that is killed between a write and the note of
it writes that chunk, at most `PIPE_BUF` bytes or one line, twice.
"""

import contextlib
import os
import select
import stat
from pathlib import Path

from edgeproxy.ledger import Batch, LedgerReader
from edgeproxy.logging.access import LogFormat, renderer
from edgeproxy.logging.target import Target

BATCH_BYTES = 8 * 1024 * 1024
"""How much goes into one write: some milliseconds' work, so that the scribe's loop can do something else in between."""
RENDER_BYTES = 512 * 1024
"""The same where each line is rendered anew."""
STREAM_BYTES = 256 * 1024
SETTLE_PATIENCE_S = 0.2
"""How long settling waits for workers that are in the middle of appending a line."""


class AccessLog:
    """The access log, as the scribe writes it."""

    def __init__(self, path: str, log_format: LogFormat = "json") -> None:
        """Write to `path`, or to standard output for "-"; nothing is opened yet."""
        self.path = path
        self._render = renderer(log_format)
        self._target: Target | None = None
        self._unfinished: tuple[LedgerReader, int, bytes] | None = None
        """What a stream did not take of a chunk, and how many bytes of which ring the chunk was."""

    @property
    def blocked_on(self) -> int | None:
        """The descriptor of a stream whose reader is behind: nothing more can be written until it can be."""
        return self._target.fd if self._unfinished and self._target else None

    def open(self) -> None:
        """Open the log unless it is open. Raises OSError."""
        if self._target is None:
            self._target = Target.open(self.path)

    def drain(self, ledger: LedgerReader) -> int:
        """Write what a ledger has, up to a batch, and return how many bytes were taken out of its ring. Raises
        OSError.
        """
        before = ledger.tail
        if before == ledger.head:
            return 0
        try:
            if self._target is None:
                self._target = Target.open(self.path)
            if self._target.is_file:
                self._to_file(ledger, self._target)
            else:
                self._to_stream(ledger, self._target)
        except OSError as error:
            # Opened anew at the next attempt: what is at the path by then may be well again.
            self.close()
            error.filename = error.filename or self.path
            raise
        return ledger.tail - before

    def reopen(self) -> None:
        """Let a file go, after a rotation: the next write opens, or creates, what is at the path then."""
        if self._target is not None and self._target.is_file:
            self.close()

    def follow(self) -> None:
        """Let a file go if it was rotated away or deleted and nobody said so."""
        if self._target is not None and self._target.is_file and self._target.has_moved(self.path):
            self.close()

    def close(self) -> None:
        """Close the log; the next write opens it again."""
        self._unfinished = None
        if self._target is not None:
            self._target.close()
            self._target = None

    # A regular file.

    def _to_file(self, ledger: LedgerReader, target: Target) -> None:
        if batch := ledger.batch:
            self._settle(ledger, batch)
        if not ledger.fill:
            return
        pieces = ledger.pending(BATCH_BYTES if self._render is None else RENDER_BYTES)
        try:
            output = pieces if self._render is None else [b"".join(self._rendered(b"".join(pieces)))]
            taken = sum(map(len, pieces))
            if target.begin():
                os.write(target.fd, b"\n")
            ledger.begin_batch(target.inode, target.size(), taken)
            is_done = os.writev(target.fd, output) == sum(map(len, output))
        finally:
            target.end()
            # An error's traceback would hold them, and with them the mapping.
            for piece in pieces:
                piece.release()
        if is_done:
            ledger.advance(taken)
        elif batch := ledger.batch:
            self._settle(ledger, batch)

    def _settle(self, ledger: LedgerReader, batch: Batch) -> None:
        """Find out what of a batch stands in its file and take that out of the ring; the rest is as if never begun."""
        file = self._find(batch.inode)
        if file is not None:
            try:
                file.lock_alone(SETTLE_PATIENCE_S)
                self._settle_in(file.fd, ledger, batch)
            finally:
                file.close()
        ledger.end_batch()

    def _settle_in(self, fd: int, ledger: LedgerReader, batch: Batch) -> None:
        lines = _lines(b"".join(ledger.pending(end=batch.end)))
        wanted = lines if self._render is None else self._rendered(b"".join(lines))
        done, torn = _standing(fd, batch.offset, wanted)
        ledger.advance(sum(map(len, lines[:done])))
        if torn:
            rest = memoryview(wanted[done])[torn:]
            while rest:
                rest = rest[os.write(fd, rest) :]
            ledger.advance(len(lines[done]))

    def _find(self, inode: int) -> Target | None:
        """Open the file with that inode: at the log's path, or renamed beside it."""
        path = Path(self.path).resolve()
        names = [path]
        with contextlib.suppress(OSError):
            names += sorted(path.parent.iterdir())
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                # Not the directory entry's own inode number: on overlayfs that is another.
                status = name.lstat()
                if status.st_ino == inode and stat.S_ISREG(status.st_mode):
                    return Target.of(os.open(name, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
        return None

    def _rendered(self, data: bytes) -> list[bytes]:
        render = self._render or bytes
        return [render(line) for line in _lines(data)]

    # A stream.

    def _to_stream(self, ledger: LedgerReader, target: Target) -> None:
        ledger.end_batch()
        limit = ledger.tail + STREAM_BYTES
        while self._finish(target) and ledger.tail < min(limit, ledger.head):
            chunk = b"".join(ledger.pending(select.PIPE_BUF))
            data = chunk if self._render is None else b"".join(self._rendered(chunk))
            self._unfinished = (ledger, len(chunk), data)

    def _finish(self, target: Target) -> bool:
        """Write what is left of the chunk under way; True once there is none."""
        if self._unfinished is None:
            return True
        ledger, taken, data = self._unfinished
        written = target.write([data])
        if written < len(data):
            self._unfinished = (ledger, taken, data[written:])
            return False
        self._unfinished = None
        ledger.advance(taken)
        return True


def _lines(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _standing(fd: int, offset: int, wanted: list[bytes]) -> tuple[int, int]:
    """Compare a file from `offset` on with the lines that were to be written there, in their order.

    Returns how many of them stand there, and how many bytes there are of the next one if the file ends within it.
    """
    done = 0
    with open(fd, "rb", closefd=False) as file:
        file.seek(offset)
        for line in file:
            if done == len(wanted):
                break
            if line == wanted[done]:
                done += 1
            elif not line.endswith(b"\n") and wanted[done].startswith(line):
                return done, len(line)
    return done, 0
