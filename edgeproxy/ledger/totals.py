"""What the ledgers that are gone had counted, by worker, so that a node's totals never fall when a worker is replaced.

One small file beside the ledgers, written by the scribe alone. It names the last ledger that was added: a scribe that
dies between adding a ledger and deleting it leaves one that is named there, and the next scribe deletes it without
adding it again. The file is replaced whole (rename), never written in place. It lives in the runtime directory, as the
ledgers do, and is as durable as they are: it outlives processes, not the machine.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from edgeproxy.ledger.layout import Counter

TOTALS_FILE = "totals.json"
GAUGES = frozenset(
    {
        Counter.CONNECTIONS_OPEN,
        Counter.CACHE_BYTES,
        Counter.CACHE_ENTRIES,
        Counter.STORE_NODES,
        Counter.STORE_NODES_WELL,
        Counter.STORE_USABLE,
    }
)
"""Counters that say how it is now: a dead worker's are worth nothing."""


class Totals:
    """Counters of past ledgers, by worker index."""

    def __init__(self, path: Path, workers: dict[int, list[int]], last: str) -> None:
        """Use `load`."""
        self._path = path
        self._workers = workers
        self._last = last

    @classmethod
    def load(cls, directory: Path) -> "Totals":
        """Read the totals in a runtime directory; a file that is missing or can't be read counts nothing."""
        path = directory / TOTALS_FILE
        workers: dict[int, list[int]] = {}
        last = ""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            content = json.loads(path.read_bytes())
            workers = {int(worker): [int(value) for value in values] for worker, values in content["workers"].items()}
            last = str(content["last"])
        return cls(path, workers, last)

    def of(self, worker: int) -> list[int]:
        """Give what past ledgers of a worker index counted, indexed by `Counter`."""
        known = self._workers.get(worker, [])
        return known + [0] * (len(Counter) - len(known))

    @property
    def workers(self) -> list[int]:
        """Worker indices that past ledgers had."""
        return sorted(self._workers)

    def add(self, name: str, worker: int, counters: Sequence[int]) -> None:
        """Add a ledger's counters, once for each file `name`. Raises OSError when they can't be kept: then the ledger
        must stay.
        """
        if name == self._last:
            return
        sums = [
            before if counter in GAUGES else before + counters[counter]
            for counter, before in zip(Counter, self.of(worker), strict=False)
        ]
        workers = {**self._workers, worker: sums}
        temporary = self._path.with_name(f".{self._path.name}")
        temporary.write_text(json.dumps({"last": name, "workers": workers}), encoding="ascii")
        temporary.replace(self._path)
        self._workers, self._last = workers, name
