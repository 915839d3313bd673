"""Clients that leave: by half, before their time, in the middle of things; and the node that leaves (drain)."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Client, Conversation, Cut, Node, Origin, gated, pieces_of, raw, reply, request, until

BODY = b"x" * 1_000_000


class Watcher:
    """An origin's handler that waits for its client, and says whether the edge closed the connection meanwhile."""

    def __init__(self, *sent: bytes) -> None:
        """Send these bytes first."""
        self.sent = sent
        self.was_closed = threading.Event()

    def __call__(self, talk: Conversation) -> None:
        for piece in self.sent:
            talk.send(piece)
        if talk.wait_for_close():
            self.was_closed.set()
        talk.end = "close"


class TestHalfClosed:
    """A client that has sent all it will still gets its answers."""

    def test_a_hit(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, reply(b"hit", "Cache-Control: max-age=60"))
        with node.connect() as client:
            client.get(path)
        with node.connect() as client:
            client.send(request(path)).half_close()
            assert client.response().text == "hit"
            assert client.is_ended()

    def test_a_slow_miss(self, node: Node, origin: Origin, path: str) -> None:
        gate = threading.Event()
        origin.on(path, gated(gate, reply(BODY)))
        with node.recording() as log, node.connect() as client:
            client.send(request(path)).half_close()
            origin.wait_for(path)
            gate.set()
            assert client.response().body == BODY
            assert client.is_ended()
            assert log.lines(1)[0]["outcome"] == "ok"

    def test_several_pipelined(self, node: Node, origin: Origin, path: str) -> None:
        gate = threading.Event()
        origin.on(path + "-slow", gated(gate, reply(b"slow")))
        with node.connect() as client:
            client.send(request(path + "-slow") + request(path, method="POST", body=b"body") + request(path))
            client.half_close()
            origin.wait_for(path + "-slow")
            gate.set()
            assert client.response().text == "slow"
            assert client.response().text.endswith("body")
            assert client.response().status == 200
            assert client.is_ended()

    def test_the_whole_ones_before_half_a_head(self, node: Node, origin: Origin, path: str) -> None:
        gate = threading.Event()
        origin.on(path, gated(gate, reply(b"slow")))
        with node.recording() as log, node.connect() as client:
            client.send(request(path) + b"GET /half HTTP/1.1\r\nHo").half_close()
            origin.wait_for(path)
            gate.set()
            assert client.response().text == "slow"
            assert client.is_ended()
            log.lines(1)

    def test_the_whole_ones_before_half_a_body(self, node: Node, origin: Origin, path: str) -> None:
        gate = threading.Event()
        origin.on(path, gated(gate, reply(b"slow")))
        with node.recording() as log, node.connect() as client:
            client.send(request(path) + request(path + "-half", method="POST", body=b"whole")[:-2]).half_close()
            origin.wait_for(path)
            gate.set()
            assert client.response().text == "slow"
            assert client.is_ended()
            assert [line["outcome"] for line in log.lines(2)] == ["ok", "client_abort"]

    def test_a_problem(self, node: Node, path: str) -> None:
        with node.connect() as client:
            client.send(request(path, "Bad Name: x")).half_close()
            assert client.response().status == 400
            assert client.is_ended()

    def test_an_idle_connection_is_closed(self, node: Node, path: str) -> None:
        with node.recording() as log:
            with node.connect() as client:
                assert client.half_close().is_ended()
            with node.connect() as client:
                client.get(path)
                assert client.half_close().is_ended()
            log.lines(1)


