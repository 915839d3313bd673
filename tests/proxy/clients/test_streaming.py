"""Bodies pass through in pieces, as fast as the slower side takes them, and never pile up in the worker."""

import random
import threading
from collections.abc import Iterator

import pytest

from tests.support import Client, Conversation, Handler, Node, Origin, request, until

MIB = 1024 * 1024
BLOCK = random.Random(5).randbytes(MIB)
BLOCKS = 200
GROWTH_BYTES = 10 * MIB
BUFFERED_BYTES = 64 * MIB
"""More than all that the kernel keeps between three programs on one machine."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def node(origin: Origin) -> Iterator[Node]:
    """A node that takes long bodies."""
    with Node(origin.url, limits={"body_bytes": 1024 * MIB}) as started:
        with started.connect() as client:  # what is allocated once is no growth
            client.get("/warm-up", method="POST", body=BLOCK)
        yield started


class SlowTaker:
    """An origin's handler that takes in nothing of a request's body before it is told to."""

    def __init__(self, length: int) -> None:
        """Answer when `length` raw bytes have come."""
        self.length = length
        self.go = threading.Event()
        self.taken = 0
        self.is_intact = True

    def __call__(self, talk: Conversation) -> None:
        talk.wait(self.go)
        while self.taken < self.length:
            data = talk.receive()
            if not data:
                break
            at = self.taken % MIB
            self.is_intact &= (BLOCK * 2)[at : at + len(data)] == data
            self.taken += len(data)
        talk.send(OK)
        talk.end = "close"


class ChunkTaker:
    """Takes in a chunked body piece by piece, and counts it."""

    def __init__(self, taker: SlowTaker) -> None:
        """Count in `taker`."""
        self.taker = taker

    def __call__(self, talk: Conversation) -> None:
        talk.wait(self.taker.go)
        while size := int(talk.stream.take_until(b"\r\n"), 16):
            data = talk.stream.take(size + 2)[:-2]
            at = self.taker.taken % MIB
            self.taker.is_intact &= (BLOCK * 3)[at : at + size] == data
            self.taker.taken += size
        talk.stream.take(2)
        talk.send(OK)
        talk.end = "close"


def early(response: bytes) -> Handler:
    """Answer before the body has come, and read no more."""

    def handle(talk: Conversation) -> None:
        talk.send(response)
        talk.close()

    return handle


def send_all(client: Client, pieces: Iterator[bytes], sent: list[int]) -> None:
    for piece in pieces:
        client.send(piece)
        sent.append(len(piece))


def has_stalled(count: list[int]) -> bool:
    """Whether nothing moves any more: looked at again and again, until nothing has for a while."""
    seen, quiet = -1, threading.Event()
    while seen != len(count):
        seen = len(count)
        quiet.wait(0.3)
    return True


class TestUploads:
    """A request's body on its way to a slow origin."""

    @pytest.mark.parametrize("framing", ["length", "chunked"])
    def test_memory_stays_flat(self, node: Node, origin: Origin, path: str, framing: str) -> None:
        chunk = b"%x\r\n%b\r\n" % (MIB, BLOCK)
        if framing == "length":
            head, pieces, length = f"Content-Length: {BLOCKS * MIB}", [BLOCK] * BLOCKS, BLOCKS * MIB
        else:
            head, pieces, length = "Transfer-Encoding: chunked", [*[chunk] * BLOCKS, b"0\r\n\r\n"], 0
        taker = SlowTaker(length)

        origin.on(path, taker if framing == "length" else ChunkTaker(taker))
        before = node.memory_bytes()
        sent: list[int] = []
        with node.recording() as log, node.connect(timeout=60) as client:
            client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode())
            sender = threading.Thread(target=send_all, args=(client, iter(pieces), sent))
            sender.start()
            origin.wait_for(path)
            assert has_stalled(sent)
            assert sum(sent) < BUFFERED_BYTES
            assert node.memory_bytes() - before < GROWTH_BYTES
            taker.go.set()
            peak = 0
            while sender.is_alive():
                peak = max(peak, node.memory_bytes())
                sender.join(0.05)
            assert client.response().text == "ok"
            assert peak - before < GROWTH_BYTES
            (line,) = log.lines(1)
        assert (taker.taken, taker.is_intact) == (BLOCKS * MIB, True)
        assert (line["outcome"], line["bytes_in"]) == ("ok", BLOCKS * MIB)

    def test_the_first_piece_is_at_the_origin_before_the_last_is_sent(
        self, node: Node, origin: Origin, path: str
    ) -> None:
        came = threading.Event()

        def handle(talk: Conversation) -> None:
            assert talk.stream.take(5) == b"first"
            came.set()
            assert talk.stream.take(4) == b"last"
            talk.send(OK)
            talk.end = "close"

        origin.on(path, handle)
        with node.connect() as client:
            client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfirst".encode())
            assert came.wait(10)
            assert client.send(b"last").response().text == "ok"

    def test_an_early_answer_ends_the_upload(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, early(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"))
        with node.recording() as log, node.connect() as client:
            client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegun".encode())
            response = client.response()
            assert (response.status, response.text, response["connection"]) == (401, "no", "close")
            assert client.is_ended()
            (line,) = log.lines(1)
        assert (line["outcome"], line["status"]) == ("ok", 401)

    def test_a_client_in_the_middle_of_its_body_gets_to_see_an_early_answer(
        self, node: Node, origin: Origin, path: str
    ) -> None:
        origin.on(path, lambda talk: talk.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"))
        with node.connect() as client:
            client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {20 * MIB}\r\n\r\n".encode())
            for _ in range(20):
                client.send(BLOCK)  # no reset on the way (RFC 9112 §9.6)
            assert client.response().text == "no"


class TestDownloads:
    """A response's body on its way to a slow client."""

    @pytest.mark.parametrize(("framing", "blocks"), [("length", BLOCKS), ("chunked", 80), ("close", 80)])
    def test_memory_stays_flat(self, node: Node, origin: Origin, path: str, framing: str, blocks: int) -> None:
        sent: list[int] = []
        head = {
            "length": f"Content-Length: {blocks * MIB}\r\n",
            "chunked": "Transfer-Encoding: chunked\r\n",
            "close": "Connection: close\r\n",
        }[framing]

        def handle(talk: Conversation) -> None:
            talk.send(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode())
            for _ in range(blocks):
                talk.send(b"%x\r\n%b\r\n" % (MIB, BLOCK) if framing == "chunked" else BLOCK)
                sent.append(MIB)
            if framing == "chunked":
                talk.send(b"0\r\n\r\n")
            if framing == "close":
                talk.close()

        origin.on(path, handle)
        before = node.memory_bytes()
        with node.recording() as log, node.connect(timeout=60) as client:
            client.send(request(path))
            until(lambda: sent, "the origin to send")
            assert has_stalled(sent)
            assert sum(sent) < BUFFERED_BYTES
            assert node.memory_bytes() - before < GROWTH_BYTES
            response = client.head()
            taken, peak, is_intact = 0, 0, True
            while taken < blocks * MIB:
                data = _piece(client, chunked=response.get("transfer-encoding") is not None)
                at = taken % MIB
                is_intact &= (BLOCK * 3)[at : at + len(data)] == data
                if taken // (20 * MIB) != (taken + len(data)) // (20 * MIB):
                    peak = max(peak, node.memory_bytes())
                taken += len(data)
            if response.get("transfer-encoding"):
                assert client.stream.take(5) == b"0\r\n\r\n"
            assert is_intact
            assert peak - before < GROWTH_BYTES
            (line,) = log.lines(1)
        assert (line["outcome"], line["bytes_out"]) == ("ok", blocks * MIB)

    def test_the_first_piece_is_at_the_client_before_the_last_is_sent(
        self, node: Node, origin: Origin, path: str
    ) -> None:
        gate = threading.Event()

        def handle(talk: Conversation) -> None:
            talk.send(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nfirst")
            talk.wait(gate)
            talk.send(b"last")

        origin.on(path, handle)
        with node.connect() as client:
            client.send(request(path)).head()
            assert client.stream.take(5) == b"first"
            gate.set()
            assert client.stream.take(4) == b"last"

    def test_a_slow_reader_holds_up_nobody_else(self, node: Node, origin: Origin, path: str) -> None:
        def handle(talk: Conversation) -> None:
            talk.send(f"HTTP/1.1 200 OK\r\nContent-Length: {50 * MIB}\r\n\r\n".encode())
            for _ in range(50):
                talk.send(BLOCK)

        origin.on(path, handle)
        with node.connect(receive_buffer=4096) as slow, node.connect() as quick:
            slow.send(request(path)).head()
            for number in range(20):
                assert quick.get(f"{path}-{number}").status == 200


def _piece(client: Client, *, chunked: bool) -> bytes:
    if chunked:
        size = int(client.stream.take_until(b"\r\n"), 16)
        return client.stream.take(size + 2)[:-2]
    if not client.stream.buffer:
        assert client.stream.more()
    return client.stream.take(min(len(client.stream.buffer), 256 * 1024))
