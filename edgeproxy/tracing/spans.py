"""The spans that a record comes to: one SERVER span for the round trip, and below it what was done for the request.

    SERVER  GET /static/*                  the request, from its first byte to the response's last
      INTERNAL  cache lookup               with a CLIENT span for each look-up in Redis
      CLIENT    GET                        one for each attempt at the origin; what the origin does hangs under it
      INTERNAL  cache store                with a CLIENT span for each write to Redis
      …                                    what operators' scripts opened

Ids that went over the wire (the request's, the attempts', the operations') are those of the record; the two that did
not are made from the request's, so that the same record always comes to the same spans. Names and attributes are
OpenTelemetry's stable semantic conventions; what is the edge's own begins with `edgeproxy.` (docs/tracing.md). Pure.
"""

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from edgeproxy.tracing.naming import METHODS, span_name
from edgeproxy.tracing.recorded import Recorded, RecordedAttempt, RecordedError, RecordedOperation, RecordedSpan

type Value = str | bool | int | float | tuple[str, ...]
type Attributes = dict[str, Value]

_LOOKUP_ID = 0x9E3779B97F4A7C15
_STORE_ID = 0xC2B2AE3D27D4EB4F
"""What turns a request's span id into those of its spans that nobody else knows."""
_TRACEPARENT_PARTS = 4
_SIGNED = re.compile(
    r"(?<![^?&])(AWSAccessKeyId|Signature|sig|X-Goog-Signature|X-Amz-(?:Signature|Credential|Security-Token))=[^&]*"
)
"""Parameters that let in whoever has them: the conventions want their values left out of urls."""
_MS_NS = 1_000_000


class Kind(IntEnum):
    """A span's kind; the numbers are OTLP's."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


_KINDS = {kind.name.lower(): kind for kind in Kind}


class Event(NamedTuple):
    """Something that happened at a moment within a span."""

    name: str
    time_ns: int
    attributes: Attributes


class Link(NamedTuple):
    """Another span that this one has to do with."""

    trace_id: str
    span_id: str
    flags: int
    attributes: Attributes


class Span(NamedTuple):
    """A span, ready for export: ids as hex text, times in nanoseconds since the epoch."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str
    parent_id: str | None
    flags: int
    tracestate: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    error: str | None = None
    """None: the status is unset; else it is an error, with this description."""


def spans_of(record: Recorded) -> list[Span]:
    """All spans of a request, the root first."""
    flags = int(record.sampled)
    started_ns = record.started_ns
    spans = [_root(record, started_ns, flags)]
    looked_up = stored = record.span_id
    if record.lookup_ms is not None:
        looked_up = _derived(record.span_id, _LOOKUP_ID)
        spans.append(_lookup(record, started_ns, flags, looked_up))
    for number, attempt in enumerate(record.attempts):
        spans.append(_attempt(record, attempt, number, started_ns, flags))
    if record.stored_at_ms is not None:
        stored = _derived(record.span_id, _STORE_ID)
        spans.append(_store(record, started_ns, flags, stored))
    for operation in record.store:
        parent = looked_up if operation.op == "MGET" else stored
        spans.append(_operation(record, operation, started_ns, flags, parent))
    if record.script is not None:
        spans += [_scripted(record, one, flags) for one in record.script.spans]
    return spans


# --- the request


def _root(record: Recorded, started_ns: int, flags: int) -> Span:
    is_own = record.caused_by is not None
    attributes = _request_attributes(record)
    error = None
    if record.error is not None and record.outcome not in ("refused", "client_abort"):
        attributes["error.type"] = record.error.type
        error = record.error.message
    elif record.status is not None and record.status >= 500:
        attributes["error.type"] = str(record.status)
        error = ""
    end_ns = started_ns + round(record.duration_ms * _MS_NS)
    return Span(
        name=("revalidate " if is_own else "") + span_name(record.method, record.route),
        kind=Kind.INTERNAL if is_own else Kind.SERVER,
        trace_id=record.trace_id,
        span_id=record.span_id,
        parent_id=record.parent_id,
        flags=flags,
        tracestate="",
        start_ns=started_ns,
        end_ns=end_ns,
        attributes=attributes,
        events=() if record.error is None else _exceptions(record.error, end_ns),
        links=list(_links(record)),
        error=error,
    )


