"""One connection to an origin: writes requests, parses responses with llhttp, strictly, and hands them to the fetch
that has it.

Knows one connection and the fetch on it. Whatever is not a good response (bytes nobody asked for, a broken head, an end
too soon) closes the connection and fails the fetch: it never becomes a response.
"""

import asyncio
import re
import select
import time
from typing import TYPE_CHECKING, cast

import httptools

from edgeproxy.proxy import forwarding
from edgeproxy.proxy.deadlines import NEVER
from edgeproxy.proxy.errors import OriginError, OriginTimeout, ProxyError
from edgeproxy.proxy.fields import FieldLines, Names, fold
from edgeproxy.proxy.tick import Wire
from edgeproxy.proxy.upstream.address import Address

if TYPE_CHECKING:
    from edgeproxy.proxy.upstream.fetch import Fetch
    from edgeproxy.proxy.upstream.pool import OriginPool

_BODILESS = frozenset({204, 304})
_INTERIM = 100
_SWITCHING = 101
_OK = 200
_LAST = 599
_VERSIONS = frozenset({"1.0", "1.1"})
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class OriginConnection(asyncio.Protocol):
    """A connection that serves one fetch at a time, over and over."""

    transport: Wire

    def __init__(self, pool: "OriginPool", address: Address) -> None:
        """Belong to a pool; the loop connects it."""
        self.pool = pool
        self._tick = pool.tick
        self.address = address
        self.deadline = NEVER
        self.fetch: Fetch | None = None
        self.used = False
        self.lost = False
        self.writable = True
        self._parser = httptools.HttpResponseParser(self)
        self._waiting_for = ""
        self._in_head = False
        self._until_close = False
        self._ended = False
        self._reading_paused = False
        self._reason = b""
        self._data = b""
        self._lines: FieldLines = []
        self._names: Names = {}
        self._head_bytes = 0
        self._head_limit = pool.limits.header_bytes + pool.limits.uri_bytes
        self._unparsed = 0
        """Reads of this tick that are still to be parsed."""
        self._trailers: FieldLines | None = None
        self._reusable = False
        self._poll = select.poll()

    # --- the fetch's calls

    def take(self, fetch: "Fetch") -> None:
        """Serve a fetch from now on."""
        self.fetch = fetch
        self._head_bytes = 0
        self.deadline = NEVER

    @property
    def answering(self) -> bool:
        """Whether the origin has begun a head that is not whole."""
        return self._in_head

    def send(self, data: bytes) -> None:
        """Send a piece of the request."""
        self.transport.write(data)

    def has_unread_answer(self) -> bool:
        """Whether something the origin sent waits to be read; costs a system call."""
        return bool(self._poll.poll(0))

    def expect(self, what: str, timeout_s: float) -> None:
        """From now on the origin owes something: `what` names the timeout that ends the wait."""
        self._waiting_for = what
        self.deadline = time.monotonic() + timeout_s

    def pause(self) -> None:
        """Read no more for now: the client can't keep up. Meanwhile the origin owes nothing."""
        self._reading_paused = True
        self.deadline = NEVER
        self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._reading_paused:
            self._reading_paused = False
            if not self.lost:
                self.transport.resume_reading()
            if self.fetch is not None:
                self.expect("read_timeout", self.pool.origin.read_timeout)

    def drop(self) -> None:
        """Close at once; the fetch on it, if any, has let go."""
        self.fetch = None
        self.deadline = NEVER
        self.transport.abort()

    # --- the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = Wire(self._tick, cast("asyncio.Transport", transport))  # uvloop's do not subclass it
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Leave the data to the tick's second burst."""
        if self.fetch is None:
            # An origin that speaks unasked can't be trusted with the next request, which may come in this very tick.
            self.pool.withdraw(self)
            self.transport.abort()
            return
        self._unparsed += 1
        self._tick.answered(self, data)

    def received(self, data: bytes) -> None:
        """Parse; pieces go to the fetch from within `feed_data`."""
        self._unparsed -= 1
        self._data = data
        if self._waiting_for == "read_timeout" and not self._reading_paused:
            self.deadline = time.monotonic() + self.pool.origin.read_timeout
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._reusable = False
            if not isinstance(cause, ProxyError):
                raise
            self._fail(cause)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._malformed(error)
        self._data = b""
        if self.fetch is None:
            # Only now: bytes behind the response, in the same tick, would have been taken for the next fetch's.
            if self._unparsed:
                self.drop()
            elif self._reusable and not self.lost and not self._ended:
                self._reusable = False
                self.pool.release(self)
        elif self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._head_limit:
                self._fail(self._head_too_large())

    def eof_received(self) -> None:
        """The origin ended its side in order. Over TLS that takes its word (close_notify): else anyone on the way could
        end a response.
        """
        self._ended = True
        if self.fetch is None:
            self.pool.withdraw(self)  # now, and not when the loop has closed it: a request may come in this very tick

    def connection_lost(self, exc: Exception | None) -> None:
        """The origin closed; the end of a response only where the response says so."""
        self.lost = True
        self._tick.settle(self)
        self.deadline = NEVER
        self.pool.lost(self)
        fetch = self.fetch
        if fetch is None:
            return
        if self._until_close and self._ended and exc is None:
            self.fetch = None
            fetch.on_end(None)
            return
        error = OriginError("origin_closed", f"{self.address.text} closed the connection before its response was whole")
        error.__cause__ = exc
        self._fail(error)

    def pause_writing(self) -> None:
        """The origin takes the request more slowly than it comes."""
        self.writable = False
        if self.fetch is not None:
            self.expect("send_timeout", self.pool.origin.send_timeout)
            self.fetch.pause_request()

    def resume_writing(self) -> None:
        """The origin has caught up."""
        self.writable = True
        self.deadline = NEVER
        if self.fetch is not None:
            self.fetch.resume_request()

    def on_deadline(self, now: float) -> None:
        """The origin owed something for too long, or nobody has used this connection for long enough."""
        del now
        if self.fetch is None:
            self.pool.withdraw(self)
            self.drop()
            return
        seconds = getattr(self.pool.origin, self._waiting_for)
        what = f"{self.address.text} was silent for {seconds} s (origin.{self._waiting_for})"
        self._fail(OriginTimeout(f"origin_{self._waiting_for}", what))

    # --- the parser's calls

    def on_message_begin(self) -> None:
        """A response's first byte."""
        if self.fetch is None:
            raise OriginError("origin_spoke_unasked", f"{self.address.text} sent more than one response")
        self._in_head = True
        self._until_close = False
        self._reason = b""
        self._lines = []
        self._trailers = None

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, or a piece of it."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field line of the head, or of the trailer section."""
        if self._in_head:
            self._lines.append((name, value))
            return
        if self._trailers is None:
            self._trailers = []
        if len(self._trailers) >= self.pool.limits.headers:
            raise OriginError("origin_trailers_too_large", f"{self.address.text}'s response has too many trailers")
        self._trailers.append((name, value))

    def on_headers_complete(self) -> None:
        """A whole head."""
        self._in_head = False
        fetch = self.fetch
        if fetch is None:
            return
        status = self._parser.get_status_code()
        self._check_head(status)
        names = fold(self._lines)
        if status < _OK:
            fetch.on_interim(status, self._reason, self._lines, names)
            return
        coding = names.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            raise OriginError(
                "origin_bad_coding", f"{self.address.text} answered with a transfer coding other than chunked"
            )
        bodiless = status in _BODILESS or fetch.exchange.method == b"HEAD"
        self._until_close = not bodiless and coding is None and b"content-length" not in names
        self.expect("read_timeout", self.pool.origin.read_timeout)
        fetch.on_head(status, self._reason, self._lines, names)
        if fetch.exchange.method == b"HEAD" and self.fetch is fetch:
            # llhttp can't be told that this response ends here, so it never sees another byte.
            keep = self._parser.should_keep_alive()
            self._parser = httptools.HttpResponseParser(self)
            self._complete(fetch, None, reusable=keep and (coding is not None or b"content-length" in names))

    def _check_head(self, status: int) -> None:
        """Refuse what llhttp lets pass. The version is asked for only where it can't be seen: asking costs 0.3 µs."""
        where = self.address.text
        if (
            self._head_bytes + len(self._data) > self._head_limit
            and sum(len(name) + len(value) + 4 for name, value in self._lines) > self._head_limit
        ):
            raise self._head_too_large()
        if self._head_bytes or not self._data.startswith(b"HTTP/1."):
            version = self._parser.get_http_version()
            if version not in _VERSIONS:
                raise OriginError("origin_bad_version", f"{where} answered in HTTP/{version}, which was not asked for")
        if status == _SWITCHING or not _INTERIM <= status <= _LAST:
            raise OriginError("origin_bad_status", f"{where} answered {status}, which was not asked for")
        if not self._reason.isalnum() and _CONTROL.search(self._reason):
            raise OriginError("origin_malformed", f"{where}'s response has a control character in its reason phrase")

    def _head_too_large(self) -> OriginError:
        return OriginError("origin_head_too_large", f"the head of {self.address.text}'s response is too large")

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self.fetch is not None:
            self.fetch.on_body(data)
        elif self._reusable:
            self._reusable = False  # a body behind the response to HEAD
            self.drop()

    def on_message_complete(self) -> None:
        """A response is whole."""
        fetch = self.fetch
        if fetch is None or self._parser.get_status_code() < _OK:
            return
        trailers = self._trailers and forwarding.side_lines(self._trailers, fold(self._lines))
        self._complete(fetch, trailers, reusable=self._parser.should_keep_alive())

    def _complete(self, fetch: "Fetch", trailers: FieldLines | None, *, reusable: bool) -> None:
        self.fetch = None
        self.used = True
        self._waiting_for = ""
        self._reusable = reusable and fetch.is_sent and not self.lost and not self._reading_paused
        if not self._reusable:
            self.drop()
        fetch.on_end(trailers)

    # --- what goes wrong

    def _malformed(self, error: Exception) -> None:
        if self.fetch is None:  # bytes behind a whole response
            self._reusable = False
            self.drop()
            return
        failure = OriginError("origin_malformed", f"{self.address.text}'s response is no valid HTTP: {error}")
        failure.__cause__ = error
        self._fail(failure)

    def _fail(self, error: ProxyError) -> None:
        fetch = self.fetch
        self._reusable = False
        self.drop()
        if fetch is not None:
            fetch.on_failure(error)
