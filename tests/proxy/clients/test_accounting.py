"""Every request has one line and gives its slot back, and every connection ends, whoever leaves whom in between."""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import Conversation, Cut, Handler, Node, Origin, gated, reply, request, until

FIRST = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"


@pytest.fixture(scope="module")
def brisk(origin: Origin) -> Iterator[Node]:
    """A node that waits for nobody for long."""
    limits = {"send_timeout": 0.5, "keepalive_timeout": 0.5, "header_timeout": 0.5}
    with Node(origin.url, limits=limits) as started:
        yield started


def breaks_off(talk: Conversation) -> None:
    """Answer before the request's body is here, and not to the end."""
    talk.send(FIRST)
    talk.receive()
    talk.close()


def stays_open(talk: Conversation) -> None:
    """Answer before the request's body is here, and not to the end, until the other side has closed."""
    talk.send(FIRST)
    talk.wait_for_close()
    talk.end = "close"


@pytest.mark.parametrize(
    ("answers", "framing", "body", "outcome"),
    [
        pytest.param(breaks_off, b"Content-Length: 100", b"some", "origin_error", id="an-answer-that-breaks-off"),
        pytest.param(stays_open, b"Transfer-Encoding: chunked", b"zz\r\n", "refused", id="a-bad-chunk-after-its-begin"),
    ],
)
def test_an_upload_that_ends_while_it_is_answered_has_one_line(
    node: Node, origin: Origin, path: str, answers: Handler, framing: bytes, body: bytes, outcome: str
) -> None:
    origin.on(path, answers)
    with node.recording() as log:
        with node.connect() as client:
            client.send(b"POST %b HTTP/1.1\r\nHost: edge.test\r\n%b\r\n\r\n" % (path.encode(), framing))
            assert client.head().status == 200
            client.send(body)
            with pytest.raises(Cut):
                client.stream.chunked_body(client.head())
        (line,) = log.lines(1)
    assert line["outcome"] == outcome
    assert node.worker().in_flight == 0


@pytest.mark.parametrize("field", ["Connection: close", "Accept: */*"])
def test_a_client_that_never_reads_the_end_of_its_answer_does_not_stay(
    brisk: Node, origin: Origin, path: str, field: str
) -> None:
    sizes = range(100_000, 4_000_000, 60_000)  # what the kernel takes is its secret: one leaves a little behind
    clients = []
    for size in sizes:
        origin.on(f"{path}-{size}", reply(b"x" * size))
        client = brisk.connect(receive_buffer=4096)
        clients.append(client.send(request(f"{path}-{size}", field)))

    def is_over() -> bool:
        lines = [line for line in brisk.lines() if line["path"].startswith(path)]
        return len(lines) == len(clients) and not brisk.worker().connections

    until(is_over, "the connections' end")
    for client in clients:
        client.close()


def test_a_head_is_not_late_while_the_edge_does_not_read(brisk: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    last = request(path + "-last")
    with brisk.connect() as client:
        client.send(request(path + "-slow") + request(path + "-next") + last[:20])
        origin.wait_for(path + "-slow")
        client.send(last[20:])
        time.sleep(1)  # twice header_timeout
        gate.set()
        assert [client.response().status for _ in range(3)] == [200, 200, 200]


def test_what_waited_its_turn_is_judged_when_its_turn_comes(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    origin.on(path, reply(b"fresh", "Cache-Control: max-age=60"))
    with node.connect() as client, node.connect() as other:
        client.send(request(path + "-slow") + request(path))
        origin.wait_for(path + "-slow")
        time.sleep(1.5)
        other.get(path)
        gate.set()
        client.response()
        answer = client.response()
    assert answer.text == "fresh"
    assert int(answer["age"]) >= 0
    assert node.record(answer.trace_id)["cache_age"] >= 0


def test_what_went_stale_while_it_waited_is_not_served_as_fresh(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path + "-slow", gated(gate, reply(b"slow")))
    origin.on(path, reply(b"brief", "Cache-Control: max-age=1"))
    with node.connect() as client, node.connect() as other:
        other.get(path)
        client.send(request(path + "-slow") + request(path))
        origin.wait_for(path + "-slow")
        time.sleep(1.5)
        gate.set()
        client.response()
        answer = client.response()
    assert node.record(answer.trace_id)["cache"] == "EXPIRED"


def test_one_that_pipelines_leaves_the_others_their_slots(origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path, gated(gate, reply(b"slow")))
    count = 2000
    with Node(origin.url, limits={"connections": 8}) as node:
        with node.connect() as greedy:
            greedy.send(request(path) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count)
            origin.wait_for(path)
            with node.connect() as other:
                assert other.get(path + "-other").status == 200
            gate.set()
            assert {greedy.response().status for _ in range(count + 1)} == {200}
        with node.connect() as greedy:
            gate.clear()
            greedy.send(request(path) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count)
            origin.wait_for(path, 2)
            greedy.reset()
            gate.set()  # a client that is not read from is missed when it is answered
        until(lambda: not node.worker().in_flight, "every slot to be free")
        node.flushed()
        lines = node.lines()
        assert sorted(line["seq"] for line in lines) == list(range(1, len(lines) + 1))
        assert len(lines) > count + 3
