import pytest

from bench import report
from bench.outage import CASES, Outage, Window, targets
from bench.runner import Outcome
from bench.summary import Verdict


def outage(*, opening_ms: float = 50.0, after_ms: float = 4.0, failed: int = 0) -> Outage:
    """The first case; 2 ms while all was well."""
    windows = [Window([ms / 1000]) for ms in (2.0, opening_ms, after_ms)]
    return Outage(CASES[0].title, *windows, opened_after_s=[0.09], failed=failed)


def test_requests_are_told_apart_by_when_they_were_due() -> None:
    found = Outage("")
    found.take([[1.0, 0.5], [2.8, 0.5], [3.1, 0.06], [3.2, 0.001], [9.0, 0.002]], failed_at=3.0, opened_at=3.2)
    assert found.before.latencies == [0.5]
    assert found.opening.latencies == [0.5, 0.06], "what was under way when it failed is not of the time before"
    assert found.after.latencies == [0.001, 0.002]
    assert found.opened_after_s == [pytest.approx(0.2)]


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        pytest.param(outage(), Verdict.PASS, id="within"),
        pytest.param(outage(opening_ms=63.0), Verdict.FAIL, id="slow-until-it-opens"),
        pytest.param(outage(after_ms=8.0), Verdict.FAIL, id="slow-afterwards"),
        pytest.param(outage(failed=1), Verdict.FAIL, id="a-request-failed"),
    ],
)
def test_bounds_are_held_against_what_it_was_before(measured: Outage, verdict: Verdict) -> None:
    first, *others = targets([measured])
    assert first.verdict is verdict
    assert {target.verdict for target in others} == {Verdict.NOT_MEASURED}


def test_the_report_shows_each_window() -> None:
    text = report.render(Outcome(outages=[outage()]), [], {})
    assert "| SIGSTOP                  | until the breaker opens |        1 |  50.00 |  50.00 |  50.00 |" in text
    assert "+48.0 ms, +2.0 ms; 0 failed; it opened after 90 ms" in text
