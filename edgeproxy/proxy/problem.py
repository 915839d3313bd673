"""The body of every answer that the edge itself gives: problem details (RFC 9457) that carry the trace id. Pure."""

from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

import msgspec

from edgeproxy.cache import Purge
from edgeproxy.proxy.errors import ProxyError


class Problem(msgspec.Struct, frozen=True):
    """Problem details with the edge's extensions: a stable code and the ids under which the logs know the request."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    trace_id: str
    request_id: str


def body(error: ProxyError, trace_id: str, request_id: str) -> bytes:
    """The problem as JSON."""
    status = error.status
    problem = Problem("about:blank", status.phrase, int(status), error.message, error.code, trace_id, request_id)
    return msgspec.json.encode(problem)


def purged(purges: Sequence[Purge]) -> bytes:
    """What was purged, as JSON."""
    rows = [
        {"kind": purge.kind.name.lower(), "value": purge.value.decode("utf-8", "backslashreplace"), "soft": purge.soft}
        for purge in purges
    ]
    return msgspec.json.encode({"purged": rows})


def head(status: HTTPStatus, content_length: int) -> str:
    """Status line and fields of an answer of the edge's own, the blank line left out."""
    media_type = "application/problem+json" if status.is_client_error or status.is_server_error else "application/json"
    return (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        f"Content-Type: {media_type}\r\n"
        f"Content-Length: {content_length}\r\n"
        "Cache-Control: no-store\r\n"
    )
