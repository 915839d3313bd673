"""`python -m edgeproxy.cache.embedded.check FOLDER INSTANCE`: read a store, and say why it can't be used.

A program of its own because a file that is damaged enough ends the process that reads it. Exit code 0: it can be
used; 1: it can't, and standard output says why. It reads for a while, not everything: what it does not come to is found
by the checksums when it is looked up.
"""

import sys
import time
from pathlib import Path

import lmdb

from edgeproxy.cache.embedded import layout
from edgeproxy.cache.embedded.environment import Environment
from edgeproxy.cache.embedded.files import StoreError, StoreFiles
from edgeproxy.cache.embedded.tables import Tables

READ_S = 0.25
"""How long to read in it."""


def problem(folder: Path, instance: int) -> str:
    """Say why a store can't be used; empty when it can."""
    files = StoreFiles(folder)
    try:
        with Environment.acquired(files) as environment:
            return _problem(files, environment.env, environment.tables, instance)
    except (StoreError, layout.Damaged, lmdb.Error, OSError) as error:
        return str(error)


def _problem(files: StoreFiles, env: lmdb.Environment, tables: Tables, instance: int) -> str:
    if (env.info()["last_pgno"] + 1) * layout.PAGE_BYTES > files.data.stat().st_size:
        return "its data file is cut short"
    env.reader_check()
    with env.begin() as txn:
        written = txn.get(layout.META_FORMAT, db=tables.meta)
        if written != layout.FORMAT:
            name = "none" if written is None else bytes(written).decode(errors="replace")
            return f"its format is {name}, this edgeproxy's is {layout.FORMAT.decode()}"
        if txn.get(layout.META_INSTANCE, db=tables.meta) != str(instance).encode():
            return "it belongs to another purge log: what was purged since can't be known"
        tables.counters(txn)
        _read(tables, txn)
    return ""


def _read(tables: Tables, txn: "lmdb.Transaction[bytes]") -> None:
    """Read what there is for a while. Raises Damaged or lmdb.Error."""
    for table in tables.all:
        until = time.monotonic() + READ_S / len(tables.all)
        with txn.cursor(db=table) as cursor:
            for count, (_, value) in enumerate(cursor):
                if table is tables.heads:
                    layout.unpack(memoryview(value))
                elif table is tables.order:
                    layout.unpack_place(value)
                if count % 256 == 0 and time.monotonic() > until:
                    break


if __name__ == "__main__":
    found = problem(Path(sys.argv[1]), int(sys.argv[2]))
    print(found)  # noqa: T201  its result
    sys.exit(1 if found else 0)
