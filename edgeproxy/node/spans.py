"""The scribe's part in tracing: records that leave a ring become spans, and go where the settings of the moment say.

Follows the control page's epoch: exporters come and go while the node runs. Whatever goes wrong here is said and costs
spans; the log, whose lines these are, never waits for it and never fails because of it.
"""

import contextlib
import os
import threading
import time
from pathlib import Path

import structlog

from edgeproxy.config import Config
from edgeproxy.export import CountsFile, Exporters, open_exporters
from edgeproxy.node.control import Control
from edgeproxy.node.errors import NodeError
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.storage import storage_paths
from edgeproxy.node.tracing import read_settings

_log = structlog.get_logger()


def trace_store_folder(config: Config, runtime_dir: Path) -> Path:
    """Where the exporter `embedded` keeps traces: beside the embedded cache, or in the runtime directory."""
    if config.tracing.store.path:
        return Path(config.tracing.store.path).absolute()
    return storage_paths(config, runtime_dir, os.environ).directory / "traces"


class SpanWriter:
    """Hands records to the exporters."""

    def __init__(self, config: Config, runtime_dir: Path) -> None:
        """Open what the settings name. Never fails: without a control page there are none until there is one."""
        self._config = config
        self._runtime = RuntimeDir(runtime_dir)
        self._control: Control | None = None
        self._epoch = -1
        self._failed = False
        self._exporters: Exporters | None = None
        self._ending: list[tuple[Exporters, threading.Thread]] = []
        """Those that were in use before, until they have sent what they had."""
        try:
            self._counts: CountsFile | None = CountsFile(runtime_dir)
        except OSError as error:
            self._counts = None
            _log.error("spans can't be exported: their counts can't be kept", error=str(error))
        self.follow()

    def follow(self) -> None:
        """Look whether the settings have changed, and act on them."""
        try:
            if self._control is None:
                self._control = Control.open(self._runtime.control)
            if self._control.epoch == self._epoch or self._counts is None:
                return
            self._epoch, settings = read_settings(self._runtime, self._control)
        except (NodeError, OSError) as error:
            _log.debug("tracing settings can't be read", error=str(error))
            return
        # While tracing is off no record says that its spans are exported: what began before may still.
        if self._exporters is None or (settings.enabled and settings.exporters != self._exporters.names):
            self._change(settings.exporters, self._counts)

    def _change(self, names: tuple[str, ...], counts: CountsFile) -> None:
        before = self._exporters
        self._exporters, problems = open_exporters(
            names, self._config, counts, trace_store_folder(self._config, self._runtime.path)
        )
        counts.activate(self._exporters.names)
        for problem in problems:
            _log.error("exporter can't be used", error=problem)
        if before is not None:
            # The log does not wait until the old ones are done with what they have.
            timeout_s = self._config.tracing.batch.flush_timeout
            ending = threading.Thread(target=before.end, args=(timeout_s,), name="export-ending", daemon=True)
            ending.start()
            self._ending = [(one, thread) for one, thread in self._ending if thread.is_alive()]
            self._ending.append((before, ending))

    def take(self, pieces: list[memoryview]) -> None:
        """Records are leaving a ring: called by `LedgerReader.advance`, once for each."""
        if self._exporters is None:
            return
        try:
            self._exporters.take(b"".join(pieces))
        except Exception as error:  # noqa: BLE001  whatever it is, the log goes on
            if not self._failed:
                self._failed = True
                _log.error("records could not be taken for export", error=repr(error))

    def flush(self, timeout_s: float) -> bool:
        """Export what there is, within that time; True when nothing is left."""
        by = time.monotonic() + timeout_s
        flushed = self._exporters is None or self._exporters.flush(timeout_s)
        for _, thread in self._ending:
            thread.join(max(0.0, by - time.monotonic()))
        return flushed and not any(thread.is_alive() for _, thread in self._ending)

    def close(self) -> None:
        """Let go; what is left is dropped, and counted."""
        if self._exporters is not None:
            self._exporters.close()
        for exporters, thread in self._ending:
            if thread.is_alive():
                exporters.close(0.0)
        if self._counts is not None:
            self._counts.activate(())
        if self._control is not None:
            with contextlib.suppress(BufferError):
                self._control.close()
