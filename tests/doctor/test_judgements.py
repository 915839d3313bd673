"""What the doctor makes of what it sees: tables of figures and of the verdicts that they come to."""

import time
from typing import Any

import msgspec
import pytest

from edgeproxy.config import Batch, Config, Tracing, TracingSettings
from edgeproxy.config.sampling import Sampling, SamplingRule
from edgeproxy.doctor.clock import judge_clock, least_offset_s
from edgeproxy.doctor.echo import Context, read_echo
from edgeproxy.doctor.findings import Finding, Verdict, exit_code, worst
from edgeproxy.doctor.flush import Allowed, judge_flush, understood
from edgeproxy.doctor.probe import Probe
from edgeproxy.doctor.propagation import judge_client, judge_origin
from edgeproxy.doctor.queue import judge_queues
from edgeproxy.doctor.sampler import Seen, doubtful, settings, shares
from edgeproxy.doctor.surroundings import check_redis, check_resource
from edgeproxy.export.counts import Counts
from edgeproxy.tracing.recorded import Recorded, RecordedAttempt

OK, WARN, FAIL, SKIPPED = Verdict.OK, Verdict.WARN, Verdict.FAIL, Verdict.SKIPPED
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def finding(verdict: Verdict) -> Finding:
    return Finding(check="a check", verdict=verdict, found="")


@pytest.mark.parametrize(
    ("verdicts", "code", "gravest"),
    [
        ([], 3, SKIPPED),
        ([SKIPPED, SKIPPED], 3, SKIPPED),
        ([SKIPPED, OK], 0, OK),
        ([OK, WARN, OK], 1, WARN),
        ([WARN, FAIL, SKIPPED], 2, FAIL),
    ],
)
def test_the_gravest_verdict_decides_the_exit_code(verdicts: list[Verdict], code: int, gravest: Verdict) -> None:
    assert exit_code(map(finding, verdicts)) == code
    assert worst(verdicts) is gravest


# --- the sampler


def tracing(sampler: Any = "parentbased_traceidratio", ratio: float = 0.1, **changes: Any) -> TracingSettings:
    return TracingSettings(**{"enabled": True, "sampler": sampler, "ratio": ratio, "exporters": ("otlp",), **changes})


@pytest.mark.parametrize(
    ("given", "verdict", "words"),
    [
        (tracing(), OK, "ratio 0.1"),
        (tracing("always_on", 0), OK, "always_on"),
        (tracing(exporters=()), FAIL, "go nowhere"),
        (tracing(enabled=False), FAIL, "tracing is off"),
        (tracing("always_off"), FAIL, "always_off"),
        (tracing("always_off", sampling=Sampling(rules=[SamplingRule(ratio=0.5)])), OK, "with rules"),
        (tracing("traceidratio", 0), FAIL, "no trace is sampled"),
        (tracing(ratio=0), WARN, "only traces that a parent has sampled"),
        (tracing("parentbased_always_off", 1), WARN, "only traces that a parent has sampled"),
        (tracing(ratio=0, sampling=Sampling(rules=[SamplingRule(ratio=0.5)])), OK, "with rules"),
        (tracing(ratio=0, sampling=Sampling(rules=[SamplingRule(ratio=0)])), WARN, "only traces"),
        (tracing(ratio=0, sampling=Sampling(adaptive_target=5)), OK, "with an adaptive target"),
        (tracing(ratio=0, sampling=Sampling(remote_url="http://a.test/")), WARN, "only traces"),
        (tracing(ratio=0, strategies="{}"), OK, "with remote strategies"),
    ],
)
def test_settings_that_sample_nothing_are_said(given: TracingSettings, verdict: Verdict, words: str) -> None:
    found = settings(given)
    assert (found.verdict, words in found.found) == (verdict, True), found
    assert bool(found.advice) is (verdict is not OK)


