"""Where a node keeps what it caches, and how that place is made ready before the workers use it.

Knows which directory it is, whose it is, and in which order its parts are prepared: the purge log first, then the store
that goes with it. What is in the files is `cache.embedded`'s and `cache.purge_log`'s business.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from edgeproxy.cache.embedded import StoreError, finish, prepare
from edgeproxy.cache.embedded.files import StoreFiles
from edgeproxy.cache.purge_log import PurgeLog, PurgeLogError
from edgeproxy.config import Config
from edgeproxy.node.errors import CacheDirError
from edgeproxy.node.locks import take_lock
from edgeproxy.node.runtime import SYSTEM_DIR, RuntimeDir

SYSTEM_CACHE_DIR = Path("/var/cache/edgeproxy")
LOCK_PATIENCE_S = 1.0
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL)
FAULTS_MAX = 3
"""How many workers may be ended by faults in a node's life before its store is suspected."""

_log = structlog.get_logger()


class StoragePaths(NamedTuple):
    """The files of a node's cache."""

    directory: Path
    """What the node's supervisor holds: the store's and the purge log's place."""
    folder: Path
    """The embedded store's own; not there with another store."""
    purge_log: Path
    claims: Path
    """Which worker fetches what."""


def storage_paths(config: Config, runtime_dir: Path, environ: Mapping[str, str] = os.environ) -> StoragePaths:
    """Find them by the configuration and the runtime directory; nothing is made or checked."""
    is_embedded = config.cache.store == "embedded"
    directory = _directory(config.cache.path, runtime_dir, environ) if is_embedded else runtime_dir
    return StoragePaths(directory, directory / "store", directory / "purge.log", runtime_dir / "claims")


def _directory(configured: str, runtime_dir: Path, environ: Mapping[str, str]) -> Path:
    if configured:
        return Path(configured).absolute()
    if runtime_dir == SYSTEM_DIR:
        return SYSTEM_CACHE_DIR
    if runtime_dir == RuntimeDir.resolve("", environ).path:
        if session := environ.get("XDG_CACHE_HOME"):
            return Path(session) / "edgeproxy"
        if home := environ.get("HOME"):
            return Path(home) / ".cache" / "edgeproxy"
    return runtime_dir / "cache"


class Storage:
    """A node's cache on disk, held for as long as the node runs."""

    def __init__(self, paths: StoragePaths, lock: int | None) -> None:
        """Use `take`."""
        self.paths = paths
        self._lock = lock

    @classmethod
    def take(cls, config: Config, runtime_dir: Path) -> "Storage":
        """Hold the directory and make everything in it ready, anew where it can't be used.

        The runtime directory must be held. Raises CacheDirError when it can't be had, or another node has it.
        """
        paths = storage_paths(config, runtime_dir)
        if config.cache.store != "embedded":
            # A worker that can't use the store it is to use goes by this log, too.
            _ensure_log(paths.purge_log).close()
            return cls(paths, None)
        _make(paths.directory)
        lock = _hold(paths.directory)
        try:
            log = _ensure_log(paths.purge_log)
            try:
                prepare(paths.folder, config.cache.size_bytes, log.instance)
            finally:
                log.close()
        except StoreError as error:
            os.close(lock)
            raise CacheDirError(f"{error}; set cache.path, or cache.store to memory") from error
        except BaseException:
            os.close(lock)
            raise
        return cls(paths, lock)

    def close(self) -> None:
        """After all processes of the node have gone: have everything on the disk, and let go."""
        self.paths.claims.unlink(missing_ok=True)
        if self._lock is not None:
            finish(self.paths.folder)
            os.close(self._lock)
            self._lock = None


class Suspicion:
    """Workers that faults ended, one after the other: what they have in common may be damage in the store, of a kind
    that ends its reader before a checksum can tell.
    """

    def __init__(self) -> None:
        """Suspect nothing."""
        self._faults = 0

    def note(self, code: int, config: Config, runtime_dir: Path) -> None:
        """A worker ended with this exit code. After some faults new workers do without the store, and the next start
        sets it aside.
        """
        if -code not in FAULTS or config.cache.store != "embedded":
            return
        self._faults += 1
        if self._faults % FAULTS_MAX:
            return
        folder = storage_paths(config, runtime_dir).folder
        reason = f"{FAULTS_MAX} workers that used it were ended by faults, the last by {signal.Signals(-code).name}"
        _log.error("cache store is suspected: not used by new workers; the next start sets it aside", path=str(folder))
        StoreFiles(folder).mark_damaged(reason)


def _make(directory: Path) -> None:
    advice = "set cache.path to a directory that this user may write to, or cache.store to memory"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = directory.stat().st_uid
    except OSError as error:
        raise CacheDirError(f"cache directory {directory} can't be made: {error.strerror}; {advice}") from error
    if os.geteuid() not in (0, owner) and owner != 0:
        raise CacheDirError(f"cache directory {directory} belongs to uid {owner}; {advice}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise CacheDirError(f"cache directory {directory} can't be written to; {advice}")


def _hold(directory: Path) -> int:
    """Take the directory for one node; the lock ends with the descriptor that is returned."""
    path = directory / "lock"
    try:
        fd = take_lock(path, LOCK_PATIENCE_S)
    except OSError as error:
        raise CacheDirError(f"{path} can't be locked: {error.strerror}") from error
    if fd is None:
        raise CacheDirError(f"another node uses the cache directory {directory}; give this node its own cache.path")
    return fd


def _ensure_log(path: Path) -> PurgeLog:
    """The purge log; a new one where it can't be used. The store, which goes by its instance, is then set aside."""
    try:
        try:
            return PurgeLog.ensure(path)
        except PurgeLogError as error:
            _log.error("purge log can't be used: starting with an empty one", error=str(error))
            return PurgeLog.create(path)
    except OSError as error:
        raise CacheDirError(f"purge log {path} can't be made: {error.strerror}; set cache.path") from error
