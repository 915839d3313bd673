"""One flow's way through the node: from its head, past the scripts, to its answer and its record.

    begin ─► (scripts) ─► answer ─► (scripts) ─► close
                 └─► go_natively, where mitmproxy forwards it itself: no cache, a body that streams, a WebSocket

Whatever mitmproxy says of a flow comes here; how it is answered is `cases`' business.
"""

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from mitmproxy import flow as flows
from mitmproxy import http
from mitmproxy.net.http import url

from edgeproxy.addons.cases import Case
from edgeproxy.addons.heads import client_of, exchange_of, fields_of, response_of
from edgeproxy.addons.node import Node
from edgeproxy.addons.origins import Place
from edgeproxy.ledger import Stage
from edgeproxy.proxy import forwarding
from edgeproxy.proxy.errors import ClientGone, OriginError, ProxyError, Refusal
from edgeproxy.proxy.fields import FieldLines, fold
from edgeproxy.proxy.record import ScriptPart
from edgeproxy.proxy.refusals import NO_ROUTE
from edgeproxy.proxy.upstream.attempt import Attempt
from edgeproxy.scripting.edge import Decisions, Edge

KILLED = Refusal("script_killed", HTTPStatus.FORBIDDEN, "a script ended the request without an answer (flow.kill)")
_PROTOCOLS = {"HTTP/2.0": "HTTP/2", "HTTP/3": "HTTP/3", "HTTP/3.0": "HTTP/3"}
_GONE = ("Client disconnected", "Client closed", "stream reset by client", "cancel")
_OF_THE_CONNECTION = frozenset({b"connection", b"upgrade", b"content-length", b"transfer-encoding"})


