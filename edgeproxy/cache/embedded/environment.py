"""The open LMDB environments of this process: LMDB allows one a file, so whoever opens a store again shares it."""

import contextlib
import threading
from collections.abc import Iterator

import lmdb

from edgeproxy.cache.embedded import layout
from edgeproxy.cache.embedded.files import StoreError, StoreFiles
from edgeproxy.cache.embedded.marks import Marks
from edgeproxy.cache.embedded.tables import Change, Tables

READERS = 510
"""Look-ups that all processes of a host may have under way at once."""

_lock = threading.Lock()
_open: "dict[tuple[int, int], Environment]" = {}


class Environment:
    """A store's files, open."""

    def __init__(self, files: StoreFiles, identity: tuple[int, int]) -> None:
        """Use `acquire`."""
        self._identity = identity
        self._users = 0
        self.files = files
        self.capacity_bytes = files.data.stat().st_size
        """As long as the data file is, which never grows."""
        self.env = lmdb.open(
            str(files.folder),
            map_size=self.capacity_bytes,
            create=False,
            # A killed process needs no flush, and a failed system's store is set aside: see `files`.
            sync=False,
            metasync=False,
            readahead=False,
            max_dbs=len(layout.TABLES),
            max_readers=READERS,
            max_spare_txns=2,
        )
        try:
            self.tables = Tables(self.env)
            self.marks = Marks.open(files.marks)
        except BaseException:
            self.env.close()
            raise

    @classmethod
    def acquire(cls, files: StoreFiles) -> "Environment":
        """Open a store that was prepared. Raises StoreError."""
        if files.damaged.exists():
            raise StoreError(f"cache store {files.folder} is damaged; the node's next start sets it aside")
        try:
            status = files.data.stat()
            identity = status.st_dev, status.st_ino
            with _lock:
                found = _open.get(identity)
                if found is None:
                    found = _open[identity] = cls(files, identity)
                found._users += 1
                return found
        except (lmdb.Error, OSError, ValueError) as error:
            raise StoreError(f"cache store {files.folder} can't be opened: {error}") from error

    @classmethod
    @contextlib.contextmanager
    def acquired(cls, files: StoreFiles) -> "Iterator[Environment]":
        """Have a store open for a while. Raises StoreError."""
        environment = cls.acquire(files)
        try:
            yield environment
        finally:
            environment.release()

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        """Change the store in one transaction: all of it, or nothing when something is raised."""
        with self.env.begin(write=True) as txn:
            change = Change(self.tables, txn, self.marks)
            yield change
            change.finish()

    def release(self) -> None:
        """Close it, once the last one has let go."""
        with _lock:
            self._users -= 1
            if not self._users:
                del _open[self._identity]
                self.env.close()
                self.marks.close()
