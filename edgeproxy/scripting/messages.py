"""Exchanges as mitmproxy's flows and back: what a script is shown, and what becomes of what it changed.

What is unchanged stays byte for byte what it was. What was changed is checked as strictly as a client's own request: no
script can make two messages of one by accident. No I/O.
"""

import functools
import re
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mitmproxy import connection, http
from mitmproxy.net.http import url

from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fields import HOP_BY_HOP, FieldLines, Names, fold, tokens
from edgeproxy.proxy.head import FORBIDDEN_TRAILERS
from edgeproxy.scripting.errors import ChangeError

type Stream = bool | Callable[[bytes], Iterable[bytes] | bytes]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e\x80-\xff]*")
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=-]+|[0-9A-Fa-f:.]+")
_HOST_FIELD = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_AUTHORITY = re.compile(rb"(.*?)(?::([0-9]*))?")
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_HOP_FIELDS = frozenset({b"connection", b"transfer-encoding", b"keep-alive"})
"""Response fields that are written where the response goes out."""
_OF_THE_CONNECTION = HOP_BY_HOP | {b"close", b"host", b"content-length", b"trailer"}
"""What Connection may name without ending a field: options, and fields that are the edge's own to write."""
_PORTS = {b"http": 80, b"https": 443}
_STATUSES = range(200, 600)


_UNKNOWN = (b"", b"")
_FIELDS: dict[str, tuple[bytes, bytes] | None] = {}
"""Field lines of responses that were read lately."""
_FIELDS_MAX = 2048
_FIELD_LENGTH = 128


class Came(NamedTuple):
    """A request as it came, before any script saw it."""

    method: bytes
    key: bytes
    """Its target URI."""
    lines: FieldLines
    names: Names
    server: tuple[bytes, str, int]
    """Scheme, host and port that it is for."""


class Wanted(NamedTuple):
    """A request as scripts want it to be sent."""

    method: bytes
    target: bytes
    host: bytes
    lines: FieldLines
    names: Names
    held: list[bytes]
    has_body: bool
    trailers: FieldLines | None
    server: str
    """Where a script sends it (`scheme://host:port`); empty where it did not say."""


@functools.lru_cache(maxsize=1024)
def authority_of(host: bytes, scheme: bytes = b"http") -> tuple[str, int]:
    """Host and port of a Host field."""
    match = _AUTHORITY.fullmatch(host)
    name, port = match.groups() if match else (host, None)
    return name.strip(b"[]").decode("latin-1"), int(port) if port else _PORTS[scheme]


def client_of(peer: object, sock: object, connected_at: float) -> connection.Client:
    """What scripts know a client's connection as; the addresses are those of its socket."""
    return connection.Client(
        peername=_address(peer),
        sockname=_address(sock),
        timestamp_start=connected_at,
        state=connection.ConnectionState.OPEN,
    )


def _address(found: object) -> tuple[str, int]:
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) and len(found) > 1 else ("", 0)


def flow_of(exchange: Exchange, client: connection.Client) -> tuple[http.HTTPFlow, Came]:
    """The flow that a request is, its body still to come."""
    host, port = authority_of(exchange.host)
    lines, names = _end_to_end(exchange)
    came = Came(exchange.method, exchange.key, lines, names, (b"http", host, port))
    flow = _blank_flow(client, (host, port), exchange)
    flow.request = _made(
        http.Request,
        http.RequestData,
        host=host,
        port=port,
        method=exchange.method,
        scheme=b"http",
        authority=b"",
        path=exchange.target,
        http_version=b"HTTP/1.1" if exchange.minor else b"HTTP/1.0",
        headers=_headers(lines),
        content=None if exchange.has_body else b"",
        trailers=None,
        timestamp_start=exchange.now_ns / 1e9,
        timestamp_end=None,
    )
    return flow, came


_SERVER = vars(connection.Server(address=None))
_FLOW = vars(http.HTTPFlow(client_of(None, None, 0.0), connection.Server(address=None), live=True))


def _blank_flow(client: connection.Client, server: tuple[str, int], exchange: Exchange) -> http.HTTPFlow:
    """A flow without a request: what mitmproxy's constructors make, at a tenth of the price; its id is the request's"""
    to = connection.Server.__new__(connection.Server)
    vars(to).update(_SERVER, address=server, id=exchange.trace.request_id)
    flow = http.HTTPFlow.__new__(http.HTTPFlow)
    vars(flow).update(
        _FLOW,
        id=exchange.trace.request_id,
        client_conn=client,
        server_conn=to,
        metadata={},
        timestamp_created=exchange.now_ns / 1e9,
    )
    return flow


