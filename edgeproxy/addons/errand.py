"""One request of the edge's own to a server, made by mitmproxy: as it replays a flow, but scripts see nothing of it.

Scripts stand between client and cache, here as on the fast engine: what the edge asks an origin for is not for them. Of
the rest addons are asked what they may decide (where to connect, TLS), and not told what has happened: each telling
costs what a hit does. An answer is whole or there is none.
"""

import asyncio
import logging
import re
import socket
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from mitmproxy import connection, ctx, http
from mitmproxy.addons.clientplayback import ReplayHandler
from mitmproxy.proxy import commands, events, server_hooks
from mitmproxy.proxy.layers.http._hooks import (
    HttpErrorHook,
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)
from mitmproxy.proxy.layers.tls import TlsEstablishedServerHook, TlsStartServerHook
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from edgeproxy.config import Origin
from edgeproxy.ledger import Stage
from edgeproxy.proxy.errors import OriginError, OriginTimeout, ProxyError
from edgeproxy.proxy.fields import FieldLines, Names, fold
from edgeproxy.proxy.upstream.attempt import Attempt

_SILENT = (HttpRequestHeadersHook, HttpRequestHook, server_hooks.ServerDisconnectedHook)
_BROKEN = ("Cannot parse", "HTTP/1 protocol error", "unexpected server response", "Received ")
"""How mitmproxy begins to say that an answer was no valid HTTP."""
_CLOSED = ("server closed connection", "peer closed connection")
"""How it says that there was an end too soon, and nothing more."""
_ERRNO = re.compile(r"\[Errno (-?\d+)\] (.*)", re.DOTALL)
_SWITCHING = 101


class MitmproxyError(Exception):
    """What mitmproxy says of a failure of its own making."""


class Fetched(NamedTuple):
    """A whole response."""

    status: int
    reason: bytes
    lines: FieldLines
    names: Names
    body: bytes
    first_byte: float
    """The monotonic time at which its head was there."""


