"""What status makes of the files that a node's processes share; how it is shown is tests/cli's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgeproxy.config import TracingSettings
from edgeproxy.ledger import Counter, LedgerReader, LedgerWriter, Stage, Totals, ledger_files
from edgeproxy.node import Control, ControlPageError, ControlWord, Description, NodeState, NotRunningError, RuntimeDir
from edgeproxy.node.status import ScriptStatus, Status, read_status

TEXT = (
    b'{"ts":"2026-01-01T00:00:00.000000Z","trace_id":"0af7651916cd43dd8448eb211c80319c","client":"::1",'
    b'"method":"GET","host":"a.test","path":"/x"'
)


class Parts:
    """A node's files, written by this process in its processes' stead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = RuntimeDir(folder)
        self.lock = self.runtime.lock()
        self.control = Control.create(self.runtime.control)
        self.control.set_tracing(TracingSettings(enabled=True, sampler="always_on", ratio=1.0))
        self.control.set_description(Description(node="n", listen=("127.0.0.1:1",)))

    def worker(self, index: int) -> LedgerWriter:
        return LedgerWriter.create(self.folder, index, 1, slots=4, ring_bytes=65536)

    def states(self) -> dict[int, str]:
        return {worker.index: worker.state for worker in read_status(self.folder).workers}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    yield made
    os.close(made.lock)


def test_a_worker_serves_drains_or_is_dead(parts: Parts) -> None:
    _serving, draining, dead = (parts.worker(index) for index in range(3))
    draining.draining()
    dead.close()
    assert parts.states() == {0: "serving", 1: "draining", 2: "dead"}


def test_a_worker_of_an_earlier_supervisor_is_an_orphan(parts: Parts) -> None:
    _old = parts.worker(0)
    Control.create(parts.runtime.control)
    _new = parts.worker(1)
    assert parts.states() == {0: "orphaned", 1: "serving"}


def test_a_dead_workers_ledger_that_the_scribe_works_on_is_still_dead(parts: Parts, tmp_path: Path) -> None:
    """The scribe has its lock then."""
    code = (
        "import sys, pathlib\n"
        "from edgeproxy.ledger import LedgerWriter\n"
        "LedgerWriter.create(pathlib.Path(sys.argv[1]), 0, 1, slots=4, ring_bytes=65536)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    (path,) = ledger_files(tmp_path)
    scribe = LedgerReader.open(path)
    assert scribe.take_over()
    assert parts.states() == {0: "dead"}
    scribe.close()


def test_a_worker_has_confirmed_once_it_acts_on_the_latest_epoch(parts: Parts) -> None:
    ledger = parts.worker(0)
    assert not read_status(parts.folder).workers[0].confirmed
    ledger.acknowledge(parts.control.epoch, tracing=True)
    (worker,) = read_status(parts.folder).workers
    assert (worker.confirmed, worker.tracing) == (True, True)
    parts.control.set_tracing(TracingSettings(enabled=False, sampler="always_on", ratio=1.0))
    (worker,) = read_status(parts.folder).workers
    assert (worker.confirmed, worker.tracing, worker.epoch) == (False, True, 1)


def test_it_says_up_to_which_purge_a_worker_acts(parts: Parts) -> None:
    ledger = parts.worker(0)
    ledger.acknowledge_purge(12)
    assert read_status(parts.folder).workers[0].purge_seq == 12


def test_requests_in_flight_are_read_as_far_as_they_are_known(parts: Parts) -> None:
    ledger = parts.worker(3)
    ledger.stage(ledger.open(7, TEXT), Stage.CONNECT)
    ledger.open(8, b"")
    first, second = read_status(parts.folder).requests
    assert (first.worker, first.seq, first.stage) == (3, 7, "connect")
    assert (first.trace_id, first.client) == ("0af7651916cd43dd8448eb211c80319c", "::1")
    assert (first.method, first.host) == ("GET", "a.test")
    assert first.age_ms is not None
    assert first.age_ms > 0
    assert (second.seq, second.stage, second.trace_id, second.age_ms) == (8, "received", "", None)


def test_counters_and_fill_are_the_workers_own(parts: Parts) -> None:
    ledger = parts.worker(0)
    ledger.counters[Counter.REQUESTS] = 5
    ledger.counters[Counter.CONNECTIONS_OPEN] = 2
    ledger.publish(ledger.open(1, b""), b"x" * 655 + b"\n")
    (worker,) = read_status(parts.folder).workers
    assert (worker.requests, worker.connections, worker.ledger_bytes) == (5, 2, 656)
    assert worker.ledger_share == pytest.approx(0.01, abs=1e-4)


def test_what_scripts_did_is_told_where_workers_have_some_those_before_them_included(parts: Parts) -> None:
    def work(index: int, **counted: int) -> LedgerWriter:
        ledger = parts.worker(index)
        for name, value in counted.items():
            ledger.counters[Counter[f"SCRIPT_{name.upper()}"]] = value
        return ledger

    _plain = work(0, flows=0)
    assert read_status(parts.folder).scripts is None
    Totals.load(parts.folder).add("ledger-1-0", 1, [100 + counter for counter in Counter])
    assert read_status(parts.folder).scripts is None
    one = work(1, flows=1000, errors=2000, timeouts=3000, blocks=4000, loads=5000, load_failures=6000)
    assert read_status(parts.folder).scripts == ScriptStatus(
        flows=1143, errors=2144, timeouts=3145, blocks=4146, loads=5147, load_failures=6148
    )
    one.counters[Counter.SCRIPT_LOADS] = 0  # a script that never loaded
    assert read_status(parts.folder).scripts is not None


def test_a_file_that_is_no_ledger_hides_nothing(parts: Parts) -> None:
    (parts.folder / "ledger-9-0").write_bytes(b"junk")
    _worker = parts.worker(0)
    assert parts.states() == {0: "serving"}


def test_it_is_one_json_object_and_back(parts: Parts) -> None:
    parts.worker(0).open(1, TEXT)
    status = read_status(parts.folder)
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


def test_what_the_supervisor_is_about_is_shown(parts: Parts) -> None:
    parts.control.set(ControlWord.STATE, NodeState.RELOADING)
    parts.control.set(ControlWord.RELOAD_ERRORS, 3)
    status = read_status(parts.folder)
    assert (status.state, status.refused) == ("reloading", 3)


def test_no_supervisor_no_status(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match=f"no node runs on {tmp_path}"):
        read_status(tmp_path)


def test_a_supervisor_that_has_no_page_yet_is_starting(parts: Parts) -> None:
    parts.runtime.control.unlink()
    with pytest.raises(NotRunningError, match="just starting or stopping"):
        read_status(parts.folder)


def test_a_page_of_another_version_is_refused(parts: Parts) -> None:
    parts.control.set(ControlWord.VERSION, 99)
    with pytest.raises(ControlPageError):
        read_status(parts.folder)