def _end_to_end(exchange: Exchange) -> tuple[FieldLines, Names]:
    """A request's fields without those that its Connection field names, and without their names there: these end at the
    edge (RFC 9110 §7.6.1). Were they to end behind the scripts, a client could take off what a script has set.
    """
    lines, names = exchange.lines, exchange.names
    options = tokens(names.get(b"connection"))
    if options <= _OF_THE_CONNECTION:
        return lines, names
    ended = options - _OF_THE_CONNECTION
    kept = b", ".join(sorted(options & _OF_THE_CONNECTION))
    left = [line for line in lines if line[0].lower() not in ended and line[0].lower() != b"connection"]
    left += [(b"Connection", kept)] if kept else []
    return left, fold(left)


def _made[M: http.Message](message: type[M], data: type[http.MessageData], **fields: object) -> M:
    """A message with these fields. Its constructor would check all their types, which takes longer than all the rest of
    a flow.
    """
    made = message.__new__(message)
    made.data = data.__new__(data)
    vars(made.data).update(fields)
    return made


def _headers(lines: FieldLines) -> http.Headers:
    """Fields as mitmproxy has them; what its constructor would check again is bytes."""
    made = http.Headers.__new__(http.Headers)
    made.fields = tuple(lines)
    return made


def wanted(flow: http.HTTPFlow, came: Came, streams: Stream) -> Wanted:
    """What is to be sent on of a request that scripts have seen; `streams`: its body is still to come, and whether a
    function makes another of it.

    Raises ChangeError when that is nothing that could be sent.
    """
    try:
        return _wanted(flow.request, came, streams)
    except (AttributeError, TypeError) as error:
        raise ChangeError(f"the request has something of another type than mitmproxy's: {error}") from error


def _wanted(request: http.Request, came: Came, streams: Stream) -> Wanted:
    data = request.data
    is_streamed = streams is not False
    if not _TOKEN.fullmatch(data.method) or data.method == b"CONNECT":
        raise ChangeError(f"the method is {data.method!r}; expected a token, and not CONNECT")
    if not _PATH.fullmatch(data.path) and (data.method, data.path) != (b"OPTIONS", b"*"):
        raise ChangeError(f"the path is {data.path!r}; expected one that begins with / and has no space and no #")
    lines = list(data.headers.fields)
    if lines != came.lines:
        lines = _bracketed(lines, request)
        _check_fields(lines)
    is_chunked = b"transfer-encoding" in came.names
    body = b"" if is_streamed else _content(data)
    length: int | None = len(body) if body or b"content-length" in came.names else -1
    if is_streamed and b"content-length" in came.names:
        length = int(came.names[b"content-length"])
    if is_chunked or callable(streams):
        length = None
    lines = _framed(lines, length)
    if not is_streamed and b"expect" in came.names:
        lines = [line for line in lines if line[0].lower() != b"expect"]  # the body is here
    is_same = lines == came.lines
    names = came.names if is_same else fold(lines)
    return Wanted(
        method=data.method,
        target=data.path,
        host=_host_of(names, came),
        lines=came.lines if is_same else lines,
        names=names,
        held=[body] if body else [],
        has_body=length is None or length > 0,
        trailers=_trailers(data) if is_chunked and not is_streamed else None,
        server=_server(request, came),
    )


def _framed(lines: FieldLines, length: int | None) -> FieldLines:
    """With the framing of a body of this length, None: in chunks, -1: there is none; untouched where that is what is
    said already.
    """
    framing = [line for line in lines if line[0].lower() in _FRAMING]
    if length == -1:
        return [line for line in lines if line not in framing] if framing else lines
    name, value = (b"Transfer-Encoding", b"chunked") if length is None else (b"Content-Length", b"%d" % length)
    if len(framing) == 1 and framing[0][0].lower() == name.lower() and framing[0][1].lower() == value:
        return lines
    return [*(line for line in lines if line not in framing), (name, value)]


def _bracketed(lines: FieldLines, request: http.Request) -> FieldLines:
    """With an IPv6 address in brackets where mitmproxy has written it into the Host field without them."""
    if ":" not in request.host:
        return lines
    bare = url.hostport(request.scheme, request.host, request.port).encode()
    right = url.hostport(request.scheme, f"[{request.host}]", request.port).encode()
    return [(name, right) if value == bare and name.lower() == b"host" else (name, value) for name, value in lines]


def _host_of(names: Names, came: Came) -> bytes:
    host = names.get(b"host", b"")
    if host != came.names.get(b"host", b"") and not _HOST_FIELD.fullmatch(host):
        raise ChangeError(f"the Host field is {host!r}; expected a host name or address with an optional port")
    return host.lower()


