"""One flow's way through the node: from its head, past the scripts, to its answer and its record.

    begin ─► (scripts) ─► answer ─► (scripts) ─► close
                 └─► go_natively, where mitmproxy forwards it itself

Whatever mitmproxy says of a flow comes here; how it is answered is `cases`' business, or `native`'s.
"""

import logging
import time
from email.utils import formatdate
from http import HTTPStatus

import msgspec
from mitmproxy import flow as flows
from mitmproxy import http
from mitmproxy.net.http import url
from mitmproxy.proxy.mode_specs import ReverseMode

from edgeproxy.addons.asking import Came
from edgeproxy.addons.cases import Case
from edgeproxy.addons.heads import exchange_of, fields_of, response_of
from edgeproxy.addons.native import Forwarding, is_websocket
from edgeproxy.addons.node import Node
from edgeproxy.addons.origins import Place
from edgeproxy.ledger import Stage
from edgeproxy.proxy.background import OthersClient
from edgeproxy.proxy.errors import ClientGone, OriginError, ProxyError, Refusal
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.record import ScriptPart
from edgeproxy.proxy.refusals import NO_ROUTE
from edgeproxy.scripting.edge import Decisions, Edge
from edgeproxy.scripting.errors import KILLED
from edgeproxy.scripting.filters import Selector

_PROTOCOLS = {"HTTP/2.0": "HTTP/2", "HTTP/3": "HTTP/3", "HTTP/3.0": "HTTP/3"}
_PLAIN = frozenset({"http", "tcp"})
_QUIC = frozenset({"http3", "quic"})
_GONE = ("client disconnected", "client closed", "by client", "cancel")
"""What there is in mitmproxy's words where a client has left."""


