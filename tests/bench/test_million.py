import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from bench import lookups, million, report
from bench.errors import BenchError
from bench.million import SIZES, STORES, Lookups, targets
from bench.runner import Outcome
from bench.summary import Verdict
from tests.bench.builders import FLAT, flat_lookups

CORE = max(os.sched_getaffinity(0))
RANDOM, FEW = "hot memory: look-up of objects at random", "hot memory: look-up of the same few"


def at_sizes(*random_ns: float) -> list[Lookups]:
    return [replace(FLAT, entries=size, random_ns=ns) for size, ns in zip(SIZES, random_ns, strict=False)]


def verdict_of(promise: str, found: list[Lookups]) -> Verdict:
    (target,) = [target for target in targets(found) if target.promise.startswith(promise)]
    return target.verdict


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        pytest.param((100.0, 80.0, 110.0, 120.0), Verdict.PASS, id="within"),
        pytest.param((100.0, 100.0, 121.0, 100.0), Verdict.FAIL, id="one-beyond"),
        pytest.param((100.0, 100.0, 100.0), Verdict.NOT_MEASURED, id="no-million"),
    ],
)
def test_flat_is_at_most_a_fifth_more_than_among_a_thousand(times: tuple[float, ...], verdict: Verdict) -> None:
    assert verdict_of(RANDOM, at_sizes(*times)) is verdict


def test_the_look_up_itself_and_what_the_caches_lack_are_told_apart() -> None:
    found = at_sizes(100.0, 200.0, 400.0, 700.0)
    assert verdict_of(FEW, found) is Verdict.PASS
    assert verdict_of(RANDOM, found) is Verdict.FAIL
    assert {target.verdict for target in targets(flat_lookups())} == {Verdict.PASS}
    assert {target.verdict for target in targets([])} == {Verdict.NOT_MEASURED}


def test_figures_are_medians_of_the_rounds() -> None:
    rounds = [{"random_ns": ns, "few_ns": ns / 2, "by_number_ns": 1.0} for ns in (30.0, 10.0, 20.0)]
    found = million.summarize("memory", 1000, {"real_bytes": 1.0, "counted_bytes": 2.0}, rounds)
    assert found == Lookups("memory", 1000, 20.0, 10.0, 30.0, 10.0, 1.0, 1.0, 2.0)


def test_the_report_compares_with_the_fewest_and_needs_no_server() -> None:
    text = report.render(Outcome(lookups=at_sizes(100.0, 200.0)), [], {})
    assert "|  10,000 |          200 |   90-110 |     2.00 |          50 |     1.00 |            20 |" in text
    assert "### Access logs" not in text


def test_every_store_is_filled_measured_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = million.run(CORE, 2, (100, 1500))
    assert [(each.store, each.entries) for each in found] == [(store, n) for store in STORES for n in (100, 1500)]
    assert all(0 < each.random_low_ns <= each.random_ns <= each.random_high_ns for each in found)
    assert all(each.few_ns > 0 for each in found)
    assert [each.by_number_ns is None for each in found] == [False, False, True, True]
    assert all(100 < each.counted_bytes < 5000 for each in found)
    assert not list(tmp_path.iterdir())


def test_a_process_that_dies_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(million, "STORES", {"paper": "paper store"})
    with pytest.raises(BenchError, match=r"bench\.lookups paper 100 ended with code 2"):
        million.run(CORE, 1, (100,))


def test_an_object_that_is_not_found_is_no_fast_look_up() -> None:
    class Empty(lookups.Memory):
        def __init__(self) -> None:
            self._hot = lookups.HotMemory(1 << 20)
            self._all = [lookups.entry(0)]

    with pytest.raises(LookupError):
        lookups.measure(Empty(), 1, random.Random(1))