class Passage:
    """One flow's."""

    def __init__(self, node: Node, flow: http.HTTPFlow, scripts: list[str]) -> None:
        """A request's head is there: it gets its ids and its number. `scripts` are those that may see it."""
        self.node = node
        self.flow = flow
        self.is_native = False
        self._scripts = scripts
        self._made: http.Response | None = None
        """The response as the edge made it."""
        self._streamed_bytes: int | None = None
        address = str(flow.client_conn.peername[0])
        self._client = client_of(address, trusted=node.trust.trusts(address))
        self._scheme = b"https" if flow.client_conn.tls else b"http"
        request = flow.request
        self._is_http1 = not (request.is_http2 or request.is_http3)
        self._is_websocket = request.headers.get("upgrade", "").lower() == "websocket"
        self._place = _place_of(request, flow.server_conn.transport_protocol)
        self._read(is_whole=False)
        exchange = self.exchange
        exchange.now_ns = time.time_ns()
        self._came_as = exchange.key
        self._came_with = exchange.names
        node.begin(exchange, exchange.lines)
        self.edge = Edge.of(exchange.trace, address, node.name)
        flow.metadata["edge"] = self.edge

    def as_the_client_sees_it(self) -> None:
        """Show scripts the server that the client asked for, as on the edge; where they name another one, the request
        goes there.
        """
        data = self.flow.request.data
        try:
            host, port = url.parse_authority(self.exchange.host, check=False)
        except ValueError:
            return
        if host:
            scheme = self._scheme.decode()
            data.host, data.port, data.scheme = host, port or (443 if scheme == "https" else 80), self._scheme
        self._shown = (data.scheme, data.host, data.port)

    _shown: tuple[bytes, str, int] | None = None

    def _read(self, *, is_whole: bool) -> None:
        request = self.flow.request
        exchange = exchange_of(
            self._client, request, self.node.config.limits, is_whole=is_whole, is_websocket=self._is_websocket
        )
        exchange.key = b"%b://%b%b" % (self._scheme, exchange.host, exchange.target)
        self.exchange = exchange

    def _read_anew(self, *, is_whole: bool) -> None:
        """Take the request as scripts have left it."""
        first = self.exchange
        self._read(is_whole=is_whole)
        exchange = self.exchange
        exchange.trace, exchange.seq, exchange.prefix = first.trace, first.seq, first.prefix
        exchange.started, exchange.now_ns = first.started, time.time_ns()

    def _route(self) -> None:
        """Find out where it goes, by the routes and by what scripts decided. Raises ProxyError where it goes nowhere."""
        exchange = self.exchange
        if exchange.error is not None:
            raise exchange.error
        try:
            decisions = self.edge.decide()
        except (TypeError, ValueError) as error:
            structlog.get_logger().error("script_failed", trace_id=exchange.trace.trace_id, error=str(error))
            decisions = Decisions()
        data = self.flow.request.data
        place = None
        if self._shown is not None and (data.scheme, data.host, data.port) != self._shown:
            place = _place_of(self.flow.request, "tcp")
        plan = self.node.plan_of(exchange, self._came_as, self._place, place, decisions.target)
        if plan is None:
            raise NO_ROUTE
        exchange.plan = plan

    # --- answered by the edge

    async def answer(self) -> None:
        """All scripts have seen the request: answer it."""
        flow = self.flow
        if flow.intercepted:
            await flow.wait_for_resume()
        if flow.response is not None or flow.error is not None:
            return
        self._read_anew(is_whole=True)
        exchange = self.exchange
        try:
            self._route()
        except ProxyError as error:
            exchange.error = error
        case = Case(self.node, exchange, flow.client_conn, flow.request.raw_content or b"")
        answer = await case.answer()
        self._made = flow.response = response_of(answer.head, answer.body, is_http1=self._is_http1)
        self._tell()

    def _tell(self) -> None:
        exchange = self.exchange
        self.edge.tell(
            cache=exchange.cache,
            age=exchange.cache_age,
            ttl_left=exchange.cache_ttl,
            origin=exchange.plan.route.origin if exchange.attempts else None,
        )

    # --- forwarded by mitmproxy

    @property
    def must_go_natively(self) -> bool:
        """Whether it is a request that only mitmproxy can forward."""
        return bool(self.flow.request.stream) or self._is_websocket

    def go_natively(self) -> None:
        """Have mitmproxy forward the request, with what the edge adds to it."""
        flow, node = self.flow, self.node
        if self.is_native or flow.response is not None or flow.error is not None:
            return
        self.is_native = True
        self._read_anew(is_whole=not flow.request.stream)
        exchange = self.exchange
        try:
            self._route()
        except ProxyError as error:
            if flow.request.stream:
                flow.request.stream = False  # nothing can be answered while it streams
            exchange.error = error
            self.is_native = False
            return
        exchange.cache = "BYPASS" if self._shown is not None else None
        exchange.forward_reason = "bypass"
        place = node.origins.place_of(exchange.plan.route.origin)
        attempt = Attempt(node.ids.span_id(), time.monotonic())
        attempt.address, attempt.scheme = place.text, place.scheme
        exchange.attempts = [attempt]
        exchange.stage = Stage.REQUEST_SENT
        host = node.origins.host_of(exchange.plan.route.origin)
        parts = forwarding.request_head(exchange, host, node.sent, node.propagation, exchange.target)
        lines = fields_of(node.head(exchange, parts, attempt).decode("latin-1").split("\r\n")[1:])
        flow.request.data.headers = self._native_fields(lines, flow.request.data.headers)
        flow.request.data.host, flow.request.data.port = place.host, place.port
        flow.request.data.scheme = place.scheme.encode()
        flow.request.data.authority = b"" if self._is_http1 else exchange.host

    def _native_fields(self, lines: FieldLines, before: http.Headers) -> http.Headers:
        """With the framing, and for a WebSocket with the upgrade, that mitmproxy is to go on by."""
        kept = [line for line in lines if line[0].lower() not in _OF_THE_CONNECTION]
        if not self._is_http1:
            kept = [line for line in kept if line[0].lower() != b"host"]
        framing = {b"content-length", b"transfer-encoding"} | (
            {b"connection", b"upgrade"} if self._is_websocket else set()
        )
        return http.Headers([*kept, *(line for line in before.fields if line[0].lower() in framing)])

    def respond_natively(self) -> None:
        """The head of the response that mitmproxy was sent: make it the client's."""
        flow, node = self.flow, self.node
        response = flow.response
        if not self.is_native or response is None:
            return
        exchange = self.exchange
        attempt = exchange.attempts[-1]
        now = time.monotonic()
        attempt.status = response.status_code
        attempt.first_byte_s = now - attempt.started
        exchange.status = response.status_code
        exchange.stage = Stage.STREAMING
        before = response.data.headers
        lines = list(before.fields)
        kept = forwarding.response_lines(
            lines, fold(lines), forwarding.withheld(sends_tags=node.config.cache.send_tags)
        )
        elapsed_s = now - exchange.started
        if exchange.cache is None:
            decoration = node.decorator.own(exchange, elapsed_s, attempt.first_byte_s)
        else:
            decoration = node.decorator.fetched(exchange, elapsed_s, attempt.first_byte_s, is_stored=False)
        response.data.headers = self._native_fields([*kept, *fields_of(decoration.split("\r\n"))], before)
        self._made = response
        self._tell()

    def count(self) -> None:
        """Count what streams past."""
        response = self.flow.response
        if self.is_native and response is not None and response.stream:
            self._streamed_bytes = 0
            response.stream = self._counted(response.stream)

    def _counted(self, stream: Any) -> Callable[[bytes], Iterable[bytes]]:  # noqa: ANN401 what mitmproxy takes
        def counted(data: bytes) -> Iterable[bytes]:
            made = stream(data) if callable(stream) else data
            pieces = [made] if isinstance(made, bytes) else list(made)
            self._streamed_bytes = (self._streamed_bytes or 0) + sum(map(len, pieces))
            return [piece for piece in pieces if piece]

        return counted

    # --- the ends

    def close(self) -> None:
        """All scripts have seen the response."""
        flow, exchange = self.flow, self.exchange
        response = flow.response
        if response is None:
            return
        if response is not self._made:
            self._add_own(response)
        attempts = exchange.attempts
        if self.is_native and attempts:
            attempts[-1].ended = time.monotonic()
            attempts[-1].transfer_s = attempts[-1].ended - attempts[-1].started - (attempts[-1].first_byte_s or 0.0)
        exchange.status = response.status_code
        size = self._streamed_bytes
        if size is None:
            size = 0 if flow.request.method == "HEAD" else len(response.raw_content or b"")
        self._close(size, None)

    def _add_own(self, response: http.Response) -> None:
        """What the edge adds to a response that a script has made: whoever gets it can name its trace."""
        exchange = self.exchange
        added = self.node.decorator.own(exchange, time.monotonic() - exchange.started)
        for name, value in fields_of([f"Date: {formatdate(usegmt=True)}", *added.split("\r\n")]):
            if name.decode() not in response.headers:
                response.headers.fields = (*response.headers.fields, (name, value))

    def fail(self) -> None:
        """The flow ends without a response, or its client has left."""
        flow, exchange = self.flow, self.exchange
        said = "" if flow.error is None else flow.error.msg
        error: ProxyError
        if said == flows.Error.KILLED_MESSAGE:
            error = KILLED
        elif any(word in said for word in _GONE):
            error = ClientGone("client_gone", f"the client left before it had its whole response: {said}")
        elif exchange.attempts and self.is_native:
            error = OriginError("origin_failed", f"{exchange.attempts[-1].address} gave no whole response: {said}")
            exchange.attempts[-1].error = error
            exchange.attempts[-1].ended = time.monotonic()
            exchange.status = int(error.status)
        else:
            error = Refusal("malformed_request", HTTPStatus.BAD_REQUEST, f"mitmproxy refuses the request: {said}")
            exchange.status = int(error.status)
        self._close(0, error)

    def _close(self, size: int, error: ProxyError | None) -> None:
        exchange = self.exchange
        log = self.edge.logged()
        if self._scripts or log:
            key = exchange.key
            part = {
                "names": self._scripts,
                "rewritten": None if key == self._came_as else key.decode("utf-8", "backslashreplace"),
                "log": log,
                "spans": [],
            }
            exchange.client.script = ScriptPart(self._came_with, msgspec.json.encode(part).decode())
        protocol = _PROTOCOLS.get(self.flow.request.http_version, "")
        self.node.accounts.close(exchange, size, protocol, error)


def _place_of(request: http.Request, transport: str) -> Place:
    data = request.data
    return Place(data.scheme.decode("latin-1"), data.host, data.port, "udp" if transport == "udp" else "tcp")
