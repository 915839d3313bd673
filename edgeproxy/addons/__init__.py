"""A node's own concerns as stock mitmproxy addons, over the same policy code as the fast engine.

`python -m edgeproxy.addons` prints the path of the script that holds all three, for `mitmdump -s`.
"""

from edgeproxy.addons.access_log import AccessLog
from edgeproxy.addons.edge_cache import EdgeCache
from edgeproxy.addons.trace_inject import TraceInject

__all__ = ["AccessLog", "EdgeCache", "TraceInject"]
