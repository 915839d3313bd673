"""What the report says of operators' scripts: what they cost the requests that they do not see."""

from bench import report
from bench.runner import Outcome
from bench.scripts import Scripted, rows, targets
from bench.summary import Verdict
from tests.bench.builders import cheap_scripts


def verdicts(found: list[Scripted]) -> list[Verdict]:
    return [target.verdict for target in targets(found)]


def test_what_is_promised_is_held_against_the_same_node_without_scripts() -> None:
    assert verdicts(cheap_scripts()) == [Verdict.PASS] * 2
    assert verdicts(cheap_scripts(worker_us=11.2)) == [Verdict.FAIL] * 2
    assert verdicts(cheap_scripts()[:2]) == [Verdict.PASS, Verdict.NOT_MEASURED]
    assert verdicts([]) == [Verdict.NOT_MEASURED] * 2


def test_a_script_that_saw_less_than_it_should_has_shown_nothing() -> None:
    target, _ = targets(cheap_scripts(seen=0.005))
    assert (target.measured, target.verdict) == ("0.91 x; the script saw 0.50%", Verdict.FAIL)


def test_what_a_flow_costs_is_told_apart() -> None:
    assert rows(cheap_scripts())[:2] == [
        ["edgeproxy, none", "60,000", "10.00", "1.00", "", ""],
        ["edgeproxy, some", "60,000", "11.00", "0.91", "1.00%", "100"],
    ]


def test_the_report_has_the_table() -> None:
    text = report.render(Outcome(scripts=cheap_scripts()), [], {})
    assert "### Scripts: 785-byte cache hits" in text
    assert "| edgeproxy, some |" in text
