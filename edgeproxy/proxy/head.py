"""What a request's head may look like: everything ambiguous or oversized is refused here, with the reason. No I/O.

llhttp has already refused what breaks RFC 9112's grammar (bare CR and LF, obs-fold, white space before the colon,
Content-Length beside Transfer-Encoding, several or malformed lengths, control bytes); this module refuses what it lets
pass.
"""

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

from edgeproxy.config import Limits
from edgeproxy.proxy.errors import Refusal
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import FieldLines, Names, fold, tokens, values_of

if TYPE_CHECKING:
    from edgeproxy.proxy.http1 import ClientConnection

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_METHOD = re.compile(rb"(?:\r\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]")
"""What a method begins with. It may come a byte at a time, and llhttp stops at the first that fits no method: the rest
can't be waited for."""
_OTHER_VERSIONS = frozenset({"Invalid HTTP version", "Pause on PRI/Upgrade"})
"""What llhttp says to a version other than 0.9, 1.0, 1.1 and 2.0, and to the preface of HTTP/2."""
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE)
FORBIDDEN_TRAILERS = frozenset(
    {
        b"transfer-encoding",
        b"content-length",
        b"host",
        b"trailer",
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"te",
    }
)
"""Fields that may not come after a body (RFC 9110 §6.5.1): they frame, route or guard the message."""
_known_hosts: dict[bytes, bytes] = {}
_KNOWN_HOSTS_MAX = 1024
_KNOWN_HOST_BYTES = 255


