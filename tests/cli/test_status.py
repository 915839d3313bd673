import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from edgeproxy.cli.status import show
from edgeproxy.node.status import RequestStatus, ScriptStatus, Status, TracingStatus
from tests.support import Node, Origin, gated, reply, request, until

StartNode = Callable[..., Node]


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def node(origin: Origin) -> Iterator[Node]:
    with Node(origin.url, workers=2) as node:
        yield node


def as_json(node: Node) -> dict[str, Any]:
    found = json.loads(node.command("status", "--json").stdout)
    assert isinstance(found, dict)
    return found


def test_json_is_all_that_is_known(node: Node) -> None:
    shown = as_json(node)
    assert msgspec.convert(shown, Status).node == "edge-1"
    assert shown["supervisor_pid"] == node.supervisor_pid
    assert shown["listen"] == [f"127.0.0.1:{node.port}"]
    assert shown["admin"] in node.admin_url
    assert shown["config"] == str(node.config_file)
    assert shown["env_file"] == str(node.env_file)
    assert shown["access_log"] == str(node.access_log)
    assert shown["generation"] == 1
    assert shown["state"] == "running"
    assert shown["tracing"]["enabled"] is True
    assert [worker["index"] for worker in shown["workers"]] == [0, 1]
    assert all(worker["tracing"] and worker["confirmed"] for worker in shown["workers"])


def test_the_tables_say_it_too(node: Node) -> None:
    shown = node.command("status").stdout
    joined = shown.replace("\n", "").replace(" ", "")
    for pid in (node.supervisor_pid, node.scribe_pid, *node.worker_pids):
        assert str(pid) in shown
    assert f"127.0.0.1:{node.port}" in shown
    assert str(node.config_file) in joined
    assert "generation 1" in shown
    assert shown.count("serving") == 2


def test_a_request_in_flight_is_shown_with_its_stage_trace_path_and_age(node: Node, origin: Origin) -> None:
    gate = threading.Event()
    origin.on("/wait/here", gated(gate, reply()))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with node.connect() as client:
        client.send(request("/wait/here?a=b", f"traceparent: {parent}", method="POST", body=b"body", host="a.test"))
        origin.wait_for("/wait/here")
        until(lambda: [one.stage for one in node.status().requests] == ["request_sent"], "the stage")
        (first,) = as_json(node)["requests"]
        (later,) = as_json(node)["requests"]
        table = node.command("status").stdout
        gate.set()
        client.response()
    assert (first["method"], first["host"], first["path"]) == ("POST", "a.test", "/wait/here")
    assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert first["client"] == "127.0.0.1"
    assert 0 <= first["age_ms"] < later["age_ms"]
    assert "0af7651916cd43dd8448eb211c80319c" in table
    assert "request_sent" in table
    until(lambda: as_json(node)["in_flight"] == 0, "nothing to be in flight")


