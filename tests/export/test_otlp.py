"""OTLP as it is written here: every span as opentelemetry-proto decodes it, and as the SDK would have encoded it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SdkEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link as SdkLink
from opentelemetry.trace import SpanContext, SpanKind, TraceState
from opentelemetry.trace.status import Status, StatusCode

from edgeproxy.export.otlp import SCHEMA_URL, Encoder, Frame
from edgeproxy.tracing.spans import Event, Kind, Link, Span

RESOURCE = {"service.name": "edge", "host.cpus": 2, "tags": ("a", "b")}
TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"


def decoded(*spans: Span, encoder: Encoder | None = None) -> ExportTraceServiceRequest:
    body = Frame(RESOURCE, "edgeproxy", "1.2").request([(encoder or Encoder()).spans(spans)])
    return ExportTraceServiceRequest.FromString(body)


def context(trace_id: str, span_id: str, state: str = "", *, remote: bool = False) -> SpanContext:
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), remote, trace_state=TraceState.from_header([state]) if state else None
    )


def as_the_sdk_encodes(*spans: Span) -> ExportTraceServiceRequest:
    kinds = {kind: SpanKind[kind.name] for kind in Kind}
    return encode_spans(
        [
            ReadableSpan(
                name=span.name,
                context=context(span.trace_id, span.span_id, span.tracestate),
                parent=None
                if span.parent_id is None
                else context(span.trace_id, span.parent_id, remote=span.kind is Kind.SERVER),
                resource=Resource(RESOURCE, SCHEMA_URL),
                attributes=span.attributes,
                events=[SdkEvent(event.name, event.attributes, event.time_ns) for event in span.events],
                links=[
                    SdkLink(context(link.trace_id, link.span_id, remote=True), link.attributes) for link in span.links
                ],
                kind=kinds[span.kind],
                status=Status(StatusCode.UNSET) if span.error is None else Status(StatusCode.ERROR, span.error),
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=InstrumentationScope("edgeproxy", "1.2", SCHEMA_URL),
            )
            for span in spans
        ]
    )


def same(mine: ExportTraceServiceRequest, theirs: ExportTraceServiceRequest) -> None:
    """Differences: the SDK leaves the trace's flags out, and writes a status that is unset, which means the same."""
    for request in (mine, theirs):
        for span in request.resource_spans[0].scope_spans[0].spans:
            span.flags &= ~0xFF
            if not span.status.code:
                span.ClearField("status")
            for link in span.links:
                link.flags &= ~0xFF
    assert str(mine) == str(theirs)


def span(**changes: Any) -> Span:
    known = Span(
        "GET /*", Kind.SERVER, TRACE, SPAN, None, 1, "", 1_700_000_000_000_000_000, 1_700_000_000_001_000_000, {}
    )
    return known._replace(**changes)


SPANS = {
    "the least": span(),
    "a remote parent": span(parent_id=PARENT, tracestate="a=1,b=2"),
    "a parent of its own": span(kind=Kind.CLIENT, parent_id=PARENT),
    "attributes of all types": span(
        attributes={"s": "text", "e": "", "i": 7, "n": -7, "f": 0.5, "t": True, "n0": False, "z": 0, "l": ("a", "")}
    ),
    "one, true and 1.0 are three": span(attributes={"a": 1, "b": True, "c": 1.0}),
    "limits of 64 bits": span(attributes={"most": 2**63 - 1, "least": -(2**63)}),
    "no ASCII": span(name="取 /香港", attributes={"路": "值" * 100}),
    "longer than a length of two bytes": span(attributes={"long": "x" * 70_000}),
    "an error": span(error="connection refused"),
    "an error without words": span(error=""),
    "events": span(events=(Event("dns", 5, {"ms": 0.25}), Event("exception", 6, {"exception.type": "x"}))),
    "links": span(links=(Link(TRACE, PARENT, 1, {"edgeproxy.link": "filled_by"}),)),
}


@pytest.mark.parametrize("one", SPANS.values(), ids=SPANS)
def test_a_span_is_encoded_as_the_sdk_would(one: Span) -> None:
    same(decoded(one), as_the_sdk_encodes(one))


def test_what_was_encoded_before_comes_out_the_same_again() -> None:
    encoder = Encoder()
    values: list[Any] = [1, True, 1.0, "1", ("1",), 0, False, 0.0, "", 1, True, 1.0]
    spans = [span(attributes={"a": value}) for value in values]
    same(decoded(*spans, encoder=encoder), as_the_sdk_encodes(*spans))
    same(decoded(*spans, encoder=encoder), as_the_sdk_encodes(*spans))


def test_memory_of_values_that_never_come_again_is_bounded() -> None:
    encoder = Encoder()
    for number in range(5000):
        encoder.spans([span(name=f"n{number}", attributes={f"k{number % 1500}": f"v{number}", "id": str(number)})])
    assert len(encoder._names) <= 1024
    assert len(encoder._of_spans) <= 1024
    assert all(len(attribute.texts) <= 1024 for attribute in encoder._of_spans.values())


def test_flags_say_what_the_trace_and_the_parent_are() -> None:
    spans = decoded(span(), span(parent_id=PARENT), span(kind=Kind.CLIENT, parent_id=PARENT, flags=3))
    flags = [one.flags for one in spans.resource_spans[0].scope_spans[0].spans]
    assert flags == [0x101, 0x301, 0x103]


def test_text_that_is_no_unicode_and_numbers_beyond_64_bits_are_no_failure() -> None:
    (one,) = decoded(span(attributes={"cut": "a\ud800", "n": 2**64})).resource_spans[0].scope_spans[0].spans
    assert [pair.value.string_value for pair in one.attributes] == ["a?", str(2**64)]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES = st.one_of(
    TEXTS,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
)
ATTRIBUTES = st.dictionaries(st.text("abc.é", min_size=1, max_size=5), VALUES, max_size=6)
IDS = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
TRACE_IDS = IDS.map(lambda text: text * 2)
NANOSECONDS = st.integers(1, 2**63 - 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.builds(
            Span,
            name=TEXTS,
            kind=st.sampled_from(Kind),
            trace_id=TRACE_IDS,
            span_id=IDS,
            parent_id=st.none() | IDS,
            flags=st.integers(0, 3),
            tracestate=st.just(""),
            start_ns=NANOSECONDS,
            end_ns=NANOSECONDS,
            attributes=ATTRIBUTES,
            events=st.lists(st.builds(Event, name=TEXTS, time_ns=NANOSECONDS, attributes=ATTRIBUTES), max_size=2),
            links=st.lists(
                st.builds(Link, trace_id=TRACE_IDS, span_id=IDS, flags=st.just(0), attributes=ATTRIBUTES),
                max_size=2,
            ),
            error=st.none() | TEXTS,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_spans_are_encoded_as_the_sdk_would(spans: list[Span]) -> None:
    same(decoded(*spans), as_the_sdk_encodes(*spans))
