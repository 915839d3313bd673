"""All three addons: a node's tracing, cache and access log in stock mitmproxy.

As a script of mitmproxy's: `mitmdump -q -s "$(python -m edgeproxy.addons)" --mode reverse:http://origin`
"""

from edgeproxy.addons.access_log import AccessLog
from edgeproxy.addons.edge_cache import EdgeCache
from edgeproxy.addons.trace_inject import TraceInject

addons = [TraceInject(), EdgeCache(), AccessLog()]
