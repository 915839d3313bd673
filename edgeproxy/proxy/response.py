"""Heads of responses to the client: what the origin said, how the body is framed, what the edge adds. Pure; text, not
I/O.
"""

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from edgeproxy.cache import Entry, Stored, policy, tags_of, variant
from edgeproxy.cache import status as cache_status
from edgeproxy.config import Cache, Tracing
from edgeproxy.proxy import forwarding
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names, render, values_of
from edgeproxy.proxy.framing import Framing

if TYPE_CHECKING:
    from edgeproxy.proxy.upstream.attempt import Attempt
    from edgeproxy.proxy.upstream.fetch import Fetch

_FLAGS = ("00", "01", "02", "03")
_BODILESS = frozenset({204, 304})
_NOT_IN_304 = frozenset(
    {b"content-length", b"content-type", b"content-encoding", b"content-language", b"transfer-encoding"}
)


def trace_fields(exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
    """The request's traceparent and tracestate lines, one value a line."""
    return values_of(exchange.lines, b"traceparent"), values_of(exchange.lines, b"tracestate")


def length(names: Names) -> int:
    """The stated length of a body in bytes, 0 when it is not stated."""
    return int(names.get(b"content-length", 0))


def framing(exchange: Exchange, status: int, names: Names) -> Framing:
    """How this response's end is told to this client (RFC 9112 §6.3)."""
    if exchange.method == b"HEAD" or status in _BODILESS:
        return Framing.NONE
    if b"content-length" in names:
        return Framing.LENGTH
    return Framing.CHUNKED if exchange.minor else Framing.CLOSE


def head(
    exchange: Exchange, status: int, reason: bytes, lines: FieldLines, names: Names, framed: Framing, decoration: str
) -> bytes:
    """The whole head of a fetched response, blank line included; `lines` are those of `forwarding.response_lines`."""
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason), render(lines), _dated(names)]
    if framed is Framing.CHUNKED:
        trailer = names.get(b"trailer")
        parts.append(b"Transfer-Encoding: chunked\r\n" + (b"Trailer: %b\r\n" % trailer if trailer else b""))
    elif b"content-length" in names and status != 204:
        parts.append(b"Content-Length: %b\r\n" % names[b"content-length"])
    if framed is Framing.CLOSE:
        exchange.keep_alive = False
    parts.append(f"{decoration}{exchange.client.persistence(exchange)}\r\n".encode("latin-1"))
    return b"".join(parts)


def stored_framing(exchange: Exchange, stored: Stored, length: int | None) -> Framing:
    """How the end of a stored response whose body is still coming is told to a client; `length` is what its head
    says.
    """
    if stored.status in _BODILESS:
        return Framing.NONE
    if length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if exchange.minor else Framing.CLOSE


def stored_head(exchange: Exchange, entry: Entry, length: int | None, framed: Framing, decoration: str) -> bytes:
    """The whole head of a stored response whose body is still coming, blank line included."""
    if framed is Framing.CLOSE:
        exchange.keep_alive = False
    coding = "Transfer-Encoding: chunked\r\n" if framed is Framing.CHUNKED else ""
    if framed is Framing.LENGTH:
        coding = f"Content-Length: {length}\r\n"
    persistence = exchange.client.persistence(exchange)
    age = f"Age: {exchange.cache_age}\r\n"
    return f"{entry.fields_head}{coding}{age}{decoration}{persistence}\r\n".encode("latin-1")


