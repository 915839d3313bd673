"""The body of every answer that the edge itself gives: problem details (RFC 9457) that carry the trace id. Pure."""

from email.utils import formatdate

import msgspec

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


def head(error: ProxyError, content_length: int) -> str:
    """Status line and fields of a problem's response, the blank line left out."""
    return (
        f"HTTP/1.1 {int(error.status)} {error.status.phrase}\r\n"
        f"Date: {formatdate(usegmt=True)}\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {content_length}\r\n"
        "Cache-Control: no-store\r\n"
    )
