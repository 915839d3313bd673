"""What the scripted origin has, and what it answers: values, so that the generator can make them and know their
validators, and two origins with the same ones give the same answers.

An answer is a function of the request, of the resource's state (how many requests came for it, and which of them were
unsafe) and of the oracle's clock, which stands still. No I/O.
"""

import gzip
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from tests.oracle.clock import http_date
from tests.support import Received

Pair = tuple[str, str]

_WHEN = re.compile(r"\{now([+-]\d+)\}")
"""In a field's value: an HTTP-date so many seconds from now."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_BODILESS = frozenset({204, 304})


class Framed(Enum):
    """How a body's end is told."""

    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(frozen=True)
class Act:
    """What a resource answers to GET for a while."""

    status: int = 200
    fields: tuple[Pair, ...] = ()
    body_bytes: int = 40
    etag: str | None = None
    modified_s: int | None = None
    """Last-Modified, seconds since the epoch."""
    dated: str | None = "{now+0}"
    """Date; None leaves it out."""
    framed: Framed = Framed.LENGTH
    heeds_conditions: bool = True
    heeds_ranges: bool = True
    zips: bool = False
    """Whether clients that take gzip get it."""
    trailers: tuple[Pair, ...] = ()
    cut: bool = False
    """Whether the connection ends in the middle of the body."""


@dataclass(frozen=True)
class Resource:
    """A path of the origin's."""

    path: str
    acts: tuple[Act, ...]
    period: int = 1000
    """The next act begins after so many requests."""
    vary: tuple[str, ...] = ()
    """Request fields by whose values the body differs; Vary says so if an act's fields do."""
    changes: tuple[Act, ...] = (Act(status=204),)
    """What is answered to unsafe methods, in turn; each begins the next act of GET."""


@dataclass
class State:
    """What has happened to a resource."""

    requests: int = 0
    changes: int = 0


def answer(resource: Resource, state: State, request: Received, now_s: int) -> tuple[bytes, bool]:
    """The response's bytes, and whether the connection ends with them. Notes the request in the state."""
    method = request.method
    if method not in _SAFE:
        act = resource.changes[state.changes % len(resource.changes)]
        state.changes += 1
        state.requests += 1
        said = f"{method} of {len(request.body)} bytes {hashlib.sha1(request.body).hexdigest()}\n".encode()
        return _message(act, act.status, _fields(act, now_s), said * (act.body_bytes > 0), request)
    version = state.requests // resource.period + state.changes
    state.requests += 1
    act = resource.acts[version % len(resource.acts)]
    fields = _fields(act, now_s)
    if method in {"OPTIONS", "TRACE"}:
        return _message(act, 200, [*fields, ("Allow", "GET, HEAD, PUT")], b"", request)
    body = _body(resource, version, request)[: act.body_bytes] if act.status not in _BODILESS else b""
    etag = act.etag
    if act.zips and "gzip" in ", ".join(request.values("accept-encoding")):
        body = gzip.compress(body, mtime=0)
        fields.append(("Content-Encoding", "gzip"))
        etag = etag and f'{etag[:-1]}-gzip"'
    if etag is not None:
        fields.append(("ETag", etag))
    if act.modified_s is not None:
        fields.append(("Last-Modified", http_date(act.modified_s)))
    if act.status != 200:
        return _message(act, act.status, fields, body, request)
    if act.heeds_conditions:
        verdict = _condition(request, etag, act.modified_s)
        if verdict is not None:
            about = [pair for pair in fields if not pair[0].lower().startswith("content-")]
            return _message(act, verdict, about, b"", request)
    if act.heeds_ranges and method == "GET" and _range_counts(request, etag, act.modified_s):
        part = _part(", ".join(request.values("range")), len(body))
        if part is not None:
            return _partial(act, part, fields, body, request)
    return _message(act, 200, fields, body, request)


def _fields(act: Act, now_s: int) -> list[Pair]:
    dated = [("Date", act.dated)] if act.dated is not None else []
    return [
        (name, _WHEN.sub(lambda when: http_date(now_s + int(when[1])), value)) for name, value in (*dated, *act.fields)
    ]


def _body(resource: Resource, version: int, request: Received) -> bytes:
    """Another one for each version and for each value of what it varies by, and never the same byte for long."""
    seen = "; ".join(f"{name}={request.values(name)}" for name in resource.vary)
    line = f"{resource.path} version {version} {seen}\n".encode()
    whole = hashlib.sha256(line).hexdigest().encode() + b"\n"
    return (line + whole) * (65536 // len(line + whole) + 1)


def _condition(request: Received, etag: str | None, modified_s: int | None) -> int | None:
    """304 or 412 where a condition of the request says so (RFC 9110 §13.2.2), roughly: tags are not parsed."""
    matching = request.values("if-match")
    if matching and "*" not in matching and (etag is None or not any(etag in value for value in matching)):
        return 412
    unmodified = request.values("if-unmodified-since")
    if unmodified and not matching and modified_s is not None and unmodified[0] != http_date(modified_s):
        return 412
    known = request.values("if-none-match")
    if known:
        opaque = None if etag is None else etag.removeprefix("W/")
        return 304 if "*" in known or (opaque and any(opaque in value for value in known)) else None
    since = request.values("if-modified-since")
    return 304 if since and modified_s is not None and since[0] == http_date(modified_s) else None


def _range_counts(request: Received, etag: str | None, modified_s: int | None) -> bool:
    condition = request.values("if-range")
    if not request.values("range"):
        return False
    return not condition or condition[0] in (etag, modified_s is not None and http_date(modified_s))


def _part(wanted: str, length: int) -> tuple[int, int] | None:
    """First byte and one behind the last of a single range, the same twice where there is none; None: send it all."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if found is None or not length or found[0] == "bytes=-":
        return None
    if not found[1]:
        return max(0, length - int(found[2])), length
    first, last = int(found[1]), int(found[2]) if found[2] else length - 1
    if last < first:
        return None
    return (first, min(last + 1, length)) if first < length else (0, 0)


def _partial(
    act: Act, part: tuple[int, int], fields: Sequence[Pair], body: bytes, request: Received
) -> tuple[bytes, bool]:
    begin, end = part
    if begin == end:
        return _message(act, 416, [*fields, ("Content-Range", f"bytes */{len(body)}")], b"", request)
    stated = ("Content-Range", f"bytes {begin}-{end - 1}/{len(body)}")
    return _message(act, 206, [*fields, stated], body[begin:end], request)


def _message(act: Act, status: int, fields: Sequence[Pair], body: bytes, request: Received) -> tuple[bytes, bool]:
    has_body = request.method != "HEAD" and status not in _BODILESS
    framed = act.framed
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in fields)]
    if framed is Framed.LENGTH and status not in _BODILESS:
        lines.append(f"Content-Length: {len(body)}")
    elif framed is Framed.CHUNKED and has_body:
        lines.append("Transfer-Encoding: chunked")
        if act.trailers:
            lines.append("Trailer: " + ", ".join(name for name, _ in act.trailers))
    elif framed is Framed.CLOSE:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if not has_body:
        return head, framed is Framed.CLOSE
    if framed is Framed.CHUNKED:
        pieces = [body[at : at + 9000] for at in range(0, len(body), 9000)]
        last = "\r\n".join(["0", *(f"{name}: {value}" for name, value in act.trailers), "", ""]).encode("latin-1")
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return (head + chunks[: len(chunks) // 2], True) if act.cut else (head + chunks + last, False)
    return (head + body[: len(body) // 2], True) if act.cut else (head + body, framed is Framed.CLOSE)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unnamed"
