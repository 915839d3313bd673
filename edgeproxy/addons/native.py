"""Requests that mitmproxy forwards itself: those of a node that does not cache, bodies that stream, WebSockets.

What the edge adds is written into the flow's own heads. A response is not stored.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from mitmproxy import http

from edgeproxy.addons.heads import fields_of, received_by
from edgeproxy.addons.node import Node
from edgeproxy.ledger import Stage
from edgeproxy.proxy import forwarding
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, fold
from edgeproxy.proxy.upstream.attempt import Attempt

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_UPGRADE = frozenset({b"connection", b"upgrade"})


def is_websocket(request: http.Request) -> bool:
    """Whether a request wants to become a WebSocket (RFC 6455)."""
    upgrade: str = request.headers.get("upgrade", "")
    return upgrade.lower() == "websocket"


class Forwarding:
    """One request that has its plan, on its way through mitmproxy."""

    def __init__(self, node: Node, flow: http.HTTPFlow, exchange: Exchange, *, caches: bool) -> None:
        """Write the request as it goes to the origin; `caches` says that a cache lets it pass."""
        self._node = node
        self._flow = flow
        self._exchange = exchange
        self._is_http1 = not (flow.request.is_http2 or flow.request.is_http3)
        self._left = _FRAMING | _UPGRADE if is_websocket(flow.request) else _FRAMING
        """Fields that mitmproxy is to go on by."""
        self._streamed_bytes: int | None = None
        if caches:
            exchange.cache = "BYPASS"
            exchange.forward_reason = "bypass"
        name = exchange.plan.route.origin
        place = node.origins.place_of(name)
        self._attempt = attempt = Attempt(node.ids.span_id(), time.monotonic())
        attempt.address, attempt.scheme = place.text, place.scheme
        exchange.attempts = [attempt]
        exchange.stage = Stage.REQUEST_SENT
        host = node.origins.host_of(name)
        first, rest = forwarding.request_head(exchange, host, node.sent, node.propagation, exchange.target)
        parts = (first, received_by(rest, flow.request.http_version))
        lines = fields_of(node.head(exchange, parts, attempt).decode("latin-1").split("\r\n")[1:])
        data = flow.request.data
        data.headers = self._fields(lines, data.headers)
        data.host, data.port, data.scheme = place.host, place.port, place.scheme.encode()
        data.authority = b"" if self._is_http1 else fold(lines)[b"host"]

    def _fields(self, lines: FieldLines, before: http.Headers) -> http.Headers:
        dropped = _FRAMING | _UPGRADE if self._is_http1 else _FRAMING | _UPGRADE | {b"host"}
        kept = [line for line in lines if line[0].lower() not in dropped]
        return http.Headers([*kept, *(line for line in before.fields if line[0].lower() in self._left)])

    def respond(self, response: http.Response) -> None:
        """The response has begun: write its head as it goes to the client."""
        exchange, node, attempt = self._exchange, self._node, self._attempt
        now = time.monotonic()
        attempt.status = exchange.status = response.status_code
        attempt.first_byte_s = origin_s = now - attempt.started
        exchange.stage = Stage.STREAMING
        before = response.data.headers
        lines = list(before.fields)
        withheld = forwarding.withheld(sends_tags=node.config.cache.send_tags)
        kept = forwarding.response_lines(lines, fold(lines), withheld)
        elapsed_s = now - exchange.started
        if exchange.cache is None:
            decoration = node.decorator.own(exchange, elapsed_s, origin_s)
        else:
            decoration = node.decorator.fetched(exchange, elapsed_s, origin_s, is_stored=False)
        response.data.headers = self._fields([*kept, *fields_of(decoration.split("\r\n"))], before)

    def count(self, response: http.Response) -> None:
        """Count what streams past."""
        if response.stream:
            self._streamed_bytes = 0
            response.stream = self._counted(response.stream)

    def _counted(self, stream: Any) -> Callable[[bytes], Iterable[bytes]]:  # noqa: ANN401 what mitmproxy takes
        def counted(data: bytes) -> Iterable[bytes]:
            made = stream(data) if callable(stream) else data
            pieces = [made] if isinstance(made, bytes) else list(made)
            self._streamed_bytes = (self._streamed_bytes or 0) + sum(map(len, pieces))
            return [piece for piece in pieces if piece]

        return counted

    def end(self) -> int | None:
        """It is over; how many bytes of a body streamed past, None where none did."""
        attempt = self._attempt
        attempt.ended = time.monotonic()
        if attempt.first_byte_s is not None:
            attempt.transfer_s = attempt.ended - attempt.started - attempt.first_byte_s
        return self._streamed_bytes
