"""How long a client's connection lives, and who says so (RFC 9112 §9.3)."""

import threading
from collections.abc import Iterator

import pytest

from tests.support import Client, Handler, Node, Origin, chunked, gated, raw, reply, request, until_close


@pytest.fixture(scope="module")
def brief(origin: Origin) -> Iterator[Node]:
    """A node whose connections carry two requests."""
    with Node(origin.url, limits={"keepalive_requests": 2}) as started:
        yield started


def test_a_connection_carries_one_request_after_the_other(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"one", "Cache-Control: no-store"))
    with node.recording() as log, node.connect() as client:
        for _ in range(50):
            response = client.get(path)
            assert (response.status, response.text) == (200, "one")
            assert response.values("connection") == []
        lines = log.lines(50)
    assert {line["outcome"] for line in lines} == {"ok"}
    assert len({line["span_id"] for line in lines}) == 50


def test_methods_alternate_on_one_connection(node: Node, origin: Origin, path: str) -> None:
    with node.connect() as client:
        for method, body in [
            ("GET", b""),
            ("POST", b"a"),
            ("HEAD", b""),
            ("PUT", b"bb"),
            ("DELETE", b""),
            ("OPTIONS", b""),
        ]:
            response = client.get(path, method=method, body=body)
            assert response.status == 200
            assert method == "HEAD" or response.text.startswith(f"{method} {path} HTTP/1.1\r\n")
    assert [seen.method for seen in origin.seen(path)] == ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"]


@pytest.mark.parametrize("value", ["close", "Close", "foo, close", "close, keep-alive"])
def test_connection_close_is_heeded_and_echoed(node: Node, path: str, value: str) -> None:
    with node.connect() as client:
        response = client.get(path, f"Connection: {value}")
        assert response["connection"] == "close"
        assert client.is_ended()


def test_bytes_behind_a_request_that_closes_are_dropped_in_silence(node: Node, origin: Origin, path: str) -> None:
    with node.recording() as log, node.connect() as client:
        client.send(request(path, "Connection: close") + request(path + "-behind"))
        assert client.response().status == 200
        assert client.is_ended()
        log.lines(1)
    assert not origin.seen(path + "-behind")


def test_http_1_0_closes_unless_asked_otherwise(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"old"))
    with node.connect() as client:
        client.send(f"GET {path} HTTP/1.0\r\nHost: edge.test\r\n\r\n".encode())
        response = client.response()
        assert (response.text, response["connection"]) == ("old", "close")
        assert client.is_ended()


def test_http_1_0_with_keep_alive_is_told_so(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"old", "Cache-Control: max-age=60"))
    with node.connect() as client:
        for _ in range(3):  # a miss, then hits
            client.send(f"GET {path} HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n\r\n".encode())
            response = client.response()
            assert (response.text, response["connection"]) == ("old", "keep-alive")


def test_http_1_0_needs_no_host(node: Node, path: str) -> None:
    with node.connect() as client:
        client.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert client.response().status == 200


@pytest.mark.parametrize("asked", ["", "Connection: keep-alive\r\n"], ids=["closing", "keep-alive"])
@pytest.mark.parametrize(
    "handler", [chunked(b"no ", b"length"), until_close(b"no ", b"length")], ids=["chunked", "close"]
)
def test_http_1_0_gets_a_body_without_length_up_to_the_close(
    node: Node, origin: Origin, path: str, asked: str, handler: Handler
) -> None:
    origin.on(path, handler)
    with node.connect() as client:
        client.send(f"GET {path} HTTP/1.0\r\nHost: edge.test\r\n{asked}\r\n".encode())
        response = client.response()
        assert response.values("transfer-encoding") == []
        assert (response.text, response["connection"]) == ("no length", "close")


def test_http_1_0_is_recorded_as_such(node: Node, path: str) -> None:
    with node.recording() as log, node.connect() as client:
        client.send(f"GET {path} HTTP/1.0\r\nHost: edge.test\r\n\r\n".encode())
        client.response()
        (line,) = log.lines(1)
    assert line["protocol"] == "HTTP/1.0"


def test_a_response_without_length_is_chunked_for_http_1_1_and_the_connection_survives(
    node: Node, origin: Origin, path: str
) -> None:
    origin.on(path, until_close(b"until ", b"the end"))
    with node.connect() as client:
        for _ in range(2):
            response = client.get(path)
            assert (response.text, response["transfer-encoding"]) == ("until the end", "chunked")


def test_empty_lines_before_a_request_are_skipped(node: Node, path: str) -> None:
    with node.connect() as client:
        for _ in range(2):  # RFC 9112 §2.2
            client.send(b"\r\n\r\n" + request(path))
            assert client.response().status == 200


def test_the_number_of_requests_a_connection_carries_can_be_limited(brief: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"ok", "Cache-Control: max-age=60"))
    with brief.connect() as client:
        assert client.get(path).values("connection") == []
        assert client.get(path)["connection"] == "close"
        assert client.is_ended()


def test_requests_pipelined_beyond_the_limit_are_not_served(brief: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"ok", "Cache-Control: max-age=60"))
    with brief.connect() as client:
        client.get(path, "Connection: close")
    for beyond in (path, path + "-miss"):
        with brief.recording() as log, brief.connect() as client:
            client.send(request(path) * 2 + request(beyond) * 3)
            assert [client.response().status for _ in range(2)] == [200, 200]
            assert client.is_ended()
            log.lines(2)
    assert not origin.seen(path + "-miss")


def test_a_connection_survives_answers_that_the_node_makes_itself(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, raw(then="close"))
    with node.connect() as client:
        for _ in range(3):
            assert client.get(path).status == 502
            assert client.get(path, method="TRACE").status == 405
            assert client.get(path + "-well").status == 200


def test_connections_are_served_side_by_side(node: Node, origin: Origin, path: str) -> None:
    gate = threading.Event()
    origin.on(path, gated(gate, reply(b"late")))
    with node.connect() as slow, node.connect() as quick:
        slow.send(request(path))
        origin.wait_for(path)
        assert quick.get(path + "-quick").status == 200
        gate.set()
        assert slow.response().text == "late"


def test_a_hundred_clients_share_a_few_connections_to_the_origin(node: Node, origin: Origin, path: str) -> None:
    before = origin.connections
    clients = [Client(node.port) for _ in range(100)]
    for client in clients:
        assert client.get(path, method="POST", body=b"x").status == 200
    for client in clients:
        client.close()
    assert origin.connections - before <= 2
