"""No request hides in another one: what the edge takes for a body is a body to the origin, too."""

import pytest

from tests.support import Conversation, Node, Origin, request

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: edge.test\r\n\r\n"


def send_and_ask(node: Node, data: bytes, path: str) -> list[int]:
    """The statuses of what is answered to `data` and to one more request."""
    statuses = []
    with node.connect() as client:
        client.send(data + request(path + "-last", "Connection: close"))
        while client.stream.buffer or client.stream.more():
            statuses.append(client.response().status)
    return statuses


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS"])
def test_a_body_that_looks_like_a_request_is_a_body(node: Node, origin: Origin, path: str, method: str) -> None:
    for body in (HIDDEN, b"\r\n\r\n" + HIDDEN, b"0\r\n\r\n" + HIDDEN):
        assert send_and_ask(node, request(path, method=method, body=body), path) == [200, 200]
        assert origin.seen(path)[-1].body == body
    assert not origin.seen("/hidden")


def test_a_chunk_that_looks_like_an_end_and_a_request_is_a_chunk(node: Node, origin: Origin, path: str) -> None:
    for inside in (HIDDEN, b"0\r\n\r\n" + HIDDEN, b"\r\n0\r\n\r\n" + HIDDEN):
        data = request(path, "Transfer-Encoding: chunked", method="POST") + b"%x\r\n%b\r\n0\r\n\r\n" % (
            len(inside),
            inside,
        )
        assert send_and_ask(node, data, path) == [200, 200]
        assert origin.seen(path)[-1].body == inside
    assert not origin.seen("/hidden")


@pytest.mark.parametrize("named", ["Content-Length", "Transfer-Encoding", "Host", "close, content-length", "Trailer"])
def test_connection_can_not_take_the_framing_away(node: Node, origin: Origin, path: str, named: str) -> None:
    sized = request(path, f"Connection: {named}", method="POST", body=HIDDEN)
    chunked = request(path, f"Connection: {named}", "Transfer-Encoding: chunked", method="POST")
    for data in (sized, chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)):
        assert set(send_and_ask(node, data, path)) == {200}
        seen = origin.seen(path)[-1]
        assert (seen.body, seen["host"]) == (HIDDEN, "edge.test")
        assert len(seen.values("content-length")) + len(seen.values("transfer-encoding")) == 1
    assert not origin.seen("/hidden")


@pytest.mark.parametrize(
    "field",
    [
        "Content_Length: 0",
        "Transfer_Encoding: chunked",
        "X-Transfer-Encoding: chunked",
        "Content-Lengths: 0",
        "Transfer-Encodin: chunked",
        "X: \tTransfer-Encoding: chunked",
        "Http2-Settings: chunked",
        "Proxy-Connection: Transfer-Encoding",
        "X-Http-Method-Override: TRACE",
    ],
)
def test_fields_that_only_look_like_framing_frame_nothing(node: Node, origin: Origin, path: str, field: str) -> None:
    assert send_and_ask(node, request(path, field, method="POST", body=HIDDEN), path) == [200, 200]
    assert origin.seen(path)[-1].body == HIDDEN
    assert not origin.seen("/hidden")


@pytest.mark.parametrize("length", ["00000000000000000042", "42", " 42", "42 ", "\t42\t"])
def test_a_length_may_be_written_in_several_ways(node: Node, origin: Origin, path: str, length: str) -> None:
    body = HIDDEN.ljust(42, b"x")[:42]
    data = f"POST {path} HTTP/1.1\r\nHost: edge.test\r\nContent-Length:{length}\r\n\r\n".encode() + body
    assert send_and_ask(node, data, path) == [200, 200]
    assert origin.seen(path)[-1].body == body


def test_trailers_do_not_become_headers(node: Node, origin: Origin, path: str) -> None:
    data = request(path, "Transfer-Encoding: chunked", method="POST") + b"0\r\nX-Admin: 1\r\n\r\n"
    assert send_and_ask(node, data, path) == [200, 200]
    assert origin.seen(path)[-1].values("x-admin") == []


def test_what_a_refused_request_carried_is_not_looked_at(node: Node, origin: Origin, path: str) -> None:
    with node.recording() as log:
        assert send_and_ask(node, request(path, method="TRACE", body=HIDDEN), path) == [405]
        log.lines(1)
    assert not origin.seen("/hidden")
    assert not origin.seen(path + "-last")


def test_a_body_that_the_origin_left_unread_does_not_meet_the_next_request(
    node: Node, origin: Origin, path: str
) -> None:
    def handle(talk: Conversation) -> None:
        talk.request.complete = True  # an origin that answers at once, and takes the body for the next request
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    origin.on(path, handle)
    with node.connect() as client:
        client.send(request(path, method="POST", body=HIDDEN)[: -len(HIDDEN)])
        assert client.response().status == 200
        client.send(HIDDEN)
        client.rest()
    with node.connect() as client:
        assert client.get(path + "-next").status == 200
    assert not origin.seen("/hidden")


def test_a_response_field_can_not_be_forged_by_the_request(node: Node, path: str) -> None:
    with node.connect() as client:
        response = client.get(f"{path}?x=%0d%0aSet-Cookie:%20a=b", "X: %0d%0aSet-Cookie: c=d")
        assert response.values("set-cookie") == []


def test_problems_echo_nothing_of_the_request(node: Node, path: str) -> None:
    with node.connect() as client:
        response = client.send(f"GET {path}<script> HTTP/1.1\r\nHost: <script>\r\n\r\n".encode()).response()
        assert response.status == 400
        assert b"<script>" not in response.body
