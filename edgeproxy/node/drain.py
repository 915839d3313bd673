"""The scribe's work, step by step: finds the ledgers of a node, writes what is in them to the access log, finishes
dead workers' ones.

Each step is one synchronous call, none waits; when to call is `scribe`'s business. What goes wrong is reported here,
once when it begins and once when it ends, and everything stays in the ledgers until it can be written.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

from edgeproxy.ledger import Counter, LedgerError, LedgerReader, Totals, ledger_files, publish_lost, remove_unfinished
from edgeproxy.logging.access import LogFormat
from edgeproxy.logging.lookup import is_logged
from edgeproxy.logging.writer import AccessLog

RETRY_S = 1.0
"""How long a log that can't be written is left alone."""
REPORT_S = 10.0
"""The same loss is reported at most this often."""

_log = structlog.get_logger()


class Health:
    """Whether the access log can be written; reports each change once."""

    def __init__(self, path: str) -> None:
        """Assume the best."""
        self._path = path
        self._error: tuple[int | None, str | None] | None = None
        self._since = 0.0
        self.errors = 0
        """Failed attempts, ever."""

    @property
    def is_well(self) -> bool:
        """False from a failure on until something was written again."""
        return self._error is None

    def failed(self, error: OSError) -> None:
        """An attempt failed."""
        self.errors += 1
        what = (error.errno, error.strerror)
        if self._error is None:
            self._since = time.monotonic()
        if what != self._error:
            self._error = what
            _log.error(
                "access log can't be written; the ledgers keep its lines",
                path=error.filename or self._path,
                errno=error.errno,
                error=error.strerror,
            )

    def recovered(self) -> None:
        """An attempt succeeded."""
        if self._error is not None:
            self._error = None
            _log.warning(
                "access log can be written again", path=self._path, after_s=round(time.monotonic() - self._since, 3)
            )


