"""The exporter `console`: each span on standard error, in the JSON form of the SDK's ConsoleSpanExporter.

Standard error, because standard output may be the access log. For looking on while something is tried out: it makes an
object of the SDK for every span, and is as slow as that.
"""

import sys
from collections.abc import Mapping, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from edgeproxy.tracing.spans import Kind, Span, Value

_KINDS = {kind: SpanKind[kind.name] for kind in Kind}


class Console:
    """A sink for spans, those of one request at a time."""

    def __init__(self, resource: Mapping[str, Value], version: str) -> None:
        """Print spans of this resource."""
        self._resource = Resource(resource)
        self._scope = InstrumentationScope("edgeproxy", version)

    def send(self, payloads: list[Sequence[Span]], spans: int, timeout_s: float) -> int:  # noqa: ARG002  a file
        """Print them."""
        text = "".join(self._readable(span).to_json() + "\n" for request in payloads for span in request)
        sys.stderr.write(text)
        sys.stderr.flush()
        return 0

    def _readable(self, span: Span) -> ReadableSpan:
        parent = None if span.parent_id is None else _context(span.trace_id, span.parent_id, span.flags)
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id, span.flags),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            events=[Event(event.name, event.attributes, event.time_ns) for event in span.events],
            links=[Link(_context(one.trace_id, one.span_id, one.flags), one.attributes) for one in span.links],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )

    def close(self) -> None:
        """Nothing to let go of."""


def _context(trace_id: str, span_id: str, flags: int) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(flags))
