"""The formats in which trace context comes in and goes out (`tracing.propagators`).

May know: the words of OTEL_PROPAGATORS, and which format counts where several came. Must not: know the grammar of any
(`context` has W3C's, `formats` the others'), or decide on sampling.

W3C's format alone, which is the default, does not pass through here on its way in: `Pipeline.receive` asks the tracer
itself, and a request pays nothing for the formats that nobody configured.
"""

from collections.abc import Sequence

from edgeproxy.tracing.baggage import limited
from edgeproxy.tracing.context import (
    SAMPLED,
    RequestTrace,
    Tracer,
    format_traceparent,
    parse_traceparent,
)
from edgeproxy.tracing.formats import B3Multi, B3Single, Format, Found, Jaeger

_W3C_FIELDS = frozenset({b"traceparent", b"tracestate"})


class Propagation:
    """What one worker does with trace context on the wire."""

    def __init__(self, words: Sequence[str], tracer: Tracer) -> None:
        """Speak the formats that these words of `tracing.propagators` name."""
        self._tracer = tracer
        self._w3c = "tracecontext" in words
        self._others: list[Format] = []
        if "b3" in words:
            self._others.append(B3Single())
        if "b3multi" in words:
            self._others.append(B3Multi())
        if "jaeger" in words:
            self._others.append(Jaeger())
        self.is_plain = self._w3c and not self._others
        """Whether W3C's is the only format."""
        self.has_baggage = "baggage" in words
        """Whether baggage is looked after; if not, it passes as any other field does."""
        self.fields: frozenset[bytes] = (_W3C_FIELDS if self._w3c else frozenset()).union(
            *(one.fields for one in self._others)
        )
        """The request fields that are the edge's to write, in lower case."""

    def begin(self, now_ns: int, lines: Sequence[tuple[bytes, bytes]], trusted: bool) -> RequestTrace:
        """The trace of a request with these header fields, from a peer that is trusted or not.

        Of several formats W3C's counts, then they do in the order of `tracing.propagators`' words. With tracing off
        all that is valid is sent on as it came, and nothing else.
        """
        fields: dict[bytes, list[bytes]] = {}
        for name, value in lines:
            lower = name.lower()
            if lower in self.fields:
                fields.setdefault(lower, []).append(value)
        if not fields:
            return self._tracer.begin(now_ns, None, None, trusted)
        first: Found | None = None
        states: list[bytes] | None = None
        valid: frozenset[bytes] = frozenset()
        if self._w3c and (parent := parse_traceparent(fields.get(b"traceparent", ()))) is not None:
            first = Found(parent, bool(parent.flags & SAMPLED))
            states = fields.get(b"tracestate")
            valid = frozenset({b"traceparent"})  # tracestate goes another way, `RequestTrace.tracestate`
        for one in self._others:
            found = one.found(fields)
            if found is not None:
                first = first or found
                valid |= one.fields
        if first is None:
            return self._tracer.begin(now_ns, None, None, trusted)
        trace = self._tracer.begin_from(now_ns, first.parent, first.sampled, states, trusted)
        if trusted and not trace.recording:
            trace.carried = b"".join(b"%b: %b\r\n" % line for line in lines if line[0].lower() in valid)
        return trace

    def attempt_fields(self, trace: RequestTrace, span_id: str) -> bytes:
        """The fields that name one attempt's span as the parent of whatever the origin does, each exactly once."""
        if self.is_plain:
            return b"traceparent: %b\r\n" % self._tracer.outgoing(trace, span_id)
        if trace.carried is not None:
            return trace.carried
        text = ""
        if self._w3c:
            text = f"traceparent: {format_traceparent(trace.trace_id, span_id, trace.flags)}\r\n"
        for one in self._others:
            text += one.written(trace.trace_id, span_id, trace.sampled)
        return text.encode("ascii")

    def baggage(self, value: bytes, trusted: bool) -> bytes:
        """What goes to the origin of a request's baggage: the same object where it passes as it came.

        That of a peer who is not trusted does not, as little as its trace context.
        """
        if not self.has_baggage:
            return value
        return limited(value) if trusted else b""
