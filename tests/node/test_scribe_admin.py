"""The admin API of a scribe process: status, health and metrics of real ledgers."""

import json
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.ledger import Counter, LedgerWriter, ledger_files
from edgeproxy.node.metrics import markdown_table
from edgeproxy.node.runtime import RuntimeDir
from tests.ledger.parts import ROOT, feeder, lines_of, prefix, record, scribe, wait_until


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def address(run: Path) -> str:
    return RuntimeDir(run).admin_address.read_text().strip()


def get(run: Path, path: str, **headers: str) -> tuple[int, str, bytes]:
    request = urllib.request.Request(f"http://{address(run)}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers["content-type"], response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read()


def _values(labels: dict[str, str]) -> list[str]:
    return [labels[name] for name in sorted(labels, key=lambda name: name != "worker")]


def samples(run: Path) -> dict[tuple[str, ...], float]:
    status, _, body = get(run, "/metrics")
    assert status == 200
    return {
        (sample.name.removeprefix("edgeproxy_"), *_values(sample.labels)): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_the_bound_address_is_known_once_the_scribe_is_ready(run: Path, tmp_path: Path) -> None:
    with scribe(run, tmp_path / "access.log", admin="127.0.0.1:0") as one:
        host, port = address(run).split(":")
        assert host == "127.0.0.1"
        assert int(port) > 0
        assert get(run, "/nothing")[0] == 404
        assert one.stop() == 0
        assert not RuntimeDir(run).admin_address.exists()


def test_health_follows_the_workers_and_the_log(run: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "access.log"
    with scribe(run, log, admin="127.0.0.1:0"):
        status, kind, body = get(run, "/healthz")
        assert (status, kind) == (503, "application/json")
        assert json.loads(body) == {"status": "no worker", "access_log": "failing"}
        with feeder(run, lines=1, stay=True):
            wait_until(lambda: get(run, "/healthz")[0] == 200, "the worker is seen")
            log.parent.mkdir()
            wait_until(lambda: json.loads(get(run, "/healthz")[2])["access_log"] == "ok", "the log is well")
        wait_until(lambda: get(run, "/healthz")[0] == 503, "the worker is gone")


def test_status_without_a_node_says_so(run: Path, tmp_path: Path) -> None:
    with scribe(run, tmp_path / "access.log", admin="127.0.0.1:0"):
        status, _, body = get(run, "/status")
        assert status == 503
        assert json.loads(body)["error"]["type"] == "not_running"


def test_metrics_are_the_workers_counters_and_outlive_the_workers(run: Path, tmp_path: Path) -> None:
    def work(requests: int) -> None:
        writer = LedgerWriter.create(run, 4, 1, slots=8, ring_bytes=1024 * 1024)
        for seq in range(requests):
            writer.publish(writer.open(seq, prefix(seq, 4)), record(seq, 4))
            writer.counters[Counter.REQUESTS] += 1
            writer.counters[Counter.CACHE_HIT] += 1
            writer.counters[Counter.STATUS_2XX] += 1
            writer.counters[Counter.OUTCOME_OK] += 1
            writer.counters[Counter.DURATION_US] += 1500
        writer.counters[Counter.CONNECTIONS_OPEN] = 3
        writer.open(requests, prefix(requests, 4))
        writer.acknowledge(1, tracing=True)
        wait_until(lambda: samples(run).get(("workers", "4")) == 1, "the worker is seen")
        during = samples(run)
        writer.close()
        wait_until(lambda: not ledger_files(run), "the ledger is finished")
        assert during[("connections_open", "4")] == 3
        assert during[("requests_in_flight", "4")] == 1
        assert during[("tracing", "4")] == 1

    log = tmp_path / "access.log"
    with scribe(run, log, admin="127.0.0.1:0"):
        work(10)
        before = samples(run)
        assert before[("requests_total", "4")] == 11
        assert before[("outcomes_total", "4", "ok")] == 10
        assert before[("outcomes_total", "4", "lost")] == 1
        assert before[("cache_total", "4", "hit")] == 10
        assert before[("responses_total", "4", "2xx")] == 10
        assert before[("request_duration_seconds_total", "4")] == pytest.approx(0.015)
        assert ("connections_open", "4") not in before
        work(5)
        after = samples(run)
        assert after[("requests_total", "4")] == 17
        assert after[("access_log_writable",)] == 1
        assert after[("scribe_written_bytes_total",)] == log.stat().st_size
    # A scribe that comes anew knows them still.
    with scribe(run, log, admin="127.0.0.1:0"):
        assert samples(run)[("requests_total", "4")] == 17
    assert len(lines_of(log)) == 17


def test_what_scripts_did_is_counted_by_worker(run: Path, tmp_path: Path) -> None:
    names = ("flows", "errors", "timeouts", "blocks", "loads", "load_failures")
    with scribe(run, tmp_path / "access.log", admin="127.0.0.1:0"):
        writer = LedgerWriter.create(run, 2, 1, slots=8, ring_bytes=1024 * 1024)
        for number, name in enumerate(names, 1):
            writer.counters[Counter[f"SCRIPT_{name.upper()}"]] = number
        wait_until(lambda: samples(run).get(("workers", "2")) == 1, "the worker is seen")
        shown = samples(run)
        assert {name: shown[(f"script_{name}_total", "2")] for name in names} == {
            name: number for number, name in enumerate(names, 1)
        }
        writer.close()


def test_metrics_come_as_openmetrics_to_those_who_ask(run: Path, tmp_path: Path) -> None:
    with scribe(run, tmp_path / "access.log", admin="127.0.0.1:0"):
        _, kind, body = get(run, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")
        assert get(run, "/metrics")[1].startswith("text/plain")


def test_the_documentation_has_the_metrics_as_they_are() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    assert markdown_table() in text, "docs/metrics.md: put edgeproxy.node.metrics.markdown_table() there"


def test_an_address_in_use_is_reported_and_the_log_goes_on(run: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with scribe(run, log, admin=taken) as one, feeder(run, lines=20, stay=True) as worker:
            worker.wait_done()
            wait_until(lambda: len(lines_of(log)) == 20, "the lines are there")
            (event,) = one.said("admin API can't listen")
            assert event["listen"] == taken
            assert not RuntimeDir(run).admin_address.exists()
            other.close()
            wait_until(RuntimeDir(run).admin_address.exists, "it was tried again")
            wait_until(lambda: get(run, "/healthz")[0] == 200, "it answers")


def test_a_client_that_stays_connected_does_not_hold_up_the_end(run: Path, tmp_path: Path) -> None:
    with scribe(run, tmp_path / "access.log", admin="[::1]:0") as one:
        host, _, port = address(run).rpartition(":")
        assert host == "[::1]"
        with socket.create_connection(("::1", int(port))) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 503")
            one.signal(signal.SIGINT)
            assert one.popen is not None
            assert one.popen.wait(10) == 0


def test_without_the_admin_api_nothing_of_it_is_loaded(run: Path, tmp_path: Path) -> None:
    with scribe(run, tmp_path / "access.log") as one:
        assert not RuntimeDir(run).admin_address.exists()
        assert not one.said("admin")