def _request_attributes(record: Recorded) -> Attributes:
    """What was asked and what came of it; what is not known is left out."""
    attributes: Attributes = {}
    if record.method is not None:
        attributes["http.request.method"] = record.method if record.method in METHODS else "_OTHER"
        if record.method not in METHODS:
            attributes["http.request.method_original"] = record.method
    for name, value in (
        ("url.scheme", record.scheme),
        ("url.path", record.path),
        ("url.query", _unsigned(record.query) or None),
        ("http.route", record.route),
        ("http.response.status_code", record.status),
        ("client.address", record.client),
        ("network.peer.address", record.client),
        ("user_agent.original", record.user_agent),
        ("http.request.body.size", record.bytes_in or None),
        ("http.response.body.size", record.bytes_out),
        ("edgeproxy.outcome", record.outcome),
        ("edgeproxy.stage", record.stage),
        ("edgeproxy.request_id", record.request_id),
        ("edgeproxy.worker", record.worker),
        ("edgeproxy.sampling.reason", record.sampling),
        ("edgeproxy.origin", record.origin),
        ("edgeproxy.cache.status", record.cache),
        ("edgeproxy.cache.tier", record.cache_tier),
        ("edgeproxy.cache.age", record.cache_age),
        ("edgeproxy.cache.ttl", record.cache_ttl),
        ("edgeproxy.cache.key", _unsigned(record.cache_key)),
        ("edgeproxy.cache.filled_by", record.filled_by),
    ):
        if value is not None:
            attributes[name] = value
    if record.host:
        attributes["server.address"], port = _host_and_port(record.host)
        attributes["server.port"] = port or (443 if record.scheme == "https" else 80)
    if record.protocol is not None:
        name, _, version = record.protocol.partition("/")
        attributes["network.protocol.name"] = name.lower()
        attributes["network.protocol.version"] = version
    for name, text in record.headers.items():
        attributes[f"http.request.header.{name}"] = (text,)
    if record.script is not None:
        attributes["edgeproxy.script.names"] = record.script.names
        attributes |= {f"edgeproxy.script.log.{name}": text for name, text in record.script.log.items()}
    return attributes


def _unsigned(query: str | None) -> str | None:
    return query if query is None or "=" not in query else _SIGNED.sub(r"\1=REDACTED", query)


def _host_and_port(authority: str) -> tuple[str, int | None]:
    host, colon, port = authority.rpartition(":")
    if colon and port.isdecimal():
        return host.strip("[]"), int(port)
    return authority.strip("[]"), None


def _links(record: Recorded) -> Iterator[Link]:
    """The other traces that this one has to do with, each with the reason."""
    if record.restarted_from is not None:
        trace_id, _, span_id = record.restarted_from.partition("-")
        yield Link(trace_id, span_id, 0, {"edgeproxy.link": "restarted_from"})
    filled = "collapsed_onto" if record.cache == "COLLAPSED" else "filled_by"
    own = {attempt.span_id for attempt in record.attempts}
    for why, traceparent in ((filled, record.filled_by), ("caused_by", record.caused_by)):
        parts = (traceparent or "").split("-")
        # The record of the request that filled the entry itself names its own attempt: that is no other one.
        if len(parts) == _TRACEPARENT_PARTS and parts[2] not in own:
            yield Link(parts[1], parts[2], int(parts[3], 16), {"edgeproxy.link": why})


# --- what was done for it


def _lookup(record: Recorded, started_ns: int, flags: int, span_id: str) -> Span:
    start_ns = started_ns + round(record.head_ms * _MS_NS)
    attributes: Attributes = {}
    for name, value in (
        ("edgeproxy.cache.status", record.cache),
        ("edgeproxy.cache.tier", record.cache_tier),
        ("edgeproxy.cache.key", _unsigned(record.cache_key)),
    ):
        if value is not None:
            attributes[name] = value
    end_ns = start_ns + round((record.lookup_ms or 0.0) * _MS_NS)
    return _child(record, "cache lookup", Kind.INTERNAL, span_id, record.span_id, flags, start_ns, end_ns, attributes)


def _store(record: Recorded, started_ns: int, flags: int, span_id: str) -> Span:
    """From the moment that the cache was given the response until the last store known to take time has it."""
    start_ns = started_ns + round((record.stored_at_ms or 0.0) * _MS_NS)
    ends = [started_ns + round(one.at_ms * _MS_NS) + one.us * 1000 for one in record.store if one.op != "MGET"]
    end_ns = max(start_ns, *ends) if ends else start_ns
    attributes: Attributes = {} if record.cache_ttl is None else {"edgeproxy.cache.ttl": record.cache_ttl}
    return _child(record, "cache store", Kind.INTERNAL, span_id, record.span_id, flags, start_ns, end_ns, attributes)


