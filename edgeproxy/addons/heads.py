"""Between mitmproxy's messages and the edge's: a request as an Exchange, a head as a response. No I/O.

A request is read as if it had come over HTTP/1: by the parser, and under the rules, that a client of the fast engine
meets (`proxy.head`). So what is refused there is refused here, whatever protocol it came by.
"""

import time

import httptools
from mitmproxy import connection, http

from edgeproxy.config import Limits
from edgeproxy.proxy import forwarding, head
from edgeproxy.proxy.errors import ProxyError
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines
from edgeproxy.proxy.http1 import ClientConnection

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_BEHIND_VIA = b"\r\nX-Forwarded-For:"
_VERSIONS = {
    "HTTP/2.0": b"2 %b%b" % (forwarding.VIA, _BEHIND_VIA),
    "HTTP/3": b"3 %b%b" % (forwarding.VIA, _BEHIND_VIA),
}
_UPGRADE = frozenset({b"connection", b"upgrade"})
_NOTHING: frozenset[bytes] = frozenset()
_CONNECTION_FIELDS = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})
_NOT_IN_HTTP3 = _CONNECTION_FIELDS | {b"host"}


class _Reader:
    """What llhttp tells of a head."""

    def __init__(self, client: ClientConnection, data: bytes, limits: Limits) -> None:
        self.exchange: Exchange | None = None
        self._client = client
        self._data = data
        self._limits = limits
        self._url = b""
        self._lines: FieldLines = []
        self._started = time.monotonic()
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        parts = (self._client, self._parser, self._url, self._lines, self._data)
        self.exchange = head.exchange(*parts, begins_with_head=True, started=self._started, limits=self._limits)

    def read(self) -> Exchange:
        try:
            self._parser.feed_data(self._data)
        except httptools.HttpParserUpgrade:
            pass  # h2c, which may be ignored
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, ProxyError):
                raise
            return self._refused(error.__context__)
        except httptools.HttpParserError as error:
            return self._refused(head.malformed(error, self._data, in_head=True))
        return self.exchange or self._refused(head.head_too_large(self._limits.header_bytes))

    def _refused(self, error: ProxyError) -> Exchange:
        exchange = head.unusable(self._client, self._parser, self._url, self._lines, self._started)
        exchange.error = error
        return exchange


def exchange_of(
    client: ClientConnection, request: http.Request, limits: Limits, *, is_whole: bool, is_websocket: bool = False
) -> Exchange:
    """The exchange that a request begins; one that is refused has the reason as its `error`. `is_whole` says that the
    body is there, so that it is framed as it is; with `is_websocket` the upgrade is nobody's business here.
    """
    dropped = _UPGRADE if is_websocket else _NOTHING
    exchange = _Reader(client, raw_head(request, dropped, is_whole=is_whole), limits).read()
    if is_whole and exchange.error is None:
        body = request.raw_content or b""
        exchange.bytes_in = len(body)
        exchange.body_complete = True
        if limits.body_bytes and len(body) > limits.body_bytes:
            exchange.error = head.body_too_large(limits.body_bytes)
    return exchange


def raw_head(request: http.Request, dropped: frozenset[bytes], *, is_whole: bool) -> bytes:
    """A request's head as HTTP/1 has it, without the fields that are dropped."""
    data = request.data
    lines = [line for line in data.headers.fields if line[0].lower() not in dropped]
    is_http1 = data.http_version.startswith(b"HTTP/1.")
    target = data.path
    if is_http1 and data.authority:
        target = b"http://" + data.authority + target
    elif data.authority and "host" not in data.headers:
        lines.insert(0, (b"host", data.authority))
    if not is_http1:
        lines = _as_http1(lines)
    if is_whole:
        lines = _framed(lines, data.content or b"", is_http1=is_http1)
    version = data.http_version if is_http1 else b"HTTP/1.1"
    fields = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"%b %b %b\r\n%b\r\n" % (data.method, target, version, fields)


def _as_http1(lines: FieldLines) -> FieldLines:
    """Crumbs of a cookie are one field there (RFC 9113 §8.2.3)."""
    crumbs = [value for name, value in lines if name == b"cookie"]
    if len(crumbs) < 2:
        return lines
    rest = [line for line in lines if line[0] != b"cookie"]
    return [*rest, (b"cookie", b"; ".join(crumbs))]


def _framed(lines: FieldLines, body: bytes, *, is_http1: bool) -> FieldLines:
    """With the framing that the body has, now that scripts may have changed it; chunks stay chunks."""
    framing = [line for line in lines if line[0].lower() in _FRAMING]
    chunked = any(name.lower() == b"transfer-encoding" for name, _ in framing)
    if chunked or (not framing and not body):
        return lines
    if not framing and not is_http1:
        return [*lines, (b"transfer-encoding", b"chunked")]
    if [value for _, value in framing] == [b"%d" % len(body)]:
        return lines
    return [*(line for line in lines if line not in framing), (b"Content-Length", b"%d" % len(body))]


def response_of(text: str, body: bytes, *, is_http1: bool) -> http.Response:
    """The response that a head (blank line left out) and a body are; over HTTP/2 and later without the fields that say
    something of an HTTP/1 connection.
    """
    first, *rest = text.removesuffix("\r\n").split("\r\n")
    _, status, *reason = first.split(" ", 2)
    lines = fields_of(rest)
    if not is_http1:
        lines = [line for line in lines if line[0].lower() not in _CONNECTION_FIELDS]
    now = time.time()
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=int(status),
        reason="".join(reason).encode("latin-1"),
        headers=http.Headers(lines),
        content=body,
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def received_by(rest: bytes, http_version: str) -> bytes:
    """The second part of a request's head (`forwarding.request_head`), whose Via says by which protocol it came (RFC
    9110 §7.6.3) where that is not HTTP/1.
    """
    version = _VERSIONS.get(http_version)
    return rest if version is None else rest.replace(b"1.1 %b%b" % (forwarding.VIA, _BEHIND_VIA), version, 1)


def fields_of(lines: list[str]) -> FieldLines:
    """Field lines out of a head's text."""
    pairs = (line.partition(":") for line in lines if line)
    return [(name.encode("latin-1"), value.strip(" \t").encode("latin-1")) for name, _, value in pairs]


def request_of(
    text: bytes, body: bytes, server: tuple[str, str, int], transport: connection.TransportProtocol
) -> http.Request:
    """The request to a server (scheme, host, port) that a head (blank line included) and a body are: HTTP/1 over TCP,
    HTTP/3 over UDP.
    """
    scheme, host, port = server
    first, *rest = text.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = first.split(b" ", 2)
    pairs = (line.partition(b":") for line in rest)
    lines = [(name, value.strip(b" \t")) for name, _, value in pairs]
    is_http1 = transport == "tcp"
    now = time.time()
    return http.Request(
        host=host,
        port=port,
        method=method,
        scheme=scheme.encode(),
        authority=b"" if is_http1 else next(value for name, value in lines if name == b"Host"),
        path=target,
        http_version=b"HTTP/1.1" if is_http1 else b"HTTP/3",
        headers=http.Headers(lines if is_http1 else [line for line in lines if line[0].lower() not in _NOT_IN_HTTP3]),
        content=body,
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )
