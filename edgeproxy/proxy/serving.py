"""What a client gets of a stored response: the whole, a 304, parts of it, or that the parts asked for do not exist.

Pure: the stored response and the request in, status, head and body out. The head lacks Age, what the edge adds, and the
blank line.
"""

import os
from typing import NamedTuple

from edgeproxy.cache import Entry, Stored, conditional, ranges
from edgeproxy.cache.entry import text_of
from edgeproxy.proxy.exchange import Exchange

_WHOLE = frozenset({b"content-range", b"content-type"})
_NOT_IN_416 = frozenset(
    {
        *(b"content-range", b"content-type", b"content-encoding", b"content-language", b"content-disposition"),
        *(b"cache-control", b"cdn-cache-control", b"expires", b"etag", b"last-modified"),
    }
)
"""Fields about the content that a 416 lacks, and those by which a cache on the way would take it for the resource."""
COPIED_BYTES = 64 * 1024
"""A part of a stored body up to this size is copied; a larger one is sent from where it lies."""


class Serving(NamedTuple):
    """A response made of a stored one."""

    status: int
    head: str
    body: bytes | memoryview


def serving(exchange: Exchange, entry: Entry) -> Serving:
    """The response to this request from a stored response that may be used for it (RFC 9110 §13.2.2, §14.2)."""
    names = exchange.names
    stored = entry.stored
    if is_unchanged(exchange, stored):
        return Serving(304, entry.head_304, b"")
    if exchange.method == b"HEAD":
        return Serving(entry.status, entry.head, b"")
    if b"range" in names and entry.status == 200:
        part = _part(exchange, entry, names[b"range"])
        if part is not None:
            return part
    return Serving(entry.status, entry.head, entry.body)


def is_unchanged(exchange: Exchange, stored: Stored) -> bool:
    """Whether the client has this very response already (RFC 9110 §13.1)."""
    names = exchange.names
    if stored.status != 200 or (b"if-none-match" not in names and b"if-modified-since" not in names):
        return False
    return conditional.not_modified(names, stored.etag, stored.last_modified, stored.field(b"date"))


def _part(exchange: Exchange, entry: Entry, wanted: bytes) -> Serving | None:
    stored = entry.stored
    condition = exchange.names.get(b"if-range")
    date = stored.field(b"date")
    if condition is not None and not conditional.if_range(condition, stored.etag, stored.last_modified, date):
        return None
    length = len(entry.body)
    spans = ranges.requested(wanted, length)
    if spans is None:
        return None
    if isinstance(spans, ranges.Unsatisfiable):
        head = (
            f"HTTP/1.1 416 Range Not Satisfiable\r\n{_fields(entry, _NOT_IN_416)}"
            f"Content-Range: bytes */{length}\r\nContent-Length: 0\r\n"
        )
        return Serving(416, head, b"")
    if len(spans) == 1:
        first, last = spans[0]
        head = (
            f"HTTP/1.1 206 Partial Content\r\n{_fields(entry)}"
            f"Content-Range: bytes {first}-{last}/{length}\r\nContent-Length: {last - first + 1}\r\n"
        )
        return Serving(206, head, _slice(entry.body, first, last + 1))
    boundary = os.urandom(16).hex().encode()
    pieces, size = ranges.multipart(entry.body, spans, stored.field(b"content-type"), boundary)
    head = (
        f"HTTP/1.1 206 Partial Content\r\n{_fields(entry, _WHOLE)}"
        f"Content-Type: multipart/byteranges; boundary={boundary.decode()}\r\nContent-Length: {size}\r\n"
    )
    return Serving(206, head, b"".join(pieces))


def _slice(body: bytes, begin: int, end: int) -> bytes | memoryview:
    return body[begin:end] if end - begin <= COPIED_BYTES else memoryview(body)[begin:end]


def _fields(entry: Entry, dropped: frozenset[bytes] = frozenset({b"content-range"})) -> str:
    return text_of([line for line in entry.stored.lines if line[0].lower() not in dropped])