def interim_head(status: int, reason: bytes, lines: FieldLines, names: Names) -> bytes:
    """A 1xx response as it is passed on."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, render(forwarding.side_lines(lines, names)))


def stored(
    exchange: Exchange,
    fetch: "Fetch",
    status: int,
    reason: bytes,
    lines: FieldLines,
    names: Names,
    storing: policy.Storing,
    now_ns: int,
) -> Stored:
    """What is kept of a response whose body is still to come; `lines` are those of `forwarding.response_lines`."""
    terms = storing.terms
    assert terms is not None  # noqa: S101  only what may be stored has terms, and only that comes here
    kept = forwarding.stored_lines(lines, names, storing.without)
    if b"date" not in names:
        kept.append((b"Date", formatdate(time.time(), usegmt=True).encode()))
    born_ns = now_ns - terms.age_ns
    return Stored(
        key=exchange.cache_key,
        url=exchange.plan.url,
        vary=storing.vary,
        variant=variant(storing.vary, exchange.names),
        status=status,
        reason=reason,
        lines=kept,
        born_ns=born_ns,
        fresh_until_ns=born_ns + terms.lifetime_ns,
        stale_while_revalidate_ns=terms.stale_while_revalidate_ns,
        stale_if_error_ns=terms.stale_if_error_ns,
        must_revalidate=terms.must_revalidate,
        stored_ns=now_ns,
        filled_by=filled_by(exchange, fetch.attempt),
        origin=fetch.pool.origin.name,
        etag=names.get(b"etag"),
        last_modified=names.get(b"last-modified"),
        tags=tags_of(names),
        purge_seq=fetch.purge_seq,
    )


def uncacheable(exchange: Exchange, why: str, now_ns: int, until_ns: int, purge_seq: int) -> Entry:
    """What remembers that a key's responses are not stored."""
    marker = Stored(
        key=exchange.cache_key,
        url=exchange.plan.url,
        vary=(),
        variant=b"",
        status=0,
        reason=b"",
        lines=[],
        born_ns=now_ns,
        fresh_until_ns=until_ns,
        stale_while_revalidate_ns=0,
        stale_if_error_ns=0,
        must_revalidate=True,
        stored_ns=now_ns,
        filled_by="",
        origin="",
        purge_seq=purge_seq,
        uncacheable=why,
    )
    return Entry(marker, b"")


def traceparent(exchange: Exchange) -> str:
    """A request's own place in its trace, as a traceparent."""
    trace = exchange.trace
    return f"00-{trace.trace_id}-{trace.span_id}-{_FLAGS[trace.flags]}"


def filled_by(exchange: Exchange, attempt: "Attempt") -> str:
    """The traceparent under which an attempt went to the origin."""
    trace = exchange.trace
    return f"00-{trace.trace_id}-{attempt.span_id}-{_FLAGS[trace.flags]}"


def _dated(names: Names) -> bytes:
    # A recipient with a clock adds the Date that the origin left out (RFC 9110 §6.6.1).
    return b"" if b"date" in names else b"Date: %b\r\n" % formatdate(time.time(), usegmt=True).encode()