class Passage:
    """One flow's."""

    def __init__(self, node: Node, flow: http.HTTPFlow, scripts: list[str]) -> None:
        """A request's head is there: it gets its ids and its number. `scripts` are those that may see it."""
        request = flow.request
        self.forwarding: Forwarding | None = None
        """Where mitmproxy forwards it itself."""
        self._node = node
        self._flow = flow
        self._seen_by = dict.fromkeys(scripts)
        self._selected: dict[Selector, bool | None] = {}
        self._made: http.Response | None = None
        """The response as the edge made it."""
        self._shown: tuple[bytes, str, int] | None = None
        """The server that scripts were shown."""
        address = str(flow.client_conn.peername[0])
        self._client = OthersClient(address, node.trust.trusts(address))
        self._scheme = b"https" if flow.client_conn.tls else b"http"
        self._is_http1 = not (request.is_http2 or request.is_http3)
        self._is_websocket = is_websocket(request)
        self._is_head = request.method == "HEAD"
        """Whether the client has no use for a body, whatever scripts make of the method."""
        self._came_bytes: int | None = None
        """How long the client's body was, once it was there."""
        self._place = _place_of_mode(flow)
        self._exchange = exchange = self._read(is_whole=False)
        exchange.now_ns = time.time_ns()
        self._came_as = exchange.key
        self._came_with = exchange.names
        node.begin(exchange, exchange.lines)
        self._edge = Edge.of(exchange.trace, address, node.name)
        flow.metadata["edge"] = self._edge

    @property
    def is_over(self) -> bool:
        """Whether its record is made."""
        return self._exchange.is_over

    def show_what_was_asked_for(self) -> None:
        """Show scripts the server that the client asked for, as on the edge; where they name another one, the request
        goes there.
        """
        data = self._flow.request.data
        try:
            host, port = url.parse_authority(self._exchange.host, check=False)
        except ValueError:
            return
        if host:
            data.host, data.port, data.scheme = host, port or (80 if self._scheme == b"http" else 443), self._scheme
        self._shown = (data.scheme, data.host, data.port)

    def note_body(self) -> None:
        """The request's body is there. Its length is what the client said, or what it is before scripts change it."""
        body = self._flow.request.raw_content
        if self._came_bytes is None and body is not None:
            said = self._came_with.get(b"content-length", b"")
            self._came_bytes = int(said) if said.isdigit() else len(body)

    # --- the scripts that see it, where they are told apart

    def selects(self, selector: Selector) -> bool:
        """Whether a filter is met: by the request as it came, or, where that does not tell, by the flow as it is."""
        if selector not in self._selected:
            self._selected[selector] = selector.decide(self._exchange)
        decided = self._selected[selector]
        return selector.matches(self._flow) if decided is None else decided

    def saw(self, script: str) -> None:
        """A script has seen it."""
        self._seen_by[script] = None

    # --- what it is, and where it goes

    def _read(self, *, is_whole: bool) -> Exchange:
        limits = self._node.config.limits
        request = self._flow.request
        exchange = exchange_of(self._client, request, limits, is_whole=is_whole, is_websocket=self._is_websocket)
        exchange.key = b"%b://%b%b" % (self._scheme, exchange.host, exchange.target)
        return exchange

    def _read_anew(self, *, is_whole: bool) -> Exchange:
        """The request as scripts have left it."""
        first = self._exchange
        data = self._flow.request.data
        hosts = [value for name, value in data.headers.fields if name.lower() == b"host"]
        if self._is_http1 and hosts and hosts[0] != self._came_with.get(b"host"):
            data.authority = b""  # a script has named another host than a target in absolute form does
        self._exchange = exchange = self._read(is_whole=is_whole)
        if self._seen_by and exchange.error is None:
            exchange.stage = Stage.SCRIPT
        exchange.trace, exchange.seq, exchange.prefix = first.trace, first.seq, first.prefix
        exchange.started, exchange.now_ns = first.started, time.time_ns()
        return exchange

    def _route(self, exchange: Exchange) -> bool:
        """Find out where it goes, by the routes and by what scripts decided; False where it goes nowhere."""
        if exchange.error is not None:
            return False
        try:
            decisions = self._edge.decide()
        except (TypeError, ValueError) as error:
            logging.getLogger(__name__).warning(
                "what scripts decided does not count: %s (trace %s)", error, exchange.trace.trace_id
            )
            decisions = Decisions()
        data = self._flow.request.data
        place = None
        if self._shown is not None and (data.scheme, data.host, data.port) != self._shown:
            place = _place_of(self._flow.request)
        plan = self._node.plan_of(exchange, self._came_as, self._place, place, decisions.target)
        if plan is None:
            exchange.error = NO_ROUTE
            return False
        exchange.plan = plan
        return True

    # --- its answer

    @property
    def must_go_natively(self) -> bool:
        """Whether it is a request that only mitmproxy can forward."""
        return bool(self._flow.request.stream) or self._is_websocket

    async def answer(self) -> None:
        """All scripts have seen the request: answer it."""
        flow = self._flow
        if flow.intercepted:
            await flow.wait_for_resume()
        if flow.response is not None or flow.error is not None:
            return
        exchange = self._read_anew(is_whole=True)
        self._route(exchange)
        came = Came(flow.client_conn, flow.request.raw_content or b"", flow.request.http_version)
        answer = await Case(self._node, exchange, came).answer()
        if flow.error is None:
            self._made = flow.response = response_of(answer.head, answer.body, is_http1=self._is_http1)
            self._tell()

    def go_natively(self) -> None:
        """All scripts have seen the request, or its head where its body streams: have mitmproxy forward it."""
        flow = self._flow
        if self.forwarding is not None or flow.response is not None or flow.error is not None:
            return
        exchange = self._read_anew(is_whole=not flow.request.stream)
        if self._route(exchange):
            self.forwarding = Forwarding(self._node, flow, exchange, caches=self._shown is not None)
        elif exchange.error is not None and flow.request.stream:
            flow.request.stream = False  # it is answered when it is whole

    def respond(self) -> None:
        """The head of a response that mitmproxy was sent is there; whoever calls it first has it written anew."""
        response = self._flow.response
        if self.forwarding is not None and response is not None and response is not self._made:
            self.forwarding.respond(response)
            self._made = response
            self._tell()

    def stream(self) -> None:
        """All scripts have seen the response's head; one that has the body stream through a function of its own has it
        do so now.
        """
        response = self._flow.response
        if response is None:
            return
        if self.forwarding is not None:
            self.forwarding.count(response)
        elif callable(response.stream):
            body = response.data.content
            made = [response.stream(data) for data in ((body, b"") if body else (b"",))]
            response.data.content = b"".join(part if isinstance(part, bytes) else b"".join(part) for part in made)
            if "content-length" in response.headers and not self._is_head:
                response.headers["content-length"] = str(len(response.data.content))

    def _tell(self) -> None:
        exchange = self._exchange
        self._edge.tell(
            cache=exchange.cache,
            age=exchange.cache_age,
            ttl_left=None if exchange.cache_age is None else exchange.cache_ttl,
            origin=exchange.plan.route.origin if exchange.attempts else None,
        )

    # --- its end

    def close(self) -> None:
        """All scripts have seen the response."""
        response = self._flow.response
        if response is None:
            return
        if response is not self._made:
            self._add_own(response)
        size = None if self.forwarding is None else self.forwarding.end()
        self._exchange.status = response.status_code
        if self._is_head:
            self._leave_out_body(response)
        elif self._flow.request.method == "HEAD" and not response.raw_content:
            response.headers.pop("transfer-encoding", None)
            response.headers["Content-Length"] = "0"  # a script has made a HEAD of it, and no body comes
        if size is None:
            size = len(response.raw_content or b"")
        self._close(size, None)

    @staticmethod
    def _leave_out_body(response: http.Response) -> None:
        """Send no more than the head. mitmproxy goes by the method that scripts have left; what it sent beyond the head
        the client would take for the next response.
        """
        response.headers.pop("transfer-encoding", None)
        body = response.raw_content
        if body:
            response.headers["Content-Length"] = str(len(body))
            response.data.content = b""

    def _add_own(self, response: http.Response) -> None:
        """What the edge adds to a response that a script has made: whoever gets it can name its trace."""
        exchange = self._exchange
        added = self._node.decorator.own(exchange, time.monotonic() - exchange.started)
        for name, value in fields_of([f"Date: {formatdate(usegmt=True)}", *added.split("\r\n")]):
            if name.decode() not in response.headers:
                response.headers.fields = (*response.headers.fields, (name, value))

    def fail(self) -> None:
        """The flow ends without a response, or its client has left."""
        exchange = self._exchange
        said = "" if self._flow.error is None else self._flow.error.msg
        error: ProxyError
        if said == flows.Error.KILLED_MESSAGE:
            error = KILLED
        elif any(word in said.lower() for word in _GONE):
            error = ClientGone("client_gone", f"the client left before it had its whole response: {said}")
        elif self.forwarding is not None:
            self.forwarding.end()
            error = OriginError("origin_failed", f"{exchange.attempts[-1].address} gave no whole response: {said}")
            exchange.attempts[-1].error = error
            exchange.status = int(error.status)
        else:
            error = Refusal("malformed_request", HTTPStatus.BAD_REQUEST, f"mitmproxy refuses the request: {said}")
            exchange.status = int(error.status)
        self._close(0, error)

    def _close(self, size: int, error: ProxyError | None) -> None:
        exchange = self._exchange
        log = self._edge.logged()
        if self._seen_by or log:
            key = exchange.key
            part = {
                "names": list(self._seen_by),
                "rewritten": None if key == self._came_as else key.decode("utf-8", "backslashreplace"),
                "log": log,
                "spans": [],
            }
            exchange.client.script = ScriptPart(self._came_with, msgspec.json.encode(part).decode())
        if self._came_bytes is not None:
            exchange.bytes_in = self._came_bytes
        protocol = _PROTOCOLS.get(self._flow.request.http_version, "")
        self._node.accounts.close(exchange, size, protocol, error)


def _place_of_mode(flow: http.HTTPFlow) -> Place:
    """Where mitmproxy's mode leads: a reverse proxy's to one server, others' where the request says."""
    mode = flow.client_conn.proxy_mode
    if not isinstance(mode, ReverseMode):
        return _place_of(flow.request)
    host, port, *_ = mode.address
    scheme = "http" if mode.scheme in _PLAIN else "https"
    return Place(scheme, host, port, "udp" if mode.scheme in _QUIC else "tcp")


def _place_of(request: http.Request) -> Place:
    data = request.data
    return Place(data.scheme.decode("latin-1"), data.host, data.port)
