"""Where requests go: the configured origins and their urls, tried as the fast engine tries them; and, where scripts or
mitmproxy's own mode lead elsewhere, servers that nobody configured.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mitmproxy import connection

from edgeproxy.addons.errand import Errand, Fetched
from edgeproxy.addons.heads import request_of
from edgeproxy.config import Config, Origin
from edgeproxy.ledger import Stage
from edgeproxy.proxy.errors import OriginTimeout, ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.upstream.attempt import Attempt
from edgeproxy.tracing import IdSource

MODES_OWN = "mitmproxy"
"""The name of the origin that mitmproxy's mode names, where the configuration names none."""
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods whose request may be sent again (RFC 9110 §9.2.2)."""
_PORTS = {"http": 80, "https": 443}


@dataclass(eq=False)
class Place:
    """One url of an origin."""

    scheme: str
    host: str
    port: int
    transport: connection.TransportProtocol = "tcp"
    down_until: float = 0.0
    """Monotonic time until which it is passed over."""

    @classmethod
    def of(cls, url: str) -> "Place":
        """Where a url leads."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])

    @property
    def text(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def server(self) -> str:
        """Scheme, host and port."""
        return f"{self.scheme}://{self.text}"


class Origins:
    """All of a node's."""

    def __init__(self, config: Config, ids: IdSource) -> None:
        """Know those that are configured."""
        self._ids = ids
        self._known = {origin.name: origin for origin in config.origin}
        self._places = {origin.name: [Place.of(url) for url in origin.urls] for origin in config.origin}
        self._turn = 0

    def at(self, place: Place) -> str:
        """The name of the origin at a server, configured or not."""
        for name, places in self._places.items():
            if any(known.server == place.server for known in places):
                return name
        self._known[place.server] = Origin(name=place.server, urls=[place.server])
        self._places[place.server] = [place]
        return place.server

    def host_of(self, name: str) -> bytes:
        """The Host that an origin is sent whatever the client's is; empty where it is the client's."""
        return self._known[name].host.encode()

    def place_of(self, name: str) -> Place:
        """Where a request for an origin goes first."""
        return self._choose(name, [])

    async def fetch(
        self, exchange: Exchange, name: str, client: connection.Client, head: Callable[[Attempt], bytes], body: bytes
    ) -> Fetched:
        """The response of an origin to the request that `head`, made for each attempt, and `body` are. Raises
        ProxyError when none of its urls gives a whole one.
        """
        origin = self._known[name]
        exchange.attempts = attempts = list(exchange.attempts)
        repeatable = origin.retries + len(attempts)
        tried: list[Place] = []

        def stage(reached: Stage) -> None:
            exchange.stage = reached

        while True:
            place = self._choose(name, tried)
            tried.append(place)
            attempt = self._attempt(place)
            attempts.append(attempt)
            exchange.stage = Stage.CONNECT
            server = (place.scheme, place.host, place.port)
            request = request_of(head(attempt), body, server, place.transport)
            errand = Errand(request, client, origin, attempt, stage, transport=place.transport)
            try:
                return await errand.run()
            except ProxyError as error:
                attempt.error = error
                if not errand.was_connected:
                    place.down_until = time.monotonic() + origin.fail_timeout
                    again = len(tried) < len(self._places[name])
                else:
                    again = (
                        error.code == "origin_closed"
                        and not isinstance(error, OriginTimeout)
                        and not errand.was_answered
                        and not body
                        and exchange.method in _IDEMPOTENT
                        and len(attempts) <= repeatable
                    )
                if not again:
                    raise

    def _attempt(self, place: Place) -> Attempt:
        attempt = Attempt(self._ids.span_id(), time.monotonic())
        attempt.address = place.text
        attempt.scheme = place.scheme
        return attempt

    def _choose(self, name: str, avoid: list[Place]) -> Place:
        """As `upstream.pool` does."""
        places = self._places[name]
        if len(places) == 1:
            return places[0]
        now = time.monotonic()
        self._turn += 1
        in_turn = [places[(self._turn + offset) % len(places)] for offset in range(len(places))]
        candidates = [place for place in in_turn if place not in avoid] or in_turn
        return next((place for place in candidates if place.down_until <= now), candidates[0])
