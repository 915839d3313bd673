import json
from pathlib import Path

from bench import report
from bench.runner import Outcome
from bench.scenarios import Settings, scenarios
from tests.bench.builders import a_round, bounded_outages, cheap_scripts, cheap_tracing, flat_lookups

SETTINGS = Settings(seconds=1.0, connections=32, load_core=0, hit_rate=10_000, miss_rate=5_000)
LATENCY = {"p50": 0.1, "p90": 0.2, "p99": 0.3, "p99.9": 0.4, "max": 0.5, "lag_p99": 0.01}
MEMORY = {"rss_before": 50_000_000, "rss_peak": 52_000_000, "pss_before": 40_000_000, "pss_peak": 41_000_000}
ENVIRONMENT = {"cpu": "a processor"}


def rendered(outcome: Outcome) -> str:
    return report.render(outcome, list(scenarios(SETTINGS).values()), ENVIRONMENT)


def full_outcome() -> Outcome:
    rounds = []
    for server, rate in (("edgeproxy", 60_000.0), ("compiled", 60_000.0), ("nginx", 40_000.0), ("mitmproxy", 1_000.0)):
        rounds += [a_round(server=server, scenario=name, rate=rate) for name in ("hit", "hit100k", "miss")]
        rounds += [a_round(server=server, scenario=name, memory=MEMORY) for name in ("stream", "hit1m")]
        if server != "mitmproxy":
            rounds.append(a_round(server=server, scenario="not-modified", rate=rate))
            rounds.append(a_round(server=server, scenario="collapse", latency_ms=LATENCY, origin_requests=1))
            rounds += [
                a_round(server=server, scenario=f"latency-{kind}", latency_ms=LATENCY) for kind in ("hit", "miss")
            ]
    for server, rate in (("edgeproxy-redis", 30_000.0), ("compiled-redis", 35_000.0), ("nginx-redis", 40_000.0)):
        rounds.append(a_round(server=server, scenario="hit-redis", rate=rate))
    versions = {"nginx": "nginx/1.22.1"}
    return Outcome(
        rounds=rounds,
        versions=versions,
        lookups=flat_lookups(),
        outages=bounded_outages(),
        tracing=cheap_tracing(),
        scripts=cheap_scripts(),
    )


def test_a_table_has_columns_of_one_width() -> None:
    lines = report.table(["name", "n"], [["a", "1"], ["long name", "1,000"]]).splitlines()
    assert lines == [
        "| name      |     n |",
        "| --------- | ----: |",
        "| a         |     1 |",
        "| long name | 1,000 |",
    ]


def test_a_full_run_shows_every_scenario_ratios_and_verdicts() -> None:
    text = rendered(full_outcome())
    for scenario in scenarios(SETTINGS).values():
        assert f"### {scenario.title}" in text
    assert "| edgeproxy           |     60,000 |" in text
    assert "1.50 x, by requests/s" in text
    assert "0.75 x, by requests/s" in text
    assert "1 to 1 a round; 1,000 of 1,000 answered" in text
    assert "FAIL" not in text
    assert "### Notes" not in text


def test_a_scenario_that_was_not_run_has_no_table() -> None:
    text = rendered(Outcome(rounds=[a_round()]))
    assert "64 MiB streamed" not in text
    assert "not measured" in text


def test_what_makes_figures_doubtful_is_said() -> None:
    outcome = Outcome(
        rounds=[
            a_round(server="nginx", server_busy=0.7, load_busy=1.0, foreign=0.2),
            a_round(failed=2, problems=["its log has -9 lines for 1,000 requests"]),
            a_round(scenario="latency-hit", latency_ms=LATENCY | {"lag_p99": 3.0}, asked_rate=1200.0),
        ],
        skipped={"varnish": "varnishd is not installed"},
        problems={"mitmproxy": ["two requests got the same trace id"]},
    )
    notes = rendered(outcome).partition("### Notes")[2].partition("### Targets")[0]
    assert "varnish: not measured: varnishd is not installed" in notes
    assert "mitmproxy: two requests got the same trace id" in notes
    assert "edgeproxy, hit: its log has -9 lines" in notes
    assert "edgeproxy, hit: 2 failed" in notes
    assert "nginx, hit: the load's core was full" in notes
    assert "in 1 of 3 rows others had a part of the server's core, at most 20% and 0% stolen (nginx, hit)" in notes
    assert "edgeproxy, latency-hit: did not keep up: 1,000 of 1,200 requests/s" in notes
    assert "edgeproxy, latency-hit: the load generator itself was late" in notes


def test_a_ratio_by_core_time_is_marked() -> None:
    outcome = Outcome(rounds=[a_round(server_busy=0.7, load_busy=1.0), a_round(server="nginx", core_us=30.0)])
    text = rendered(outcome)
    assert "| 1.5* |" in text.replace("  ", " ").replace("  ", " ")
    assert "\\* compared by time on the server's core" in text


def test_the_json_has_rounds_summaries_and_targets(tmp_path: Path) -> None:
    file = tmp_path / "results" / "latest.json"
    report.write_json(file, full_outcome(), ENVIRONMENT, {"rounds": 1})
    told = json.loads(file.read_text())
    assert told["environment"] == ENVIRONMENT
    assert len(told["outcome"]["lookups"]) == len(flat_lookups())
    assert len(told["outcome"]["rounds"]) == len(full_outcome().rounds)
    assert {summary["limit"] for summary in told["summaries"]} == {"server"}
    assert {target["verdict"] for target in told["targets"]} == {"pass"}
