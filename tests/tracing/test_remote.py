"""Sampling strategies in Jaeger's JSON: what they mean, and what is none."""

import json

import pytest

from edgeproxy.tracing.remote import Remote, StrategyError, parse

LOW, MIDDLE, HIGH = "0" * 16, "8" + "0" * 15, "f" * 16

BY_OPERATION = {
    "strategyType": "PROBABILISTIC",
    "probabilisticSampling": {"samplingRate": 0.001},
    "operationSampling": {
        "defaultSamplingProbability": 0.25,
        "defaultLowerBoundTracesPerSecond": 0,
        "perOperationStrategies": [
            {"operation": "GET /api/*", "probabilisticSampling": {"samplingRate": 0.75}},
            {"operation": "POST /api/*", "probabilisticSampling": {}},
        ],
    },
}


def remote(strategies: object, share: float = 1.0) -> Remote:
    return Remote(parse(json.dumps(strategies)), share)


@pytest.mark.parametrize("kind", ["PROBABILISTIC", 0, None])
def test_probabilistic_is_a_ratio(kind: object) -> None:
    named = {} if kind is None else {"strategyType": kind}
    by_ratio = remote({**named, "probabilisticSampling": {"samplingRate": 0.5}, "operationSampling": None})
    assert by_ratio.decide("7" + "f" * 15, "GET /*", 0.0) == (True, "remote")
    assert by_ratio.decide(MIDDLE, "GET /*", 0.0) == (False, "remote")


@pytest.mark.parametrize("kind", ["RATE_LIMITING", 1])
def test_rate_limiting_is_so_many_a_second_of_whatever_id(kind: object) -> None:
    limited = remote({"strategyType": kind, "rateLimitingSampling": {"maxTracesPerSecond": 3}})
    assert [limited.decide(HIGH, "GET /*", now)[0] for now in (0.0, 0.1, 0.2, 0.9, 1.0)] == [True] * 3 + [False, True]


def test_rate_limiting_to_nothing() -> None:
    limited = remote({"strategyType": "RATE_LIMITING", "rateLimitingSampling": {}})
    assert limited.decide(LOW, "GET /*", 0.0) == (False, "remote")


OPERATIONS = {
    "its own": ("GET /api/*", "b" + "0" * 15, True),
    "its own, beyond it": ("GET /api/*", "c" + "0" * 15, False),
    "none at all": ("POST /api/*", LOW, False),
    "the default": ("GET /*", "3" + "f" * 15, True),
    "the default, beyond it": ("GET /*", "4" + "0" * 15, False),
}


@pytest.mark.parametrize(("operation", "low_half", "sampled"), OPERATIONS.values(), ids=OPERATIONS.keys())
def test_operations_go_before_the_strategy(operation: str, low_half: str, sampled: bool) -> None:
    assert remote(BY_OPERATION).decide(low_half, operation, 0.0) == (sampled, "remote")


def bounded(lower: float, upper: float | None, probability: float, share: float = 1.0) -> Remote:
    operations = {"defaultSamplingProbability": probability, "defaultLowerBoundTracesPerSecond": lower}
    if upper is not None:
        operations["defaultUpperBoundTracesPerSecond"] = upper
    return remote({"operationSampling": operations}, share)


def test_each_operation_has_its_lower_bound() -> None:
    by_bounds = bounded(2, None, 0.0)
    for operation in ("GET /*", "POST /*"):
        decisions = [by_bounds.decide(HIGH, operation, now) for now in [0.0] * 20 + [0.1, 1.0]]
        assert decisions == [(True, "floor")] * 20 + [(False, "remote"), (True, "floor")]


def test_what_the_probability_gave_counts_towards_the_lower_bound() -> None:
    by_bounds = bounded(1, None, 0.5)
    assert [by_bounds.decide(LOW, "GET /*", 0.0) for _ in range(10)] == [(True, "remote")] * 10
    assert by_bounds.decide(HIGH, "GET /*", 0.1) == (False, "remote")


def test_each_operation_has_its_upper_bound() -> None:
    by_bounds = bounded(0, 2, 1.0)
    for operation in ("GET /*", "POST /*"):
        assert [by_bounds.decide(LOW, operation, now)[0] for now in (0.0, 0.1, 0.2, 1.0)] == [True, True, False, True]


def test_a_worker_has_its_share_of_the_bounds() -> None:
    assert [bounded(0, 4, 1.0, share=0.5).decide(LOW, "GET /*", 0.0)[0] for _ in range(1)] == [True]
    by_bounds = bounded(0, 4, 1.0, share=0.5)
    assert [by_bounds.decide(LOW, "GET /*", 0.0)[0] for _ in range(3)] == [True, True, False]


def test_methods_without_number_do_not_fill_the_memory() -> None:
    by_bounds = bounded(1, None, 0.0)
    for number in range(3000):
        by_bounds.decide(HIGH, f"M{number} /*", 0.0)
    assert by_bounds.decide(HIGH, "GET /*", 0.0) == (False, "remote")
    assert by_bounds.decide(HIGH, "M1 /*", 1.0) == (True, "floor")


def test_rates_beyond_all_measure_are_no_bounds() -> None:
    limited = remote({"strategyType": 1, "rateLimitingSampling": {"maxTracesPerSecond": 1e300}})
    by_bounds = bounded(1e300, 1e300, 0.5)
    for now in (0.0, 0.1):
        assert limited.decide(HIGH, "GET /*", now) == (True, "remote")
        assert by_bounds.decide(LOW, "GET /*", now) == (True, "remote")
        assert by_bounds.decide(HIGH, "GET /*", now) == (True, "floor")


def test_fields_that_are_not_known_are_passed_over() -> None:
    remote({"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 1, "x": 1}, "y": {"z": []}})


REFUSED = {
    "no JSON": ("<html>", "no JSON"),
    "nothing": ("", "no JSON"),
    "half of it": ('{"strategyType": "PROBABILISTIC"', "no JSON"),
    "a list": ("[]", "Expected `object`, got `array`"),
    "an unknown strategy": ('{"strategyType": "GUESSING", "probabilisticSampling": {}}', "Invalid enum value"),
    "a probability beyond 1": (
        '{"probabilisticSampling": {"samplingRate": 1.5}}',
        "`$.probabilisticSampling.samplingRate`",
    ),
    "a probability that is text": ('{"probabilisticSampling": {"samplingRate": "1"}}', "got `str`"),
    "a negative rate": ('{"strategyType": 1, "rateLimitingSampling": {"maxTracesPerSecond": -1}}', ">= 0"),
    "no strategy": ('{"strategyType": "PROBABILISTIC"}', "missing required field `probabilisticSampling`"),
    "no rate": ('{"strategyType": "RATE_LIMITING"}', "missing required field `rateLimitingSampling`"),
    "an operation without name": ('{"operationSampling": {"perOperationStrategies": [{}]}}', "`operation`"),
    "bytes that are no text": (b'"\xff"', "no "),
    "a list in a list in a list": ('{"x": ' + "[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_strategy_is_refused_with_the_reason(data: str | bytes, reason: str) -> None:
    with pytest.raises(StrategyError) as refused:
        parse(data)
    assert reason in str(refused.value)
