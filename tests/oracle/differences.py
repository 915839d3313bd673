"""What is compared of the two engines' answers, and how: everything that is end to end, after what can't be the same
has been put in the same words (ids, durations, boundaries).

A difference names where it is, such as `response header age`; what it means is `tolerated`'s business.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tests.oracle.ids import Ids
from tests.oracle.lockstep import Exchange, Observed
from tests.support import Message, Received, Record, Response

HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "trailer", "te", "proxy-connection"})
"""Fields of one connection: how a body's end is told and whether the connection stays is each engine's own affair."""
MEASURED = frozenset(
    {
        *("head_ms", "lookup_ms", "stored_at_ms", "send_ms", "first_byte_ms", "transfer_ms", "duration_ms", "at_ms"),
        "ms",
    }
)
"""Fields of a record that are durations: compared for being there, not for their value."""
PLACED = frozenset({"seq", "worker", "address", "origin_reused", "reused", "dns_ms", "connect_ms", "tls_ms"})
"""Fields of a record that say by which process, and over which of several connections: not compared."""
_DURATION = re.compile(r"dur=\d+(?:\.\d+)?")
_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
_BOUNDARY = re.compile(r"boundary=([0-9A-Za-z]+)")


@dataclass(frozen=True)
class Difference:
    """Something that is not the same at both engines."""

    exchange: Exchange
    where: str
    one: object
    other: object


def differences(exchanges: Iterable[Exchange]) -> Iterator[Difference]:
    """All that differs, in order."""
    exchanges = list(exchanges)
    ids = Ids(exchanges, 0), Ids(exchanges, 1)
    for exchange in exchanges:
        views = [dict(_view(seen, names)) for seen, names in zip((exchange.one, exchange.other), ids, strict=True)]
        for where in dict.fromkeys((*views[0], *views[1])):
            one, other = (view.get(where) for view in views)
            if one != other:
                yield Difference(exchange, where, one, other)


def _view(seen: Observed, ids: Ids) -> Iterator[tuple[str, object]]:
    """All that is compared of one engine's part, by where it is."""
    yield "failure", seen.failure
    if seen.response is not None:
        yield from _response(seen.response, ids)
    yield "origin requests", [f"{request.method} {request.target}" for request in seen.asked]
    for number, request in enumerate(seen.asked):
        yield from _request(f"origin #{number}", request, ids)
    yield "record", seen.record is not None
    if seen.record is not None:
        yield from _record("record", seen.record, ids)
    yield "refresh records", len(seen.refreshed)
    for record in seen.refreshed:
        yield from _record("refresh record", record, ids)


def _response(response: Response, ids: Ids) -> Iterator[tuple[str, object]]:
    boundary = _BOUNDARY.search(response.raw_head.decode("latin-1"))
    yield "response status", response.status
    yield "response reason", response.reason
    yield "response interim", [interim.status for interim in response.interim]
    for name, lines in _headers(response).items():
        told = [_DURATION.sub("dur=T", line) for line in lines]
        if boundary:
            told = [line.replace(boundary[1], "BOUNDARY") for line in told]
        yield f"response header {name}", [ids.named(line) for line in told]
    body = response.body
    if boundary:
        body = body.replace(boundary[1].encode(), b"BOUNDARY").removeprefix(b"\r\n")
    is_own = any("application/problem+json" in value for value in response.values("content-type"))
    yield "response body", _told("body", body.decode(), ids) if is_own else body
    yield "response trailers", [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.trailers]


def _request(where: str, request: Received, ids: Ids) -> Iterator[tuple[str, object]]:
    for name, lines in _headers(request).items():
        yield f"{where} header {name}", [ids.named(line) for line in lines]
    yield f"{where} body", request.body


def _headers(message: Message) -> Mapping[str, list[str]]:
    """The field lines by lower-case name, each with its name in its own case."""
    found: dict[str, list[str]] = {}
    for name, value in message.fields:
        text = name.decode("latin-1")
        if text.lower() not in HOP:
            found.setdefault(text.lower(), []).append(f"{text}: {value.decode('latin-1')}")
    return found


def _record(where: str, record: Record, ids: Ids) -> Iterator[tuple[str, object]]:
    for name, value in record.items():
        if name == "attempts":
            yield f"{where} attempts", len(value)
            for number, attempt in enumerate(value):
                yield from _record(f"{where} attempt #{number}", attempt, ids)
        elif name not in PLACED:
            yield f"{where} {name}", _told(name, value, ids)


def _told(name: str, value: object, ids: Ids) -> object:
    if name in MEASURED:
        return value is not None
    if isinstance(value, str):
        return _ADDRESS.sub("ADDRESS", ids.named(value))
    if isinstance(value, Mapping):
        return {key: _told(key, inner, ids) for key, inner in value.items() if key not in PLACED}
    if isinstance(value, list):
        return [_told(name, inner, ids) for inner in value]
    return value


def shown(value: object) -> str:
    """A value in a message."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes {value[:160]!r}"
    return json.dumps(value, ensure_ascii=False, default=str)
