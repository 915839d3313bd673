"""What a proxy changes in a message on its way (RFC 9110 §7, RFC 7239): hop-by-hop fields out, Via, X-Forwarded-*,
trace fields in.

Pure: heads in, heads out. Everything else passes as it came, in its order and case.
"""

import ipaddress
import re
from functools import lru_cache

from edgeproxy.cache.entry import UNSERVED
from edgeproxy.config import Tracing
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import HOP_BY_HOP, FieldLines, Names, end_to_end, render, tokens
from edgeproxy.tracing import Propagation

VIA = b"edgeproxy"
OWN_CONTROL = (UNSERVED, UNSERVED.lower())
"""The targeted field for this edge alone (RFC 9213), as it is kept and as it is looked for."""
_CHAINED = frozenset({b"x-forwarded-for", b"forwarded", b"via"})
"""Request fields to which each proxy adds itself."""
_REPLACED = (
    HOP_BY_HOP
    | _CHAINED
    | {b"x-trace-id", b"x-request-id", b"x-forwarded-proto", b"x-forwarded-host", b"host", b"content-length"}
    | {b"trailer"}
)
_REPLACED_ORIGIN_FIELDS = HOP_BY_HOP | {
    b"traceresponse",
    b"x-trace-id",
    b"content-length",
    b"via",
    b"trailer",
    UNSERVED.lower(),
}
_TAGS = frozenset({b"surrogate-key", b"cache-tag"})
_SELECTING = frozenset({b"if-none-match", b"if-modified-since", b"range", b"if-range"})
"""Request fields that ask for less than the whole response."""
_SERVER_TIMING = b"server-timing"
_NEVER_STORED = frozenset({b"x-request-id", b"age", b"cache-status", b"server-timing"})
"""Response fields that belong to one response: one request's ids, one moment's age, one way's timing."""


def request_head(
    exchange: Exchange,
    host: bytes,
    tracing: Tracing,
    propagation: Propagation,
    target: bytes,
    *,
    is_stripped: bool = False,
    validators: bytes = b"",
    forwarded_host: bytes = b"",
) -> tuple[bytes, bytes]:
    """The head to send to the origin, in two parts: between them goes what differs from attempt to attempt
    (`Propagation.attempt_fields`).

    `host` is the configured Host, empty to keep the client's. `is_stripped` leaves out what asks for less than the
    whole response, which is wanted for the cache; `validators` are the field lines by which a stored one is validated;
    `forwarded_host` is the host that the response is stored under, where that is not the client's.
    """
    names = exchange.names
    trace = exchange.trace
    first = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (exchange.method, target, host or names.get(b"host") or exchange.host)
    dropped = _replaced(propagation.fields)
    if is_stripped and not _SELECTING.isdisjoint(names):
        dropped |= _SELECTING
    came = names.get(b"baggage")
    baggage = None if came is None else propagation.baggage(came, exchange.client.trusted)
    if baggage is not came:
        dropped |= {b"baggage"}
    rest = [render(end_to_end(exchange.lines, names, dropped)), _forwarded(exchange, names, forwarded_host), validators]
    if exchange.has_body or b"content-length" in names:
        rest.append(_framing(names))
    if baggage and baggage is not came:
        rest.append(b"baggage: %b\r\n" % baggage)
    if trace.tracestate is not None:
        rest.append(b"tracestate: %b\r\n" % trace.tracestate)
    if tracing.send_x_trace_id and tracing.send_x_request_id:
        rest.append(f"X-Trace-Id: {trace.trace_id}\r\nX-Request-Id: {trace.request_id}\r\n".encode())
    elif tracing.send_x_trace_id:
        rest.append(f"X-Trace-Id: {trace.trace_id}\r\n".encode())
    elif tracing.send_x_request_id:
        rest.append(f"X-Request-Id: {trace.request_id}\r\n".encode())
    if b"te" in names and b"trailers" in tokens(names[b"te"]):
        rest.append(b"TE: trailers\r\nConnection: TE\r\n")
    rest.append(b"\r\n")
    return first, b"".join(rest)


@lru_cache(maxsize=16)
def _replaced(fields: frozenset[bytes]) -> frozenset[bytes]:
    """The request fields that the edge itself writes, where it does so at all; `fields` are those of propagation."""
    return _REPLACED | fields


def withheld(*, sends_tags: bool) -> frozenset[bytes]:
    """The origin's fields that clients are not sent."""
    return _REPLACED_ORIGIN_FIELDS if sends_tags else _REPLACED_ORIGIN_FIELDS | _TAGS


def response_lines(lines: FieldLines, names: Names, dropped: frozenset[bytes]) -> FieldLines:
    """The origin's fields that go to this client: end to end, without those that are `withheld` or that the edge writes
    itself.
    """
    timing = names.get(_SERVER_TIMING)
    if timing is None or b"trace" not in timing.lower():
        kept = end_to_end(lines, names, dropped)
    else:
        kept = end_to_end(lines, names, dropped | {_SERVER_TIMING})
        metrics = _without_trace(timing)
        if metrics:
            kept.append((b"Server-Timing", metrics))
    kept.append((b"Via", _appended(names.get(b"via"), b"1.1 " + VIA)))
    return kept


