"""The embedded store's directory: what lies in it.

FOLDER/data.mdb      LMDB's data; as long as the store may become, with room taken up only as it fills
FOLDER/lock.mdb      LMDB's lock and table of readers
FOLDER/marks         which entries were used lately
FOLDER/in-use        there while a node uses the store: the system's boot that it runs in
FOLDER/damaged       why the store can't be used any more
FOLDER.set-aside-…   the last one that could not be used
"""

from pathlib import Path

import structlog

_log = structlog.get_logger()


class StoreError(Exception):
    """The store can't be made or used; the message is meant for an operator."""

    code = "cache_store"


class StoreFiles:
    """Paths in a store's directory."""

    def __init__(self, folder: Path) -> None:
        """Refer to `folder`; nothing is made or checked yet."""
        self.folder = folder
        self.data = folder / "data.mdb"
        self.lock = folder / "lock.mdb"
        self.marks = folder / "marks"
        self.in_use = folder / "in-use"
        self.damaged = folder / "damaged"

    def mark_damaged(self, reason: str) -> None:
        """Have the next start set the store aside."""
        try:
            self.damaged.write_text(reason)
        except OSError as error:
            _log.error("cache store can't be marked as damaged", path=str(self.damaged), error=error.strerror)
