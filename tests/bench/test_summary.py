import math

import pytest

from bench.summary import Limit, Verdict, ratio, summaries, summarize, targets
from tests.bench.builders import a_round


def verdict_of(promise: str, *rounds: object) -> Verdict:
    (found,) = [t for t in targets(summaries(rounds)) if t.promise.startswith(promise)]  # type: ignore[arg-type]
    return found.verdict


def test_figures_are_medians_and_what_must_not_happen_is_the_worst() -> None:
    rounds = [
        a_round(rate=10.0, failed=1, log_difference=0),
        a_round(rate=30.0, log_difference=-5),
        a_round(rate=20.0, log_difference=8, log_lag_s=0.9),
    ]
    found = summarize(rounds)
    assert (found.rate, found.rate_low, found.rate_high) == (20.0, 10.0, 30.0)
    assert found.failed == 1
    assert found.log_difference == (-5, 8)
    assert found.log_lag_s == 0.9
    assert found.requests == 3000


def test_memory_grows_by_the_worst_round_and_by_whichever_measure_grew_more() -> None:
    flat = {"rss_before": 50, "rss_peak": 51, "pss_before": 40, "pss_peak": 44}
    grown = {"rss_before": 50, "rss_peak": 80, "pss_before": 40, "pss_peak": 41}
    found = summarize([a_round(memory=flat), a_round(memory=grown)])
    assert found.memory_growth == 30
    assert found.rss_peak == 80
    assert summarize([a_round(memory=flat)]).memory_growth == 4
    assert summarize([a_round()]).memory_growth is None


@pytest.mark.parametrize(
    ("server_busy", "load_busy", "limit"),
    [
        pytest.param(0.99, 0.50, Limit.SERVER, id="server-full"),
        pytest.param(0.99, 0.99, Limit.SERVER, id="both-full"),
        pytest.param(0.80, 0.99, Limit.LOAD, id="load-full"),
        pytest.param(0.80, 0.80, Limit.NEITHER, id="neither-full"),
    ],
)
def test_what_limits_a_server(server_busy: float, load_busy: float, limit: Limit) -> None:
    assert summarize([a_round(server_busy=server_busy, load_busy=load_busy)]).limit is limit


def test_servers_at_their_limit_compare_by_requests() -> None:
    ours, theirs = summarize([a_round(rate=300.0)]), summarize([a_round(rate=200.0)])
    assert ratio(ours, theirs).value == 1.5
    assert not ratio(ours, theirs).by_core_time


def test_when_the_load_was_the_limit_of_either_core_time_is_compared() -> None:
    ours = summarize([a_round(rate=100.0, core_us=10.0, server_busy=0.7, load_busy=1.0)])
    theirs = summarize([a_round(rate=100.0, core_us=25.0)])
    assert ratio(ours, theirs).value == 2.5
    assert ratio(theirs, ours).value == 0.4
    assert ratio(ours, theirs).by_core_time


def test_a_peer_that_answered_nothing_is_infinitely_slower() -> None:
    assert ratio(summarize([a_round()]), summarize([a_round(rate=0.0)])).value == math.inf


def test_a_target_needs_both_servers_measured() -> None:
    assert {target.verdict for target in targets(summaries([a_round()]))} == {Verdict.NOT_MEASURED}


@pytest.mark.parametrize(("rate", "verdict"), [(1300.0, Verdict.PASS), (1299.0, Verdict.FAIL)])
def test_hits_are_held_against_nginx(rate: float, verdict: Verdict) -> None:
    rounds = a_round(rate=rate), a_round(server="nginx")
    assert verdict_of("785-byte hits: at least 1.3", *rounds) is verdict


@pytest.mark.parametrize(
    "flaw", [{"failed": 1}, {"timed_out": 1}, {"log_difference": -1}], ids=lambda flaw: next(iter(flaw))
)
def test_speed_without_sound_answers_or_log_meets_no_target(flaw: dict[str, int]) -> None:
    rounds = a_round(rate=9000.0, **flaw), a_round(server="nginx")
    assert verdict_of("785-byte hits: at least 1.3", *rounds) is Verdict.FAIL


@pytest.mark.parametrize(("p99", "verdict"), [(4.0, Verdict.PASS), (4.1, Verdict.FAIL)])
def test_p99_may_be_twice_that_of_nginx(p99: float, verdict: Verdict) -> None:
    rounds = a_round(scenario="latency-hit", latency_ms={"p99": p99}), a_round(scenario="latency-hit", server="nginx")
    assert verdict_of("p99 of hits", *rounds) is verdict


def test_a_rate_that_was_not_kept_up_with_meets_no_target() -> None:
    peer = a_round(scenario="latency-hit", latency_ms={"p99": 4.0}, server="nginx")
    ours = a_round(scenario="latency-hit", latency_ms={"p99": 2.0}, asked_rate=2000.0)
    assert verdict_of("p99 of hits", ours, peer) is Verdict.FAIL


@pytest.mark.parametrize(("scenario", "promise"), [("stream", "64 MiB stream"), ("hit1m", "1 MiB hits: worker's")])
@pytest.mark.parametrize(("peak", "verdict"), [(60_000_000, Verdict.PASS), (60_000_001, Verdict.FAIL)])
def test_memory_may_grow_by_ten_megabytes(scenario: str, promise: str, peak: int, verdict: Verdict) -> None:
    memory = {"rss_before": 50_000_000, "rss_peak": peak, "pss_before": 1, "pss_peak": 1}
    assert verdict_of(promise, a_round(scenario=scenario, memory=memory)) is verdict


@pytest.mark.parametrize(
    ("scenario", "promise", "factor"),
    [("hit1m", "1 MiB hits: at least", 0.8), ("not-modified", "304 to If-None-Match", 1.3)],
)
def test_large_hits_and_304s_are_held_against_nginx(scenario: str, promise: str, factor: float) -> None:
    peer = a_round(scenario=scenario, server="nginx")
    assert verdict_of(promise, a_round(scenario=scenario, rate=1000 * factor), peer) is Verdict.PASS
    assert verdict_of(promise, a_round(scenario=scenario, rate=1000 * factor - 1), peer) is Verdict.FAIL


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        pytest.param({"origin_requests": 1}, Verdict.PASS, id="one"),
        pytest.param({"origin_requests": 2}, Verdict.FAIL, id="two"),
        pytest.param({"origin_requests": 0}, Verdict.FAIL, id="none"),
        pytest.param({"origin_requests": 1, "timed_out": 1}, Verdict.FAIL, id="one-not-answered"),
    ],
)
def test_a_crowd_costs_one_request_in_every_round(figures: dict[str, int], verdict: Verdict) -> None:
    first = a_round(scenario="collapse", origin_requests=1)
    assert verdict_of("a crowd", first, a_round(scenario="collapse", **figures)) is verdict
