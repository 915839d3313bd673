"""Reloading: SIGHUP, a new generation of workers on the same sockets, and nobody who is sent away."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from edgeproxy.node.status import Status
from tests.node.load import Load
from tests.node.test_supervisor import events
from tests.support import Client, Node, Origin, free_port, gated, reply, until

StartNode = Callable[..., Node]
_changes = count(50)


@pytest.fixture(scope="class")
def origin() -> Iterator[Origin]:
    with Origin() as started:
        yield started


@pytest.fixture(scope="class")
def node(origin: Origin) -> Iterator[Node]:
    """Of two workers, for tests that leave it serving, whatever generation they leave."""
    with Node(origin.url, workers=2) as started:
        yield started


def changed(node: Node) -> None:
    """Give it a configuration that it has not had."""
    node.write_config(limits={"headers": next(_changes)})


def reload(node: Node) -> Status:
    """SIGHUP, and wait until the node has acted on it, one way or the other."""
    done = len(events(node, "reloaded")) + len(refusals(node))
    node.signal(signal.SIGHUP)

    def acted() -> bool:
        now = len(events(node, "reloaded")) + len(refusals(node))
        return now > done and node.status().state == "running"

    until(acted, "the reload to be done", timeout=60)
    return node.status()


def refusals(node: Node) -> list[dict[str, object]]:
    return events(node, "configuration_refused") + events(node, "environment_refused")


def serving(node: Node) -> dict[int, int]:
    """Pids of the workers that serve the present generation, by index."""
    status = node.status()
    return {
        worker.index: worker.pid
        for worker in status.workers
        if worker.state == "serving" and worker.generation == status.generation
    }


class TestAChangedConfiguration:
    def test_takes_effect_with_new_workers(self, node: Node) -> None:
        before, scribe, generation = serving(node), node.scribe_pid, node.status().generation
        with node.connect() as client:
            assert client.get("/").get("x-trace-id")
        node.write_config(tracing={"x_trace_id": False})
        status = reload(node)
        after = serving(node)
        assert status.generation == generation + 1
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values())
        with node.connect() as client:
            assert client.get("/").get("x-trace-id") is None
        new = [status.generation] * 2
        until(lambda: [worker.generation for worker in node.status().workers] == new, "the old ones to be gone")
        until(lambda: node.scribe_pid not in {0, scribe}, "a scribe that has the new configuration")

    def test_drops_no_connection(self, node: Node) -> None:
        before = node.status().generation
        with Load(node.port) as new, Load(node.port, keep_alive=True) as kept:
            for number in range(3):
                changed(node)
                assert reload(node).generation == before + number + 1
                new.more(50)
                kept.more(50)
        assert (new.failures, kept.failures) == ([], [])

    def test_lets_a_request_that_is_under_way_end(self, origin: Origin, node: Node) -> None:
        gate = threading.Event()
        origin.on("/slow", gated(gate, reply(b"late")))
        with node.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            origin.wait_for("/slow")
            changed(node)
            reload(node)
            until(lambda: {w.state for w in node.status().workers} == {"serving", "draining"}, "the old one to drain")
            gate.set()
            assert client.response().body == b"late"
        until(lambda: len(node.status().workers) == 2, "the old ones to be gone")
        found = until(lambda: [line for line in node.lines() if line["path"] == "/slow"], "its line")
        assert [line["outcome"] for line in found] == ["ok"]

    def test_writes_every_line_once(self, node: Node) -> None:
        path = "/each-once"
        with Load(node.port, path=path) as load:
            changed(node)
            reload(node)
            load.more(50)
        assert not load.failures

        def spans() -> list[str]:
            return [line["span_id"] for line in node.lines() if line["path"] == path]

        until(lambda: len(spans()) >= load.answered, "every line")
        assert len(spans()) == len(set(spans())) == load.answered

    def test_a_stop_in_its_midst_leaves_no_line_unwritten(self, start_node: StartNode) -> None:
        node = start_node()
        with Load(node.port) as load:
            node.write_config(limits={"headers": 50})
            scribe = node.scribe_pid
            node.signal(signal.SIGHUP)
            until(lambda: node.status().scribe_pid != scribe, "the scribe to be replaced")
            load.more(1)
            node.signal(signal.SIGTERM)
            node.wait()
        assert len(node.lines()) >= load.answered
        assert not list(node.runtime_dir.glob("ledger-*"))

    def test_can_move_the_log(self, start_node: StartNode) -> None:
        node = start_node()
        moved = node.folder / "moved.log"
        node.write_config(log={"access": str(moved)})
        assert reload(node).access_log == str(moved)
        with node.connect() as client:
            client.get("/")
        until(lambda: moved.exists() and moved.read_bytes().count(b"\n") == 1, "the line in the new log")
        assert node.lines() == []

    def test_can_move_the_node_to_another_address(self, start_node: StartNode) -> None:
        node = start_node()
        port = free_port()
        node.write_config(listen={"http": f"127.0.0.1:{port}"})
        assert reload(node).listen == (f"127.0.0.1:{port}",)
        with Client(port) as client:
            assert client.get("/").status == 200
        until(lambda: not _accepts(node.port), "the old address to be closed")

    def test_can_change_how_much_is_logged(self, start_node: StartNode) -> None:
        node = start_node()
        node.write_config(log={"level": "error"})
        node.signal(signal.SIGHUP)
        until(lambda: node.status().generation == 2 and node.status().state == "running", "the reload")
        before = len(node.stderr)
        node.stop()
        assert "node_stopped" not in node.stderr[before:]


class TestTheNumberOfWorkers:
    @staticmethod
    def begin_with(node: Node, workers: int) -> None:
        """Have so many workers, and none that is still leaving."""
        if len(serving(node)) != workers:
            node.write_config(node={"workers": workers})
            reload(node)
        until(lambda: len(node.status().workers) == workers, f"{workers} workers")

    @pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
    def test_can_change_and_no_connection_is_dropped(self, node: Node, before: int, after: int) -> None:
        self.begin_with(node, before)
        with Load(node.port) as load:
            node.write_config(node={"workers": after})
            reload(node)
            load.more(200)
            until(lambda: len(node.status().workers) == after, "the old ones to be gone")
            load.more(50)
            until(lambda: all(worker.requests for worker in node.status().workers), "each worker to get some")
        assert not load.failures
        assert sorted(serving(node)) == list(range(after))

    def test_can_change_there_and_back(self, node: Node) -> None:
        self.begin_with(node, 2)
        with Load(node.port) as load:
            for workers in (1, 2, 3, 2):
                node.write_config(node={"workers": workers})
                reload(node)
                load.more(60)
        assert not load.failures
        until(lambda: sorted(serving(node)) == [0, 1], "two to serve")

    def test_shrinks_without_dropping_what_waits_on_the_socket_that_goes(self, node: Node) -> None:
        self.begin_with(node, 2)
        generation = node.status().generation
        stopped = node.worker(1).pid
        os.kill(stopped, signal.SIGSTOP)
        clients = [node.connect() for _ in range(40)]  # about half of them wait on the stopped worker's socket
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        node.write_config(node={"workers": 1})
        node.signal(signal.SIGHUP)
        until(lambda: node.status().generation == generation + 1, "the new generation")
        os.kill(stopped, signal.SIGCONT)
        assert [client.response().status for client in clients] == [200] * 40


class TestAnUnchangedConfiguration:
    def test_keeps_the_workers(self, node: Node) -> None:
        before = serving(node)
        assert reload(node).generation == 1
        assert serving(node) == before

    def test_keeps_them_when_only_the_toggle_is_another(self, node: Node) -> None:
        before = serving(node)
        node.write_config(tracing={"enabled": False, "ratio": 0.5})
        status = reload(node)
        assert (status.generation, status.tracing.enabled, status.tracing.ratio) == (1, False, 0.5)
        assert serving(node) == before
        until(lambda: not any(worker.tracing for worker in node.status().workers), "the workers to follow")

    def test_is_what_a_storm_of_signals_comes_down_to(self, node: Node) -> None:
        before = serving(node)
        with Load(node.port) as load:
            for _ in range(50):
                node.signal(signal.SIGHUP)
            reload(node)
        assert not load.failures
        assert serving(node) == before


class TestAConfigurationThatIsRefused:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ("[limits]\nheaders = 0\n", "limits.headers = 0"),
            ("[limits\n", "line"),
            ('[node]\nruntime_dir = "/tmp/elsewhere"\n', "node.runtime_dir can't change"),
            ('[listen]\nhttp = "203.0.113.7:80"\n', "this host has no such address"),
        ],
        ids=["value", "syntax", "runtime-dir", "address"],
    )
    def test_changes_nothing_and_is_reported(self, node: Node, change: str, reason: str) -> None:
        before, refused = serving(node), node.status().refused
        good = node.config_file.read_text()
        table = change.partition("]")[0] + "]"
        kept = "\n".join(part for part in good.split("\n\n") if not part.startswith(table))
        node.config_file.write_text(f"{change}\n{kept}")
        status = reload(node)
        assert reason in status.last_error
        assert (status.generation, status.refused) == (1, refused + 1)
        assert serving(node) == before
        with node.connect() as client:
            assert client.get("/").status == 200
        if "runtime_dir" not in change:
            shown = node.command("status").stdout
            assert "last error" in shown
        node.config_file.write_text(good)
        assert reload(node).last_error == ""

    def test_stays_reported_while_the_toggle_works(self, node: Node) -> None:
        good = node.config_file.read_text()
        node.write_config(limits={"headers": 0})
        assert "limits.headers" in reload(node).last_error
        node.command("trace", "off")
        status = node.status()
        assert not status.tracing.enabled
        assert "limits.headers" in status.last_error
        node.config_file.write_text(good)
        assert reload(node).last_error == ""

    def test_leaves_the_old_workers_when_the_new_ones_do_not_start(self, start_node: StartNode) -> None:
        """Here because there is no room for the larger ledgers that they want."""
        node = start_node(workers=2)
        before = serving(node)
        resource.prlimit(node.supervisor_pid, resource.RLIMIT_FSIZE, (2**26, 2**26))
        node.write_config(node={"workers": 3, "ledger_bytes": 2**27})
        status = reload(node)
        assert "ended before it was ready" in status.last_error
        assert status.generation == 1
        assert serving(node) == before
        with Load(node.port) as load:
            load.more(50)
        assert not load.failures


def _accepts(port: int) -> bool:
    try:
        Client(port).close()
    except OSError:
        return False
    return True
