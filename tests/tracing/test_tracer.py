"""Tracer: when a context is continued, restarted, minted or passed through, tracing on and off."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.tracing import RANDOM, SAMPLED, IdSource, RequestTrace, SamplerKind, Tracer, parse_traceparent

NOW_NS = 1_790_000_000_123_456_789
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
ATTEMPT = "b7ad6b7169203331"


def make_tracer(
    enabled: bool = True, sampler: SamplerKind = SamplerKind.PARENTBASED_TRACEIDRATIO, ratio: float = 1.0
) -> Tracer:
    tracer = Tracer(IdSource())
    tracer.configure(enabled, sampler, ratio)
    return tracer


def traceparent(flags: str = "01", version: str = "00", rest: str = "") -> list[bytes]:
    return [f"{version}-{TRACE}-{SPAN}-{flags}{rest}".encode()]


def is_minted(trace: RequestTrace) -> bool:
    return (
        trace.trace_id != TRACE
        and int(trace.trace_id[:12], 16) == NOW_NS // 1_000_000
        and trace.parent_id is None
        and trace.tracestate is None
        and trace.passthrough is None
    )


NO_CONTEXT = [
    pytest.param(None, id="no field"),
    pytest.param([], id="an empty list of fields"),
    pytest.param([b""], id="an empty field"),
    pytest.param([b"nonsense"], id="an invalid field"),
    pytest.param([f"00-{'0' * 32}-{SPAN}-01".encode()], id="a zero trace id"),
    pytest.param(traceparent() * 2, id="two fields"),
    pytest.param(traceparent(version="ff"), id="version ff"),
]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("traceparents", NO_CONTEXT)
def test_without_a_valid_traceparent_a_trace_is_minted(
    traceparents: list[bytes] | None, enabled: bool, trusted: bool
) -> None:
    trace = make_tracer(enabled).begin(NOW_NS, traceparents, [b"rojo=1"], trusted)
    assert is_minted(trace)
    assert trace.link is None
    assert trace.recording is enabled


@pytest.mark.parametrize(
    ("sampler", "ratio", "flags"),
    [
        (SamplerKind.ALWAYS_ON, 0.0, RANDOM | SAMPLED),
        (SamplerKind.ALWAYS_OFF, 1.0, RANDOM),
        (SamplerKind.TRACEIDRATIO, 1.0, RANDOM | SAMPLED),
        (SamplerKind.TRACEIDRATIO, 0.0, RANDOM),
        (SamplerKind.PARENTBASED_ALWAYS_ON, 0.0, RANDOM | SAMPLED),
        (SamplerKind.PARENTBASED_ALWAYS_OFF, 1.0, RANDOM),
        (SamplerKind.PARENTBASED_TRACEIDRATIO, 1.0, RANDOM | SAMPLED),
        (SamplerKind.PARENTBASED_TRACEIDRATIO, 0.0, RANDOM),
    ],
)
def test_a_minted_trace_carries_the_random_flag_and_the_samplers_decision(
    sampler: SamplerKind, ratio: float, flags: int
) -> None:
    trace = make_tracer(True, sampler, ratio).begin(NOW_NS, None, None, True)
    assert (trace.flags, trace.sampled) == (flags, bool(flags & SAMPLED))


def test_a_minted_trace_is_sampled_by_its_own_id() -> None:
    tracer = make_tracer(ratio=0.5)
    traces = [tracer.begin(NOW_NS, None, None, True) for _ in range(1000)]
    assert {trace.sampled for trace in traces} == {True, False}
    assert all(trace.sampled == (int(trace.trace_id[16], 16) < 8) for trace in traces)
    assert all(trace.flags == RANDOM | trace.sampled for trace in traces)


def test_a_continued_trace_keeps_its_id_and_names_its_parent() -> None:
    trace = make_tracer().begin(NOW_NS, traceparent(), [b"rojo=1", b" congo=2 "], True)
    assert (trace.trace_id, trace.parent_id) == (TRACE, SPAN)
    assert trace.span_id not in (SPAN, "")
    assert trace.tracestate == b"rojo=1,congo=2"
    assert trace.recording
    assert (trace.link, trace.passthrough) == (None, None)
    assert int(trace.request_id[:8], 16) == int(f"{NOW_NS // 1_000_000:012x}"[:8], 16)


@pytest.mark.parametrize("sampler", list(SamplerKind))
@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_continued_trace_keeps_its_random_flag_whatever_the_decision(
    sampler: SamplerKind, flags: str, ratio: float
) -> None:
    trace = make_tracer(True, sampler, ratio).begin(NOW_NS, traceparent(flags), None, True)
    assert trace.flags & RANDOM == int(flags, 16) & RANDOM
    assert trace.sampled is bool(trace.flags & SAMPLED)


@pytest.mark.parametrize(
    ("sampler", "ratio", "flags", "sampled"),
    [
        (SamplerKind.PARENTBASED_TRACEIDRATIO, 0.0, "01", True),
        (SamplerKind.PARENTBASED_TRACEIDRATIO, 1.0, "00", False),
        (SamplerKind.PARENTBASED_ALWAYS_OFF, 0.0, "01", True),
        (SamplerKind.PARENTBASED_ALWAYS_ON, 1.0, "00", False),
        (SamplerKind.TRACEIDRATIO, 0.0, "01", False),
        (SamplerKind.TRACEIDRATIO, 1.0, "00", True),
        (SamplerKind.ALWAYS_ON, 0.0, "00", True),
        (SamplerKind.ALWAYS_OFF, 1.0, "01", False),
    ],
)
def test_parent_based_samplers_follow_the_parent_and_others_do_not(
    sampler: SamplerKind, ratio: float, flags: str, sampled: bool
) -> None:
    assert make_tracer(True, sampler, ratio).begin(NOW_NS, traceparent(flags), None, True).sampled is sampled


def test_an_invalid_tracestate_is_dropped_and_the_trace_goes_on() -> None:
    trace = make_tracer().begin(NOW_NS, traceparent(), [b"rojo=1,NOT VALID"], True)
    assert (trace.trace_id, trace.tracestate) == (TRACE, None)


@pytest.mark.parametrize("enabled", [True, False])
def test_an_untrusted_context_restarts_the_trace_and_links_to_it(enabled: bool) -> None:
    trace = make_tracer(enabled).begin(NOW_NS, traceparent(), [b"rojo=1"], False)
    assert is_minted(trace)
    assert trace.link == f"{TRACE}-{SPAN}"
    assert trace.recording is enabled


@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_an_untrusted_parent_has_no_say_in_sampling(flags: str, ratio: float) -> None:
    trace = make_tracer(ratio=ratio).begin(NOW_NS, traceparent(flags), None, False)
    assert trace.sampled is (ratio == 1.0)
    assert trace.flags == RANDOM | trace.sampled


def test_the_origin_gets_the_attempts_span_as_parent() -> None:
    tracer = make_tracer()
    continued = tracer.begin(NOW_NS, traceparent("03"), None, True)
    assert tracer.outgoing(continued, ATTEMPT) == f"00-{TRACE}-{ATTEMPT}-03".encode()
    minted = tracer.begin(NOW_NS, None, None, True)
    assert tracer.outgoing(minted, ATTEMPT) == f"00-{minted.trace_id}-{ATTEMPT}-03".encode()


def test_a_later_version_is_brought_down_to_ours() -> None:
    tracer = make_tracer()
    trace = tracer.begin(NOW_NS, traceparent("ff", "cc", "-what-comes-next"), None, True)
    assert tracer.outgoing(trace, ATTEMPT) == f"00-{TRACE}-{ATTEMPT}-03".encode()


# ---- off ----


@pytest.mark.parametrize("sampler", list(SamplerKind))
def test_off_nothing_is_sampled(sampler: SamplerKind) -> None:
    tracer = make_tracer(False, sampler, 1.0)
    for traceparents, trusted in itertools.product((None, traceparent("01"), traceparent("03")), (True, False)):
        trace = tracer.begin(NOW_NS, traceparents, None, trusted)
        assert (trace.sampled, trace.recording, trace.flags & SAMPLED) == (False, False, 0)


def test_off_a_minted_trace_carries_no_flag() -> None:
    tracer = make_tracer(False)
    trace = tracer.begin(NOW_NS, None, None, True)
    assert tracer.outgoing(trace, ATTEMPT) == f"00-{trace.trace_id}-{ATTEMPT}-00".encode()


@pytest.mark.parametrize(
    "value",
    [
        *(traceparent(flags)[0] for flags in ("00", "01", "02", "03", "ff")),
        *traceparent("01", "cc", "-what comes next"),
    ],
)
def test_off_a_valid_traceparent_goes_through_byte_for_byte(value: bytes) -> None:
    tracer = make_tracer(False)
    trace = tracer.begin(NOW_NS, [b" " + value + b"\t"], None, True)
    assert tracer.outgoing(trace, ATTEMPT) == value
    assert (trace.trace_id, trace.parent_id) == (TRACE, SPAN)
    assert trace.span_id not in (SPAN, "")


@pytest.mark.parametrize(
    ("tracestates", "sent_on"),
    [
        (None, None),
        ([], None),
        ([b""], None),
        ([b"rojo=1, congo=2,"], b"rojo=1, congo=2,"),
        ([b"not a valid list"], b"not a valid list"),
        ([b"rojo=1", b"congo=2"], b"rojo=1,congo=2"),
    ],
)
def test_off_the_tracestate_goes_with_it_as_it_came(tracestates: list[bytes] | None, sent_on: bytes | None) -> None:
    assert make_tracer(False).begin(NOW_NS, traceparent(), tracestates, True).tracestate == sent_on


@pytest.mark.parametrize("traceparents", NO_CONTEXT)
def test_off_an_invalid_traceparent_does_not_go_through(traceparents: list[bytes] | None) -> None:
    tracer = make_tracer(False)
    trace = tracer.begin(NOW_NS, traceparents, [b"rojo=1"], True)
    assert tracer.outgoing(trace, ATTEMPT) == f"00-{trace.trace_id}-{ATTEMPT}-00".encode()


def test_off_an_untrusted_traceparent_does_not_go_through() -> None:
    tracer = make_tracer(False)
    trace = tracer.begin(NOW_NS, traceparent(), [b"rojo=1"], False)
    assert tracer.outgoing(trace, ATTEMPT) == f"00-{trace.trace_id}-{ATTEMPT}-00".encode()


# ---- the switch ----


def test_tracing_is_off_until_it_is_configured() -> None:
    assert not Tracer(IdSource()).begin(NOW_NS, None, None, True).recording


def test_a_request_keeps_the_settings_it_began_with() -> None:
    tracer = make_tracer(True)
    on = tracer.begin(NOW_NS, traceparent("01"), None, True)
    tracer.configure(False, SamplerKind.ALWAYS_OFF, 0.0)
    off = tracer.begin(NOW_NS, traceparent("01"), None, True)
    tracer.configure(True, SamplerKind.ALWAYS_ON, 0.0)
    assert tracer.outgoing(on, ATTEMPT) == f"00-{TRACE}-{ATTEMPT}-01".encode()
    assert tracer.outgoing(off, ATTEMPT) == traceparent("01")[0]
    assert tracer.begin(NOW_NS, None, None, True).sampled


def test_refused_settings_change_nothing() -> None:
    tracer = make_tracer(True, SamplerKind.ALWAYS_ON, 1.0)
    with pytest.raises(ValueError):
        tracer.configure(False, SamplerKind.TRACEIDRATIO, 2.0)
    assert tracer.begin(NOW_NS, None, None, True).sampled


fields = st.none() | st.lists(
    st.binary(max_size=60) | st.sampled_from([*traceparent(), *traceparent("00", "cc", "-x"), b"rojo=1"]), max_size=3
)


@given(fields, fields, st.booleans(), st.booleans())
def test_whatever_comes_in_one_valid_traceparent_goes_out(
    traceparents: list[bytes] | None, tracestates: list[bytes] | None, trusted: bool, enabled: bool
) -> None:
    tracer = make_tracer(enabled)
    trace = tracer.begin(NOW_NS, traceparents, tracestates, trusted)
    sent = parse_traceparent([tracer.outgoing(trace, ATTEMPT)])
    assert sent is not None
    assert sent.trace_id == trace.trace_id
    assert sent.span_id == (trace.parent_id if trace.passthrough else ATTEMPT)
