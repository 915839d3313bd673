"""The node that is examined: what is known of it before anything is tried."""

from pathlib import Path
from typing import NamedTuple

from edgeproxy.config import Config, TracingSettings
from edgeproxy.node.runtime import RuntimeDir
from edgeproxy.node.status import Status


class Patient(NamedTuple):
    """A running node."""

    runtime: RuntimeDir
    config: Config
    """The configuration that it runs."""
    tracing: TracingSettings
    """What of tracing changes while it runs, as it is now."""
    status: Status
    settled_at: float
    """Since when all of that holds, seconds since the epoch."""

    @property
    def log(self) -> Path | None:
        """Its access log; None where it can't be read back."""
        if self.status.access_log == "-" or self.config.log.format != "json":
            return None
        return Path(self.status.access_log)

    @property
    def exports_to(self) -> tuple[str, ...]:
        """Where its spans go."""
        return self.tracing.exporters if self.tracing.enabled else ()