class Drain:
    """All ledgers of a node, and the access log that they go to."""

    def __init__(
        self,
        runtime_dir: Path,
        path: str,
        log_format: LogFormat,
        on_leaving: Callable[[list[memoryview]], None] | None = None,
    ) -> None:
        """Read from `runtime_dir`, write to `path`; `on_leaving` sees each record once (`LedgerReader.on_leaving`)."""
        self._on_leaving = on_leaving
        self.runtime_dir = runtime_dir
        remove_unfinished(runtime_dir)
        self._format = log_format
        self.ledgers: dict[str, LedgerReader] = {}
        """By file name."""
        self.totals = Totals.load(runtime_dir)
        self.log = AccessLog(path, log_format)
        self.health = Health(path)
        self.written_bytes = 0
        """Bytes of records taken out of the ledgers by this process."""
        self._retry_at = 0.0
        self._taken: set[str] = set()
        """Ledgers whose worker is dead, and that are this process's to finish."""
        self._refused: set[str] = set()
        self._losses = _Losses(self.totals)

    @property
    def backlog(self) -> int:
        """Bytes that wait in all ledgers."""
        return sum(ledger.fill for ledger in self.ledgers.values())

    def scan(self) -> None:
        """Find new ledgers, finish those of dead workers, delete those that are drained."""
        files = ledger_files(self.runtime_dir)
        for path in files:
            if path.name not in self.ledgers:
                self._open(path)
        self._refused.intersection_update(path.name for path in files)
        for name, ledger in list(self.ledgers.items()):
            if name not in self._taken and ledger.take_over():
                self._taken.add(name)
            if name in self._taken and self._recover(ledger) and not ledger.fill:
                self._bury(name, ledger)
        self.log.follow()
        self._losses.report(self)

    def write(self) -> int:
        """Write what waits, up to a batch of each ledger; how many bytes that was."""
        if time.monotonic() < self._retry_at:
            return 0
        before = self.written_bytes
        try:
            self.log.open()
            # A write that was broken off comes first: the file ends in the middle of its line.
            for ledger in sorted(self.ledgers.values(), key=lambda ledger: ledger.batch is None):
                self.written_bytes += self.log.drain(ledger)
        except OSError as error:
            self.health.failed(error)
            self._retry_at = time.monotonic() + RETRY_S
        else:
            if self.written_bytes > before or not self.backlog:
                self.health.recovered()
        return self.written_bytes - before

    def write_all(self) -> bool:
        """Write all that is there now, finish and delete what can be. False when the log does not take everything."""
        self._retry_at = 0.0
        while True:
            self.scan()
            # What living workers publish meanwhile is not waited for: they could go on for ever.
            goal = [(ledger, ledger.head) for ledger in self.ledgers.values()]
            progress = False
            while any(ledger.tail < head for ledger, head in goal):
                if not self.write():
                    return False
                progress = True
            self.scan()
            # A dead worker's ledger that is still there had no room for all its lost lines at once.
            if not progress or not self._taken.intersection(self.ledgers):
                return True

    def is_living(self, ledger: LedgerReader) -> bool:
        """Whether a ledger's worker lives, as of the last scan."""
        return ledger.path.name not in self._taken

    def has_living(self) -> bool:
        """Whether a worker lives."""
        return len(self._taken) < len(self.ledgers)

    def _open(self, path: Path) -> None:
        try:
            ledger = self.ledgers[path.name] = LedgerReader.open(path)
            ledger.on_leaving = self._on_leaving
        except (LedgerError, OSError) as error:
            if path.name not in self._refused and not isinstance(error, FileNotFoundError):
                self._refused.add(path.name)
                _log.error("ledger can't be read", path=str(path), error=str(error))

    def _recover(self, ledger: LedgerReader) -> bool:
        before = ledger.counters[Counter.OUTCOME_LOST]
        done = publish_lost(ledger, datetime.now(UTC), lambda text: is_logged(self.log.path, self._format, text))
        lost = ledger.counters[Counter.OUTCOME_LOST] - before
        if lost:
            _log.error("requests lost with their worker", worker=ledger.worker, pid=ledger.pid, requests=lost)
        return done

    def _bury(self, name: str, ledger: LedgerReader) -> None:
        try:
            self.totals.add(name, ledger.worker, ledger.counters)
            ledger.remove()
        except OSError as error:
            if name not in self._refused:
                self._refused.add(name)
                _log.error("ledger can't be deleted", path=str(ledger.path), error=str(error))
            return
        ledger.close()
        del self.ledgers[name]
        self._taken.discard(name)
        _log.info("worker's ledger is finished", worker=ledger.worker, pid=ledger.pid)

    def close(self) -> None:
        """Let go of everything; what was not written stays in the ledgers."""
        self.log.close()
        for ledger in self.ledgers.values():
            ledger.close()
        self.ledgers.clear()


class _Losses:
    """Reports lines that went past the ring, and lines that were lost, as the workers count them."""

    def __init__(self, totals: Totals) -> None:
        # What ledgers that are gone had counted was reported while they were there.
        self._seen = {counter: _past(totals, counter) for counter in (Counter.RING_FULL, Counter.LINES_LOST)}
        self._next = 0.0

    def report(self, drain: Drain) -> None:
        if time.monotonic() < self._next:
            return
        for counter, seen in self._seen.items():
            now = _past(drain.totals, counter) + sum(ledger.counters[counter] for ledger in drain.ledgers.values())
            self._seen[counter] = now
            if now <= seen:
                continue
            self._next = time.monotonic() + REPORT_S
            if counter is Counter.LINES_LOST:
                _log.error("access log lines lost", lines=now - seen, ever=now)
            else:
                _log.warning("ledger full: workers wrote lines to the log themselves", lines=now - seen, ever=now)


def _past(totals: Totals, counter: Counter) -> int:
    return sum(totals.of(worker)[counter] for worker in totals.workers)
