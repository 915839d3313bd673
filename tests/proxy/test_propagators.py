"""Trace context on the wire in other formats than W3C's: what reaches the origin of what came in."""

from collections.abc import Iterator

import pytest

from tests.proxy.edges import Edge
from tests.support import Received, Record, until

TRACE = "80f198ee56343ba864fe8b2a57d3eff7"
SPAN = "e457b5a2e4d86bd1"
PARENT = f"00-{TRACE[::-1]}-{SPAN[::-1]}-01"
B3 = f"b3: {TRACE}-{SPAN}-1"
SEVERAL = [f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-ParentSpanId: 05e3ac9a4f6e3b90", "X-B3-Sampled: 1"]
JAEGER = f"uber-trace-id: {TRACE}%3A{SPAN}%3A0%3A1"
CONTEXT = ("traceparent", "tracestate", "b3", "x-b3-", "uber-trace-id", "baggage")
LONG = ",".join(f"k{number}={'v' * 1000}" for number in range(10))


@pytest.fixture(scope="module")
def plain() -> Iterator[Edge]:
    with Edge(app={}) as started:
        yield started


@pytest.fixture(scope="module")
def many() -> Iterator[Edge]:
    tables = {"environ": {"OTEL_PROPAGATORS": "b3multi,jaeger,tracecontext"}}
    with Edge(app={}, tables=tables) as started:
        yield started


@pytest.fixture(scope="module")
def b3_off() -> Iterator[Edge]:
    tables = {"tracing": {"propagators": ["b3", "baggage"]}, "environ": {"EDGEPROXY_TRACING": "off"}}
    with Edge(app={}, tables=tables) as started:
        yield started


def through(edge: Edge, *fields: str, method: str = "GET") -> tuple[list[str], Record]:
    """The lines of context that the origin saw of one request, and its line in the log."""
    before = len(edge["app"].requests)
    with edge.connect() as client:
        assert client.get("/app/x", *fields, method=method).status == 200
    (seen,) = edge["app"].requests[before:]

    def line() -> list[Record]:
        return [line for line in edge.node.lines() if line["request_id"] == seen["x-request-id"]]

    return context(seen), until(line, "the line")[0]


def context(seen: Received) -> list[str]:
    lines = [f"{name.decode()}: {value.decode()}" for name, value in seen.fields]
    return [line for line in lines if line.lower().startswith(CONTEXT)]


@pytest.mark.parametrize(
    "fields", [[B3], SEVERAL, [JAEGER], [B3, *SEVERAL, JAEGER.replace("1", "2"), "tracestate: a=1"]]
)
def test_every_format_that_is_spoken_leaves_once_with_the_attempt_as_parent(many: Edge, fields: list[str]) -> None:
    seen, record = through(many, *fields)
    attempt = record["attempts"][0]["span_id"]
    assert (record["trace_id"], record["parent_id"], record["sampled"]) == (TRACE, SPAN, True)
    assert seen == [
        f"traceparent: 00-{TRACE}-{attempt}-01",
        f"X-B3-TraceId: {TRACE}",
        f"X-B3-SpanId: {attempt}",
        "X-B3-Sampled: 1",
        f"uber-trace-id: {TRACE}:{attempt}:0:01",
    ]


def test_w3cs_counts_first_on_the_wire_too(many: Edge) -> None:
    seen, record = through(many, B3, f"traceparent: {PARENT}", "tracestate: a=1", JAEGER)
    assert (record["trace_id"], record["parent_id"]) == (TRACE[::-1], SPAN[::-1])
    assert "tracestate: a=1" in seen
    assert len([line for line in seen if TRACE[::-1] in line]) == 3
    assert not any(TRACE in line for line in seen)


def test_what_is_not_configured_passes_as_it_came(plain: Edge) -> None:
    seen, record = through(plain, "B3: 0", *SEVERAL, JAEGER)
    attempt = record["attempts"][0]["span_id"]
    assert sorted(seen) == sorted(["B3: 0", *SEVERAL, JAEGER, f"traceparent: 00-{record['trace_id']}-{attempt}-03"])
    assert record["trace_id"] != TRACE


def test_with_tracing_off_all_of_it_passes_as_it_came(b3_off: Edge) -> None:
    came = [f"traceparent: {PARENT}", "tracestate: x", "B3: 80f198ee56343ba8-e457b5a2e4d86bd1-d", *SEVERAL, JAEGER]
    seen, record = through(b3_off, *came, "baggage: a = 1")
    assert sorted(seen) == sorted([*came, "baggage: a = 1"])
    assert (record["trace_id"], record["parent_id"]) == ("0" * 16 + "80f198ee56343ba8", SPAN)


def test_heads_that_recur_are_not_taken_for_one_another(many: Edge) -> None:
    for number in range(3):
        span = f"{number:x}" * 15 + "1"
        for field in (f"b3: {TRACE}-{span}-1", f"uber-trace-id: {TRACE}:{span}:0:1"):
            _, record = through(many, field)
            assert record["parent_id"] == span


def test_baggage_beyond_the_limits_is_cut_between_members(plain: Edge, many: Edge) -> None:
    members = LONG.split(",")
    seen, _ = through(plain, f"baggage: {LONG}")
    assert f"baggage: {','.join(members[:8])}" in seen
    seen, _ = through(plain, *(f"baggage: {member}" for member in members))
    assert [line for line in seen if line.startswith("baggage")] == [f"baggage: {','.join(members[:8])}"]
    seen, _ = through(many, f"baggage: {LONG}")  # not configured: as any other field
    assert f"baggage: {LONG}" in seen