@pytest.mark.parametrize(
    ("given", "routes", "error", "verdict", "words"),
    [
        (tracing(), ["/*"], "", OK, "ratio 0.1"),
        (tracing(strategies="{}"), [], "since noon: it answers 503", WARN, "answers 503; the last good ones hold"),
        (tracing(), [], "since noon: it answers 503", WARN, "tracing.sampler decides"),
        (tracing(sampling=Sampling(rules=[SamplingRule(route="/*", ratio=1)])), [], "", OK, "with rules"),
        (tracing(sampling=Sampling(rules=[SamplingRule(route="/a/*", ratio=1)])), ["/b/*"], "", WARN, "is for /a/*"),
    ],
)
def test_what_does_nothing_of_what_is_set_is_a_warning(
    given: TracingSettings, routes: list[str], error: str, verdict: Verdict, words: str
) -> None:
    found = doubtful(settings(given), given, routes, error)
    assert (found.verdict, words in found.found, bool(found.advice)) == (verdict, True, verdict is WARN), found


def requests(count: int, sampled: int, route: str | None = "/*", reason: str = "ratio", **changes: Any) -> list[Seen]:
    return [
        Seen(**{"route": route, "sampled": n < sampled, "exported": n < sampled, "sampling": reason, **changes})
        for n in range(count)
    ]


SAVED = Seen(route="/rare", sampled=False, exported=True, sampling="error")
SAVED_ONES = [Seen(route="/*", sampled=False, exported=True, sampling="error", status=503)] * 450


@pytest.mark.parametrize(
    ("seen", "ratio", "share", "starving"),
    [
        pytest.param([], 0.1, SKIPPED, SKIPPED, id="no traffic"),
        pytest.param(requests(1000, 100), 0.1, OK, OK, id="as configured"),
        pytest.param(requests(1000, 130), 0.1, OK, OK, id="by chance a little more"),
        pytest.param(requests(1000, 200), 0.1, WARN, OK, id="twice as much"),
        pytest.param(requests(1000, 0), 0.1, WARN, WARN, id="nothing at all"),
        pytest.param(requests(5, 0), 0.1, WARN, SKIPPED, id="hardly any traffic"),
        pytest.param(requests(100, 0, reason="parent"), 0.1, WARN, WARN, id="parents that say no"),
        pytest.param(requests(999, 999), 1.0, OK, OK, id="all"),
        pytest.param(requests(1000, 999), 1.0, WARN, OK, id="not all"),
        pytest.param(requests(1000, 100) + requests(30, 0, "/rare"), 0.1, OK, WARN, id="a route without"),
        pytest.param(requests(1000, 100) + requests(19, 0, "/rare"), 0.1, OK, OK, id="…that has no traffic"),
        pytest.param(
            requests(500, 50) + requests(50, 50, status=503) + SAVED_ONES,
            0.1, OK, OK, id="as configured, with errors exported after the fact",
        ),
        pytest.param(requests(99, 9) + requests(30, 0, "/rare") + [SAVED], 0.1, OK, OK, id="…but for an error"),
    ],
)  # fmt: skip
def test_the_log_tells_whether_the_sampler_does_what_is_set(
    seen: list[Seen], ratio: float, share: Verdict, starving: Verdict
) -> None:
    found = shares(tracing(ratio=ratio), seen)
    assert [one.verdict for one in found] == [share, starving], found


def test_starving_routes_are_named_the_busiest_first() -> None:
    seen = [*requests(100, 10), *(one for n in range(7) for one in requests(20 + n, 0, f"/{n}"))]
    _, found = shares(tracing(), seen)
    assert found.figures["starving"] == [f"/{n}" for n in range(6, -1, -1)]
    assert found.found.startswith("no trace of /6 (26 requests), /5 (25 requests), ")
    assert found.found.endswith("/2 (22 requests) and 2 more")


# --- what an origin says it received


