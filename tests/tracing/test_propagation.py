"""B3 and Jaeger, held against OpenTelemetry's own propagators and the specifications' tables; which format counts."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.textmap import TextMapPropagator

from edgeproxy.tracing import RANDOM, SAMPLED, IdSource, Propagation, RequestTrace, SamplerKind, Tracer

NOW_NS = 1_790_000_000_123_456_789
TRACE = "80f198ee56343ba864fe8b2a57d3eff7"
SPAN = "e457b5a2e4d86bd1"
ATTEMPT = "b7ad6b7169203331"
LONG = f"{TRACE}-{SPAN}"
SHORT = "64fe8b2a57d3eff7"
PADDED = "0" * 16 + SHORT
PARENT = f"00-{TRACE[::-1]}-{SPAN[::-1]}-01"
ORACLES: dict[str, TextMapPropagator] = {
    "b3": B3SingleFormat(),
    "b3multi": B3MultiFormat(),
    "jaeger": JaegerPropagator(),
}


def speaking(
    *words: str, enabled: bool = True, sampler: SamplerKind = SamplerKind.PARENTBASED_ALWAYS_ON, ratio: float = 1.0
) -> Propagation:
    tracer = Tracer(IdSource())
    tracer.configure(enabled=enabled, sampler=sampler, ratio=ratio)
    return Propagation(words, tracer)


def begin(propagation: Propagation, *fields: str, trusted: bool = True) -> RequestTrace:
    lines = [tuple(part.strip().encode() for part in field.split(":", 1)) for field in fields]
    return propagation.begin(NOW_NS, lines, trusted)  # type: ignore[arg-type]


def sent(propagation: Propagation, trace: RequestTrace) -> list[str]:
    text = propagation.attempt_fields(trace, ATTEMPT).decode()
    assert text == "" or text.endswith("\r\n")
    return text.splitlines()


# --- what comes in

CONTINUED = [
    ("b3", [f"b3: {LONG}-1"], TRACE, True),
    ("b3", [f"B3:  {LONG}-0 "], TRACE, False),
    ("b3", [f"b3: {LONG}-d"], TRACE, True),
    ("b3", [f"b3: {LONG}-1-05e3ac9a4f6e3b90"], TRACE, True),
    ("b3", [f"b3: {SHORT}-{SPAN}-1"], PADDED, True),
    ("b3", [f"b3: {LONG.upper()}-1"], TRACE, True),
    ("b3multi", [f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-Sampled: 1"], TRACE, True),
    ("b3multi", [f"x-b3-traceid: {SHORT}", f"x-b3-spanid: {SPAN}", "x-b3-sampled: 0"], PADDED, False),
    ("b3multi", [f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-Sampled: true"], TRACE, True),
    ("b3multi", [f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-Flags: 1"], TRACE, True),
    (
        "b3multi",
        [f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-ParentSpanId: 05e3ac9a4f6e3b90", "X-B3-Sampled: 1"],
        TRACE,
        True,
    ),
    ("jaeger", [f"uber-trace-id: {TRACE}:{SPAN}:0:1"], TRACE, True),
    ("jaeger", [f"uber-trace-id: {TRACE}:{SPAN}:0:01"], TRACE, True),
    ("jaeger", [f"uber-trace-id: {TRACE}:{SPAN}:05e3ac9a4f6e3b90:3"], TRACE, True),
    ("jaeger", [f"uber-trace-id: {TRACE}:{SPAN}:0:0"], TRACE, False),
    ("jaeger", [f"uber-trace-id: {SHORT}:{SPAN}:0:1"], PADDED, True),
    ("jaeger", [f"uber-trace-id: {SHORT.lstrip('6')}:{SPAN}:0:1"], PADDED.replace("64fe", "04fe"), True),
    ("jaeger", [f"Uber-Trace-Id: {TRACE}:{SPAN}:0:9"], TRACE, True),
]
ID = [f"{word} {' '.join(fields)[:70]}" for word, fields, _, _ in CONTINUED]


@pytest.mark.parametrize(("word", "fields", "trace_id", "sampled"), CONTINUED, ids=ID)
def test_a_trace_goes_on(word: str, fields: list[str], trace_id: str, sampled: bool) -> None:
    trace = begin(speaking(word), *fields)
    assert (trace.trace_id, trace.parent_id, trace.sampled, trace.reason) == (trace_id, SPAN, sampled, "parent")
    assert trace.flags == (SAMPLED if sampled else 0)


@pytest.mark.parametrize(("word", "fields", "trace_id", "sampled"), CONTINUED, ids=ID)
def test_opentelemetrys_own_propagator_reads_the_same(
    word: str, fields: list[str], trace_id: str, sampled: bool
) -> None:
    carrier = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    context = otel.get_current_span(ORACLES[word].extract(carrier)).get_span_context()
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (trace_id, SPAN)
    assert context.trace_flags.sampled is sampled


ANEW = [
    ("b3", f"b3: {LONG}-2"),
    ("b3", f"b3: {LONG}-"),
    ("b3", f"b3: {LONG}-1-short"),
    ("b3", f"b3: {LONG}-1-{SPAN}-1"),
    ("b3", f"b3: {TRACE}"),
    ("b3", f"b3: {TRACE[1:]}-{SPAN}-1"),
    ("b3", f"b3: {TRACE}-{SPAN[1:]}-1"),
    ("b3", f"b3: {'0' * 32}-{SPAN}-1"),
    ("b3", f"b3: {TRACE}-{'0' * 16}-1"),
    ("b3", f"b3: {TRACE[:-1]}x-{SPAN}-1"),
    ("b3", "b3:"),
    ("b3", "b3: 2"),
    ("b3", f"b3: {LONG}-1,{LONG}-1"),
    ("b3multi", f"X-B3-TraceId: {TRACE}"),
    ("b3multi", f"X-B3-SpanId: {SPAN}"),
    ("b3multi", "X-B3-ParentSpanId: 05e3ac9a4f6e3b90"),
    ("jaeger", f"uber-trace-id: {TRACE}:{SPAN}:0"),
    ("jaeger", f"uber-trace-id: {TRACE}:{SPAN}:0:"),
    ("jaeger", f"uber-trace-id: {TRACE}:{SPAN}:0:1:1"),
    ("jaeger", f"uber-trace-id: {TRACE}:{SPAN}:0:x"),
    ("jaeger", f"uber-trace-id: 0:{SPAN}:0:1"),
    ("jaeger", f"uber-trace-id: {TRACE}:0:0:1"),
    ("jaeger", f"uber-trace-id: 0{TRACE}:{SPAN}:0:1"),
    ("jaeger", f"uber-trace-id: {TRACE}:+1:0:1"),
    ("jaeger", f"uber-trace-id: 0x1:{SPAN}:0:1"),
    ("tracecontext", f"b3: {LONG}-1"),
    ("none", f"b3: {LONG}-1"),
    ("b3", f"uber-trace-id: {TRACE}:{SPAN}:0:1"),
    ("b3", f"traceparent: {PARENT}"),
    ("jaeger", f"b3: {LONG}-1"),
]


@pytest.mark.parametrize(("word", "field"), ANEW, ids=[" ".join(row)[:80] for row in ANEW])
def test_what_is_invalid_or_not_spoken_begins_a_new_trace(word: str, field: str) -> None:
    trace = begin(speaking(word), field)
    assert (trace.parent_id, trace.link) == (None, None)
    assert trace.trace_id not in {TRACE, PADDED, TRACE[::-1]}
    assert trace.flags == RANDOM | SAMPLED


@pytest.mark.parametrize("word", ["b3", "b3multi"])
def test_several_fields_of_a_name_say_nothing(word: str) -> None:
    assert begin(speaking(word), f"b3: {LONG}-1", f"b3: {LONG}-1").parent_id is None
    twice = [f"X-B3-TraceId: {TRACE}", f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}"]
    assert begin(speaking(word), *twice).parent_id is None


def test_percent_encoded_colons_are_colons() -> None:
    for colon in ("%3A", "%3a"):
        trace = begin(
            speaking("jaeger"), f"uber-trace-id: {TRACE}:{SPAN}:0:1".replace(":", colon).replace(colon, ":", 1)
        )
        assert (trace.trace_id, trace.parent_id) == (TRACE, SPAN)


def test_jaegers_debug_flag_means_sampled() -> None:
    assert begin(speaking("jaeger"), f"uber-trace-id: {TRACE}:{SPAN}:0:2").sampled


def test_both_forms_of_b3_are_read_and_the_single_one_counts_first() -> None:
    several = [f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-Sampled: 0"]
    for word in ("b3", "b3multi"):
        assert begin(speaking(word), *several).trace_id == TRACE
        both = begin(speaking(word), *several, f"b3: {TRACE[::-1]}-{SPAN}-1")
        assert (both.trace_id, both.sampled) == (TRACE[::-1], True)
        assert begin(speaking(word), *several, "b3: broken").trace_id == TRACE


# --- a decision without ids, ids without a decision


@pytest.mark.parametrize(
    ("fields", "sampled"),
    [(["b3: 0"], False), (["b3: 1"], True), (["b3: d"], True), (["X-B3-Sampled: 0"], False), (["X-B3-Flags: 1"], True)],
)
def test_a_decision_alone_counts_for_the_trace_that_begins_here(fields: list[str], sampled: bool) -> None:
    opposite = SamplerKind.PARENTBASED_ALWAYS_OFF if sampled else SamplerKind.PARENTBASED_ALWAYS_ON
    trace = begin(speaking("b3", sampler=opposite), *fields)
    assert (trace.parent_id, trace.sampled, trace.reason) == (None, sampled, "parent")
    assert trace.flags == RANDOM | sampled
    assert begin(speaking("b3", sampler=opposite), *fields, trusted=False).sampled is not sampled


@pytest.mark.parametrize("fields", [[f"b3: {LONG}"], [f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}"]])
def test_a_decision_left_to_us_is_the_samplers(fields: list[str]) -> None:
    for sampler, sampled in ((SamplerKind.PARENTBASED_ALWAYS_ON, True), (SamplerKind.PARENTBASED_ALWAYS_OFF, False)):
        trace = begin(speaking("b3", sampler=sampler), *fields)
        assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, SPAN, sampled)
        assert trace.reason == ("always_on" if sampled else "always_off")


# --- which format counts


def test_w3cs_format_counts_before_all_others_and_b3_before_jaeger() -> None:
    all_of_them = speaking("jaeger", "b3", "tracecontext")
    b3, jaeger = f"b3: {LONG}-0", f"uber-trace-id: {TRACE[1:]}1:{SPAN}:0:1"
    assert begin(all_of_them, jaeger, b3, f"traceparent: {PARENT}", "tracestate: a=1").trace_id == TRACE[::-1]
    assert begin(all_of_them, jaeger, b3, "traceparent: broken").trace_id == TRACE
    assert begin(all_of_them, jaeger).trace_id == TRACE[1:] + "1"


def test_the_tracestate_goes_on_with_w3cs_context_only() -> None:
    both = speaking("tracecontext", "b3")
    assert begin(both, f"traceparent: {PARENT}", "tracestate: a=1").tracestate == b"a=1"
    assert begin(both, f"b3: {LONG}-1", "tracestate: a=1").tracestate is None


def test_who_is_not_trusted_is_linked_to_whatever_the_format() -> None:
    for word, fields in (("b3", [f"b3: {SHORT}-{SPAN}-1"]), ("jaeger", [f"uber-trace-id: {SHORT}:{SPAN}:0:1"])):
        trace = begin(speaking(word), *fields, trusted=False)
        assert trace.trace_id != PADDED
        assert trace.link == f"{PADDED}-{SPAN}"


# --- what goes out


@pytest.mark.parametrize("word", ORACLES)
@given(sampled=st.booleans(), enough=st.integers(min_value=0, max_value=1 << 40))
def test_opentelemetrys_own_propagator_reads_what_is_sent(word: str, sampled: bool, enough: int) -> None:
    kind = SamplerKind.ALWAYS_ON if sampled else SamplerKind.ALWAYS_OFF
    propagation = speaking(word, sampler=kind)
    trace = propagation.begin(NOW_NS + enough, [], True)
    fields = sent(propagation, trace)
    carrier = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    assert len(carrier) == len(fields)
    context = otel.get_current_span(ORACLES[word].extract(carrier)).get_span_context()
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (trace.trace_id, ATTEMPT)
    assert context.trace_flags.sampled is sampled


def test_each_format_is_sent_once() -> None:
    propagation = speaking("tracecontext", "b3", "b3multi", "jaeger")
    trace = begin(propagation, f"b3: {LONG}-1", "X-B3-Flags: 1", f"uber-trace-id: {SHORT}:{SPAN}:0:0")
    assert sent(propagation, trace) == [
        f"traceparent: 00-{TRACE}-{ATTEMPT}-01",
        f"b3: {TRACE}-{ATTEMPT}-1",
        f"X-B3-TraceId: {TRACE}",
        f"X-B3-SpanId: {ATTEMPT}",
        "X-B3-Sampled: 1",
        f"uber-trace-id: {TRACE}:{ATTEMPT}:0:01",
    ]


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["tracecontext", "baggage"], {"traceparent", "tracestate"}),
        (
            ["b3"],
            {"b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"},
        ),
        (["jaeger", "baggage"], {"uber-trace-id"}),
        (["none"], set()),
    ],
)
def test_the_fields_of_the_formats_that_are_spoken_are_the_edges(words: Sequence[str], fields: set[str]) -> None:
    propagation = speaking(*words)
    assert {name.decode() for name in propagation.fields} == fields
    assert propagation.is_plain is ("tracecontext" in words)


def test_none_sends_nothing() -> None:
    propagation = speaking("none")
    assert sent(propagation, begin(propagation, f"traceparent: {PARENT}")) == []


# --- tracing off


def test_off_means_that_valid_contexts_go_through_as_they_came_and_nothing_else() -> None:
    propagation = speaking("tracecontext", "b3", "jaeger", enabled=False)
    came = [f"B3: {SHORT}-{SPAN}-d-{SPAN}", "x-b3-sampled: 1", "uber-trace-id: broken", "traceparent: broken"]
    trace = begin(propagation, *came)
    assert sent(propagation, trace) == came[:2]
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (PADDED, SPAN, False)


def test_off_with_w3cs_and_another_format_both_go_through() -> None:
    propagation = speaking("tracecontext", "jaeger", enabled=False)
    came = [f"uber-trace-id: {SHORT}:{SPAN}:0:1", f"TraceParent: {PARENT}"]
    trace = begin(propagation, *came, "tracestate: a=1 ,B=x")
    assert sent(propagation, trace) == came
    assert trace.tracestate == b"a=1 ,B=x"


@pytest.mark.parametrize("trusted", [True, False])
def test_off_without_a_valid_context_ids_go_out_unsampled(trusted: bool) -> None:
    propagation = speaking("b3", enabled=False)
    field = "b3: broken" if trusted else f"b3: {LONG}-1"
    trace = begin(propagation, field, trusted=trusted)
    assert trace.trace_id != TRACE
    assert sent(propagation, trace) == [f"b3: {trace.trace_id}-{ATTEMPT}-0"]


def test_off_a_decision_alone_goes_through() -> None:
    propagation = speaking("b3", enabled=False)
    assert sent(propagation, begin(propagation, "b3: 0")) == ["b3: 0"]


# --- whatever a peer sends


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"b3", b"X-B3-TraceId", b"x-b3-spanid", b"x-b3-sampled", b"uber-trace-id", b"traceparent"]
            ),
            st.binary(max_size=80) | st.text("0123456789abcdef-:%3A", max_size=80).map(str.encode),
        ),
        max_size=6,
    )
)
def test_no_peer_can_send_what_raises_or_goes_on_malformed(lines: list[tuple[bytes, bytes]]) -> None:
    propagation = speaking("tracecontext", "b3", "b3multi", "jaeger")
    trace = propagation.begin(NOW_NS, lines, True)
    int(trace.trace_id, 16)
    assert len(trace.trace_id) == 32
    assert propagation.attempt_fields(trace, ATTEMPT).count(b"\r\n") == 6