def _attempt(record: Recorded, attempt: RecordedAttempt, number: int, started_ns: int, flags: int) -> Span:
    start_ns = started_ns + round(attempt.at_ms * _MS_NS)
    end_ns = start_ns + round(attempt.ms * _MS_NS)
    host, port = _host_and_port(attempt.address)
    method = span_name(record.method, None)
    attributes: Attributes = {
        "http.request.method": record.method if record.method in METHODS else "_OTHER",
        "server.address": host,
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "edgeproxy.origin": record.origin or "",
        "edgeproxy.origin.reused": attempt.reused,
    }
    if record.method is not None and record.method not in METHODS:
        attributes["http.request.method_original"] = record.method
    if port is not None:
        attributes["server.port"] = port
    if attempt.address:
        query = f"?{_unsigned(record.query)}" if record.query else ""
        attributes["url.full"] = f"{attempt.scheme}://{attempt.address}{record.path or ''}{query}"
    if number:
        attributes["http.request.resend_count"] = number
    error = None
    if attempt.status is not None:
        attributes["http.response.status_code"] = attempt.status
        if attempt.status >= 400:
            attributes["error.type"] = str(attempt.status)
            error = ""
    if attempt.error is not None:
        attributes["error.type"] = attempt.error.type
        error = attempt.error.message
    events = [*_phases(attempt, start_ns)]
    if attempt.error is not None:
        events += _exceptions(attempt.error, end_ns)
    span = _child(record, method, Kind.CLIENT, attempt.span_id, record.span_id, flags, start_ns, end_ns, attributes)
    return span._replace(events=events, error=error)


def _phases(attempt: RecordedAttempt, start_ns: int) -> Iterator[Event]:
    """When each phase that happened was over."""
    known = sum(
        phase or 0.0
        for phase in (
            *(attempt.dns_ms, attempt.connect_ms, attempt.tls_ms),
            *(attempt.send_ms, attempt.first_byte_ms, attempt.transfer_ms),
        )
    )
    # What the phases leave of the whole was spent waiting for a connection, which comes before them.
    at_ns = start_ns if attempt.error is not None else start_ns + max(0, round((attempt.ms - known) * _MS_NS))
    for name, phase_ms in (
        ("dns", attempt.dns_ms),
        ("connected", attempt.connect_ms),
        ("tls", attempt.tls_ms),
        ("request sent", attempt.send_ms),
        ("first byte", attempt.first_byte_ms),
    ):
        if phase_ms is not None:
            at_ns += round(phase_ms * _MS_NS)
            yield Event(name, at_ns, {"edgeproxy.phase_ms": phase_ms})


def _operation(record: Recorded, operation: RecordedOperation, started_ns: int, flags: int, parent_id: str) -> Span:
    start_ns = started_ns + round(operation.at_ms * _MS_NS)
    host, port = _host_and_port(operation.node)
    attributes: Attributes = {
        "db.system.name": "redis",
        "db.operation.name": operation.op,
        "edgeproxy.redis.slot": operation.slot,
        "edgeproxy.redis.outcome": operation.outcome,
    }
    if operation.node:
        attributes |= {"server.address": host, "network.peer.address": host}
    if port is not None:
        attributes |= {"server.port": port, "network.peer.port": port}
    span = _child(
        record,
        operation.op,
        Kind.CLIENT,
        operation.span_id,
        parent_id,
        flags,
        start_ns,
        start_ns + operation.us * 1000,
        attributes,
    )
    if operation.outcome != "error":
        return span
    code = operation.error.partition(" ")[0]
    attributes["error.type"] = code if code.isupper() else "redis"
    if code.isupper():
        attributes["db.response.status_code"] = code
    return span._replace(error=operation.error)


def _scripted(record: Recorded, one: RecordedSpan, flags: int) -> Span:
    """A span that an operator's script opened."""
    kind = _KINDS.get(one.kind, Kind.INTERNAL)
    span = _child(
        record, one.name, kind, one.span_id, one.parent_id, flags, one.start_ns, one.end_ns, dict(one.attributes)
    )
    events = [Event(name, time_ns, dict(attributes)) for name, time_ns, attributes in one.events]
    return span._replace(events=events, error=one.error)


def _child(
    record: Recorded,
    name: str,
    kind: Kind,
    span_id: str,
    parent_id: str,
    flags: int,
    start_ns: int,
    end_ns: int,
    attributes: Attributes,
) -> Span:
    return Span(name, kind, record.trace_id, span_id, parent_id, flags, "", start_ns, end_ns, attributes)


def _exceptions(error: RecordedError, time_ns: int) -> list[Event]:
    """An error and the chain of its causes, outermost first, as OpenTelemetry records exceptions."""
    chain = [(error.type, error.message), *((cause.type, cause.message) for cause in error.causes)]
    return [
        Event("exception", time_ns, {"exception.type": kind, "exception.message": message}) for kind, message in chain
    ]


def _derived(span_id: str, salt: int) -> str:
    return f"{int(span_id or '0', 16) ^ salt or salt:016x}"