@pytest.mark.parametrize(
    "body",
    [
        f'{{"headers": {{"Traceparent": "{TRACEPARENT}", "Host": "a"}}}}',
        f'{{"headers": {{"traceparent": ["{TRACEPARENT}"]}}}}',
        f'{{"headers": [["host", "a"], ["traceparent", "{TRACEPARENT}"]]}}',
        f'[{{"name": "traceparent", "value": "{TRACEPARENT}"}}]',
        f'{{"HTTP_TRACEPARENT": "{TRACEPARENT}"}}',
        f"GET /echo HTTP/1.1\r\nHost: a\r\ntraceparent: {TRACEPARENT}\r\n\r\n",
        f"HTTP_TRACEPARENT={TRACEPARENT}\n",
        f"<pre>\n  traceparent: {TRACEPARENT}\n</pre>",
    ],
)
def test_echoes_of_many_kinds_are_understood(body: str) -> None:
    echo = read_echo(body.encode())
    assert echo.contexts == (Context("traceparent", TRACE, SPAN, sampled=True),)
    assert echo.fields


@pytest.mark.parametrize(
    ("body", "contexts"),
    [
        pytest.param(f"traceparent: {TRACEPARENT}\ntraceparent: {TRACEPARENT}", 2, id="two lines"),
        pytest.param(f'{{"traceparent": "{TRACEPARENT}, {TRACEPARENT}"}}', 2, id="joined by a comma"),
        pytest.param(f'{{"traceparent": ["{TRACEPARENT}", "{TRACEPARENT}"]}}', 2, id="a list"),
        pytest.param(f"b3: {TRACE}-{SPAN}-1", 1, id="b3"),
        pytest.param(f"X-B3-TraceId: {TRACE}\nX-B3-SpanId: {SPAN}\nX-B3-Sampled: 1", 1, id="b3multi"),
        pytest.param(
            f"X-B3-TraceId: {TRACE}\nX-B3-SpanId: {SPAN}\n" * 2 + "X-B3-Sampled: 1,1", 2, id="b3multi twice"
        ),
        pytest.param(f"uber-trace-id: {TRACE}:{SPAN}:0:1", 1, id="jaeger"),
        pytest.param("b3: 0", 0, id="b3 that says no"),
        pytest.param("host: a", 0, id="none"),
    ],
)  # fmt: skip
def test_contexts_are_counted_in_every_format(body: str, contexts: int) -> None:
    echo = read_echo(body.encode())
    assert set(echo.contexts) <= {Context(one.field, TRACE, SPAN, sampled=True) for one in echo.contexts}
    assert (len(echo.contexts), echo.invalid) == (contexts, ())


def test_what_is_no_context_and_what_is_no_echo_are_told_apart() -> None:
    assert read_echo(b"traceparent: 00-abc\n").invalid == ("traceparent: 00-abc",)
    for body in (b"", b"hello", b"\xff\x00", b"[]", b'{"a": 1}', b"<html><p>Hello</p></html>"):
        assert read_echo(body).fields == 0


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[" * 3000 + b"]" * 3000, b"a: " + b'" ' * 500_000 + b"x"])
def test_no_body_takes_long_or_breaks_the_examination(body: bytes) -> None:
    began = time.monotonic()
    assert read_echo(body).contexts == ()
    assert time.monotonic() - began < 2


def echoed(body: str = f"traceparent: {TRACEPARENT}", *, is_echo: bool = True, **record: Any) -> Probe:
    """A probe whose trace the origin saw so; the edge has its record if there are fields of it."""
    known = {"trace_id": TRACE, "sampled": True, "attempts": (RecordedAttempt(span_id=SPAN, status=200),), **record}
    noted = Recorded(**known) if record else None
    return Probe("/", is_echo, TRACE, "1" * 16, 200, {}, body.encode(), 0.0, 0.1, noted)


