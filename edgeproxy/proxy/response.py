"""Heads of responses to the client: what the origin said, how the body is framed, what the edge adds. Pure; text, not
I/O.
"""

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from edgeproxy.cache import Entry, Stored, policy, tags_of, variant
from edgeproxy.cache import status as cache_status
from edgeproxy.config import Cache, Tracing
from edgeproxy.ledger import CACHE_WORDS, CacheWord
from edgeproxy.proxy import forwarding
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names, render, values_of
from edgeproxy.proxy.framing import Framing
from edgeproxy.tracing import format_traceparent

if TYPE_CHECKING:
    from edgeproxy.proxy.upstream.attempt import Attempt

_FLAGS = ("00", "01", "02", "03")
_BODILESS = frozenset({204, 304})


def trace_fields(exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
    """The request's traceparent and tracestate lines, one value a line."""
    return values_of(exchange.lines, b"traceparent"), values_of(exchange.lines, b"tracestate")


def length(names: Names) -> int:
    """The stated length of a body in bytes, 0 when it is not stated."""
    return int(names.get(b"content-length", 0))


def framing(exchange: Exchange, status: int, *, has_length: bool) -> Framing:
    """How this response's end is told to this client (RFC 9112 §6.3); `has_length`: whether its length is known."""
    if exchange.method == b"HEAD" or status in _BODILESS:
        return Framing.NONE
    if has_length:
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
    attempt: "Attempt",
    origin: str,
    purge_seq: int,
    status: int,
    reason: bytes,
    lines: FieldLines,
    names: Names,
    storing: policy.Storing,
    now_ns: int,
) -> Stored:
    """What is kept of a response whose body is still to come; `lines` are those of `forwarding.response_lines`.

    `origin` is the name of who answered the attempt, `purge_seq` the purge log's last rule when the request went out.
    """
    terms = storing.terms
    assert terms is not None  # noqa: S101  only what may be stored has terms, and only that comes here
    kept = forwarding.stored_lines(lines, names, storing.without)
    if b"date" not in names:
        kept.append((b"Date", _date()))
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
        filled_by=traceparent(exchange, attempt),
        origin=origin,
        etag=names.get(b"etag"),
        last_modified=names.get(b"last-modified"),
        tags=tags_of(names) + exchange.plan.route.tags,
        purge_seq=purge_seq,
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


def traceparent(exchange: Exchange, attempt: "Attempt | None" = None) -> str:
    """A request's own place in its trace, or that of an attempt to fetch for it."""
    trace = exchange.trace
    return format_traceparent(trace.trace_id, trace.span_id if attempt is None else attempt.span_id, trace.flags)


def _dated(names: Names) -> bytes:
    # A recipient with a clock adds the Date that the origin left out (RFC 9110 §6.6.1).
    return b"" if b"date" in names else b"Date: %b\r\n" % _date()


def _date() -> bytes:
    return formatdate(time.time(), usegmt=True).encode()


class Decorator:
    """The fields that the edge itself adds for clients, each of which can be turned off."""

    def __init__(self, name: str, tracing: Tracing, cache: Cache) -> None:
        """Speak as the node of that name, with these switches."""
        self._name = cache_status.name(name)
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
        # The fields' beginnings, as nearly every response has them.
        member = f"Cache-Status: {self._name}"
        self._as = {word: f"{self._short}{word}\r\n{member}" if self._short else member for word in CACHE_WORDS}
        self._hit = f"{self._as['HIT']}; hit; ttl="

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
        timing = f"edge;dur={elapsed_ms}, origin;dur=0"
        return self._status(exchange, "HIT", entry.stored.key, hit=True, ttl=ttl) + self._trace(exchange, timing)

    def stored(self, exchange: Exchange, entry: Entry, elapsed_s: float, origin_s: float | None = None) -> str:
        """For a response made of a stored one; its request may have been to the origin first, for `origin_s` (None: as
        its fetch says).
        """
        ttl = (entry.stored.fresh_until_ns - exchange.now_ns) // 1_000_000_000
        hit = exchange.forward_reason is None
        status = self._status(exchange, exchange.cache or "HIT", entry.stored.key, hit=hit, ttl=ttl)
        return status + self._trace(exchange, _split_timing(elapsed_s, origin_s, exchange))

    def fetched(self, exchange: Exchange, elapsed_s: float, origin_s: float, is_stored: bool) -> str:
        """For a response from the origin, whose head took it `origin_s`."""
        if self._with_all:
            # As for a hit; in pieces it is 2 µs more.
            trace = exchange.trace
            return (
                f"{self._as[exchange.cache or 'MISS']}; fwd={exchange.forward_reason}"
                f"; fwd-status={exchange.status}{'; stored' if is_stored else ''}"
                f"{f'; detail={exchange.detail}' if exchange.detail else ''}\r\nX-Trace-Id: {trace.trace_id}\r\n"
                f"traceresponse: 00-{trace.trace_id}-{trace.span_id}-{_FLAGS[trace.flags]}\r\n"
                f"Server-Timing: edge;dur={(elapsed_s - origin_s) * 1e3:.3f}, origin;dur={origin_s * 1e3:.3f}\r\n"
            )
        key = None if exchange.cache == "BYPASS" else exchange.cache_key
        status = self._status(exchange, exchange.cache or "MISS", key, is_stored=is_stored)
        return status + self._trace(exchange, _split_timing(elapsed_s, origin_s, exchange))

    def own(self, exchange: Exchange, elapsed_s: float, origin_s: float | None = None) -> str:
        """For a response that the edge made, perhaps after it asked the origin for `origin_s` (as in `stored`)."""
        return self._trace(exchange, _split_timing(elapsed_s, origin_s, exchange))

    def _status(
        self,
        exchange: Exchange,
        word: CacheWord,
        key: bytes | None,
        *,
        hit: bool = False,
        ttl: int | None = None,
        is_stored: bool = False,
    ) -> str:
        text = f"{self._short}{word}\r\n" if self._short else ""
        if not self._with_cache_status:
            return text
        answered = exchange.attempts[-1].status if exchange.attempts else 0
        member = cache_status.member(
            self._name,
            hit=hit,
            fwd=exchange.forward_reason,
            ttl=ttl,
            fwd_status=answered or None,
            stored=is_stored,
            collapsed=exchange.cache == "COLLAPSED",
            key=key if self._with_key else None,
            detail=exchange.detail or None,
        )
        return f"{text}Cache-Status: {member}\r\n"

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


def _split_timing(elapsed_s: float, origin_s: float | None, exchange: Exchange) -> str:
    if origin_s is None:
        origin_s = 0.0 if exchange.fetch is None else exchange.fetch.origin_s()
    origin_ms = f"{origin_s * 1e3:.3f}" if origin_s else "0"
    return f"edge;dur={(elapsed_s - origin_s) * 1e3:.3f}, origin;dur={origin_ms}"
