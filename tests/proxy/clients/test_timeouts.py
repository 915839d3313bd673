"""How long a client may take, and what it is told when it takes longer."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import Conversation, Cut, Node, Origin, gated, pieces_of, reply, request

SHORT_S = 0.6
"""The node's timeouts but for one; nothing in these tests has to be quicker than that to pass."""
SEND_S = 1.2
BODY = b"x" * 8_000_000


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    """An origin that takes little in before it is read."""
    with Origin(receive_buffer=4096) as started:
        yield started


@pytest.fixture(scope="module")
def node(origin: Origin) -> Iterator[Node]:
    """A node without patience."""
    names = ("header_timeout", "body_timeout", "keepalive_timeout")
    with Node(origin.url, limits={**dict.fromkeys(names, SHORT_S), "send_timeout": SEND_S}) as started:
        yield started


def pauses(seconds: float) -> Iterator[None]:
    """Go on every so many seconds: a client or origin that is slow, not a test that waits."""
    never = threading.Event()
    for _ in itertools.count():
        never.wait(seconds)
        yield


class TestHead:
    """`limits.header_timeout`: from a head's first byte to its last."""

    @pytest.mark.parametrize("begun", [b"G", b"GET /x HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\nX: "])
    def test_a_slow_one_is_answered_408(self, node: Node, begun: bytes) -> None:
        started = time.monotonic()
        with node.recording() as log, node.connect() as client:
            response = client.send(begun).response()
            assert time.monotonic() - started >= SHORT_S
            assert (response.status, response.problem["code"], response["connection"]) == (
                408,
                "header_timeout",
                "close",
            )
            assert client.is_ended()
            (line,) = log.lines(1)
        assert (line["outcome"], line["status"], line["stage"]) == ("timeout", 408, "received")
        assert line["trace_id"] == response.trace_id

    def test_dripping_does_not_help(self, node: Node) -> None:
        with node.recording() as log, node.connect() as client:
            client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nX: ")
            client.sock.setblocking(False)
            for _ in pauses(0.05):
                try:
                    client.sock.send(b"y")
                    if client.sock.recv(1, 2):  # MSG_PEEK
                        break
                except BlockingIOError:
                    continue
            client.sock.settimeout(20)
            assert client.response().status == 408
            assert log.lines(1)[0]["duration_ms"] < 10_000

    def test_a_slow_second_one(self, node: Node, path: str) -> None:
        with node.connect() as client:
            client.get(path)
            assert client.send(b"GET /x HTTP/1.1\r\n").response().status == 408
            assert client.is_ended()

    def test_one_behind_a_request_under_way_is_answered_in_its_turn(
        self, node: Node, origin: Origin, path: str
    ) -> None:
        gate = threading.Event()
        origin.on(path, gated(gate, reply(b"slow")))
        with node.recording() as log, node.connect() as client:
            client.send(request(path) + b"GET /x HTTP/1.1\r\n")
            origin.wait_for(path)
            next(itertools.islice(pauses(SHORT_S * 2), 1, 2))
            gate.set()
            assert [client.response().status for _ in range(2)] == [200, 408]
            assert client.is_ended()
            assert [line["outcome"] for line in log.lines(2)] == ["ok", "timeout"]


class TestIdle:
    """Connections on which nothing is under way are closed without a word and without a line."""

    def test_one_that_never_said_anything(self, node: Node) -> None:
        with node.recording() as log, node.connect() as client:
            assert client.is_ended()
            log.lines(0)

    def test_one_that_said_nothing_more(self, node: Node, path: str) -> None:
        with node.recording() as log, node.connect() as client:
            assert client.get(path).status == 200
            started = time.monotonic()
            assert client.is_ended()
            assert time.monotonic() - started > SHORT_S * 0.8
            log.lines(1)

    def test_empty_lines_are_nothing(self, node: Node) -> None:
        with node.recording() as log, node.connect() as client:
            assert client.send(b"\r\n\r\n").is_ended()
            log.lines(0)

    @pytest.mark.parametrize("status", [200, 502])
    def test_time_counts_from_the_end_of_an_answer(self, node: Node, origin: Origin, path: str, status: int) -> None:
        def handle(talk: Conversation) -> None:
            next(itertools.islice(pauses(SHORT_S), 1, 2))
            if status == 200:
                reply(b"late")(talk)
            else:
                talk.close()

        origin.on(path, handle)
        with node.connect() as client:
            for _ in range(2):
                assert client.get(path).status == status


