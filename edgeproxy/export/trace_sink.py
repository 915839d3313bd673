"""The exporter `embedded`: batches go into the store of traces on this host.

Decides when the store is opened, what is done about one that can't be used (it is a convenience: set aside with a word,
and a new one begun), and that there is one writer. How it is laid out is `traces`' business.

FOLDER/data.mdb, lock.mdb   LMDB's
FOLDER/in-use               there while it is written to: the system's boot that this happens in
FOLDER.lock                 held by whoever writes it: a store that two wrote would be within no bounds
FOLDER.set-aside            the last one that could not be used
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import structlog

from edgeproxy.export.batch import Refused, Unavailable
from edgeproxy.export.traces import TraceStore, TraceStoreError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CHECK_TIMEOUT_S = 10.0
_LOCK_POLL_S = 0.02
_NO_DAMAGE = (
    *(lmdb.DiskError, lmdb.MemoryError, lmdb.LockError),
    *(lmdb.MapFullError, lmdb.ReadersFullError, OSError),
)
"""What fails for reasons that lie elsewhere, such as a full disk; a new store would fare no better."""

_log = structlog.get_logger()


class TraceStoreSink:
    """The store as a place for batches: opened, or begun anew, when the first one comes."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        """Prepare; nothing is opened yet."""
        self._folder = folder
        self._size_bytes = size_bytes
        self._in_use = folder / "in-use"
        self._store: TraceStore | None = None
        self._file = 0
        """Inode of the file that is written."""
        self._held_by: int | None = None
        """Descriptor of the lock."""
        self._is_cramped = False
        """Whether room was made already, and there was still none."""

    def send(self, payloads: list[bytes], spans: int, timeout_s: float) -> int:  # noqa: ARG002  the disk has its own time
        """Keep records, each behind its trace id; none is ever rejected. Raises Unavailable or Refused."""
        try:
            if self._store is not None and not self._is_there():
                _log.warning("trace store was removed: starting with an empty one", path=str(self._folder))
                self._let_go()
            if self._store is None:
                self._hold(timeout_s)
                self._store = self._open()
            self._add(self._store, payloads)
        except _NO_DAMAGE as error:
            self._let_go()
            raise Unavailable(f"trace store {self._folder}: {error}") from error
        except (lmdb.Error, TraceStoreError) as error:
            if isinstance(error.__cause__, _NO_DAMAGE):
                raise Unavailable(str(error)) from error
            self._begin_anew(str(error))
            raise Refused(f"trace store {self._folder}: {error}") from error
        return 0

    def _add(self, store: TraceStore, payloads: list[bytes]) -> None:
        try:
            store.add(payloads)
        except lmdb.MapFullError:
            store.forget_dead_readers()
            if not self._is_cramped:
                # Once: while a reader keeps what was deleted, to delete more makes no room either.
                self._is_cramped = True
                store.halve()
            store.add(payloads)
        self._is_cramped = False

    def _is_there(self) -> bool:
        try:
            return (self._folder / "data.mdb").stat().st_ino == self._file
        except FileNotFoundError:
            return False

    def _hold(self, timeout_s: float) -> None:
        """Wait until nobody else writes: the one before, in this process, may be about to close. Raises Unavailable."""
        if self._held_by is not None:
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        path = self._folder.with_name(f"{self._folder.name}.lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    raise Unavailable(f"trace store {self._folder} is written by another process") from error
                time.sleep(_LOCK_POLL_S)
            except BaseException:
                os.close(fd)
                raise
            else:
                self._held_by = fd
                return

    def _open(self) -> TraceStore:
        if reason := self._problem():
            self._begin_anew(reason)
        try:
            store = TraceStore.open(self._folder, readonly=False, size_bytes=self._size_bytes)
        except TraceStoreError as error:
            if isinstance(error.__cause__, _NO_DAMAGE):
                raise
            self._begin_anew(str(error))
            store = TraceStore.open(self._folder, readonly=False, size_bytes=self._size_bytes)
        try:
            self._file = (self._folder / "data.mdb").stat().st_ino
            self._in_use.write_text(_boot_id())
        except OSError:
            store.close()
            raise
        return store

    def _problem(self) -> str:
        """Say why the store that is there can't be used; empty when it can, or when there is none."""
        data = self._folder / "data.mdb"
        if not data.exists():
            return ""
        if data.stat().st_size > self._size_bytes:
            return "it is larger than it may be by now"
        if not self._in_use.exists():
            return ""
        if self._in_use.read_text(errors="replace") != _boot_id():
            return "the system went down while it was written to"
        return _check(self._folder)

    def _begin_anew(self, reason: str) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
        aside = self._folder.with_name(f"{self._folder.name}.set-aside")
        if not self._folder.exists():
            return
        with contextlib.suppress(OSError):
            shutil.rmtree(aside, ignore_errors=True)
            self._folder.rename(aside)
            _log.error(
                "trace store can't be used: set aside, starting with an empty one", path=str(aside), reason=reason
            )

    def close(self) -> None:
        """Put it on the disk and let go."""
        self._let_go()
        if self._held_by is not None:
            os.close(self._held_by)
            self._held_by = None

    def _let_go(self) -> None:
        """Close the store, whole as it is; it is opened again when it is wanted."""
        if self._store is None:
            return
        store, self._store = self._store, None
        with contextlib.suppress(lmdb.Error, OSError):
            store.close(sync=True)
            if self._is_there():
                self._in_use.unlink(missing_ok=True)


def _check(folder: Path) -> str:
    """Read a store whose writer was killed in a process of its own: damage enough can end the one that reads it."""
    program = (sys.executable, "-m", "edgeproxy.export.traces", str(folder))
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=_CHECK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"reading it took more than {_CHECK_TIMEOUT_S:.0f} s"
    if done.returncode < 0:
        return f"reading it ended the process that did (signal {-done.returncode})"
    return "" if done.returncode == 0 else done.stderr.strip()[-300:] or "it can't be read"


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"