@pytest.mark.parametrize(
    ("probe", "verdict", "words"),
    [
        (echoed(seq=1), OK, "exactly one context, of the right trace, under the edge's span"),
        (echoed(), OK, "whose span it hangs under could not be compared"),
        (echoed(is_echo=False), SKIPPED, "no echo path"),
        (echoed(attempts=(), cache="HIT"), SKIPPED, "answered by itself (cache: HIT)"),
        (echoed(attempts=(RecordedAttempt(span_id="2" * 16), RecordedAttempt(span_id=SPAN))), OK, "exactly one"),
        (echoed(attempts=(RecordedAttempt(span_id=SPAN), RecordedAttempt(span_id="2" * 16))), WARN, "not the edge's"),
        (echoed(sampled=False), FAIL, "sent the trace on as not sampled"),
        (echoed(trace_id="3" * 32), FAIL, "saw another trace"),
        (echoed(restarted_from=f"{TRACE}-{SPAN}"), OK, "began the trace anew"),
        (echoed(f"traceparent: {TRACEPARENT}\nb3: {TRACE}-{SPAN}-1", seq=1), OK, "exactly one"),
        (echoed(f"traceparent: {TRACEPARENT}\nb3: {'4' * 32}-{SPAN}-1", seq=1), FAIL, "another trace"),
        (echoed(seq=1, attempts=(RecordedAttempt(span_id=SPAN),))._replace(fields={"age": "0"}), SKIPPED, "a cache"),
        (echoed()._replace(trace_id="1" * 32, fields={"x-trace-id": TRACE}), OK, "began the trace anew"),
        (echoed()._replace(trace_id="1" * 32, fields={"traceresponse": TRACEPARENT}), OK, "began the trace anew"),
        (echoed()._replace(trace_id="1" * 32), FAIL, "saw another trace"),
    ],
)
def test_what_the_origin_saw_is_compared_with_the_edges_record(probe: Probe, verdict: Verdict, words: str) -> None:
    found = judge_origin(probe, tracing(), ["tracecontext"])
    assert (found.verdict, words in found.found) == (verdict, True), found


@pytest.mark.parametrize(
    ("body", "verdict", "words"),
    [
        (f"traceparent: {TRACEPARENT}\nb3: {TRACE}-{SPAN}-1", OK, "exactly one"),
        (f"traceparent: {TRACEPARENT}", WARN, "saw traceparent, but no b3"),
        (f"b3: {TRACE}-{SPAN}-1", WARN, "saw b3, but no traceparent"),
        (f"b3: {'4' * 32}-{SPAN}-1", FAIL, "another trace"),
    ],
)
def test_every_format_that_the_edge_speaks_is_to_arrive(body: str, verdict: Verdict, words: str) -> None:
    found = judge_origin(echoed(body, seq=1), tracing(), ["tracecontext", "b3", "baggage"])
    assert (found.verdict, words in found.found, bool(found.advice)) == (verdict, True, verdict is not OK), found


def test_without_a_propagator_nothing_is_expected() -> None:
    assert judge_origin(echoed("host: a"), tracing(), ["none"]).verdict is WARN


@pytest.mark.parametrize(
    ("span_id", "verdict"), [pytest.param("1" * 16, OK, id="the client's"), pytest.param(SPAN, WARN, id="another one")]
)
def test_with_tracing_off_the_clients_context_is_expected(span_id: str, verdict: Verdict) -> None:
    probe = echoed(f"traceparent: 00-{TRACE}-{span_id}-01", sampled=False)
    assert judge_origin(probe, tracing(enabled=False), ["tracecontext"]).verdict is verdict


def test_with_tracing_off_that_of_a_client_that_is_not_trusted_is_not() -> None:
    probe = echoed(f"traceparent: 00-{TRACE}-{SPAN}-00", sampled=False, restarted_from=f"{'1' * 32}-{'1' * 16}")
    assert judge_origin(probe, tracing(enabled=False), ["tracecontext"]).verdict is OK


