"""TraceInject: every request has a trace, which its origin and its client get to know.

As a script of mitmproxy's: `mitmdump -s "$(python -m edgeproxy.addons trace_inject)" --mode reverse:http://origin`
"""

from mitmproxy import http
from mitmproxy.addonmanager import Loader

from edgeproxy.addons.station import Role, station


class TraceInject:
    """Continues a client's trace or begins one, and says so in the heads that go to origin and client, as a node does:
    traceparent, X-Trace-Id, X-Request-Id, Via, Forwarded; traceresponse, Server-Timing.

    Scripts find the trace in `flow.metadata["edge"]`, from `requestheaders` on where this one stands before them.
    """

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        station.declare(loader)

    def configure(self, updated: set[str]) -> None:
        """Do as the configuration says. Raises OptionsError where it is wrong."""
        del updated
        station.join(Role.TRACE)

    def running(self) -> None:
        """Begin."""
        station.run()

    def done(self) -> None:
        """End."""
        station.leave(Role.TRACE)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Begin the request's trace."""
        station.begin(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Tell the client of it, where the response is not the cache's to make."""
        passage = station.passage(flow)
        if passage is not None:
            passage.respond()


addons = [TraceInject()]
