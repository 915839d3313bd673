"""The thread that keeps a store swept: it watches the purge log and acts on what is new. One a node, in the scribe."""

import threading
from pathlib import Path

from edgeproxy.cache.embedded.files import StoreError
from edgeproxy.cache.embedded.store import EmbeddedStore
from edgeproxy.cache.purge_log import PurgeLog, PurgeLogError

LOOK_S = 0.05
RETRY_S = 1.0


class Sweeper:
    """Sweeps from `open` to `close`."""

    def __init__(self, store: EmbeddedStore, log: PurgeLog) -> None:
        """Use `open`."""
        self._store = store
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    @classmethod
    def open(cls, folder: Path, purge_log: Path) -> "Sweeper":
        """Sweep the store in this directory by this log, beginning with what was purged while nobody did. Raises
        StoreError.
        """
        store = EmbeddedStore.open(folder)
        try:
            log = PurgeLog.open(purge_log)
        except (OSError, PurgeLogError) as error:
            store.close()
            raise StoreError(f"cache store {folder} can't be swept: {error}") from error
        log.seek(store.applied_seq)
        sweeper = cls(store, log)
        sweeper._thread.start()
        return sweeper

    def close(self) -> None:
        """Finish what is under way, and let go."""
        self._stop.set()
        self._thread.join()
        self._log.close()
        self._store.close()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            pause = LOOK_S
            rules = self._log.read_new()
            if rules and not self._store.sweep(rules, self._stop):
                # The log keeps them: a store that fails for good would have them pile up here.
                self._log.seek(self._store.applied_seq)
                pause = RETRY_S
