"""Export: spans as OTLP, the queue they wait in, and where they go. Each exporter works on a thread of its own."""

from edgeproxy.export.counts import Counts, CountsFile, read_counts
from edgeproxy.export.exporters import Exporters, open_exporters
from edgeproxy.export.resource import resource_attributes

__all__ = ["Counts", "CountsFile", "Exporters", "open_exporters", "read_counts", "resource_attributes"]
