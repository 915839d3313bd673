"""Expect: 100-continue, other 1xx responses, and offers to upgrade (RFC 9110 §7.8, §10.1.1, §15.2)."""

import select
import threading
from collections.abc import Iterator

import pytest

from tests.support import Conversation, Node, Origin, pieces_of, raw, reply, request, silent

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def impatient(origin: Origin) -> Iterator[Node]:
    """A node that soon gives up on a body, and a little later on an origin."""
    with Node(origin.url, limits={"body_timeout": 0.8}, origin={"first_byte_timeout": 1.5}) as started:
        yield started


def expecting(path: str, *fields: str, length: int = 5, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: edge.test", f"Content-Length: {length}", "Expect: 100-continue"]
    return "\r\n".join([*lines, *fields, "", ""]).encode()


class TestContinue:
    """A client that asks before it sends its body."""

    def test_the_origins_100_is_passed_on_and_then_the_body(self, node: Node, origin: Origin, path: str) -> None:
        asked = threading.Event()
        may = threading.Event()
        early: list[bytes] = []

        def handle(talk: Conversation) -> None:
            asked.set()
            talk.wait(may)
            readable, _, _ = select.select([talk.stream.sock], [], [], 0)
            early.append(bytes(talk.stream.buffer) + (talk.stream.sock.recv(100) if readable else b""))
            talk.send(CONTINUE)
            talk.read_body()
            talk.send(OK)

        origin.on(path, handle)
        with node.recording() as log, node.connect() as client:
            client.send(expecting(path))
            assert asked.wait(10)
            may.set()
            assert client.head().status == 100
            client.send(b"hello")
            response = client.response()
            assert (response.status, response.text, response.values("connection")) == (200, "ok", [])
            assert client.get(path + "-next").status == 200
            line = log.lines(2)[0]
        assert early == [b""]
        (seen,) = origin.seen(path)
        assert (seen["expect"], seen.body) == ("100-continue", b"hello")
        assert (line["outcome"], line["bytes_in"]) == ("ok", 5)

    def test_chunked(self, node: Node, origin: Origin, path: str) -> None:
        def handle(talk: Conversation) -> None:
            talk.send(CONTINUE)
            talk.read_body()
            talk.send(OK)

        origin.on(path, handle)
        with node.connect() as client:
            client.send(
                f"PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            assert client.head().status == 100
            assert client.send(b"5\r\nhello\r\n0\r\n\r\n").response().text == "ok"
        assert origin.seen(path)[0].body == b"hello"

    def test_a_final_answer_instead_spares_the_body(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, lambda talk: talk.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"))
        with node.recording() as log, node.connect() as client:
            response = client.send(expecting(path)).response()
            assert (response.status, response.text, response.interim) == (403, "no", [])
            assert response["connection"] == "close"  # whether the body will come nobody knows
            assert client.is_ended()
            (line,) = log.lines(1)
        assert (line["outcome"], line["status"], line["bytes_in"]) == ("ok", 403, 0)

    def test_a_client_need_not_wait(self, node: Node, origin: Origin, path: str) -> None:
        with node.connect() as client:
            response = client.send(expecting(path) + b"hello").response()
            assert response.status == 200
            assert response.text.endswith("hello")
            assert client.get(path).status == 200

    def test_an_http_1_0_client_is_sent_no_100(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, raw(CONTINUE + OK))
        with node.connect() as client:
            response = client.send(expecting(path, version="1.0") + b"hello").response()
            assert (response.status, response.interim) == (200, [])

    def test_an_expectation_without_a_body_is_no_matter(self, node: Node, origin: Origin, path: str) -> None:
        with node.connect() as client:
            assert client.get(path, "Expect: 100-continue").status == 200
            assert client.send(expecting(path, length=0)).response().status == 200

    def test_too_large_a_body_is_refused_before_it_is_sent(self, node: Node, origin: Origin, path: str) -> None:
        with node.connect() as client:
            response = client.send(expecting(path, length=10**12)).response()
            assert (response.status, response.interim) == (413, [])
            assert client.is_ended()
        assert not origin.seen(path)

    def test_an_origin_that_takes_its_time_with_the_100_is_not_the_clients_fault(
        self, impatient: Node, origin: Origin, path: str
    ) -> None:
        origin.on(path, silent)
        with impatient.recording() as log, impatient.connect() as client:
            response = client.send(expecting(path)).response()
            assert (response.status, response.problem["code"]) == (504, "origin_first_byte_timeout")
            (line,) = log.lines(1)
        assert line["duration_ms"] > 1000

    def test_a_body_may_take_longer_than_the_origin_may(self, impatient: Node, origin: Origin, path: str) -> None:

        def handle(talk: Conversation) -> None:
            talk.send(CONTINUE)
            talk.read_body()
            talk.send(OK)

        origin.on(path, handle)
        slowly = threading.Event()
        with impatient.connect() as client:
            assert client.send(expecting(path, length=10)).head().status == 100
            for _ in range(10):
                slowly.wait(0.2)
                client.send(b"x")
            assert client.response().text == "ok"

    def test_a_body_that_does_not_come_after_the_100_times_out(
        self, impatient: Node, origin: Origin, path: str
    ) -> None:

        def handle(talk: Conversation) -> None:
            talk.send(CONTINUE)
            silent(talk)

        origin.on(path, handle)
        with impatient.connect() as client:
            response = client.send(expecting(path)).response()
            assert [one.status for one in response.interim] == [100]
            assert (response.status, response.problem["code"]) == (408, "body_timeout")


class TestInterim:
    """Other 1xx responses are passed on as they come."""

    HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"

    def test_early_hints_come_before_the_response(self, node: Node, origin: Origin, path: str) -> None:
        gate = threading.Event()

        def handle(talk: Conversation) -> None:
            talk.send(self.HINTS)
            talk.wait(gate)
            talk.send(OK)

        origin.on(path, handle)
        with node.recording() as log, node.connect() as client:
            hints = client.send(request(path)).head()
            assert (hints.status, hints["link"]) == (103, "</a.css>; rel=preload")
            assert hints.values("content-length") == hints.values("transfer-encoding") == []
            gate.set()
            assert client.response().text == "ok"
            assert client.get(path + "-next").status == 200
            assert log.lines(2)[0]["status"] == 200

    def test_several_in_one_go(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, raw(b"HTTP/1.1 102 Processing\r\n\r\n" + self.HINTS * 2 + OK))
        with node.connect() as client:
            response = client.get(path)
            assert [one.status for one in response.interim] == [102, 103, 103]
            assert response.text == "ok"

    def test_before_a_response_to_head(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, raw(self.HINTS + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"))
        with node.connect() as client:
            response = client.get(path, method="HEAD")
            assert ([one.status for one in response.interim], response.status) == ([103], 200)
            assert client.get(path + "-next").status == 200

    def test_are_not_for_http_1_0(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, raw(self.HINTS + OK))
        with node.connect() as client:
            response = client.send(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode()).response()
            assert (response.interim, response.text) == ([], "ok")

    def test_hop_by_hop_fields_stay_behind(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, raw(b"HTTP/1.1 103 Early Hints\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n" + OK))
        with node.connect() as client:
            (hints,) = client.get(path).interim
            assert hints.fields == [(b"X-End", b"2")]


class TestUpgrade:
    """Offers to speak another protocol."""

    @pytest.mark.parametrize("protocol", ["websocket", "WebSocket", "TLS/1.2", "IRC/6.9", "websocket, h2c"])
    def test_one_that_a_client_depends_on_is_refused(
        self, node: Node, origin: Origin, path: str, protocol: str
    ) -> None:
        with node.connect() as client:
            response = client.get(path, "Connection: Upgrade", f"Upgrade: {protocol}")
            assert (response.status, response.problem["code"]) == (501, "upgrade_refused")
            assert client.is_ended()
        assert not origin.seen(path)

    def test_h2c_is_ignored(self, node: Node, origin: Origin, path: str) -> None:
        offer = request(
            path, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"
        )
        with node.connect() as client:
            for _ in range(2):
                response = client.send(offer).response()
                assert response.status == 200
                assert response.values("upgrade") == []
        for seen in origin.seen(path):
            assert seen.values("upgrade") == seen.values("http2-settings") == seen.values("connection") == []

    def test_hundreds_of_pipelined_h2c_offers(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, reply(b"hit", "Cache-Control: max-age=60"))
        offer = request(path, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        with node.recording() as log, node.connect() as client:
            client.get(path)
            client.send((offer + request(path)) * 600)
            assert {client.response().text for _ in range(1200)} == {"hit"}
            log.lines(1201)

    @pytest.mark.parametrize("piece", [1 << 20, 1], ids=["whole", "byte-by-byte"])
    def test_a_body_behind_an_h2c_offer_is_a_body(self, node: Node, origin: Origin, path: str, piece: int) -> None:
        offer = "Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        hidden = f"GET {path}-smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        sized = f"POST {path} HTTP/1.1\r\n{offer}Content-Length: {len(hidden)}\r\n\r\n{hidden}"
        chunks = (
            f"POST {path} HTTP/1.1\r\n{offer}Transfer-Encoding: chunked\r\n\r\n"
            f"{len(hidden):x}\r\n{hidden}\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        data = (sized + chunks).encode() + request(path) + (sized + chunks).encode() + request(path)
        with node.recording() as log, node.connect() as client:
            client.send_in_pieces(pieces_of(data, piece))
            for method in ["POST", "POST", "GET"] * 2:
                text = client.response().text
                assert text.startswith(f"{method} {path} ")
                assert text.endswith(hidden) or method == "GET"
            assert [line["bytes_in"] for line in log.lines(6)] == [len(hidden), len(hidden), 0] * 2
        assert not origin.seen(path + "-smuggled")
        assert [seen.trailers for seen in origin.seen(path)] == [[], [(b"X-Sum", b"1")], []] * 2

    def test_an_upgrade_that_connection_does_not_name_is_none(self, node: Node, origin: Origin, path: str) -> None:
        with node.connect() as client:
            assert client.get(path, "Upgrade: websocket").status == 200
        assert origin.seen(path)[0].values("upgrade") == []