def exchange(
    client: "ClientConnection",
    parser: httptools.HttpRequestParser,
    url: bytes,
    lines: FieldLines,
    data: bytes,
    begins_with_head: bool,
    started: float,
    limits: Limits,
) -> Exchange:
    """The exchange that a complete head begins.

    `data` has the whole head in it, and `begins_with_head` if there is nothing before it.
    Raises Refusal for a head that is ambiguous, oversized, or asks for what is not served.
    """
    method = parser.get_method()
    if len(data) > limits.uri_bytes or len(data) > limits.header_bytes:
        _check_size(url, lines, limits)
    if len(lines) > limits.headers:
        message = f"the request has {len(lines)} header fields; {limits.headers} are allowed (limits.headers)"
        raise Refusal("too_many_headers", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
    # Where the request line stands at the beginning of what was read, seeing the version there costs a fifth of asking
    # the parser for it; the position also shows that there is one space on either side of the target.
    if begins_with_head and data.startswith(b" HTTP/1.1\r\n", len(method) + 1 + len(url)):
        minor = 1
    else:
        minor = _minor(parser, method, url, data.lstrip(b"\r\n") if begins_with_head else None, data)
    if b" \r\n" in data or b"\t\r\n" in data:  # llhttp leaves it to others to take white space off a value's end
        lines = [(name, value.rstrip(b" \t")) for name, value in lines]
    names = {name.lower(): value for name, value in lines}
    if len(names) != len(lines):
        names = _folded(lines)
    host = names.get(b"host")
    if url[0] != _SLASH:
        url, host = _other_target(method, url, host, minor)
    if b"#" in url:
        raise _bad("fragment_in_target", "the request target has a fragment (#), which no request may carry")
    exchange = Exchange(client, method, url, minor, lines, names, started)
    exchange.host = _known_hosts.get(host or b"") or _checked_host(host, minor)
    exchange.keep_alive = parser.should_keep_alive()
    if b"content-length" in names or b"transfer-encoding" in names:
        _frame_body(exchange, names, limits)
    if b"upgrade" in names and b"upgrade" in tokens(names.get(b"connection")):
        _check_upgrade(names)
    if b"expect" in names:
        _check_expect(exchange, names)
    return exchange


def unusable(
    client: "ClientConnection", parser: httptools.HttpRequestParser, url: bytes, lines: FieldLines, started: float
) -> Exchange:
    """An exchange for a request that is going to be refused, with as much of its head as there is."""
    names = fold(lines)
    exchange = Exchange(client, parser.get_method() if url else b"", url, 1, lines, names, started)
    exchange.host = names.get(b"host", b"").lower()
    return exchange


def add_trailer(name: bytes, value: bytes, exchange: Exchange, limits: Limits) -> None:
    """Keep a trailer field with its request; refuse one that would change what the head said."""
    if name.lower() in FORBIDDEN_TRAILERS:
        raise _bad(
            "forbidden_trailer",
            f"the trailer section has a field that may only stand in the head: {name.decode('latin-1')}",
        )
    if exchange.trailers is None:
        exchange.trailers = []
    if len(exchange.trailers) >= limits.headers:
        message = f"the request has more than {limits.headers} trailer fields (limits.headers)"
        raise Refusal("too_many_trailers", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
    exchange.trailers.append((name, value.rstrip(b" \t")))


def malformed(error: httptools.HttpParserError, data: bytes, *, in_head: bool) -> Refusal:
    """The refusal for what llhttp could not parse; `data` begins with the head, or is empty when that is not known."""
    if isinstance(error, httptools.HttpParserInvalidMethodError) and _METHOD.match(data):
        message = "the request method is not known here; methods are those of the HTTP method registry, in upper case"
        return Refusal("unknown_method", HTTPStatus.NOT_IMPLEMENTED, message)
    if str(error) in _OTHER_VERSIONS:
        message = "the request's version is not served on this connection; HTTP/1.1 and HTTP/1.0 are"
        return Refusal("unsupported_version", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, message)
    where = "head" if in_head else "message"
    return _bad("malformed_request", f"the request's {where} is malformed: {error}")


def framing_too_large(limit: int) -> Refusal:
    """The refusal for what is neither head nor body but does not end (431)."""
    message = f"a chunk extension or the trailer section is over {limit} bytes (limits.header_bytes)"
    return Refusal("framing_too_large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)


def uri_too_long(limit: int) -> Refusal:
    """The refusal for an oversized request target (414)."""
    return Refusal(
        "uri_too_long", HTTPStatus.REQUEST_URI_TOO_LONG, f"the request target is over {limit} bytes (limits.uri_bytes)"
    )


def head_too_large(limit: int) -> Refusal:
    """The refusal for oversized header fields (431)."""
    message = f"the request's header fields are over {limit} bytes (limits.header_bytes)"
    return Refusal("head_too_large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)


def body_too_large(limit: int) -> Refusal:
    """The refusal for an oversized body (413)."""
    message = f"the request's body is over {limit} bytes (limits.body_bytes)"
    return Refusal("body_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


_SLASH = ord("/")


def _bad(code: str, message: str) -> Refusal:
    return Refusal(code, HTTPStatus.BAD_REQUEST, message)


def _check_size(url: bytes, lines: FieldLines, limits: Limits) -> None:
    if len(url) > limits.uri_bytes:
        raise uri_too_long(limits.uri_bytes)
    if sum(len(name) + len(value) + 4 for name, value in lines) > limits.header_bytes:
        raise head_too_large(limits.header_bytes)


def _minor(parser: httptools.HttpRequestParser, method: bytes, url: bytes, head: bytes | None, data: bytes) -> int:
    version = parser.get_http_version()
    if version not in {"1.0", "1.1"}:
        message = f"HTTP/{version} is not served on this connection; HTTP/1.1 and HTTP/1.0 are"
        raise Refusal("unsupported_version", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, message)
    # The parser hides that there was more than one space, or a protocol other than HTTP.
    line = b"%b %b HTTP/%b\r\n" % (method, url, version.encode())
    if line not in data or (head is not None and not head.startswith(line)):
        raise _bad("malformed_request", "the request line is not 'METHOD SP TARGET SP HTTP/1.x'")
    return int(version[-1])


def _folded(lines: FieldLines) -> dict[bytes, bytes]:
    if len(values_of(lines, b"host")) > 1:
        raise _bad("several_hosts", "the request has several Host fields")
    return fold(lines)


def _other_target(method: bytes, url: bytes, host: bytes | None, minor: int) -> tuple[bytes, bytes | None]:
    """Target and host of a request whose target does not begin with `/` (RFC 9112 §3.2)."""
    if method == b"CONNECT":
        raise Refusal("connect_refused", HTTPStatus.NOT_IMPLEMENTED, "CONNECT is not served: this is a reverse proxy")
    if url == b"*" and method == b"OPTIONS":
        return url, host
    match = _ABSOLUTE.fullmatch(url)
    if match is None:
        raise _bad("bad_target", "the request target is neither a path that begins with / nor an absolute http URI")
    scheme, authority, rest = match.groups()
    if b"@" in authority or not authority:
        raise _bad("bad_target", "the request target's authority is empty or has user information")
    if scheme.lower() != b"http":
        raise _bad("scheme_mismatch", "the request target's scheme is https on a connection without TLS")
    if host is None and minor:
        return rest, None
    if host is not None and host.lower() != authority.lower():
        raise _bad("authority_mismatch", "the request target's authority and the Host field differ")
    return rest if rest.startswith(b"/") else b"/" + rest, authority


def _checked_host(host: bytes | None, minor: int) -> bytes:
    if host is None:
        if minor:
            raise _bad("no_host", "the request has no Host field, which HTTP/1.1 asks for")
        return b""
    if host and not _HOST.fullmatch(host):
        raise _bad("bad_host", "the Host field is not a host name or address with an optional port")
    if len(_known_hosts) >= _KNOWN_HOSTS_MAX:
        _known_hosts.clear()
    lower = host.lower()
    if lower and len(lower) <= _KNOWN_HOST_BYTES:
        _known_hosts[host] = lower
    return lower


def _frame_body(exchange: Exchange, names: Names, limits: Limits) -> None:
    coding = names.get(b"transfer-encoding")
    if coding is not None:
        if not exchange.minor:
            raise _bad("transfer_encoding_in_http10", "an HTTP/1.0 request can't have Transfer-Encoding")
        if coding.lower() != b"chunked":
            message = "the only transfer coding served in requests is chunked"
            raise Refusal("unknown_transfer_coding", HTTPStatus.NOT_IMPLEMENTED, message)
        exchange.has_body = True
    else:
        length = int(names[b"content-length"])
        if limits.body_bytes and length > limits.body_bytes:
            raise body_too_large(limits.body_bytes)
        exchange.has_body = length > 0
    exchange.body_complete = not exchange.has_body


def _check_upgrade(names: Names) -> None:
    wanted = tokens(names[b"upgrade"])
    if wanted != {b"h2c"}:
        shown = names[b"upgrade"].decode("latin-1")
        raise Refusal("upgrade_refused", HTTPStatus.NOT_IMPLEMENTED, f"Upgrade to {shown} is not served")


def _check_expect(exchange: Exchange, names: Names) -> None:
    if names[b"expect"].lower() != b"100-continue":
        message = "the only expectation served is 100-continue"
        raise Refusal("unknown_expectation", HTTPStatus.EXPECTATION_FAILED, message)
    exchange.expects_continue = exchange.has_body and exchange.minor == 1
