"""The traces that this host keeps: the records of the latest ones in an LMDB file, bounded in bytes.

Keeps lines as they are in the access log, by number and by trace id; what spans they come to is worked out by whoever
reads. One process writes (`trace_sink`), any may read meanwhile. Run as a program it reads a store through, for those
who doubt it.
"""

import contextlib
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import lmdb

PREPARED_BYTES = 16
"""A payload begins with so many bytes of trace id; the line follows."""
_KEY = struct.Struct(">Q")
_OVERHEAD_BYTES = 160
"""What a line takes up beside itself: its key, its place in the index, what is free in its pages."""
_FILL = 0.7
"""How much of the file is filled: LMDB writes changes to free pages before the old ones become free."""
_READ_MAP_BYTES = 1 << 30
"""What a reader maps at least: the file may grow while it reads."""
_TABLES = (b"lines", b"ids")

_lock = threading.Lock()
_written_here: dict[Path, lmdb.Environment] = {}
"""Stores that this process writes."""


class TraceStoreError(Exception):
    """The store can't be opened or read; the message says why."""

    code = "trace_store"


class TraceStore:
    """A store, open."""

    def __init__(self, env: lmdb.Environment, size_bytes: int) -> None:
        """Use `open`."""
        self._env = env
        self._is_shared = False
        self._limit = int(size_bytes * _FILL)
        is_new = size_bytes > 0
        self._lines = env.open_db(b"lines", integerkey=False, create=is_new)
        self._ids = env.open_db(b"ids", dupsort=True, dupfixed=True, create=is_new)
        self._held = 0
        """Bytes of what is in it, as `add` reckons them."""

    @classmethod
    def open(cls, folder: Path, *, readonly: bool = True, size_bytes: int = 0) -> Self:
        """Open the store in `folder`; for writing, make it where there is none. Raises TraceStoreError."""
        key = folder.absolute()
        with _lock:
            if readonly and (mine := _written_here.get(key)) is not None:
                return cls._beside(mine)
        try:
            if not readonly:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            env = lmdb.open(
                str(folder),
                map_size=size_bytes or max((folder / "data.mdb").stat().st_size, _READ_MAP_BYTES),
                readonly=readonly,
                create=not readonly,
                mode=0o600,
                max_dbs=len(_TABLES),
                # What LMDB has written survives this process; after a failure of the system it is set aside.
                sync=False,
                metasync=False,
                readahead=False,
            )
            store = cls(env, size_bytes)
            if not readonly:
                store._weigh()
                with _lock:
                    _written_here[key] = env
            return store
        except (lmdb.Error, OSError, ValueError) as error:
            raise TraceStoreError(f"trace store {folder} can't be opened: {error}") from error

    @classmethod
    def _beside(cls, env: lmdb.Environment) -> Self:
        """One more reader in the process that writes: LMDB lets a process open a file once."""
        store = cls(env, 0)
        store._is_shared = True
        return store

    def lines(self, trace_id: str) -> list[bytes]:
        """All records of a trace that are still there, oldest first. Raises TraceStoreError."""
        with self._reading() as txn, txn.cursor(self._ids) as cursor:
            if not cursor.set_key(bytes.fromhex(trace_id)):
                return []
            found = [txn.get(bytes(number), db=self._lines) for number in cursor.iternext_dup()]
        return [bytes(value[PREPARED_BYTES:]) for value in found if value is not None]

    def ids(self, prefix: str, limit: int) -> list[str]:
        """Up to `limit` ids of traces that begin with these hex digits. Raises TraceStoreError."""
        found: list[str] = []
        begin = bytes.fromhex(prefix[: len(prefix) // 2 * 2])
        with self._reading() as txn, txn.cursor(self._ids) as cursor:
            is_there = cursor.set_range(begin) if begin else cursor.first()
            while is_there and len(found) < limit and (key := bytes(cursor.key())).startswith(begin):
                if key.hex().startswith(prefix):
                    found.append(key.hex())
                is_there = cursor.next_nodup()
        return found

    def recent(self, limit: int) -> list[bytes]:
        """Up to `limit` records, newest first. Raises TraceStoreError."""
        found: list[bytes] = []
        with self._reading() as txn, txn.cursor(self._lines) as cursor:
            for value in cursor.iterprev(keys=False, values=True):
                if len(found) >= limit:
                    break
                found.append(bytes(value[PREPARED_BYTES:]))
        return found

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        try:
            with self._env.begin() as txn:
                yield txn
        except lmdb.Error as error:
            raise TraceStoreError(f"trace store can't be read: {error}") from error

    def add(self, payloads: list[bytes]) -> None:
        """Keep these, letting the oldest go. Raises lmdb.Error."""
        wanted = sum(len(payload) + _OVERHEAD_BYTES for payload in payloads)
        with self._env.begin(write=True) as txn:
            freed = self._make_room(txn, wanted)
            with txn.cursor(self._lines) as cursor:
                number = _KEY.unpack(cursor.key())[0] + 1 if cursor.last() else 1
            for key, payload in enumerate(payloads, number):
                packed = _KEY.pack(key)
                txn.put(packed, payload, db=self._lines, append=True)
                txn.put(payload[:PREPARED_BYTES], packed, db=self._ids)
        self._held += wanted - freed

    def halve(self) -> None:
        """Let half of what is there go. Raises lmdb.Error."""
        with self._env.begin(write=True) as txn:
            freed = self._make_room(txn, self._limit // 2)
        self._held -= freed

    def forget_dead_readers(self) -> None:
        """What a reader that was killed was looking at is kept for it until somebody looks. Raises lmdb.Error."""
        self._env.reader_check()

    def _make_room(self, txn: lmdb.Transaction, wanted: int) -> int:
        """Delete the oldest until there is room; how many bytes that frees once it is committed."""
        freed = 0
        if self._held + wanted <= self._limit:
            return freed
        with txn.cursor(self._lines) as cursor:
            while self._held - freed + wanted > self._limit and cursor.first():
                value = cursor.value()
                txn.delete(value[:PREPARED_BYTES], cursor.key(), db=self._ids)
                freed += len(value) + _OVERHEAD_BYTES
                cursor.delete()
        return freed

    def _weigh(self) -> None:
        with self._env.begin() as txn, txn.cursor(self._lines) as cursor:
            self._held = sum(len(value) + _OVERHEAD_BYTES for value in cursor.iternext(keys=False, values=True))

    def check(self) -> None:
        """Read all of it. Raises lmdb.Error, struct.error or KeyError when something is wrong with it."""
        with self._env.begin() as txn, txn.cursor(self._ids) as cursor:
            for trace_id, number in cursor:
                value = txn.get(number, db=self._lines)
                if value is None or value[:PREPARED_BYTES] != trace_id:
                    raise KeyError(trace_id)

    def close(self, *, sync: bool = False) -> None:
        """Close it; with `sync`, put it on the disk before."""
        if self._is_shared:
            return
        with _lock:
            for key in [key for key, env in _written_here.items() if env is self._env]:
                del _written_here[key]
        if sync:
            self._env.sync(True)
        self._env.close()


if __name__ == "__main__":
    TraceStore.open(Path(sys.argv[1])).check()
