"""The embedded store before a node's processes use it, and after: made, checked, set aside, flushed.

Processes that are killed harm nothing: what LMDB has written is in the kernel's hands, and a change that was not
finished is not seen. Nothing is flushed to the disk on the way, so a *system* that fails may leave a file that is
partly old: where the store was in use in another boot than this one, it is not trusted, and set aside.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import structlog

from edgeproxy.cache.embedded import layout
from edgeproxy.cache.embedded.environment import READERS, Environment
from edgeproxy.cache.embedded.files import StoreError, StoreFiles
from edgeproxy.cache.embedded.marks import Marks
from edgeproxy.cache.embedded.tables import Tables

LOCK_BYTES = 64 * (READERS + 2)
LEAST_BYTES = 8 * 1024 * 1024
"""A smaller store is made this large."""
CHECK_TIMEOUT_S = 30.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_log = structlog.get_logger()


def prepare(folder: Path, size_bytes: int, instance: int) -> None:
    """Make a store ready for a node: made where it is missing, set aside and made anew where it can't be used.

    `instance` tells the purge log that goes with it from all others. Who calls holds the directory. Processes of a
    killed node may still be using the store. Raises StoreError when it can't be made.
    """
    files = StoreFiles(folder)
    size_bytes = max(size_bytes, LEAST_BYTES) // layout.PAGE_BYTES * layout.PAGE_BYTES
    try:
        reason = _problem(files, size_bytes, instance)
        if reason:
            set_aside(folder, reason)
        if not files.data.exists():
            _create(files, size_bytes, instance)
        else:
            os.truncate(files.data, size_bytes)
            Marks.ensure(files.marks, size_bytes)
        if not files.in_use.exists():  # else it names this boot: a disk that is full by now must not empty it
            files.in_use.write_text(_boot_id())
        _note_applied(files)
    except (OSError, lmdb.Error, layout.Damaged) as error:
        raise StoreError(f"cache store {folder} can't be made: {error}") from error


def finish(folder: Path) -> None:
    """After the last process of a node has let go: put the store on the disk, so that it is trusted after a reboot."""
    files = StoreFiles(folder)
    try:
        with Environment.acquired(files) as environment:
            environment.env.sync(True)
        files.in_use.unlink()
    except (OSError, StoreError, lmdb.Error) as error:
        _log.warning("cache store could not be flushed", path=str(folder), error=str(error))


def set_aside(folder: Path, reason: str) -> None:
    """Rename a store that can't be used; the one that was set aside before is removed. Raises OSError."""
    for older in folder.parent.glob(f"{folder.name}.set-aside-*"):
        shutil.rmtree(older, ignore_errors=True)
    aside = folder.with_name(f"{folder.name}.set-aside-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    folder.rename(aside)
    _log.error("cache store can't be used: set aside, starting with an empty one", path=str(aside), reason=reason)


def _create(files: StoreFiles, size_bytes: int, instance: int) -> None:
    shutil.rmtree(files.folder, ignore_errors=True)
    files.folder.mkdir(mode=0o700, parents=True)
    fd = os.open(files.lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # LMDB writes to it through a mapping: with its room taken, a full disk can't end a process.
        os.posix_fallocate(fd, 0, LOCK_BYTES)
    finally:
        os.close(fd)
    Marks.ensure(files.marks, size_bytes)
    with lmdb.open(
        str(files.folder), map_size=size_bytes, mode=0o600, sync=False, max_dbs=len(layout.TABLES), max_readers=READERS
    ) as env:
        tables = Tables(env, create=True)
        with env.begin(write=True) as txn:
            txn.put(layout.META_FORMAT, layout.FORMAT, db=tables.meta)
            txn.put(layout.META_INSTANCE, str(instance).encode(), db=tables.meta)
    os.truncate(files.data, size_bytes)


def _note_applied(files: StoreFiles) -> None:
    with Environment.acquired(files) as environment, environment.env.begin() as txn:
        environment.marks.applied_seq = environment.tables.counters(txn).applied_seq


def _problem(files: StoreFiles, size_bytes: int, instance: int) -> str:
    """Say why the store that is there can't be used; empty when it can, or when there is none."""
    if not files.folder.exists():
        return ""
    if files.damaged.exists():
        return files.damaged.read_text(errors="replace") or "it was found damaged"
    if not files.data.exists():
        return "its data file is missing"
    if files.in_use.exists() and files.in_use.read_text(errors="replace") != _boot_id():
        return "the system went down while it was in use"
    if files.data.stat().st_size > size_bytes:
        return "it is larger than it may be by now"
    Marks.ensure(files.marks, files.data.stat().st_size)
    return _check(files, instance)


def _check(files: StoreFiles, instance: int) -> str:
    """Read the store in a process of its own: a file that is damaged enough can end the one that reads it."""
    program = (sys.executable, "-m", "edgeproxy.cache.embedded.check", str(files.folder), str(instance))
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"reading it took more than {CHECK_TIMEOUT_S:.0f} s"
    if done.returncode < 0:
        return f"reading it ended the process that did (signal {-done.returncode})"
    if done.returncode:
        return done.stdout.strip() or done.stderr.strip()[-500:] or "it can't be read"
    return ""


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"
