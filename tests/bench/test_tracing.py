"""What the report says of tracing: its cost, and whether every span arrived."""

from bench import report
from bench.runner import Outcome
from bench.summary import Verdict
from bench.tracing import Tracing, targets
from tests.bench.builders import cheap_tracing


def verdicts(found: Tracing | None) -> list[Verdict]:
    return [target.verdict for target in targets(found)]


def test_what_is_promised_is_held_against_the_workers_core_and_the_collector() -> None:
    assert verdicts(cheap_tracing()) == [Verdict.PASS] * 3
    assert verdicts(cheap_tracing(worker_us=12.3)) == [Verdict.FAIL, Verdict.PASS, Verdict.PASS]
    assert verdicts(cheap_tracing(worker_us=20.1)) == [Verdict.FAIL, Verdict.FAIL, Verdict.PASS]
    assert verdicts(cheap_tracing(arrived=199, lost=1)) == [Verdict.PASS, Verdict.PASS, Verdict.FAIL]
    assert verdicts(None) == [Verdict.NOT_MEASURED] * 3


def test_the_report_has_the_table_and_the_count() -> None:
    text = report.render(Outcome(tracing=cheap_tracing(arrived=198, lost=2)), [], {})
    assert "edgeproxy, 100 % sampled, OTLP" in text
    assert "200 spans by the log, 198 at the collector, 2 counted as lost" in text