def request_trailers(lines: FieldLines, names: Names, propagation: Propagation) -> FieldLines:
    """The client's trailer fields that go to the origin: none that the edge writes itself, and no baggage, whose limits
    hold for the head; `names` is the head.
    """
    dropped = _replaced(propagation.fields) | tokens(names.get(b"connection"))
    if propagation.has_baggage:
        dropped |= {b"baggage"}
    return [line for line in lines if line[0].lower() not in dropped]


def side_lines(lines: FieldLines, names: Names) -> FieldLines:
    """The origin's fields beside a response's head (of a trailer section, of a 1xx response) that go to this client;
    `names` is the head that their Connection field stands in.
    """
    dropped = _REPLACED_ORIGIN_FIELDS | tokens(names.get(b"connection"))
    timed = [
        (name, _without_trace(value) if name.lower() == _SERVER_TIMING else value)
        for name, value in lines
        if name.lower() not in dropped
    ]
    return [(name, value) for name, value in timed if value or name.lower() != _SERVER_TIMING]


def stored_lines(lines: FieldLines, names: Names, without: frozenset[bytes] = frozenset()) -> FieldLines:
    """Of what goes to this client (`response_lines`), what may be stored (RFC 9111 §3.1), and not `without`. What the
    origin says to the edge alone is kept, too: a validation may count on it (§4.3.4). `names` is what it sent.
    """
    dropped = _NEVER_STORED | without if without else _NEVER_STORED
    kept = [line for line in lines if line[0].lower() not in dropped]
    if OWN_CONTROL[1] in names:
        kept.append((OWN_CONTROL[0], names[OWN_CONTROL[1]]))
    return kept


def _framing(names: Names) -> bytes:
    if b"transfer-encoding" not in names:
        return b"Content-Length: %b\r\n" % names[b"content-length"]
    trailer = names.get(b"trailer")
    return b"Transfer-Encoding: chunked\r\n" + (b"Trailer: %b\r\n" % trailer if trailer else b"")


def _forwarded(exchange: Exchange, names: Names, forwarded_host: bytes) -> bytes:
    address = exchange.client.address
    host = forwarded_host or exchange.host
    via = b"1.%d %b" % (exchange.minor, VIA)
    x_for = address.encode()
    proto = b"https" if exchange.key.startswith(b"https:") else b"http"
    forwarded = b'for=%b;host="%b";proto=%b' % (_node(address), host, proto)
    if not _CHAINED.isdisjoint(names):
        via = _appended(names.get(b"via"), via)
        x_for = _appended(names.get(b"x-forwarded-for"), x_for)
        earlier = names.get(b"forwarded")
        forwarded = forwarded if earlier is None else _appended(_hops(earlier), forwarded)
    return b"Via: %b\r\nX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nForwarded: %b\r\n" % (
        via,
        x_for,
        proto,
        host,
        forwarded,
    )


def _appended(earlier: bytes | None, own: bytes) -> bytes:
    return earlier + b", " + own if earlier else own


@lru_cache(maxsize=4096)
def _node(address: str) -> bytes:
    """An address as RFC 7239 §6 writes it."""
    try:
        version = ipaddress.ip_address(address.partition("%")[0]).version
    except ValueError:
        return b"unknown"
    return address.encode() if version == 4 else b'"[%b]"' % address.encode()


def _hops(forwarded: bytes) -> bytes:
    """A client's own Forwarded (RFC 7239 §4) without host and proto: those are the edge's to say, as X-Forwarded-Host
    and -Proto are, or what the origin makes of them could be stored for others. Nothing where it can't be parsed, or is
    longer than any chain of proxies makes it.
    """
    if len(forwarded) > _FORWARDED_BYTES_MAX or not _FORWARDED.fullmatch(forwarded):
        return b""
    elements = [
        b";".join(b"%b=%b" % pair for pair in _PAIR.findall(element) if pair[0].lower() not in _OWN_PARAMETERS)
        for element in _MEMBERS.findall(forwarded)
    ]
    return b", ".join(element for element in elements if element)


def _without_trace(timing: bytes) -> bytes:
    """Server-Timing without the entry that names a trace."""
    metrics = [metric.strip() for metric in _MEMBERS.findall(timing)]
    return b", ".join(metric for metric in metrics if metric and not _TRACE_METRIC.match(metric))


_MEMBERS = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.)*(?:"|$))+', re.DOTALL)
"""Members of a list whose quoted strings may hold commas."""
_PAIR = re.compile(rb"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([^\x00-\x20",;]+|"(?:[^"\\]|\\.)*+")""")
_FORWARDED = re.compile(rb"(?:[ \t]*+(?:%b[ \t]*+)?+[,;])*+[ \t]*+(?:%b[ \t]*+)?+" % (_PAIR.pattern, _PAIR.pattern))
_FORWARDED_BYTES_MAX = 2048
"""Taking one of 32 KiB apart would cost 20 ms."""
_OWN_PARAMETERS = frozenset({b"host", b"proto"})
_TRACE_METRIC = re.compile(rb"trace(?:parent)?[ \t]*(?:;|$)", re.IGNORECASE)