class TestBody:
    """`limits.body_timeout`: between two pieces of a request's body."""

    @pytest.mark.parametrize(
        "begun",
        [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
        ids=["length", "chunked"],
    )
    def test_a_slow_one_is_answered_408(self, node: Node, origin: Origin, path: str, begun: bytes) -> None:
        with node.recording() as log, node.connect() as client:
            response = client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\n".encode() + begun).response()
            assert (response.status, response.problem["code"], response["connection"]) == (408, "body_timeout", "close")
            assert client.is_ended()
            (line,) = log.lines(1)
        assert (line["outcome"], line["status"], line["bytes_in"]) == ("timeout", 408, 4)
        assert not [seen for seen in origin.seen(path) if seen.complete]

    def test_one_behind_a_request_under_way_has_its_time_in_its_turn(
        self, node: Node, origin: Origin, path: str
    ) -> None:
        gate = threading.Event()
        origin.on(path + "-slow", gated(gate, reply(b"slow")))
        with node.connect() as client:
            client.send(request(path + "-slow") + request(path, method="POST", body=b"hello")[:-1])
            origin.wait_for(path + "-slow")
            next(itertools.islice(pauses(SHORT_S * 2), 1, 2))
            gate.set()
            assert client.response().text == "slow"
            assert client.send(b"o").response().text.endswith("hello")

    def test_a_slow_origin_is_not_the_clients_fault(self, node: Node, origin: Origin, path: str) -> None:
        def handle(talk: Conversation) -> None:
            next(itertools.islice(pauses(SHORT_S * 2), 1, 2))
            talk.read_body()
            talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        origin.on(path, handle)
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces_of(BODY, 10_000)) + b"0\r\n\r\n"
        with node.connect() as client:
            client.send(request(path, "Transfer-Encoding: chunked", method="POST") + chunks)
            assert client.response().text == "ok"


class TestSending:
    """`limits.send_timeout`: a client that takes in nothing of its response."""

    @pytest.mark.parametrize("cached", [True, False], ids=["hit", "miss"])
    def test_one_that_does_not_read_is_cut_off(self, node: Node, origin: Origin, path: str, cached: bool) -> None:
        origin.on(path, reply(BODY, f"Cache-Control: {'max-age=60' if cached else 'no-store'}"))
        if cached:
            with node.connect() as client:
                client.get(path)
        with node.recording() as log, node.connect(receive_buffer=4096) as client:
            client.send(request(path) * 3)
            lines = log.lines(3)
            with pytest.raises(Cut):
                [client.response() for _ in range(3)]
        # What is stored is handed over whole; who never takes it in is missed when the next answer is due.
        failed = [line for line in lines if line["outcome"] != "ok"]
        assert {line["outcome"] for line in failed} == {"timeout"}
        assert {line["error"]["type"] for line in failed} == {"send_timeout"}

    def test_a_slow_reader_is_not(self, node: Node, origin: Origin, path: str) -> None:
        chunks = [b"%x\r\n%b\r\n" % (len(one), one) for one in pieces_of(BODY, 60_000)]

        def handle(talk: Conversation) -> None:
            talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            talk.send(b"".join(chunks) + b"0\r\n\r\n")

        origin.on(path, handle)
        taken = 0
        with node.connect(receive_buffer=65536) as client:
            client.send(request(path)).head()
            for _ in pauses(0.03):  # 2 MB a second: four times as long as the limit
                while True:
                    size = int(client.stream.take_until(b"\r\n"), 16)
                    assert client.stream.take(size + 2)
                    taken += size
                    if not size or taken % 60_000 < size:
                        break
                if not size:
                    break
        assert taken == len(BODY)
