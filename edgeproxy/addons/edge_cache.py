"""EdgeCache: responses are stored and reused as a node does it (RFC 9111).

As a script of mitmproxy's: `mitmdump -s "$(python -m edgeproxy.addons edge_cache)" --mode reverse:http://origin`
"""

from mitmproxy import http
from mitmproxy.addonmanager import Loader

from edgeproxy.addons.station import Role, station


class EdgeCache:
    """Answers from its own memory, or asks the origin that the configuration's routes lead to, else the one that
    mitmproxy's mode names.

    It does so when all scripts have seen the request, whichever stands first; what they see then in `responseheaders`
    and `response` is what goes to the client, and nothing of what they make of that is stored.
    """

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        station.declare(loader)

    def configure(self, updated: set[str]) -> None:
        """Do as the configuration says. Raises OptionsError where it is wrong."""
        del updated
        station.join(Role.CACHE)

    def running(self) -> None:
        """Begin."""
        station.run()

    def done(self) -> None:
        """End."""
        station.leave(Role.CACHE)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Have scripts see what they may decide (`flow.metadata["edge"]`)."""
        station.begin(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Say that a response was passed on, where mitmproxy forwarded the request itself."""
        passage = station.passage(flow)
        if passage is not None:
            passage.respond()


addons = [EdgeCache()]
