"""The node as a whole: what it starts, what it replaces, how it ends, what it refuses. Real processes, real sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.node import NotRunningError
from edgeproxy.node.status import read_status
from tests.support import Client, Node, Origin, free_port, gated, reply, until

StartNode = Callable[..., Node]
PROMPT_S = 1.0


def events(node: Node, name: str) -> list[dict[str, Any]]:
    """The node's own events of that name."""
    found = []
    for line in node.stderr.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and event.get("event") == name:
                found.append(event)
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def try_run(config_file: Path) -> subprocess.CompletedProcess[str]:
    """A node that is expected not to start."""
    command = [sys.executable, "-m", "edgeproxy", "run", "-c", str(config_file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class TestServing:
    @pytest.fixture(scope="class")
    @classmethod
    def node(cls) -> Iterator[Node]:
        with Origin() as origin, Node(origin.url, workers=2) as node:
            yield node

    def test_every_worker_answers_requests(self, node: Node) -> None:
        def asked() -> bool:
            with node.connect() as client:
                client.get("/")
            return all(worker.requests for worker in node.status().workers)

        until(asked, "both workers to have answered")
        assert len(node.status().workers) == 2

    def test_what_it_listens_on_is_logged(self, node: Node) -> None:
        (ready,) = events(node, "node_ready")
        assert ready["listen"] == [f"127.0.0.1:{node.port}"]
        assert sorted(ready["workers"]) == sorted(node.worker_pids)
        assert ready["scribe"] == node.scribe_pid

    def test_status_names_every_process_and_each_lives(self, node: Node) -> None:
        status = node.status()
        pids = [status.supervisor_pid, status.scribe_pid, *(worker.pid for worker in status.workers)]
        assert status.supervisor_pid == node.supervisor_pid
        assert len(set(pids)) == 4
        assert all(map(is_alive, pids))

    def test_files_that_may_hold_secrets_are_the_owners_alone(self, node: Node) -> None:
        (config,) = node.runtime_dir.glob("config-*.json")
        assert config.stat().st_mode & 0o777 == 0o600
        assert node.runtime_dir.stat().st_mode & 0o777 == 0o700

    def test_a_second_supervisor_on_the_same_directory_is_refused(self, node: Node) -> None:
        refused = try_run(node.config_file)
        assert refused.returncode == 1
        assert f"another supervisor runs on {node.runtime_dir}" in refused.stderr
        with node.connect() as client:
            assert client.get("/").status == 200

    def test_an_address_in_use_is_refused_by_name(self, node: Node, start_node: StartNode) -> None:
        with pytest.raises(AssertionError, match=f"127.0.0.1:{node.port}.*Address already in use"):
            start_node(listen={"http": f"127.0.0.1:{node.port}"})


class TestReplacing:
    @pytest.fixture(scope="class")
    @classmethod
    def slow(cls) -> Iterator[Origin]:
        with Origin() as origin:
            yield origin

    @pytest.fixture(scope="class")
    @classmethod
    def node(cls, slow: Origin) -> Iterator[Node]:
        """Of one worker; whoever of its processes dies is replaced."""
        with Node(slow.url) as node:
            yield node

    def test_a_worker_that_died_is_replaced_at_once(self, start_node: StartNode) -> None:
        node = start_node(workers=2)
        before = {worker.index: worker.pid for worker in node.status().workers}
        node.kill_worker(0)
        after = {worker.index: worker.pid for worker in node.status().workers if worker.state == "serving"}
        assert after[0] != before[0]
        assert after[1] == before[1]
        assert node.status().worker_restarts == 1
        (died,) = events(node, "process_died")
        assert (died["name"], died["pid"], died["how"]) == ("worker 0", before[0], "killed by SIGKILL")

    def test_connections_that_wait_when_the_only_worker_dies_are_served_by_the_next(self, node: Node) -> None:
        os.kill(node.worker().pid, signal.SIGSTOP)
        clients = [node.connect() for _ in range(20)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        os.kill(node.worker().pid, signal.SIGKILL)
        assert [client.response().status for client in clients] == [200] * 20

    def test_a_request_that_was_in_flight_gets_its_line(self, slow: Origin, node: Node) -> None:
        gate = threading.Event()
        slow.on("/slow", gated(gate, reply()))
        with node.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            slow.wait_for("/slow")
            until(lambda: [one.stage for one in node.status().requests] == ["request_sent"], "the stage to show")
            node.kill_worker()
        (line,) = until(lambda: [line for line in node.lines() if line["path"] == "/slow"], "its line")
        assert (line["path"], line["outcome"], line["stage"]) == ("/slow", "lost", "request_sent")

    def test_a_scribe_that_died_is_replaced_and_no_line_is_lost_or_doubled(self, node: Node) -> None:
        path, restarts = "/each-once", node.status().scribe_restarts
        trace_ids = []
        with node.connect() as client:
            for number in range(30):
                trace_ids.append(client.get(path).trace_id)
                if number % 10 == 5:
                    dead = node.scribe_pid
                    os.kill(dead, signal.SIGKILL)
                    until(lambda dead=dead: node.scribe_pid not in {0, dead}, "the scribe to be replaced")

        def written() -> list[str]:
            return [line["trace_id"] for line in node.lines() if line["path"] == path]

        until(lambda: len(written()) >= 30, "every line")
        assert written() == trace_ids
        assert node.status().scribe_restarts == restarts + 3


class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_request_under_way_is_answered_first(
        self, origin: Origin, start_node: StartNode, number: signal.Signals
    ) -> None:
        gate = threading.Event()
        origin.on("/slow", gated(gate, reply(b"late")))
        node = start_node()
        pids = [node.scribe_pid, *node.worker_pids]
        with node.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            origin.wait_for("/slow")
            node.signal(number)
            until(lambda: node.status().state == "stopping", "the node to stop")
            until(lambda: not _accepts(node.port), "new connections to be refused")
            gate.set()
            assert client.response().body == b"late"
        assert node.wait() == 0
        assert not any(map(is_alive, pids))
        assert [line["outcome"] for line in node.lines()] == ["ok"]

    def test_nothing_but_locks_and_totals_stays_behind(self, start_node: StartNode) -> None:
        node = start_node(workers=2)
        with node.connect() as client:
            client.get("/")
        assert node.stop() == 0
        left = {path.name for path in node.runtime_dir.iterdir()}
        assert left <= {"supervisor.lock", "scribe.lock", "totals.json", "exporters", "cache"}
        with pytest.raises(NotRunningError):
            node.status()

    def test_told_twice_it_waits_for_nobody(self, origin: Origin, start_node: StartNode) -> None:
        origin.on("/slow", gated(threading.Event(), reply()))
        node = start_node(limits={"drain_timeout": 600})
        with node.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            origin.wait_for("/slow")
            node.signal(signal.SIGTERM)
            until(lambda: node.status().state == "stopping", "the node to stop")
            node.signal(signal.SIGTERM)
            assert node.wait(20) == 0

    def test_a_request_that_takes_too_long_is_cut_off(self, origin: Origin, start_node: StartNode) -> None:
        origin.on("/slow", gated(threading.Event(), reply()))
        node = start_node(limits={"drain_timeout": 0.3})
        with node.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            origin.wait_for("/slow")
            assert node.stop(timeout=20) == 0
        assert len(node.lines()) == 1

    def test_it_can_be_told_to_stop_while_it_starts(self, tmp_path: Path) -> None:
        config = tmp_path / "edgeproxy.toml"
        config.write_text(_config(tmp_path))
        process = subprocess.Popen(
            [sys.executable, "-m", "edgeproxy", "run", "-c", str(config)], stderr=subprocess.PIPE, text=True
        )
        until((tmp_path / "run" / "control").exists, "the control page")
        process.terminate()
        assert process.stderr
        with process.stderr:
            process.stderr.read()
        assert process.wait(30) == 0
        assert not (tmp_path / "run" / "control").exists()

    def test_after_a_killed_supervisor_the_next_one_takes_over(self, start_node: StartNode) -> None:
        node = start_node(workers=2, listen={"http": f"127.0.0.1:{free_port()}"})
        orphans = [node.scribe_pid, *node.worker_pids]
        with node.connect() as client:
            client.get("/")
            slow = node.worker(1).pid
            os.kill(slow, signal.SIGSTOP)  # one that has the address for longer than the next one takes to start
            os.kill(node.supervisor_pid, signal.SIGKILL)
            until(lambda: not node.is_running(), "the supervisor to be dead")
            with pytest.raises(NotRunningError):
                node.status()
            threading.Timer(2.0, os.kill, (slow, signal.SIGCONT)).start()
            node.start()
        until(lambda: not any(map(is_alive, orphans)), "the orphans to leave")
        with node.connect() as client:
            assert client.get("/").status == 200
        assert len(node.log_lines(2)) == 2


class TestRefusing:
    def test_a_runtime_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "run").touch()
        (tmp_path / "edgeproxy.toml").write_text(_config(tmp_path / "run"))
        refused = try_run(tmp_path / "edgeproxy.toml")
        assert refused.returncode == 1
        assert f"runtime directory {tmp_path}/run/run can't be made: Not a directory" in refused.stderr

    def test_a_configuration_that_is_wrong(self, tmp_path: Path) -> None:
        (tmp_path / "edgeproxy.toml").write_text(_config(tmp_path) + "[limits]\nheaders = 0\nheader = 1\n")
        refused = try_run(tmp_path / "edgeproxy.toml")
        assert refused.returncode == 2
        assert "limits.headers = 0" in refused.stderr
        assert "limits.header = 1" in refused.stderr
        assert "Traceback" not in refused.stderr

    def test_an_environment_file_that_is_wrong(self, tmp_path: Path) -> None:
        (tmp_path / "edgeproxy.toml").write_text(_config(tmp_path))
        (tmp_path / "edgeproxy.env").write_text("EDGEPROXY_TRACING=perhaps\n")
        refused = try_run(tmp_path / "edgeproxy.toml")
        assert refused.returncode == 2
        assert f"{tmp_path}/edgeproxy.env:1: EDGEPROXY_TRACING" in refused.stderr

    def test_a_worker_that_cannot_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full file system, for one; here a program that just ends."""
        (tmp_path / "edgeproxy.toml").write_text(_config(tmp_path))
        (tmp_path / "broken_worker.py").write_text("raise SystemExit(5)")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        code = (
            "import asyncio, sys, pathlib\n"
            "from edgeproxy.cli.common import plain_errors\n"
            "from edgeproxy.node.fleet import Programs\n"
            "from edgeproxy.node.source import Source\n"
            "from edgeproxy.node.supervisor import Supervisor\n"
            "with plain_errors():\n"
            "    source = Source(pathlib.Path(sys.argv[1]))\n"
            "    asyncio.run(Supervisor(source, programs=Programs(worker='broken_worker')).run())\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "edgeproxy.toml")]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert "ended before it was ready (exit code 5)" in refused.stderr
        assert "Traceback" not in refused.stderr
        with pytest.raises(NotRunningError):
            read_status(tmp_path / "run")


class TestServiceManager:
    @pytest.fixture
    def manager(self, tmp_path: Path) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
            made.bind(str(tmp_path / "notify"))
            made.settimeout(20)
            yield made

    def test_it_hears_when_the_node_serves_reloads_and_stops(
        self, manager: socket.socket, start_node: StartNode
    ) -> None:
        node = start_node(environ={"NOTIFY_SOCKET": manager.getsockname()})
        assert _said(manager)["STATUS"].startswith("1 workers on 127.0.0.1:")
        node.signal(signal.SIGHUP)
        reloading = _said(manager)
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert _said(manager)["READY"] == "1"
        node.signal(signal.SIGTERM)
        assert _said(manager)["STOPPING"] == "1"

    def test_it_hears_that_the_node_lives_twice_as_often_as_it_wants(
        self, manager: socket.socket, start_node: StartNode
    ) -> None:
        start_node(environ={"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "400000"})
        assert "READY" in _said(manager)
        manager.settimeout(0.4)
        assert [_said(manager) for _ in range(5)] == [{"WATCHDOG": "1"}] * 5

    def test_a_watchdog_for_another_process_is_left_alone(self, manager: socket.socket, start_node: StartNode) -> None:
        start_node(environ={"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "10000", "WATCHDOG_PID": "1"})
        assert "READY" in _said(manager)
        manager.settimeout(0.3)
        with pytest.raises(TimeoutError):
            _said(manager)

    def test_an_abstract_socket_will_do(self, start_node: StartNode) -> None:
        name = f"edgeproxy-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0{name}")
            manager.settimeout(20)
            start_node(environ={"NOTIFY_SOCKET": f"@{name}"})
            assert "READY" in _said(manager)

    def test_one_that_cannot_be_reached_harms_nobody(self, start_node: StartNode) -> None:
        node = start_node(environ={"NOTIFY_SOCKET": "/nowhere/notify"})
        with node.connect() as client:
            assert client.get("/").status == 200


class TestAddresses:
    def test_ipv6(self, start_node: StartNode) -> None:
        node = start_node(listen={"http": "[::1]:0"})
        assert node.status().listen == (f"[::1]:{node.port}",)
        with socket.create_connection(("::1", node.port), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"


def test_the_log_is_opened_anew_on_request(start_node: StartNode) -> None:
    node = start_node()
    with node.connect() as client:
        client.get("/one")
        node.log_lines(1)
        rotated = node.access_log.rename(node.access_log.with_suffix(".1"))
        node.signal(signal.SIGUSR1)
        client.get("/two")
    until(lambda: [line["path"] for line in node.lines()] == ["/two"], "the new file's line")
    assert len(rotated.read_bytes().splitlines()) == 1


def _accepts(port: int) -> bool:
    try:
        Client(port).close()
    except OSError:
        return False
    return True


def _said(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def _config(folder: Path) -> str:
    return (
        f'[node]\nruntime_dir = "{folder}/run"\nworkers = 1\n[listen]\nhttp = "127.0.0.1:0"\n'
        '[[origin]]\nname = "o"\nurls = ["http://127.0.0.1:9"]\n[admin]\nlisten = ""\n'
    )