@pytest.mark.parametrize(
    ("config", "fields", "verdict"),
    [
        ({}, {"x-trace-id": TRACE, "traceresponse": TRACEPARENT}, OK),
        ({}, {"x-trace-id": TRACE}, FAIL),
        ({}, {"x-trace-id": "5" * 32, "traceresponse": TRACEPARENT}, FAIL),
        ({"traceresponse": False}, {"x-trace-id": TRACE}, OK),
        ({"traceresponse": False, "x_trace_id": False}, {}, SKIPPED),
    ],
)
def test_what_the_client_is_told_is_compared_with_what_it_is_to_be(
    config: dict[str, bool], fields: dict[str, str], verdict: Verdict
) -> None:
    assert judge_client(echoed(seq=1)._replace(fields=fields), Tracing(**config)).verdict is verdict


# --- the clock


@pytest.mark.parametrize(
    ("date_s", "offset_s"),
    [
        pytest.param(100, 0, id="the same second"),
        pytest.param(101, 0, id="the second in which the answer came"),
        pytest.param(99, 0, id="half a second ago was still that second"),
        pytest.param(98, -0.5, id="a second ago"),
        pytest.param(102, 0.75, id="a second ahead"),
        pytest.param(111, 9.75, id="ahead"),
        pytest.param(90, -8.5, id="behind"),
    ],
)
def test_the_least_offset_that_explains_a_date(date_s: float, offset_s: float) -> None:
    assert least_offset_s(date_s, sent_at=99.5, answered_at=101.25) == offset_s


def probe(date: str) -> Probe:
    return Probe(
        "/", True, TRACE, SPAN, 200, {"date": date} if date else {}, b"", 1_000_000_000.5, 1_000_000_000.6, None
    )


@pytest.mark.parametrize(
    ("date", "verdict", "words"),
    [
        ("Sun, 09 Sep 2001 01:46:40 GMT", OK, "agrees"),
        ("Sun, 09 Sep 2001 01:46:42 GMT", OK, "agrees"),
        ("Sun, 09 Sep 2001 01:46:50 GMT", WARN, "9.4 s ahead of"),
        ("Sun, 09 Sep 2001 01:46:30 GMT", WARN, "9.5 s behind"),
        ("yesterday", SKIPPED, "no Date"),
        ("", SKIPPED, "no Date"),
    ],
)
def test_clocks_that_differ_by_seconds_are_said(date: str, verdict: Verdict, words: str) -> None:
    found = judge_clock(probe(date))
    assert (found.verdict, words in found.found) == (verdict, True), found


# --- exporters


def counts(exported: int = 0, *, name: str = "otlp", failed: int = 0, dropped: int = 0, queued: int = 0) -> Counts:
    return Counts(name=name, active=True, exported=exported, failed=failed, dropped=dropped, queued=queued)


@pytest.mark.parametrize(
    ("before", "after", "verdict", "words"),
    [
        (counts(), counts(), OK, "none lost"),
        (counts(100), counts(300, queued=20), OK, "110 spans/s, for which its queue is 37 s long"),
        (counts(100, dropped=5), counts(100, dropped=25), FAIL, "20 spans were dropped within 2.0 s"),
        (counts(100, failed=5), counts(100, failed=25), FAIL, "20 spans could not be exported within 2.0 s"),
        (counts(900, dropped=90, failed=10), counts(900, dropped=90, failed=10), WARN, "(10.00% of 1000)"),
        (counts(9_000, dropped=9), counts(9_999, dropped=9), OK, "9 lost"),
        (counts(10, queued=100), counts(10, queued=3000), WARN, "3000 of 4096 places"),
        (counts(0), counts(20_000), WARN, "full within 0.41 s"),
    ],
)
def test_queues_are_judged_by_what_they_lose_and_by_how_full_they_are(
    before: Counts, after: Counts, verdict: Verdict, words: str
) -> None:
    (found,) = judge_queues([before], [after], 2.0, Batch())
    assert (found.verdict, words in found.found) == (verdict, True), found


