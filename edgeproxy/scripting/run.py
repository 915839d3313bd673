"""One request's way through the scripts: its head, its body, the response's head and body, each with its hooks.

    REQUEST_HEAD ─► REQUEST_BODY ─► REQUEST ─► FORWARDED ─► RESPONSE_HEAD ─► RESPONSE_BODY ─► RESPONSE ─► DELIVERED
                 └► FORWARDED, where the body streams                     └► STREAMING ─────► RESPONSE
    a script's own response goes from the request's hooks to RESPONSE_HEAD; FAILED may follow on anything

As in mitmproxy a body is held until its hook has seen it, unless a script, or its size, has it stream. Synchronous
until a hook is a coroutine: then what comes meanwhile waits here.
"""

import time
from email.utils import formatdate

from mitmproxy import http

from edgeproxy.ledger import Stage
from edgeproxy.proxy.fields import FieldLines
from edgeproxy.proxy.framing import Framing
from edgeproxy.scripting.errors import FAILED, ChangeError
from edgeproxy.scripting.messages import Stream, response_head, response_of, response_trailers
from edgeproxy.scripting.request_steps import RequestSteps
from edgeproxy.scripting.scope import AHEAD_BYTES, Phase

_BODILESS = frozenset({204, 304})
_LENGTH = frozenset({b"content-length"})
_NOTHING: frozenset[bytes] = frozenset()