def test_the_oldest_requests_come_first_and_the_rest_is_counted(node: Node, origin: Origin) -> None:
    gate = threading.Event()
    origin.on("/many", gated(gate, reply()))
    clients = [node.connect() for _ in range(30)]
    for number, client in enumerate(clients, 1):
        client.send(f"GET /many?{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        origin.wait_for("/many", number)
    shown = as_json(node)
    table = node.command("status").stdout
    gate.set()
    for client in clients:
        client.response()
        client.close()
    ages = [one["age_ms"] for one in shown["requests"]]
    assert (shown["in_flight"], len(ages)) == (30, 20)
    assert ages == sorted(ages, reverse=True)
    assert "and 10 more" in table


def test_it_works_when_the_scribe_is_stuck_and_shows_what_waits_for_it(start_node: StartNode) -> None:
    node = start_node()
    scribe = node.scribe_pid
    os.kill(scribe, signal.SIGSTOP)
    with node.connect() as client:
        for _ in range(10):
            client.get("/")
    (worker,) = as_json(node)["workers"]
    os.kill(scribe, signal.SIGCONT)
    assert worker["requests"] == 10
    assert worker["ledger_bytes"] > 10 * 200
    assert 0 < worker["ledger_share"] < 1
    until(lambda: as_json(node)["workers"][0]["ledger_bytes"] == 0, "the scribe to catch up")


def test_restarts_and_the_last_error_are_shown(start_node: StartNode) -> None:
    node = start_node()
    node.kill_worker()
    node.env_file.write_text("EDGEPROXY_TRACING=perhaps\n")
    until(lambda: node.status().last_error, "the error")
    shown = node.command("status").stdout
    assert "1 of workers, 0 of the scribe" in shown
    assert "EDGEPROXY_TRACING" in shown


def test_the_configuration_file_need_not_be_valid_to_find_the_node(start_node: StartNode) -> None:
    node = start_node()
    good = node.config_file.read_text()
    for broken in (good + "[limits]\nheaders = 0\n", good + "[limits\n"):
        node.config_file.write_text(broken)
        assert as_json(node)["supervisor_pid"] == node.supervisor_pid


def test_a_worker_that_drains_is_shown_as_such(origin: Origin, start_node: StartNode) -> None:
    gate = threading.Event()
    origin.on("/drained", gated(gate, reply()))
    node = start_node()
    with node.connect() as client:
        client.send(b"GET /drained HTTP/1.1\r\nHost: a\r\n\r\n")
        origin.wait_for("/drained")
        node.write_config(limits={"headers": 50})
        node.signal(signal.SIGHUP)
        until(lambda: [w.state for w in node.status().workers] == ["draining", "serving"], "old and new worker")
        assert [worker["generation"] for worker in as_json(node)["workers"]] == [1, 2]
        gate.set()
        client.response()


class TestWithoutANode:
    def test_it_is_said_and_the_exit_code_is_1(self, tmp_path: Path) -> None:
        (tmp_path / "edgeproxy.toml").write_text(f'[node]\nruntime_dir = "{tmp_path}/run"\n')
        for arguments in (["status"], ["status", "--json"]):
            command = [sys.executable, "-m", "edgeproxy", *arguments, "-c", str(tmp_path / "edgeproxy.toml")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"edgeproxy: no node runs on {tmp_path}/run\n"

    def test_after_a_kill_of_the_supervisor_none_runs(self, start_node: StartNode) -> None:
        node = start_node()
        os.kill(node.supervisor_pid, signal.SIGKILL)
        until(lambda: not node.is_running(), "the supervisor to be dead")
        assert node.command("status", check=False).returncode == 1

    def test_a_configuration_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "edgeproxy", "status", "-c", str(tmp_path / "none.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert f"{tmp_path}/none.toml: No such file" in done.stderr


def test_clients_text_is_neither_markup_nor_terminal_control() -> None:
    console = Console(record=True, width=200, force_terminal=False)
    strange = RequestStatus(
        worker=0, seq=1, stage="connect", age_ms=1.0, trace_id="", client="::1", method="GET",
        host="[red]h[/]", path="/\x1b[2J\u202e[link=http://x]y",
    )  # fmt: skip
    show(_status(requests=(strange,), in_flight=1, last_error="[bold]e[/]\nmore"), console)
    shown = console.export_text()
    assert "[red]h[/]/\\x1b[2J\\x202e[link=http://x]y" in shown
    assert "[bold]e[/]; more" in shown
    assert "\x1b" not in shown


def test_scripts_have_a_line_where_there_are_some() -> None:
    def shown(**values: Any) -> str:
        console = Console(record=True, width=200, force_terminal=False)
        show(_status(**values), console)
        return console.export_text()

    scripts = ScriptStatus(flows=1, errors=2, timeouts=3, blocks=4, loads=5, load_failures=6)
    assert "scripts" not in shown()
    assert (
        "scripts        1 requests seen; of their hooks 2 failed (3 took too long), 4 blocked a worker; "
        "6 failed to load\n"
    ) in shown(scripts=scripts)


def _status(**values: Any) -> Status:
    tracing = TracingStatus(enabled=True, sampler="always_on", ratio=1.0, epoch=1)
    return Status(
        **{
            "version": "1", "node": "n", "state": "running", "supervisor_pid": 1, "scribe_pid": 0,
            "started": "2026-01-01T00:00:00+00:00", "generation": 1, "listen": ("127.0.0.1:80",), "admin": "",
            "config": "", "env_file": "e", "access_log": "-", "runtime_dir": "/run", "tracing": tracing,
            "workers_wanted": 0, "workers": (), "in_flight": 0, "requests": (), "worker_restarts": 0,
            "scribe_restarts": 0, "refused": 0, "last_error": "", **values,
        }
    )  # fmt: skip