class Errand(ReplayHandler):
    """One attempt."""

    def __init__(
        self,
        request: http.Request,
        client: connection.Client,
        origin: Origin,
        attempt: Attempt,
        stage: Callable[[Stage], None],
        *,
        transport: connection.TransportProtocol,
    ) -> None:
        """Ask `origin` for this; `stage` is told how far it has come."""
        asker = connection.Client(peername=client.peername, sockname=client.sockname, timestamp_start=time.time())
        server = connection.Server(address=(request.host, request.port), transport_protocol=transport)
        flow = http.HTTPFlow(asker, server)
        flow.request = request
        flow.is_replay = "request"
        super().__init__(flow, ctx.options)
        self.layer.context.server.sni = request.host
        self._origin = origin
        self._attempt = attempt
        self._stage = stage
        self._where = attempt.address
        self._server: connection.Server | None = None
        self._waiting_for = ""
        self._deadline = 0.0
        self._pieces: list[bytes] = []
        self._response: http.Response | None = None
        self._first_byte = 0.0
        self._error: ProxyError | None = None

    @property
    def was_connected(self) -> bool:
        """Whether there was a connection that the request could go over."""
        return self._waiting_for != "connect_timeout"

    @property
    def was_answered(self) -> bool:
        """Whether the head of a response came."""
        return self._response is not None

    async def run(self) -> Fetched:
        """The response. Raises ProxyError when there is no whole one in time."""
        attempt = self._attempt
        self._expect("connect_timeout")
        await self.server_event(events.Start())
        while not self.done.is_set() and self._error is None:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                self._error = self._timed_out()
                break
            try:
                await asyncio.wait_for(self.done.wait(), left_s)
            except TimeoutError:
                continue  # unless more is owed by now
        self._let_go()
        attempt.ended = time.monotonic()
        if self._first_byte:
            attempt.transfer_s = attempt.ended - self._first_byte
        response = self._response
        if self._error is not None or response is None:
            raise self._error or OriginError("origin_closed", f"{self._where} gave no answer")
        lines = list(response.headers.fields)
        body = b"".join(self._pieces) or response.data.content or b""
        return Fetched(response.status_code, response.data.reason, lines, fold(lines), body, self._first_byte)

    # --- mitmproxy's calls

    async def server_event(self, event: events.Event) -> None:
        """Note that the server has sent something."""
        if self._waiting_for == "read_timeout" and isinstance(event, events.DataReceived):
            self._expect("read_timeout")
        await super().server_event(event)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Keep what is said of the flow to itself, and tell addons the rest."""
        if isinstance(hook, _SILENT):
            return
        if isinstance(hook, HttpResponseHeadersHook):
            self._begun(hook.flow)
        elif isinstance(hook, HttpResponseHook):
            self.done.set()
        elif isinstance(hook, HttpErrorHook):
            self._error = self._error or self._failed(hook.flow)
            self.done.set()
        elif isinstance(hook, server_hooks.ServerConnectedHook):
            self._connected(hook.data.server)
        else:
            await ctx.master.addons.handle_lifecycle(hook)
            if isinstance(hook, TlsStartServerHook):
                self._trust(hook.data)
            elif isinstance(hook, TlsEstablishedServerHook):
                self._sent()

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:  # noqa: ANN401 as it is there
        """Where mitmproxy trips over an answer, it says so here and nowhere else."""
        if exc_info is not None:
            self._error = OriginError("origin_malformed", f"mitmproxy can't read the response of {self._where}")
            self._error.__cause__ = sys.exception()
            self.done.set()
            logging.getLogger(__name__).debug("%s", message, exc_info=exc_info)
        elif level > logging.INFO:
            super().log(message, level)

    # --- how far it has come

    def _connected(self, server: connection.Server) -> None:
        self._server = server
        if server.transport_protocol == "tcp" and server.timestamp_start and server.timestamp_tcp_setup:
            self._attempt.connect_s = server.timestamp_tcp_setup - server.timestamp_start
        if self._attempt.scheme == "http":
            self._sent()

    def _sent(self) -> None:
        """The request is on its way; mitmproxy does not say when, but nothing keeps it now."""
        self._attempt.send_s = 0.0
        self._expect("first_byte_timeout")
        self._stage(Stage.REQUEST_SENT)

    def _begun(self, flow: http.HTTPFlow) -> None:
        attempt = self._attempt
        response = flow.response
        if response is None:
            return
        self._first_byte = now = time.monotonic()
        server = self._server
        sent_at = attempt.started + (attempt.connect_s or 0.0)
        if server is not None and server.timestamp_tls_setup and server.timestamp_tcp_setup:
            attempt.tls_s = server.timestamp_tls_setup - server.timestamp_tcp_setup
            sent_at += attempt.tls_s
        attempt.first_byte_s = max(0.0, now - sent_at)
        attempt.status = response.status_code
        self._stage(Stage.FIRST_BYTE)
        if response.status_code == _SWITCHING or not 200 <= response.status_code < 600:
            # mitmproxy takes an interim response for the response.
            message = f"{self._where} answered {response.status_code}, which was not asked for"
            self._error = OriginError("origin_bad_status", message)
            self.done.set()
            return
        self._response = response
        response.stream = self._piece
        self._expect("read_timeout")

    def _piece(self, data: bytes) -> list[bytes]:
        if data:
            self._pieces.append(data)
        return []

    # --- what goes wrong

    def _expect(self, what: str) -> None:
        self._waiting_for = what
        self._deadline = time.monotonic() + getattr(self._origin, what)

    def _timed_out(self) -> OriginTimeout:
        what = self._waiting_for
        seconds = getattr(self._origin, what)
        if what == "connect_timeout":
            said = f"{self._where} could not be connected to within {seconds} s (origin.connect_timeout)"
        else:
            said = f"{self._where} was silent for {seconds} s (origin.{what})"
        return OriginTimeout(f"origin_{what}", said)

    def _failed(self, flow: http.HTTPFlow) -> ProxyError:
        said = "" if flow.error is None else flow.error.msg
        cause = _cause(said)
        server = self._server
        if server is None and isinstance(cause, socket.gaierror):
            error = OriginError("origin_dns_error", f"the name {flow.request.host} can't be resolved")
        elif server is None:
            error = OriginError("origin_connect_error", f"{self._where} could not be connected to")
        elif self._attempt.scheme == "https" and not server.tls_established:
            error = OriginError("origin_tls_error", f"no TLS session could be made with {self._where}")
        elif said.startswith(_BROKEN) and not any(word in said for word in _CLOSED):
            error = OriginError("origin_malformed", f"{self._where}'s response is no valid HTTP: {said}")
        else:
            error = OriginError("origin_closed", f"{self._where} closed the connection before its response was whole")
        error.__cause__ = cause
        return error

    def _trust(self, data: TlsData) -> None:
        """Have the certificates vouch that the origin is configured with, or that the system trusts."""
        if data.ssl_conn is not None and not data.is_dtls and not ctx.options.ssl_verify_upstream_trusted_ca:
            data.ssl_conn.set_context(_context(self._origin.tls_ca_file))

    def _let_go(self) -> None:
        for io in list(self.transports.values()):
            if io.handler is not None:
                io.handler.cancel("the answer is here")


def _cause(said: str) -> Exception | None:
    """The exception that mitmproxy tells of in words."""
    found = _ERRNO.search(said)
    if found is not None:
        number = int(found[1])
        return OSError(number, found[2]) if number > 0 else socket.gaierror(number, found[2])
    return None if not said or any(word in said for word in _CLOSED) else MitmproxyError(said)


@lru_cache(maxsize=64)
def _context(ca_file: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.set_default_verify_paths()
    return context