class FlowRun(RequestSteps):
    """One request's; `proxy.intermediary.Run` says what the pipeline's calls mean."""

    is_own = False
    _is_ended = False
    _is_ahead = False
    _is_chunked = False
    _is_dropping = False
    _pieces_bytes = 0
    _streams_out: Stream = False
    """How the body streams; whatever scripts set behind its head comes too late, the head having said what comes."""
    _trailers: FieldLines | None = None
    _came_behind: FieldLines | None = None
    """The fields that came behind the body."""

    # --- the pipeline's calls

    @property
    def is_taking(self) -> bool:
        """Whether it takes more of the response."""
        return not self._is_ahead

    @property
    def is_early(self) -> bool:
        """Whether the client had its response before what came from the pipeline was whole."""
        return self.is_delivered and not self._is_ended

    @property
    def is_delivered(self) -> bool:
        """Whether the client has all that it gets."""
        return self.phase is Phase.DELIVERED

    def answered(self, head: str, body: bytes | memoryview) -> None:
        """A whole response is there; `head` lacks its blank line."""
        self._responded(head, [bytes(body)] if body else [], is_ended=True)

    def started(self, head: str) -> None:
        """A response has begun; `head` lacks its blank line."""
        self._responded(head, [], is_ended=False)

    def piece(self, data: bytes) -> None:
        """A piece of the response's body is there."""
        if self.phase is Phase.STREAMING:
            self._send(data)
            return
        if self.is_over or self._is_replaced():
            self._is_dropping = True
            return
        self._pieces.append(data)
        self._pieces_bytes += len(data)
        if self.phase is Phase.RESPONSE_BODY and self._pieces_bytes > self.body_bytes:
            self._stream_out()
        elif self.phase is Phase.RESPONSE_HEAD and self._pieces_bytes > AHEAD_BYTES and not self._is_ahead:
            self._is_ahead = True
            self.pipeline.client_congested(self.exchange)

    def ended(self, trailers: FieldLines | None) -> None:
        """The response is whole."""
        self._is_ended = True
        self._came_behind = trailers
        if self.phase is Phase.RESPONSE_BODY:
            self._whole_response()
        elif self.phase is Phase.STREAMING:
            self._streamed()

    # --- the response's head

    def own_response(self) -> None:
        """A script has set the response: its hooks see it like any other."""
        self.is_own = True
        self._head = ""
        self._first: http.Response | None = None
        self._came: tuple[tuple[bytes, bytes], ...] = ()
        self._pieces: list[bytes] = []
        self.phase = Phase.RESPONSE_HEAD
        self.call("responseheaders", self._whole_response)

    def _responded(self, head: str, pieces: list[bytes], *, is_ended: bool) -> None:
        exchange = self.exchange
        if self.phase is not Phase.FORWARDED:
            self.drop()  # another takes the place of one whose hooks are still at work: a stale one, its origin failing
        self._head = head
        self._first = self.flow.response = response_of(head)
        self._came = self._first.data.headers.fields
        self._pieces = pieces
        self._pieces_bytes = sum(map(len, pieces))
        self._is_ended = is_ended
        self.phase = Phase.RESPONSE_HEAD
        self.edge.tell(
            cache=exchange.cache,
            age=exchange.cache_age,
            ttl_left=exchange.cache_ttl,
            origin=None if exchange.fetch is None else exchange.plan.route.origin,
        )
        self.call("responseheaders", self._response_head_seen)

    def _add_trailers(self) -> None:
        """Now that no hook is at work that could be undone."""
        if self._came_behind and self.flow.response is self._first and self._first is not None:
            self._first.trailers = http.Headers(self._came_behind)

    def _is_replaced(self) -> bool:
        """Whether a script has put a response with a body of its own in the place of what came."""
        response = self.flow.response
        return response is not None and response is not self._first and response.data.content is not None

    def _response_head_seen(self) -> None:
        if self._is_replaced():
            self._check_replacement()
            if self.is_over:
                return
        response = self.flow.response
        if self._is_replaced():
            self._whole_response()
            return
        self.phase = Phase.RESPONSE_BODY
        self.pipeline.stage(self.exchange, Stage.STREAMING)
        length = max(self._pieces_bytes, self._stated_bytes() or 0)
        goes_by = length > self.body_bytes or not (self._is_ended or self.has_hook("response"))
        if response is not None and (response.stream or (goes_by and not self._is_bodiless(response.status_code))):
            self._stream_out()
        elif self._is_ended:
            self._whole_response()
        if self._is_ahead:
            self._is_ahead = False
            if not self.client.is_congested:
                self.pipeline.client_relieved(self.exchange)

    def _check_replacement(self) -> None:
        """Whether it can be sent is found out before what came is thrown away."""
        try:
            response_head(self.flow.response, _LENGTH)
        except ChangeError as error:
            self.fault("responseheaders", error)
            if self.failed:
                self.give_up(FAILED)
            else:
                self._first = self.flow.response = response_of(self._head)

    def _stated_bytes(self) -> int | None:
        """How long the body is that comes, where its head says so."""
        return next((int(value) for name, value in self._came if name.lower() == b"content-length"), None)

    # --- a body that is held

    def _whole_response(self) -> None:
        response = self.flow.response
        if response is not None:
            if not self.is_own and not self._is_replaced():
                response.data.content = self._body()
                self._add_trailers()
            response.timestamp_end = time.time()
        self.phase = Phase.RESPONSE
        self.call("response", self._deliver)

    def _body(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _deliver(self) -> None:
        """Send what the scripts have left of it."""
        exchange = self.exchange
        response, head = self._sendable(_LENGTH)
        if response is None:
            return
        status = response.data.status_code
        body = b"" if self._is_bodiless(status) else response.data.content or b""
        self.status, self.bytes_out = status, len(body)
        self.phase = Phase.DELIVERED
        if not exchange.body_complete:
            exchange.keep_alive = False  # nobody will read the rest of it
        if self._trailers and body and exchange.minor:
            head += f"Transfer-Encoding: chunked\r\n{self.client.persistence(exchange)}\r\n"
            self.client.start(exchange, head.encode("latin-1"), Framing.CHUNKED)
            self.client.send(body)
            self.client.end(exchange, self._trailers)
        else:
            self.client.answer(exchange, head + self._length_field(response, len(body)), body)
        self.pipeline.delivered(exchange)

    def _length_field(self, response: http.Response, length: int) -> str:
        status = response.data.status_code
        if self._is_bodiless(status):
            stated = response.headers.get("content-length", "")
            return f"Content-Length: {stated}\r\n" if stated.isdecimal() and status not in _BODILESS else ""
        return f"Content-Length: {length}\r\n"

    # --- a body that streams

    def _stream_out(self) -> None:
        """Send the head, and the body as it comes."""
        exchange = self.exchange
        self.phase = Phase.STREAMING
        response, head = self._sendable(_LENGTH)
        if response is None:
            return
        self._streams_out = response.stream
        stated = self._stated_bytes()
        framing = Framing.CHUNKED if exchange.minor else Framing.CLOSE
        if self._is_bodiless(response.data.status_code):
            framing = Framing.NONE
            head += self._length_field(response, 0)
        elif stated is not None and self._is_as_long(response):
            framing = Framing.LENGTH
            head += f"Content-Length: {stated}\r\n"
        self._is_chunked = framing is Framing.CHUNKED
        if self._is_chunked:
            head += "Transfer-Encoding: chunked\r\n"
        if framing is Framing.CLOSE:
            exchange.keep_alive = False
        self.status = response.data.status_code
        self.client.start(exchange, f"{head}{self.client.persistence(exchange)}\r\n".encode("latin-1"), framing)
        self.pipeline.stage(exchange, Stage.STREAMING)
        pieces, self._pieces = self._pieces, []
        for data in pieces:
            self._send(data)
        if self._is_ended:
            self._streamed()

    def _is_as_long(self, response: http.Response) -> bool:
        """Whether a body that streams is as long as its head says: no script makes another of it, and it does come."""
        return response is self._first and not callable(response.stream) and self.exchange.method != b"HEAD"

    def _send(self, data: bytes) -> None:
        if self.is_over or self._is_bodiless(self.status):
            return
        for piece in self.through(self._streams_out, data):
            self.bytes_out += len(piece)
            self.client.send(piece)
        if self.failed:
            self.give_up(FAILED)

    def _streamed(self) -> None:
        self._send(b"")
        if self.is_over:
            return
        self._add_trailers()
        self.phase = Phase.RESPONSE
        self.call("response", self._end)

    def _end(self) -> None:
        response = self.flow.response
        try:
            trailers = response_trailers(response) if response is not None and self._is_chunked else None
        except ChangeError as error:
            trailers = None
            self.fault("response", error)
            if self.failed:
                self.give_up(FAILED)
                return
        self.phase = Phase.DELIVERED
        self.client.end(self.exchange, trailers)
        self.pipeline.delivered(self.exchange)

    # --- what goes out

    def _is_bodiless(self, status: int) -> bool:
        return self.came.method == b"HEAD" or status in _BODILESS

    def _sendable(self, without: frozenset[bytes]) -> tuple[http.Response | None, str]:
        """The response and its head, framing left out. Where a script has made something of it that can't be sent, what
        came takes its place, or the request is given up: then there is none.
        """
        response = self.flow.response
        try:
            head = response_head(response, without, self._came) + self._edges_own(response)
            self._trailers = None if response is None else response_trailers(response)
        except ChangeError as error:
            self.fault("response", error)
        else:
            return response, head
        is_here = self._head and not self._is_dropping and (self._is_ended or self.phase is Phase.STREAMING)
        if self.failed or not is_here:
            self.give_up(FAILED)
            return None, ""
        self._first = self.flow.response = response = response_of(self._head)
        if self.phase is not Phase.STREAMING:
            response.data.content = self._body()
        return response, response_head(response, without)

    def _edges_own(self, response: http.Response | None) -> str:
        """What the edge adds to a response that a script has made: whoever gets it can name its trace."""
        if response is None or response is self._first:
            return ""
        elapsed_s = time.monotonic() - self.exchange.started
        added = self.pipeline.decorator.own(self.exchange, elapsed_s)
        lines = [f"Date: {formatdate(usegmt=True)}", *added.split("\r\n")]
        return "".join(f"{line}\r\n" for line in lines if line and line.partition(":")[0] not in response.headers)