def test_each_exporter_is_judged_and_a_new_one_by_itself() -> None:
    both = judge_queues([counts(5)], [counts(5), counts(7, name="embedded")], 1.0, Batch())
    assert [one.found.partition(":")[0] for one in both] == ["otlp", "embedded"]
    assert [one.verdict for one in judge_queues([], [], 1.0, Batch())] == [WARN]


# --- stopping


def config(**tracing: Any) -> Config:
    return msgspec.convert({"tracing": tracing, "limits": {"drain_timeout": 30}}, Config)


@pytest.mark.parametrize(
    ("batch", "allowed", "verdict", "words"),
    [
        ({}, Allowed("", None), OK, "no service manager is known"),
        ({}, Allowed("edge.service", 60), OK, "edge.service gives it 60 s"),
        ({}, Allowed("edge.service", None), OK, "lets it take its time"),
        ({}, Allowed("edge.service", 35), FAIL, "edge.service is killed 35 s after"),
        ({"flush_timeout": 0}, Allowed("", None), FAIL, "exports nothing"),
        ({"flush_timeout": 3}, Allowed("", None), WARN, "shorter than what one batch may take"),
        ({"flush_timeout": 20}, Allowed("edge.service", 60), FAIL, "may need 62 s"),
    ],
)
def test_what_a_stop_needs_is_compared_with_what_it_is_given(
    batch: dict[str, Any], allowed: Allowed, verdict: Verdict, words: str
) -> None:
    found = judge_flush(config(batch=batch), allowed)
    assert (found.verdict, words in found.found) == (verdict, True), found


@pytest.mark.parametrize(
    ("shown", "allowed"),
    [
        ("MainPID=7\nTimeoutStopUSec=1min 30s\n", Allowed("edge.service", 90)),
        ("TimeoutStopUSec=60s\nMainPID=7\n", Allowed("edge.service", 60)),
        ("MainPID=7\nTimeoutStopUSec=500ms\n", Allowed("edge.service", 0.5)),
        ("MainPID=7\nTimeoutStopUSec=infinity\n", Allowed("edge.service", None)),
        ("MainPID=8\nTimeoutStopUSec=1min 30s\n", Allowed("", None)),
        ("", Allowed("", None)),
    ],
)
def test_what_systemd_says_is_understood(shown: str, allowed: Allowed) -> None:
    assert understood("edge.service", 7, shown) == allowed


# --- what is around it

COMPLETE = {
    "service.name": "shop-edge", "service.version": "1", "service.instance.id": "edge-1", "host.name": "h",
    "deployment.environment.name": "production",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, OK, "shop-edge in production, node edge-1"),
        ({"service.name": "edgeproxy"}, WARN, "service.name is the default"),
        ({"service.name": "unknown_service:python"}, WARN, "service.name is the default"),
        ({"deployment.environment.name": ""}, WARN, "do not say deployment.environment.name"),
        ({"host.name": ""}, WARN, "do not say host.name"),
    ],
)
def test_a_resource_that_tells_too_little_is_said(changes: dict[str, str], verdict: Verdict, words: str) -> None:
    found = check_resource(COMPLETE | changes)
    assert (found.verdict, words in found.found) == (verdict, True), found


def test_the_old_name_of_the_environment_is_pointed_at() -> None:
    attributes = COMPLETE | {"deployment.environment.name": "", "deployment.environment": "production"}
    assert "the old name of deployment.environment.name" in check_resource(attributes).advice


@pytest.mark.parametrize(
    ("cache", "verdict"),
    [
        ({"store": "memory"}, SKIPPED),
        ({"store": "redis", "redis": {"nodes": ["a:1"]}}, OK),
        ({"store": "redis", "redis": {"nodes": ["a:1"], "tag_operations": "off"}}, WARN),
    ],
)
def test_redis_that_shows_no_traces_is_said(cache: dict[str, Any], verdict: Verdict) -> None:
    assert check_redis(msgspec.convert({"cache": cache}, Config)).verdict is verdict
