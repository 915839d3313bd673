"""The client's side of HTTP/1: bytes in, exchanges out; responses in, bytes out.

llhttp parses, strictly; this module frames, orders and times. It knows one connection: which exchange is being
received, which one is being answered, which wait their turn. What a request means is the pipeline's business, what its
head may look like `head`'s.

Rules that keep it whole:
- one exchange is answered at a time (`_active`), in the order received; pipelined ones wait in `_queue`, and nothing
  more is read;
- every exchange that was handed to the pipeline ends in exactly one of `finish`, `cut` or `pipeline.client_gone`;
- after anything ambiguous nothing more is read from this client.
"""

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import httptools

from edgeproxy.proxy import head as request_head
from edgeproxy.proxy.deadlines import NEVER
from edgeproxy.proxy.errors import ClientGone, ClientTimeout, ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, render
from edgeproxy.proxy.framing import Framing
from edgeproxy.proxy.tick import Wire
from edgeproxy.proxy.upgrade import parser_behind

if TYPE_CHECKING:
    from edgeproxy.proxy.pipeline import Pipeline
    from edgeproxy.proxy.record import ScriptPart

DRAIN_IDLE_S = 1.0
"""How long a worker that drains still waits for a request on a connection that has none under way: one that the client
has just sent would else be gone without an answer, and without a line."""
DRAIN_NEW_S = 5.0
"""The same for a connection that has had none yet: its client can't take a close for the end of a kept one (RFC 9112
§9.3.1), so the first loss and sending again of its request should fit in."""
LINGER_S = 2.0
"""How long a refused client's remaining bytes are read and dropped, so that it gets to see the answer (RFC 9112
§9.6)."""
JOINED_BODY_BYTES = 32 * 1024
"""Bodies up to this size are copied behind their head into one write; larger ones are written on their own, without a
copy."""
_RESET = struct.pack("ii", 1, 0)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"


class _NoMoreError(Exception):
    """Ends the parsing of what came behind the last request that this connection serves."""