def _server(request: http.Request, came: Came) -> str:
    data = request.data
    if (data.scheme, data.host, data.port) == came.server:
        return ""
    if data.scheme not in _PORTS:
        raise ChangeError(f"the scheme is {data.scheme!r}; expected http or https")
    if not _HOST.fullmatch(data.host) or not 0 < data.port < 65536:
        raise ChangeError(f"the server is {data.host!r}, port {data.port}; expected a host and a port from 1 to 65535")
    host = f"[{data.host}]" if ":" in data.host else data.host.lower()
    return f"{data.scheme.decode()}://{host}:{data.port}"


def _content(data: http.MessageData) -> bytes:
    """A body, which scripts may have taken away. TypeError where it is no bytes."""
    content = data.content
    if content is not None and not isinstance(content, bytes):
        raise TypeError(f"the content is {type(content).__name__}, not bytes")
    return content or b""


def _trailers(data: http.MessageData) -> FieldLines | None:
    """The fields behind a body, in which nothing may stand that frames or routes the message."""
    if not data.trailers:
        return None
    lines = list(data.trailers.fields)
    _check_fields(lines)
    for name, _ in lines:
        if name.lower() in FORBIDDEN_TRAILERS:
            raise ChangeError(f"there is a trailer field {name!r}, which may only stand in the head")
    return lines


def _check_fields(lines: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in lines:
        if not _TOKEN.fullmatch(name):
            raise ChangeError(f"there is a header field with the name {name!r}; expected a token")
        if not _VALUE.fullmatch(value):
            raise ChangeError(f"the header field {name!r} has a control character or a line end in its value")


# --- responses


def response_of(head: str) -> http.Response:
    """The response that a head is, without the fields that are its connection's; the body is still to come."""
    first, *rest = head.removesuffix("\r\n").split("\r\n")
    _, status, *reason = first.split(" ", 2)
    fields = [field for line in rest if (field := _field_of(line)) is not None]
    return _made(
        http.Response,
        http.ResponseData,
        http_version=b"HTTP/1.1",
        status_code=int(status),
        reason=reason[0].encode("latin-1") if reason else b"",
        headers=_headers(fields),
        content=None,
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=None,
    )


def _field_of(line: str) -> tuple[bytes, bytes] | None:
    """A field line's name and value; None where it is the connection's. Most lines are the same in many responses."""
    field = _FIELDS.get(line, _UNKNOWN)
    if field is _UNKNOWN:
        name, _, value = line.partition(":")
        key = name.encode("latin-1")
        field = None if key.lower() in _HOP_FIELDS else (key, value.strip(" \t").encode("latin-1"))
        if len(line) <= _FIELD_LENGTH:
            if len(_FIELDS) >= _FIELDS_MAX:
                _FIELDS.clear()
            _FIELDS[line] = field
    return field


def response_head(
    response: http.Response | None, without: frozenset[bytes], known: tuple[tuple[bytes, bytes], ...] = ()
) -> str:
    """Status line and fields of a response as they go out, without `without` (lower case) and the connection's. `known`
    are fields that need no check.

    Raises ChangeError when that is nothing that could be sent.
    """
    try:
        return _response_head(response, without, known)
    except (AttributeError, TypeError) as error:
        raise ChangeError(f"the response has something of another type than mitmproxy's: {error}") from error


def _response_head(
    response: http.Response | None, without: frozenset[bytes], known: tuple[tuple[bytes, bytes], ...]
) -> str:
    if response is None:
        raise ChangeError("flow.response is None; expected a response")
    data = response.data
    if type(data.status_code) is not int or data.status_code not in _STATUSES:
        raise ChangeError(f"the status is {data.status_code!r}; expected 200 to 599")
    if not _VALUE.fullmatch(data.reason):
        raise ChangeError("the reason phrase has a control character or a line end")
    _content(data)
    lines = data.headers.fields
    if lines is not known:
        checked = frozenset(known)
        _check_fields([line for line in lines if line not in checked])
    dropped = _HOP_FIELDS | without
    fields = b"".join(b"%b: %b\r\n" % line for line in lines if line[0].lower() not in dropped)
    return (b"HTTP/1.1 %d %b\r\n%b" % (data.status_code, data.reason, fields)).decode("latin-1")


def response_trailers(response: http.Response) -> FieldLines | None:
    """The fields that follow a response's body; ChangeError when they can't be sent."""
    try:
        return _trailers(response.data)
    except (AttributeError, TypeError) as error:
        raise ChangeError(f"the trailers are no headers of mitmproxy's: {error}") from error