class Decorator:
    """The fields that the edge itself adds for clients, each of which can be turned off."""

    def __init__(self, name: str, tracing: Tracing, cache: Cache) -> None:
        """Speak as the node of that name, with these switches."""
        self._cache = f"Cache-Status: {cache_status.name(name)}"
        self._short = f"{cache.short_status}: " if cache.short_status else ""
        self._with_key = cache.status_key
        self._with_cache_status = tracing.cache_status
        self._with_trace_id = tracing.x_trace_id
        self._with_traceresponse = tracing.traceresponse
        self._with_timing = tracing.server_timing
        self._with_all = (
            tracing.cache_status
            and tracing.x_trace_id
            and tracing.traceresponse
            and tracing.server_timing
            and not cache.status_key
        )
        words = ("MISS", "EXPIRED", "BYPASS", "COLLAPSED", "STALE", "REVALIDATED", "HIT")
        self._as = {word: f"{self._short}{word}\r\n{self._cache}" if self._short else self._cache for word in words}
        self._hit = f"{self._short}HIT\r\n{self._cache}; hit; ttl=" if self._short else f"{self._cache}; hit; ttl="

    def hit(self, exchange: Exchange, entry: Entry, elapsed_ms: str) -> str:
        """For a fresh response from hot memory, sent as it is."""
        trace = exchange.trace
        ttl = (entry.fresh_until_ns - exchange.now_ns) // 1_000_000_000
        if self._with_all:
            # What nearly every node sends, as one f-string: 0.5 µs less than in pieces.
            return (
                f"{self._hit}{ttl}\r\nX-Trace-Id: {trace.trace_id}\r\n"
                f"traceresponse: 00-{trace.trace_id}-{trace.span_id}-{_FLAGS[trace.flags]}\r\n"
                f"Server-Timing: edge;dur={elapsed_ms}, origin;dur=0\r\n"
            )
        text = self._trace(exchange, f"edge;dur={elapsed_ms}, origin;dur=0")
        return self._status(exchange, f"; hit; ttl={ttl}", "HIT") + text

    def stored(self, exchange: Exchange, entry: Entry, elapsed_s: float) -> str:
        """For a response made of a stored one; its request may have been to the origin first."""
        ttl = (entry.stored.fresh_until_ns - exchange.now_ns) // 1_000_000_000
        if exchange.forward_reason:
            parameters = f"; fwd={exchange.forward_reason}"
            if exchange.origin_status:
                parameters += f"; fwd-status={exchange.origin_status}"
            parameters += f"; ttl={ttl}"
        else:
            parameters = f"; hit; ttl={ttl}"
        return self._status(exchange, parameters, exchange.cache or "HIT") + self._trace(
            exchange, _split_timing(elapsed_s, _origin_s(exchange))
        )

    def fetched(self, exchange: Exchange, elapsed_s: float) -> str:
        """For a response from the origin."""
        origin_s = _origin_s(exchange)
        if self._with_all:
            # As for a hit; in pieces it is 2 µs more.
            trace = exchange.trace
            return (
                f"{self._as[exchange.cache or 'MISS']}; fwd={exchange.forward_reason}"
                f"; fwd-status={exchange.origin_status}{'; stored' if exchange.is_stored else ''}"
                f"{f'; detail={exchange.detail}' if exchange.detail else ''}\r\nX-Trace-Id: {trace.trace_id}\r\n"
                f"traceresponse: 00-{trace.trace_id}-{trace.span_id}-{_FLAGS[trace.flags]}\r\n"
                f"Server-Timing: edge;dur={(elapsed_s - origin_s) * 1e3:.3f}, origin;dur={origin_s * 1e3:.3f}\r\n"
            )
        parameters = f"; fwd={exchange.forward_reason}; fwd-status={exchange.origin_status}"
        if exchange.is_stored:
            parameters += "; stored"
        timing = _split_timing(elapsed_s, origin_s)
        return self._status(exchange, parameters, exchange.cache or "MISS") + self._trace(exchange, timing)

    def own(self, exchange: Exchange, elapsed_s: float) -> str:
        """For a response that the edge made."""
        return self._trace(exchange, _split_timing(elapsed_s, _origin_s(exchange)))

    def _status(self, exchange: Exchange, parameters: str, word: str) -> str:
        text = f"{self._short}{word}\r\n" if self._short else ""
        if not self._with_cache_status:
            return text
        if exchange.cache == "COLLAPSED":
            parameters += "; collapsed"
        if self._with_key:
            parameters += f"; key={cache_status.quoted(exchange.cache_key)}"
        if exchange.detail:
            parameters += f"; detail={exchange.detail}"
        return f"{text}{self._cache}{parameters}\r\n"

    def _trace(self, exchange: Exchange, timing: str) -> str:
        trace = exchange.trace
        if self._with_all:
            return (
                f"X-Trace-Id: {trace.trace_id}\r\n"
                f"traceresponse: 00-{trace.trace_id}-{trace.span_id}-{_FLAGS[trace.flags]}\r\n"
                f"Server-Timing: {timing}\r\n"
            )
        text = f"X-Trace-Id: {trace.trace_id}\r\n" if self._with_trace_id else ""
        if self._with_traceresponse:
            text += f"traceresponse: 00-{trace.trace_id}-{trace.span_id}-{_FLAGS[trace.flags]}\r\n"
        if self._with_timing:
            text += f"Server-Timing: {timing}\r\n"
        return text


def _origin_s(exchange: Exchange) -> float:
    return 0.0 if exchange.fetch is None else exchange.fetch.origin_s()


def _split_timing(elapsed_s: float, origin_s: float) -> str:
    return f"edge;dur={(elapsed_s - origin_s) * 1e3:.3f}, origin;dur={origin_s * 1e3:.3f}"