class ClientConnection(asyncio.Protocol):
    """One client's connection."""

    transport: Wire

    def __init__(self, pipeline: "Pipeline") -> None:
        """Serve a connection that the loop has just accepted."""
        self.pipeline = pipeline
        self._tick = pipeline.tick
        self.deadline = NEVER
        self.address = ""
        self.address_json = "null"
        self.trusted = False
        self.script: ScriptPart | None = None
        """What the record of a request says of operators' scripts, where its client is one that stands in for them."""
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""
        self._untouched = True  # no message has ended within `_data`: a head in it begins where it begins
        self._in_head = False
        self._head_bytes = 0
        self._head_pieces: list[bytes] = []
        self._pieces_begin_with_head = True
        self._head_started = 0.0
        self._url = b""
        self._lines: FieldLines = []
        self._incoming: Exchange | None = None
        self._active: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._queued = False  # requests have waited, so reading is paused, since this connection was last idle
        self._pumping = False
        self._body_paused = False
        self._body_seen = 0
        self._framing_bytes = 0
        self._framing = Framing.NONE
        self._requests = 0
        self._closing = False
        self._deaf = False
        self._lingering = False
        self._half_closed = False
        self._write_paused = False
        self._unsent_bytes = 0
        self._read_since = 0.0  # when reading last went on after requests had waited

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who the client is; a client too many is turned away at once."""
        self.transport = Wire(self._tick, cast("asyncio.Transport", transport))  # uvloop's do not subclass it
        peer = transport.get_extra_info("peername")
        if not self.pipeline.connected(self, peer[0] if peer else ""):
            self._deaf = True
            self.transport.write(_FULL)
            self.transport.close()
            return
        self.deadline = time.monotonic() + self.pipeline.limits.header_timeout

    def data_received(self, data: bytes) -> None:
        """Leave the data to the tick's second burst."""
        self._tick.requested(self, data)

    def received(self, data: bytes) -> None:
        """Parse; every complete head goes to the pipeline from within `feed_data`."""
        if self._incoming is None and not self._in_head and not self._deaf:
            exchange = self.pipeline.familiar.exchange(self, data, time.monotonic())
            if exchange is not None:
                self._accept(exchange)
                self._complete(exchange)
                return
        while data and not self._deaf:  # more than once only where a request with Upgrade is followed by others
            self._data = data
            self._untouched = True
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # llhttp stops at a request with Upgrade. Where that is served all the same (h2c, which a server may
                # ignore), its body and the requests behind it go on here.
                self._parser = parser_behind(self, self._incoming)
                data = data[upgrade.args[0] :]
            except httptools.HttpParserCallbackError as error:
                self._stopped(error)
                return
            except httptools.HttpParserError as error:
                self._malformed(error)
                return
        self._data = b""  # an idle connection needs no memory of it
        if self._in_head:
            self._head_continues(data)
        elif self._incoming is not None:
            self._body_continues(self._incoming, len(data))

    def eof_received(self) -> bool:
        """The client has sent all it will; it may still be waiting for responses (a half-closed connection)."""
        self._tick.settle(self)
        self._half_closed = True
        self._in_head = False  # that request will never be one
        if self._incoming is not None or (self._active is None and not self._queue):
            self._part()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was under way has nobody to go to."""
        self._tick.settle(self)
        self.deadline = NEVER
        self.pipeline.disconnected(self)
        under_way = [*([self._active] if self._active else []), *self._queue]
        if self._incoming is not None and self._incoming not in under_way:
            under_way.append(self._incoming)
        self._active = self._incoming = None
        self._queue.clear()
        for exchange in under_way:
            gone = ClientGone("client_gone", "the client closed the connection before it had its whole response")
            gone.__cause__ = exc
            self._leave(exchange, gone)

    def pause_writing(self) -> None:
        """The client reads more slowly than it is being sent to."""
        self._write_paused = True
        self._unsent_bytes = -1  # more may be written in this tick; the next look at deadlines takes the measure
        self.deadline = 0.0
        if self._active is not None:
            self.pipeline.client_congested(self._active)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        if not self.transport.given_up:
            self._expect_more()
        if self._active is None:
            self._next()
        else:
            self.pipeline.client_relieved(self._active)

    def on_deadline(self, now: float) -> None:
        """The client kept the edge waiting for longer than the limits allow."""
        self.deadline = NEVER
        limits = self.pipeline.limits
        active = self._active
        if self._write_paused or self.transport.given_up:
            unsent = self.transport.unsent_bytes()
            if self._unsent_bytes < 0 or unsent < self._unsent_bytes:
                self._unsent_bytes = unsent
                self.deadline = now + limits.send_timeout
                return
            message = f"the client read nothing for {limits.send_timeout} s (limits.send_timeout)"
            self._give_up(ClientGone("send_timeout", message, outcome="timeout"))
        elif self._lingering or (active is None and not self._in_head):
            self._part()
        elif active is not None and not active.body_complete:
            message = f"no more of the request's body came within {limits.body_timeout} s (limits.body_timeout)"
            self._body_failed(active, ClientTimeout("body_timeout", message))
        elif self._in_head and not self._queued:  # where requests wait, it is the edge that reads no more
            message = f"the request's head was not complete within {limits.header_timeout} s (limits.header_timeout)"
            self._refuse(ClientTimeout("header_timeout", message))

    # --- the parser's calls

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_head = True
        self._head_bytes = 0
        self._url = b""
        self._lines = []
        self._head_started = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """The request target, or a piece of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field line of the head, or of the trailer section."""
        if self._in_head:
            self._lines.append((name, value))
        elif self._incoming is not None:
            request_head.add_trailer(name, value, self._incoming, self.pipeline.limits)

    def on_headers_complete(self) -> None:
        """A whole head: an exchange begins; one with a body goes on its way before the body is here."""
        self._in_head = False
        if self._deaf:
            raise _NoMoreError
        data = self._data
        begins_with_head = self._untouched
        if self._head_bytes:
            data = b"".join((*self._head_pieces, data))
            begins_with_head = self._pieces_begin_with_head
        exchange = request_head.exchange(
            self,
            self._parser,
            self._url,
            self._lines,
            data,
            begins_with_head,
            self._head_started,
            self.pipeline.limits,
        )
        if self._head_bytes:
            exchange.head_ms = f"{(time.monotonic() - self._head_started) * 1e3:.3f}"
        self._accept(exchange)
        self._incoming = exchange
        if self._untouched and not self._head_bytes:
            self.pipeline.familiar.remember(data, exchange)
        if exchange.has_body:
            self._body_seen = self._framing_bytes = 0
            self._dispatch(exchange)

    def on_body(self, data: bytes) -> None:
        """A piece of the request's body."""
        exchange = self._incoming
        if exchange is None:
            return
        exchange.bytes_in += len(data)
        maximum = self.pipeline.limits.body_bytes
        if maximum and exchange.bytes_in > maximum:
            raise request_head.body_too_large(maximum)
        exchange.expects_continue = False  # whoever sends a body waits no longer
        if exchange is self._active and not self._body_paused and not self._write_paused:
            self.deadline = time.monotonic() + self.pipeline.limits.body_timeout
        self.pipeline.request_body(exchange, data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._untouched = False
        exchange = self._incoming
        if exchange is None:
            return
        if exchange.has_body and self._parser.should_upgrade():
            return  # only the head is
        self._incoming = None
        if not exchange.has_body:
            self._complete(exchange)
            return
        if not exchange.keep_alive:
            self._deaf = True
        exchange.body_complete = True
        if exchange is self._active and not self._write_paused:
            self.deadline = NEVER
        self.pipeline.request_complete(exchange)
        if self._active is None and not self._closing:
            self._next()

    # --- ordering

    def _accept(self, exchange: Exchange) -> None:
        self._requests += 1
        maximum = self.pipeline.limits.keepalive_requests
        if self.pipeline.draining or (maximum and self._requests >= maximum):
            exchange.keep_alive = False

    def _complete(self, exchange: Exchange) -> None:
        if not exchange.keep_alive:
            self._deaf = True
        self._dispatch(exchange)

    def _dispatch(self, exchange: Exchange) -> None:
        if self._active is not None or self._write_paused or self._queue:
            if self.pipeline.has_room():
                self.pipeline.receive(exchange)
            self._queue.append(exchange)
            self._queued = True
            self.transport.pause_reading()
            return
        self.pipeline.receive(exchange)
        self._begin(exchange)

    def _begin(self, exchange: Exchange) -> None:
        self._active = exchange
        if exchange.body_complete or exchange.expects_continue:
            self.deadline = NEVER
        else:
            self.deadline = time.monotonic() + self.pipeline.limits.body_timeout
        if exchange.error is not None:
            self.pipeline.refuse(exchange, exchange.error)
        else:
            self.pipeline.proceed(exchange)

    def _next(self) -> None:
        # A loop and not a recursion: a client may pipeline thousands of hits.
        if self._pumping:
            return
        self._pumping = True
        while self._queue and self._active is None and not self._write_paused and not self._closing:
            exchange = self._queue.popleft()
            if exchange.seq:
                exchange.now_ns = time.time_ns()  # what is stored is as old as it is now
            else:
                self.pipeline.receive(exchange)
            self._begin(exchange)
        self._pumping = False
        if self._active is None and not self._queue and not self._closing:
            self._idle()

    def _idle(self) -> None:
        if self._half_closed:
            self.close()
            return
        if self._queued:
            self._queued = False
            self._read_since = time.monotonic()
        self.transport.resume_reading()
        self._expect_more()

    def _expect_more(self) -> None:
        """Set the deadline for what the client owes now: the rest of a body or of a head, or its next request."""
        active = self._active
        limits = self.pipeline.limits
        if active is not None and not active.body_complete:
            wants = not self._body_paused and not active.expects_continue
            self.deadline = time.monotonic() + limits.body_timeout if wants else NEVER
        elif self._in_head:
            self.deadline = max(self._head_started, self._read_since) + limits.header_timeout
        else:
            patience = self._drain_patience_s() if self.pipeline.draining else limits.keepalive_timeout
            self.deadline = NEVER if active is not None else time.monotonic() + patience

    # --- the pipeline's calls

    @property
    def is_congested(self) -> bool:
        """Whether the client reads more slowly than it is being sent to."""
        return self._write_paused

    def answer(self, exchange: Exchange, head: str, body: bytes | memoryview) -> None:
        """Send a whole response; `head` lacks its blank line."""
        connection = "" if exchange.keep_alive and exchange.minor else self.persistence(exchange)
        data = f"{head}{connection}\r\n".encode("latin-1")
        if len(body) <= JOINED_BODY_BYTES:
            self.transport.write(data + body)
        else:
            self.transport.writelines((data, body))
        if exchange.keep_alive and exchange.body_complete and not self._queued and not self._in_head:
            self._active = None
            if self._half_closed:
                self.close()
            elif not self._write_paused:
                # A hit has taken no time worth asking the clock for.
                now = exchange.started if exchange.error is None else time.monotonic()
                self.deadline = now + self.pipeline.limits.keepalive_timeout
            return
        self.finish(exchange)

    def persistence(self, exchange: Exchange) -> str:
        """The Connection field that this response needs, if any (RFC 9112 §9.3)."""
        if not exchange.body_complete:
            exchange.keep_alive = False  # nobody can say whether the rest will come before the response is out
        if not exchange.keep_alive:
            return "Connection: close\r\n"
        return "" if exchange.minor else "Connection: keep-alive\r\n"

    def start(self, exchange: Exchange, head: bytes, framing: Framing) -> None:
        """Send a response's head; `head` ends with its blank line. Body and end follow."""
        exchange.response_started = True
        self._framing = framing
        self.transport.write(head)

    def interim(self, head: bytes) -> None:
        """Send a 1xx response."""
        self.transport.write(head)
        active = self._active
        if active is not None and active.expects_continue and head.startswith(b"HTTP/1.1 100 "):
            active.expects_continue = False
            self._expect_more()

    def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._framing is Framing.CHUNKED:
            self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            self.transport.write(data)

    def end(self, exchange: Exchange, trailers: FieldLines | None) -> None:
        """Send the body's end."""
        if self._framing is Framing.CHUNKED:
            self.transport.write(b"0\r\n%b\r\n" % (render(trailers) if trailers else b""))
        elif self._framing is Framing.CLOSE:
            exchange.keep_alive = False
        self.finish(exchange)

    def finish(self, exchange: Exchange) -> None:
        """The response is out: turn to the next request, or close."""
        self._active = None
        if not exchange.body_complete:
            # The rest of the body can't be told from the next request once nobody wants it.
            self._incoming = None
            self._linger()
        elif not exchange.keep_alive:
            self.close()
        else:
            self._next()

    def cut(self, exchange: Exchange) -> None:
        """Break off a response that has begun, so that no client takes it for whole."""
        self._active = self._incoming = None
        self._closing = self._deaf = True
        if self._framing is Framing.CLOSE:
            # Here an orderly close would read as the body's end: only a reset tells (RFC 9112 §8).
            sock = self.transport.get_extra_info("socket")
            if isinstance(sock, socket.socket) or hasattr(sock, "setsockopt"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        else:
            self._part()
        del exchange

    def pause_body(self) -> None:
        """The origin takes the request's body more slowly than it comes."""
        self._body_paused = True
        self.transport.pause_reading()
        if not self._write_paused:
            self.deadline = NEVER

    def resume_body(self) -> None:
        """The origin has caught up."""
        self._body_paused = False
        if not self._deaf and not self.transport.is_closing():
            self.transport.resume_reading()
            if not self._write_paused:
                self._expect_more()

    def drain(self) -> None:
        """Close with the response under way, or, where there is none, with that to a request that comes very soon."""
        last = self._queue[-1] if self._queue else self._active
        if last is None:
            if not self._in_head:
                self.deadline = min(self.deadline, time.monotonic() + self._drain_patience_s())
        elif not last.response_started:
            last.keep_alive = False
            if last.body_complete:
                self._deaf = True
                self._in_head = False

    def _drain_patience_s(self) -> float:
        patience = DRAIN_IDLE_S if self._requests else DRAIN_NEW_S
        return min(patience, self.pipeline.limits.drain_timeout / 2)

    def close(self) -> None:
        """Close in order: what was written still goes out."""
        self._closing = self._deaf = True
        self._part()

    def abort(self, error: ProxyError) -> None:
        """Close now; what was under way gets `error`."""
        self._give_up(error)

    # --- what goes wrong

    def _stopped(self, error: httptools.HttpParserCallbackError) -> None:
        cause = error.__context__
        if isinstance(cause, ProxyError):
            self._refuse(cause)
        elif not isinstance(cause, _NoMoreError):
            raise error

    def _head_continues(self, data: bytes) -> None:
        """A head is longer than what was read: note how long it is so far, and until when it may come."""
        if self._deaf:
            self._in_head = False
            return
        if self._head_bytes:
            self._head_bytes += len(data)
            self._head_pieces.append(data)
        else:
            if not self._write_paused:
                self.deadline = self._head_started + self.pipeline.limits.header_timeout
            self._pieces_begin_with_head = self._untouched
            if self._untouched:
                self._head_bytes = len(data)
            else:  # it begins somewhere behind other requests: what is known of it counts
                self._head_bytes = 1 + len(self._url) + sum(len(name) + len(value) for name, value in self._lines)
                data = data[max(0, data.rfind(b"\r\n\r\n")) :]
            self._head_pieces = [data]
        limits = self.pipeline.limits
        if len(self._url) > limits.uri_bytes:
            self._refuse(request_head.uri_too_long(limits.uri_bytes))
        elif self._head_bytes > limits.header_bytes + limits.uri_bytes:
            self._refuse(request_head.head_too_large(limits.header_bytes))

    def _body_continues(self, exchange: Exchange, count: int) -> None:
        """Chunk extensions and trailers are no body and are never complete before they end: they have a limit, too."""
        if exchange.bytes_in != self._body_seen:
            self._body_seen = exchange.bytes_in
            self._framing_bytes = 0
            return
        self._framing_bytes += count
        maximum = self.pipeline.limits.header_bytes
        if self._framing_bytes > maximum:
            self._refuse(request_head.framing_too_large(maximum))

    def _malformed(self, error: httptools.HttpParserError) -> None:
        if not self._deaf:
            known = self._pieces_begin_with_head if self._head_bytes else self._untouched
            data = b"" if not known else self._head_pieces[0] if self._head_bytes else self._data
            self._refuse(request_head.malformed(error, data, in_head=self._in_head))

    def _refuse(self, error: ProxyError) -> None:
        """Answer what is being received with an error, in its turn, and read no more."""
        self._deaf = True
        incoming = self._incoming
        if incoming is not None and (incoming is self._active or incoming in self._queue):
            self._body_failed(incoming, error)
            return
        self._incoming = None
        self._in_head = False
        exchange = request_head.unusable(
            self, self._parser, self._url, self._lines, self._head_started or time.monotonic()
        )
        exchange.error = error
        exchange.body_complete = False
        self._dispatch(exchange)

    def _body_failed(self, exchange: Exchange, error: ProxyError) -> None:
        self._deaf = True
        exchange.keep_alive = False
        if exchange is not self._active:
            exchange.error = error
        elif exchange.response_started:
            self.pipeline.broken(exchange, error)
        else:
            self.pipeline.refuse(exchange, error)

    def _linger(self) -> None:
        self._deaf = self._lingering = True
        if self._half_closed:
            self.close()
            return
        self.deadline = time.monotonic() + LINGER_S
        self.transport.write_eof()
        self.transport.resume_reading()

    def _part(self) -> None:
        """Close once everything is sent, or as soon as the client takes nothing of it any more."""
        self.transport.close()
        self._unsent_bytes = -1
        self.deadline = 0.0

    def _give_up(self, error: ProxyError) -> None:
        under_way = [*([self._active] if self._active else []), *self._queue]
        self._active = self._incoming = None
        self._queue.clear()
        self._deaf = True
        self.transport.abort()
        for exchange in under_way:
            self._leave(exchange, error)

    def _leave(self, exchange: Exchange, error: ProxyError) -> None:
        if not exchange.seq:  # it had waited its turn without a slot, and has its line all the same
            self.pipeline.receive(exchange)
        self.pipeline.client_gone(exchange, error)


def factory(pipeline: "Pipeline") -> Callable[[], ClientConnection]:
    """A protocol factory for `loop.create_server`."""
    return lambda: ClientConnection(pipeline)
