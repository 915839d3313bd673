import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Node, Origin, until

StartNode = Callable[..., Node]


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Origin() as origin, Node(origin.url, workers=2) as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    shared.env_file.unlink(missing_ok=True)
    until(lambda: shared.status().tracing.enabled and not shared.status().last_error, "tracing to be on")
    yield shared
    shared.env_file.unlink(missing_ok=True)


def traced(node: Node) -> set[tuple[bool, bool]]:
    return {(worker.tracing, worker.confirmed) for worker in node.status().workers}


class TestSwitching:
    def test_off_and_on_returns_once_every_worker_has_confirmed(self, node: Node) -> None:
        for word, enabled in (("off", False), ("on", True), ("off", False)):
            done = node.command("trace", word)
            assert traced(node) == {(enabled, True)}
            assert done.stdout == f"tracing is {word}: confirmed by 2 workers\n"

    def test_what_is_so_already_stays_so(self, node: Node) -> None:
        assert "confirmed by 2 workers" in node.command("trace", "on").stdout
        assert "confirmed by 2 workers" in node.command("trace", "on").stdout

    def test_leaves_the_rest_of_the_file_alone(self, node: Node) -> None:
        node.env_file.write_text("# by hand\nOTEL_SERVICE_NAME=edge\nEDGEPROXY_TRACING=on\nLAST=1\n")
        node.command("trace", "off")
        assert node.env_file.read_text() == "# by hand\nOTEL_SERVICE_NAME=edge\nEDGEPROXY_TRACING=off\nLAST=1\n"

    def test_makes_the_file_where_there_is_none(self, node: Node) -> None:
        node.command("trace", "off")
        assert node.env_file.read_text() == "EDGEPROXY_TRACING=off\n"

    def test_many_at_a_time_end_in_one_state(self, node: Node) -> None:
        codes = []

        def switch(word: str) -> None:
            codes.append(node.command("trace", word, check=False).returncode)

        threads = [threading.Thread(target=switch, args=(word,)) for word in ("on", "off") * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        last = node.env_file.read_text()
        assert last in {"EDGEPROXY_TRACING=on\n", "EDGEPROXY_TRACING=off\n"}
        enabled = last.endswith("on\n")
        until(lambda: traced(node) == {(enabled, True)}, "the workers to follow the file")

    def test_on_against_another_line_of_the_file_is_said(self, node: Node) -> None:
        node.env_file.write_text("OTEL_TRACES_EXPORTER=none\n")
        done = node.command("trace", "on", check=False)
        assert done.returncode == 1
        assert f"tracing stays off: {node.env_file} also says OTEL_TRACES_EXPORTER=none" in done.stderr

    def test_on_against_the_nodes_environment_is_said(self, start_node: StartNode) -> None:
        node = start_node(environ={"OTEL_TRACES_EXPORTER": "none"})
        done = node.command("trace", "on", check=False)
        assert done.returncode == 1
        assert "tracing stays off" in done.stderr
        assert "OTEL_TRACES_EXPORTER=none" in done.stderr

    def test_a_broken_file_is_not_touched(self, node: Node) -> None:
        node.env_file.write_text("no assignment\n")
        done = node.command("trace", "off", check=False)
        assert done.returncode == 2
        assert f"{node.env_file}:1" in done.stderr
        assert node.env_file.read_text() == "no assignment\n"
        assert traced(node) == {(True, True)}

    def test_another_wrong_line_is_named_and_nothing_is_confirmed(self, node: Node) -> None:
        node.env_file.write_text("OTEL_TRACES_SAMPLER=sometimes\n")
        done = node.command("trace", "off", check=False)
        assert done.returncode != 0
        assert "OTEL_TRACES_SAMPLER" in done.stderr
        assert traced(node) == {(True, True)}

    def test_a_worker_that_does_not_confirm_is_named(self, node: Node) -> None:
        stuck = node.worker(1).pid
        os.kill(stuck, signal.SIGSTOP)
        try:
            done = node.command("trace", "off", "--timeout", "0.5", check=False)
        finally:
            os.kill(stuck, signal.SIGCONT)
        assert done.returncode == 1
        assert f"not confirmed in 0.5 s by worker 1 (pid {stuck})" in done.stderr
        until(lambda: traced(node) == {(False, True)}, "both to follow in the end")

    def test_a_supervisor_that_does_not_read_is_said(self, node: Node) -> None:
        os.kill(node.supervisor_pid, signal.SIGSTOP)
        try:
            done = node.command("trace", "off", "--timeout", "0.5", check=False)
        finally:
            node.signal(signal.SIGCONT)
        assert done.returncode == 1
        assert f"the node has not read {node.env_file} in 0.5 s" in done.stderr

    def test_works_with_the_scribe_dead(self, node: Node) -> None:
        scribe = node.scribe_pid
        os.kill(scribe, signal.SIGSTOP)
        try:
            assert "confirmed by 2 workers\n" in node.command("trace", "off").stdout
        finally:
            os.kill(scribe, signal.SIGCONT)

    def test_shows_in_the_status_with_the_settings_and_each_workers_state(self, node: Node) -> None:
        node.env_file.write_text(
            "EDGEPROXY_TRACING=off\nOTEL_TRACES_SAMPLER=traceidratio\nOTEL_TRACES_SAMPLER_ARG=0.125\n"
        )
        until(lambda: traced(node) == {(False, True)}, "tracing to be off")
        shown = node.command("trace", "status").stdout
        assert "tracing off, sampler traceidratio, ratio 0.125" in shown
        assert str(node.env_file) in shown
        for worker in node.status().workers:
            (line,) = (line.split() for line in shown.splitlines() if str(worker.pid) in line)
            assert line == [str(worker.index), str(worker.pid), "off", "yes"]


class TestWithoutANode:
    def test_the_file_is_edited_for_the_next_start(self, tmp_path: Path) -> None:
        (tmp_path / "edgeproxy.toml").write_text(f'[node]\nruntime_dir = "{tmp_path}/run"\n')
        (tmp_path / "edgeproxy.env").touch()
        command = [sys.executable, "-m", "edgeproxy", "trace", "off", "-c", str(tmp_path / "edgeproxy.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0
        assert f"no node runs on {tmp_path}/run" in done.stderr
        assert (tmp_path / "edgeproxy.env").read_text() == "EDGEPROXY_TRACING=off\n"

    def test_a_file_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "edgeproxy", "trace", "off", "--runtime-dir", str(tmp_path)]
        environ = {**os.environ, "EDGEPROXY_ENV_FILE": f"{tmp_path}/none/env"}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
        assert done.returncode == 1
        assert f"{tmp_path}/none/env" in done.stderr

    def test_there_is_no_status(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "edgeproxy", "trace", "status", "--runtime-dir", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (1, f"edgeproxy: no node runs on {tmp_path}\n")