class TestVanished:
    """A client that is gone: nothing goes on in its name, and its line says so."""

    @pytest.mark.parametrize(
        ("sent", "stage"),
        [
            ((), "request_sent"),
            ((b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",), "streaming"),
            ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",), "streaming"),
        ],
        ids=["waiting", "in-a-body", "in-chunks"],
    )
    def test_the_fetch_ends(self, node: Node, origin: Origin, path: str, sent: tuple[bytes, ...], stage: str) -> None:
        watcher = Watcher(*sent)
        origin.on(path, watcher)
        with node.recording() as log:
            client = node.connect()
            client.send(request(path))
            origin.wait_for(path)
            if sent:
                client.head()
            client.reset()
            assert watcher.was_closed.wait(10)
            (line,) = log.lines(1)
        assert (line["outcome"], line["stage"], line["error"]["type"]) == ("client_abort", stage, "client_gone")
        assert line["status"] == (200 if sent else None)

    @pytest.mark.parametrize("way", [Client.reset, Client.close], ids=["reset", "close"])
    def test_in_its_own_body(self, node: Node, origin: Origin, path: str, way: Callable[[Client], None]) -> None:
        with node.recording() as log:
            client = node.connect()
            client.send(request(path, method="POST", body=BODY)[:-100_000])
            origin.wait_for(path)
            way(client)
            (line,) = log.lines(1)
        assert line["outcome"] == "client_abort"
        until(lambda: any(isinstance(error, Cut) for error in origin.broken), "the origin to see the upload break off")
        assert not [seen for seen in origin.seen(path) if seen.complete]

    def test_while_it_should_read_a_long_body(self, node: Node, origin: Origin, path: str) -> None:
        watcher = Watcher(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", *pieces_of(BODY * 20, 100_000))
        origin.on(path, watcher)
        with node.recording() as log:
            client = node.connect(receive_buffer=4096)
            client.send(request(path)).head()
            client.close()  # with bytes unread: a reset
            (line,) = log.lines(1)
        assert line["outcome"] == "client_abort"

    def test_with_others_waiting_behind(self, node: Node, origin: Origin, path: str) -> None:
        watcher = Watcher(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        origin.on(path, watcher)
        with node.recording() as log:
            client = node.connect()
            client.send(request(path) + request(path + "-2") + request(path + "-3"))
            client.head()
            client.reset()
            # The node reads no more while requests wait, so it is what it writes that tells it.
            origin.drop_connections()
            lines = log.lines(3)
        assert {line["outcome"] for line in lines} <= {"client_abort", "origin_error"}
        assert not origin.seen(path + "-2")

    def test_in_the_middle_of_a_head_leaves_no_trace(self, node: Node, path: str) -> None:
        with node.recording() as log:
            for way in (Client.reset, Client.close):
                client = node.connect()
                client.send(request(path)[:-4])
                way(client)
            log.lines(0)

    def test_the_next_client_is_served(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, reply(BODY))
        for _ in range(20):
            client = node.connect()
            client.send(request(path))
            client.reset()
        with node.connect() as client:
            assert client.get(path).body == BODY


class TestDrain:
    """A node that is told to stop ends what it has begun, takes nothing new, and resets nobody."""

    def test_what_is_under_way_is_answered_and_idle_ones_are_closed(
        self, start_node: Callable[..., Node], origin: Origin, path: str
    ) -> None:
        node = start_node(limits={"drain_timeout": 20})
        gate = threading.Event()
        origin.on(path + "-slow", gated(gate, reply(b"slow")))
        origin.on(path + "-slow-too", gated(gate, reply(b"slow")))
        origin.on(path + "-begun", lambda talk: begun(talk, gate))
        origin.on(path + "-up", lambda talk: upload(talk, gate))
        connect = node.connect
        with (
            connect() as slow,
            connect() as begin,
            connect() as sends,
            connect() as pipe,
            connect() as idle,
            connect() as new,
            connect() as half,
        ):
            half.send(request(path + "-head")[:-2])
            idle.get(path)
            slow.send(request(path + "-slow"))
            begin.send(request(path + "-begun")).head()
            sends.send(request(path + "-up", method="POST", body=b"hello")[:-1])
            pipe.send(request(path + "-slow-too") + request(path + "-2") + request(path + "-3"))
            origin.wait_for(path + "-slow")
            origin.wait_for(path + "-slow-too")
            origin.wait_for(path + "-up")
            node.signal(signal.SIGTERM)
            assert idle.is_ended()
            assert new.is_ended()
            response = half.send(b"\r\n").response()
            assert (response.status, response["connection"]) == (200, "close")
            gate.set()
            response = slow.response()
            assert (response.text, response["connection"]) == ("slow", "close")
            assert slow.is_ended()
            assert begin.stream.take(len(BODY)) == BODY
            assert begin.is_ended()
            response = sends.send(b"o").response()
            assert (response.text, response["connection"]) == ("up", "close")
            assert sends.is_ended()
            answers = [pipe.response() for _ in range(3)]
            assert [one.status for one in answers] == [200, 200, 200]
            assert [one.values("connection") for one in answers] == [[], [], ["close"]]
            assert pipe.is_ended()
        assert node.wait() == 0
        lines = node.log_lines(8)
        assert {line["outcome"] for line in lines} == {"ok"}

    def test_a_request_that_crosses_the_end_of_its_worker_is_answered(
        self, start_node: Callable[..., Node], path: str
    ) -> None:
        node = start_node(limits={"drain_timeout": 20})
        with node.connect() as kept, node.connect() as new:
            kept.get(path)
            node.signal(signal.SIGTERM)
            until(lambda: {worker.state for worker in node.status().workers} == {"draining"}, "the worker to drain")
            for client in (kept, new):
                response = client.get(path)
                assert (response.status, response["connection"]) == (200, "close")
                assert client.is_ended()
        assert node.wait() == 0
        assert [line["outcome"] for line in node.log_lines(3)] == ["ok"] * 3

    def test_a_connection_that_comes_with_the_word_to_stop_is_served(
        self, start_node: Callable[..., Node], path: str
    ) -> None:
        node = start_node()
        for _ in range(10):
            worker = node.worker().pid
            os.kill(worker, signal.SIGSTOP)  # it wakes to both at once
            with node.connect() as client:
                client.send(request(path))
                os.kill(worker, signal.SIGTERM)
                os.kill(worker, signal.SIGCONT)
                assert client.response().status == 200
            until(lambda gone=worker: node.worker().pid != gone, "the next worker")
        assert [line["outcome"] for line in node.log_lines(10)] == ["ok"] * 10

    def test_what_takes_too_long_is_cut_and_recorded(
        self, start_node: Callable[..., Node], origin: Origin, path: str
    ) -> None:
        node = start_node(limits={"drain_timeout": 0.3})
        watcher = Watcher()
        origin.on(path, watcher)
        with node.connect() as client:
            client.send(request(path) + request(path + "-behind"))
            origin.wait_for(path)
            node.signal(signal.SIGTERM)
            with pytest.raises(Cut):
                client.response()
        assert node.wait() == 0
        lines = node.log_lines(2)
        assert [(line["path"], line["outcome"]) for line in lines] == [(path, "timeout"), (path + "-behind", "timeout")]
        assert {line["error"]["type"] for line in lines} == {"drain_timeout"}
        assert watcher.was_closed.wait(10)

    def test_nothing_is_lost_under_load(self, start_node: Callable[..., Node], origin: Origin, path: str) -> None:
        node = start_node(workers=2)
        answered: list[str] = []
        broken: list[Exception] = []

        def run() -> None:
            client = node.connect()
            try:
                while True:
                    response = client.get(path)
                    answered.append(response.trace_id)
                    if response.get("connection") == "close":
                        return
            except Cut as error:
                if "where a response was due" not in str(error) and "with b'' unread" not in str(error):
                    broken.append(error)
            except OSError:
                pass  # closed while idle, as it was about to send: the client may ask again elsewhere
            finally:
                client.close()

        clients = [threading.Thread(target=run) for _ in range(16)]
        for one in clients:
            one.start()
        until(lambda: len(answered) > 500, "requests to be answered")
        node.signal(signal.SIGTERM)
        for one in clients:
            one.join()
        assert node.wait() == 0
        assert not broken
        lines = node.lines()
        by_trace = {line["trace_id"]: line["outcome"] for line in lines}
        assert len(by_trace) == len(lines)
        assert {by_trace[trace_id] for trace_id in answered} == {"ok"}

    def test_a_worker_whose_supervisor_was_killed_drains(
        self, start_node: Callable[..., Node], origin: Origin, path: str
    ) -> None:
        node = start_node()
        gate = threading.Event()
        origin.on(path, gated(gate, reply(b"slow")))
        pids = [*node.worker_pids, node.scribe_pid]
        with node.connect() as client, node.connect() as idle:
            client.send(request(path))
            origin.wait_for(path)
            os.kill(node.supervisor_pid, signal.SIGKILL)
            assert idle.is_ended()
            gate.set()
            response = client.response()
            assert (response.text, response["connection"]) == ("slow", "close")
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the orphans to go")
        assert node.log_lines(1)[0]["outcome"] == "ok"


def begun(talk: Conversation, gate: threading.Event) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    talk.wait(gate)
    talk.send(BODY)


def upload(talk: Conversation, gate: threading.Event) -> None:
    talk.wait(gate)
    talk.read_body()
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup")(talk)
