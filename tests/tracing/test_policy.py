"""What decides on a trace, in which order, and what is exported for what became of it."""

import fnmatch
import json
from typing import Any

import pytest

from edgeproxy.tracing import RANDOM, SAMPLED, IdSource, Propagation, RequestTrace, SamplerKind, Tracer
from edgeproxy.tracing.adaptive import Adaptive
from edgeproxy.tracing.policy import Head, Tail
from edgeproxy.tracing.rate import Rate
from edgeproxy.tracing.recorded import Recorded
from edgeproxy.tracing.remote import Remote, parse
from edgeproxy.tracing.rules import Rule, Rules
from edgeproxy.tracing.spans import spans_of

NONE = Remote(parse('{"probabilisticSampling": {"samplingRate": 0}}'))
YES = [b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"]
NO = [b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"]


def begun(kind: str = "parentbased_always_on", parent: list[bytes] | None = None, trusted: bool = True) -> RequestTrace:
    tracer = Tracer(IdSource())
    tracer.configure(True, SamplerKind.from_word(kind), 1.0)
    return tracer.begin(1, parent, None, trusted)


def decided(trace: RequestTrace, *, method: bytes = b"GET", now: float = 0.0, **parts: Any) -> tuple[bool, str, int]:
    head = Head(**parts)
    head.decide(trace, b"/api/*", b"/api/orders?page=1", method, {b"x-debug": b"1", b"host": b"a"}, now)
    assert trace.sampled == bool(trace.flags & SAMPLED)
    return trace.sampled, trace.reason, trace.flags


def path(pattern: str) -> Any:
    return lambda value: fnmatch.fnmatchcase(value.decode(), pattern)


RULES = {
    "its route": ({"route": b"/api/*"}, True),
    "another route": ({"route": b"/*"}, False),
    "its path, without the query": ({"path": path("/api/orders")}, True),
    "another path": ({"path": path("/static/*")}, False),
    "its method": ({"method": b"GET"}, True),
    "another method": ({"method": b"POST"}, False),
    "a field that it has": ({"header": b"X-Debug"}, True),
    "a field that it has not": ({"header": b"X-Other"}, False),
    "a field with its value": ({"header": b"x-debug=1"}, True),
    "a field with another value": ({"header": b"x-debug=2"}, False),
    "a field with no value": ({"header": b"x-debug="}, False),
    "nothing at all": ({}, True),
    "all of several": ({"route": b"/api/*", "method": b"GET", "header": b"x-debug"}, True),
    "not all of several": ({"route": b"/api/*", "method": b"PUT", "header": b"x-debug"}, False),
}


@pytest.mark.parametrize(("conditions", "fits"), RULES.values(), ids=RULES.keys())
def test_a_rule_is_for_what_meets_all_of_its_conditions(conditions: dict[str, Any], fits: bool) -> None:
    sampled, reason, _ = decided(begun(), rules=Rules([Rule(0.0, **conditions)]))
    assert (sampled, reason) == ((False, "rule") if fits else (True, "always_on"))


def test_the_first_rule_that_fits_decides() -> None:
    rules = Rules([Rule(1.0, method=b"PUT"), Rule(0.0, route=b"/api/*"), Rule(1.0)])
    assert decided(begun(), rules=rules) == (False, "rule", RANDOM)
    assert decided(begun("parentbased_always_off"), method=b"PUT", rules=rules) == (True, "rule", RANDOM | SAMPLED)


def test_a_rules_ratio_goes_by_the_trace_id() -> None:
    trace = begun()
    trace.trace_id = "0" * 16 + "4" + "0" * 15
    assert decided(trace, rules=Rules([Rule(0.25)]))[0] is False
    assert decided(trace, rules=Rules([Rule(0.26)]))[0] is True


def test_rules_go_before_remote_strategies_and_these_before_the_adaptive_ratio() -> None:
    assert decided(begun(), rules=Rules([Rule(1.0)]), remote=NONE, adaptive=Adaptive(1.0))[:2] == (True, "rule")
    assert decided(begun(), rules=Rules([]), remote=NONE, adaptive=Adaptive(1.0))[:2] == (False, "remote")
    assert decided(begun("parentbased_always_off"), adaptive=Adaptive(1.0))[:2] == (True, "adaptive")


@pytest.mark.parametrize(("parent", "sampled"), [(YES, True), (NO, False)])
def test_a_trusted_parents_decision_goes_before_all_of_them(parent: list[bytes], sampled: bool) -> None:
    rules = Rules([Rule(0.0 if sampled else 1.0)])
    assert decided(begun(parent=parent), rules=rules, remote=NONE) == (sampled, "parent", int(sampled))


def spoken(field: bytes, kind: str = "parentbased_always_on") -> RequestTrace:
    tracer = Tracer(IdSource())
    tracer.configure(True, SamplerKind.from_word(kind), 1.0)
    return Propagation(["b3"], tracer).begin(1, [(b"b3", field)], True)


@pytest.mark.parametrize(("decision", "sampled"), [(b"1", True), (b"d", True), (b"0", False)])
def test_so_does_a_decision_that_came_without_ids(decision: bytes, sampled: bool) -> None:
    rules = Rules([Rule(0.0 if sampled else 1.0)])
    assert decided(spoken(decision), rules=rules)[:2] == (sampled, "parent")
    assert decided(spoken(decision, "always_on"), rules=rules)[:2] == (not sampled, "rule")


def test_a_parent_that_leaves_the_decision_to_us_is_decided_on_like_a_trace_that_begins_here() -> None:
    left = b"a" * 32 + b"-" + b"b" * 16
    assert decided(spoken(left), rules=Rules([Rule(0.0)])) == (False, "rule", 0)
    assert decided(spoken(left, "parentbased_always_off"), adaptive=Adaptive(1.0)) == (True, "adaptive", SAMPLED)


@pytest.mark.parametrize(
    ("method", "name"), [(b"GET", "GET /api/*"), (b"BREW", "HTTP /api/*"), (b"get", "HTTP /api/*")]
)
def test_strategies_are_by_the_name_of_the_span(method: bytes, name: str) -> None:
    strategies = {"operation": name, "probabilisticSampling": {"samplingRate": 1}}
    remote = Remote(parse(json.dumps({"operationSampling": {"perOperationStrategies": [strategies]}})))
    assert decided(begun("parentbased_always_off"), method=method, remote=remote)[:2] == (True, "remote")
    assert spans_of(Recorded(method=method.decode(), route="/api/*"))[0].name == name


def test_it_does_not_where_the_sampler_is_not_parent_based() -> None:
    trace = begun("always_on", YES)
    assert decided(trace, rules=Rules([Rule(0.0)])) == (False, "rule", 0)


def test_one_that_is_not_trusted_decides_nothing() -> None:
    trace = begun(parent=YES, trusted=False)
    assert decided(trace, rules=Rules([Rule(0.0)])) == (False, "rule", RANDOM)
    assert trace.link


@pytest.mark.parametrize("parent", [None, YES])
def test_the_cap_holds_whoever_decided(parent: list[bytes] | None) -> None:
    cap = Rate(2)
    found = [decided(begun(parent=parent), now=now, cap=cap)[:2] for now in (0.0, 0.1, 0.2, 1.05)]
    reason = "always_on" if parent is None else "parent"
    assert found == [(True, reason), (True, reason), (False, "cap"), (True, reason)]


def test_over_the_cap_nothing_says_that_the_trace_is_sampled() -> None:
    assert decided(begun(parent=YES), cap=Rate(0)) == (False, "cap", 0)
    assert decided(begun(), cap=Rate(0)) == (False, "cap", RANDOM)


def test_what_is_not_sampled_takes_nothing_of_the_cap() -> None:
    cap = Rate(1)
    assert decided(begun("parentbased_always_off"), cap=cap)[:2] == (False, "always_off")
    assert decided(begun(), cap=cap)[:2] == (True, "always_on")


AFTERWARDS = {
    "all is well": (200, "ok", 0.1, None),
    "the origin's error": (503, "ok", 0.1, "error"),
    "no origin": (502, "origin_error", 0.1, "error"),
    "a response that broke off": (200, "origin_error", 0.1, "error"),
    "an origin that is silent": (504, "timeout", 0.1, "error"),
    "an origin that fell silent": (200, "timeout", 0.1, "error"),
    "a worker that died": (0, "lost", 0.1, "error"),
    "nothing there": (404, "ok", 0.1, None),
    "a client that left": (200, "client_abort", 0.1, None),
    "a client that dawdled": (408, "timeout", 0.1, None),
    "a request that is none": (400, "refused", 0.1, None),
    "no room": (503, "refused", 0.1, "error"),
    "slow": (200, "ok", 0.5, "slow"),
    "slow and an error": (500, "ok", 2.0, "error"),
}


@pytest.mark.parametrize(("status", "outcome", "duration_s", "reason"), AFTERWARDS.values(), ids=AFTERWARDS.keys())
def test_what_is_exported_afterwards(status: int, outcome: str, duration_s: float, reason: str | None) -> None:
    assert Tail(errors=True, slow_s=0.5).reason(status, outcome, duration_s) == reason
    assert Tail(errors=False, slow_s=0.0).reason(status, outcome, duration_s) is None


def test_that_is_bounded_as_well() -> None:
    times = iter([0.0, 0.1, 0.2, 1.0])
    tail = Tail(errors=True, slow_s=0.0, rate=Rate(2), clock=lambda: next(times))
    assert tail.reason(200, "ok", 0.1) is None  # asks for no time, takes nothing
    assert [tail.reason(500, "ok", 0.1) for _ in range(4)] == ["error", "error", None, "error"]
