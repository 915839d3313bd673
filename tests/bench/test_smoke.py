"""The harness itself, on nginx, with the shortest round there is: all starts, is measured, and is gone afterwards."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from bench import report, runner
from bench.errors import MissingToolError
from bench.load import Other, run_wrk
from bench.process import accepts, wait_until
from bench.scenarios import Settings, Throughput, scenarios
from bench.servers import SERVERS, Origin, Server, Site

CORES = sorted(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(
    not (shutil.which("wrk") and shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")),
    reason="wrk or nginx is not installed: make bench installs them",
)


@pytest.fixture
def _lua() -> None:
    try:
        SERVERS["nginx"](Site(Path("/"), Path("/"), 0, 0))
    except MissingToolError as missing:
        pytest.skip(str(missing))


@pytest.mark.usefixtures("_lua")
def test_one_short_round_of_nginx_is_measured_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []
    launch = Origin.launch
    monkeypatch.setattr(Origin, "launch", lambda self: (ports.append(self.port), launch(self)))
    settings = Settings(seconds=1.0, connections=8, load_core=CORES[0], hit_rate=500, miss_rate=500)
    chosen = [scenarios(settings)["hit"]]
    outcome = runner.run(["nginx"], chosen, rounds=1, server_core=CORES[-1], load_core=CORES[0])
    (measured,) = outcome.rounds
    assert measured.rate > 100
    assert measured.failed == 0
    assert measured.origin_share < 0.01
    assert 0 <= measured.log_difference <= settings.connections
    assert measured.problems == []
    assert outcome.problems == {}
    assert "| nginx + Lua |" in report.render(outcome, chosen, {})
    assert not accepts(ports[0])


@pytest.mark.usefixtures("_lua")
def test_what_large_hits_304s_and_a_crowd_need_works_with_nginx() -> None:
    settings = Settings(seconds=1.0, connections=8, load_core=CORES[0], hit_rate=500, miss_rate=500, clients=50)
    chosen = [scenarios(settings)[name] for name in ("hit1m", "not-modified", "collapse")]
    outcome = runner.run(["nginx"], chosen, rounds=1, server_core=CORES[-1], load_core=CORES[0])
    assert outcome.problems == {}
    hits, validations, crowd = outcome.rounds
    assert [measured.failed for measured in outcome.rounds] == [0, 0, 0]
    assert hits.bytes_per_s > hits.rate * 1024 * 1024
    assert hits.memory["rss_before"] > 0  # nginx's cache loader may leave meanwhile, so the peak can be lower
    assert hits.memory["rss_peak"] > 0
    assert validations.bytes_per_s < validations.rate * 785
    assert (crowd.requests, crowd.origin_requests) == (50, 1)


def test_one_request_in_so_many_goes_to_the_other_path(tmp_path: Path) -> None:
    with Origin(tmp_path, CORES[-1]) as origin:
        load = run_wrk(origin.url("/hit/785"), 1.0, 8, CORES[0], other=Other("/nothing", every=10))
    assert load.requests > 100
    assert load.failed == pytest.approx(load.requests / 10, abs=8)


@pytest.mark.slow
def test_nodes_with_a_script_and_without_are_compared() -> None:
    outcome = runner.Outcome(scripts=runner.scripted(["edgeproxy"], 1, 1.0, 8, CORES[-1], CORES[0]))
    assert [one.share for one in outcome.scripts] == [0.0, 0.0, 0.01, 1.0]
    assert [one.seen for one in outcome.scripts] == [
        0.0, 0.0, pytest.approx(0.01, abs=0.002), pytest.approx(1.0, abs=0.2)
    ]  # fmt: skip
    assert "| edgeproxy, a script that sees 1 %" in report.render(outcome, [], {})


@pytest.mark.usefixtures("_lua")
def test_a_server_that_dies_under_load_is_left_out_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Throughput):
        def warm_up(self, server: Server) -> None:
            for pid in server.pids():
                os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: bool(server.ended()), 10)

    settings = Settings(seconds=1.0, connections=8, load_core=CORES[0], hit_rate=500, miss_rate=500)
    monkeypatch.setattr("bench.checks.problems", lambda *_: [])
    outcome = runner.run(["nginx"], [Dying("hit", "hits", "/hit/785", settings)], 2, CORES[-1], CORES[0])
    assert outcome.rounds == []
    (problem,) = outcome.problems["nginx"]
    assert problem.startswith("hit: no further rounds: nginx ended")
