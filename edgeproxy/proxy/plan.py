"""What a node does with a target URI, worked out once and remembered: its route, its place in the cache. Pure."""

from edgeproxy.cache.key import KeyRules
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.routing import Routes, Target

KNOWN_MAX = 8192
"""How many targets are remembered before remembering starts over."""
KNOWN_BYTES = 1024
"""A longer target is worked out each time: nobody is to fill the memory with what is remembered."""


class Plan:
    """One target URI's."""

    __slots__ = ("is_simple", "recorded", "route", "sent_host", "sent_target", "url")

    def __init__(self, route: Target, host: bytes, target: bytes) -> None:
        """Work it out."""
        self.route = route
        rules: KeyRules = route.key
        self.url = rules.url(b"http", host, target)
        """As keyed: what purges match, and the primary key where that does not depend on the request's fields."""
        self.sent_target = rules.target(target)
        """As the origin is asked for it where the response may be stored: nothing that the key leaves out."""
        host_sent = rules.host(b"http", host)
        self.sent_host = b"" if host_sent == host else host_sent
        """The Host that the origin is sent there, where it is not the client's."""
        self.is_simple = (
            route.cache and not rules.has_request_parts and not route.bypass and b"HEAD" in route.rules.methods
        )
        """Whether a GET or HEAD needs no further question before the look-up."""
        self.recorded = ""
        """What records say of it, once one has been rendered."""


class Plans:
    """What is known of target URIs."""

    def __init__(self, routes: Routes) -> None:
        """Know nothing yet."""
        self._routes = routes
        self._known: dict[bytes, Plan] = {}

    def find(self, exchange: Exchange) -> Plan | None:
        """The plan for a request's target, None when no route matches."""
        plan = self._known.get(exchange.key)
        return plan or self._made(exchange.key, exchange.host, exchange.target)

    def of_url(self, url: bytes) -> Plan | None:
        """The plan for a URL (`scheme://host/path?query`)."""
        host, slash, rest = url.partition(b"://")[2].partition(b"/")
        return self._known.get(url) or self._made(url, host, slash + rest)

    def _made(self, uri: bytes, host: bytes, target: bytes) -> Plan | None:
        route = self._routes.find(host, target.partition(b"?")[0])
        if route is None:
            return None
        plan = Plan(route, host, target)
        if len(uri) <= KNOWN_BYTES:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[uri] = plan
        return plan
