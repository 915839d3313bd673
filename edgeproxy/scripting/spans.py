"""Spans that scripts open with OpenTelemetry's API: children of the request's, exported with them.

The SDK runs in a worker only where scripts are loaded. What it makes goes into the request's record: the scribe exports
it with the others, so that a trace is sampled, counted and kept as a whole.
"""

import contextvars
import math
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

from edgeproxy.ledger import Counter
from edgeproxy.tracing import RequestTrace
from edgeproxy.tracing.recorded import RecordedSpan

type Value = str | bool | int | float | tuple[str, ...]

SPANS_MAX = 32
"""How many spans of scripts a request's record has at most."""
_TEXT_MAX = 256
_INT64 = 2**63
_LIMITS = SpanLimits(max_span_attributes=16, max_events=8, max_event_attributes=8, max_span_attribute_length=256)


class Opened:
    """The spans that scripts have opened for one request."""

    def __init__(self, request: RequestTrace) -> None:
        """None yet."""
        self.request = request
        self.ended: list[RecordedSpan] = []
        self.is_closed = False
        """Whether the record is published."""


_NOWHERE = Context()
_current: contextvars.ContextVar[Opened | None] = contextvars.ContextVar("edgeproxy_opened", default=None)


def enter(opened: Opened) -> None:
    """Make the request's own span the current one, in the context that this is called in."""
    _current.set(opened)
    # Its token is of no use: contexts are thrown away, not left.
    contexts.attach(trace.set_span_in_context(_RequestSpan(opened.request), _NOWHERE))


class _RequestSpan(NonRecordingSpan):
    """The request's own span, whose context is made where a script asks for it; most do not."""

    def __init__(self, request: RequestTrace) -> None:
        self._request = request

    def get_span_context(self) -> SpanContext:
        """Its ids."""
        request = self._request
        return SpanContext(
            trace_id=int(request.trace_id, 16),
            span_id=int(request.span_id, 16),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED if request.sampled else TraceFlags.DEFAULT),
        )


def trace_id() -> str | None:
    """The trace id of the request for which the code that asks is called."""
    opened = _current.get()
    return None if opened is None else opened.request.trace_id


def install(counters: "memoryview[int]") -> None:
    """Have OpenTelemetry's API in this process make spans for the records; what comes too late for one is counted. For
    once a process.
    """
    provider = TracerProvider(
        sampler=_AsRequested(), resource=Resource.get_empty(), shutdown_on_exit=False, span_limits=_LIMITS
    )
    provider.add_span_processor(_IntoRecords(counters))
    trace.set_tracer_provider(provider)


class _AsRequested(Sampler):
    """Records spans of requests that are traced; they may be exported for what becomes of them."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """As the request is."""
        del parent_context, trace_id, name, kind, links, trace_state
        opened = _current.get()
        if opened is None or not opened.request.recording:
            return SamplingResult(Decision.DROP)
        kept = Decision.RECORD_AND_SAMPLE if opened.request.sampled else Decision.RECORD_ONLY
        return SamplingResult(kept, attributes)

    def get_description(self) -> str:
        """What it is called."""
        return "edgeproxy: as the request"


class _IntoRecords(SpanProcessor):
    """Notes what has ended with the request that it was opened for."""

    def __init__(self, counters: "memoryview[int]") -> None:
        self._counters = counters
        self._open: WeakValueDictionary[int, Opened] = WeakValueDictionary()
        """By the id of a span that has not ended; one that never does keeps nothing of its request."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remember for which request."""
        del parent_context
        opened = _current.get()
        context = span.get_span_context()
        if opened is not None and context is not None:
            self._open[context.span_id] = opened

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it, unless the request's record is published, or has enough of them."""
        context = span.get_span_context()
        opened = None if context is None else self._open.pop(context.span_id, None)
        if opened is None:
            return
        if opened.is_closed or len(opened.ended) >= SPANS_MAX:
            self._counters[Counter.SPANS_UNSEEN] += opened.request.sampled
        else:
            opened.ended.append(recorded(span))


def recorded(span: ReadableSpan) -> RecordedSpan:
    """A span as records have it."""
    context = span.get_span_context()
    failed = span.status.status_code is StatusCode.ERROR
    return RecordedSpan(
        name=_text(span.name),
        kind=span.kind.name.lower(),
        span_id=f"{context.span_id if context else 0:016x}",
        parent_id=f"{span.parent.span_id if span.parent else 0:016x}",
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        attributes=_plain(span.attributes),
        events=tuple((_text(event.name), event.timestamp, _plain(event.attributes)) for event in span.events),
        error=_text(span.status.description or "") if failed else None,
    )


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, Value]:
    return {_text(name): _value(value) for name, value in (attributes or {}).items()}


def _value(value: object) -> Value:
    """What JSON and OTLP can both say; the rest as text."""
    if isinstance(value, list | tuple):
        return tuple(_text(str(part)) for part in value)
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < _INT64):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else _text(str(value))


def _text(text: str) -> str:
    """Cut, and fit for a record: what is no Unicode is escaped."""
    return text[:_TEXT_MAX].encode("utf-8", "backslashreplace").decode()
