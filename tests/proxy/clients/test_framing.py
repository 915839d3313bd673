"""Where messages begin and end, both ways: lengths, chunks, HEAD, trailers (RFC 9112 §6, §7)."""

import random

import pytest

from tests.support import Broken, Cut, Handler, Node, Origin, chunked, raw, reply, request, until_close

BODY = random.Random(3).randbytes(300_000)


def post_chunked(path: str, *chunks: bytes, trailers: str = "", fields: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n{fields}\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks) + f"0\r\n{trailers}\r\n".encode()


@pytest.mark.parametrize(
    "pieces", [[BODY], [BODY[:1], BODY[1:]], [BODY[at : at + 1000] for at in range(0, 300_000, 1000)]]
)
def test_a_chunked_response_stays_chunked_and_whole(node: Node, origin: Origin, path: str, pieces: list[bytes]) -> None:
    origin.on(path, chunked(*pieces))
    with node.connect() as client:
        response = client.get(path)
        assert response["transfer-encoding"] == "chunked"
        assert response.body == BODY
        assert client.get(path).body == BODY


def test_a_response_with_a_length_keeps_it(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(BODY))
    with node.connect() as client:
        response = client.get(path)
        assert (response["content-length"], response.body) == (str(len(BODY)), BODY)


def test_empty_bodies(node: Node, origin: Origin, path: str) -> None:
    handlers: dict[str, Handler] = {"length": reply(b""), "chunked": chunked(), "close": until_close()}
    with node.connect() as client:
        for name, handler in handlers.items():
            origin.on(f"{path}-{name}", handler)
            assert client.get(f"{path}-{name}").body == b""


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_that_never_have_a_body(node: Node, origin: Origin, path: str, status: str) -> None:
    origin.on(path, raw(f'HTTP/1.1 {status}\r\nETag: "a"\r\n\r\n'.encode()))
    with node.connect() as client:
        for _ in range(2):
            response = client.get(path)
            assert (response.status, response["etag"]) == (int(status[:3]), '"a"')
            assert response.values("transfer-encoding") == []


def test_a_request_with_a_length_keeps_it(node: Node, origin: Origin, path: str) -> None:
    with node.connect() as client:
        client.get(path, method="POST", body=BODY)
    (seen,) = origin.seen(path)
    assert (seen["content-length"], seen.body) == (str(len(BODY)), BODY)


@pytest.mark.parametrize("size", [1, 1000, 70_000, 300_000])
def test_a_chunked_request_stays_chunked_and_whole(node: Node, origin: Origin, path: str, size: int) -> None:
    body = BODY[: size * 20]
    with node.connect() as client:
        client.send(post_chunked(path, *(body[at : at + size] for at in range(0, len(body), size))))
        assert client.response().body.endswith(body)
        assert client.get(path).status == 200
    seen = origin.seen(path)[0]
    assert (seen["transfer-encoding"], seen.values("content-length"), seen.body) == ("chunked", [], body)


def test_an_empty_chunked_request(node: Node, origin: Origin, path: str) -> None:
    with node.connect() as client:
        client.send(post_chunked(path))
        assert client.response().status == 200
    assert origin.seen(path)[0].body == b""


def test_a_request_may_come_byte_by_byte(node: Node, origin: Origin, path: str) -> None:
    data = post_chunked(path, b"abc", b"defgh", trailers="X-Sum: 8\r\n") + request(path + "-next")
    with node.connect() as client:
        client.send_in_pieces(data[at : at + 1] for at in range(len(data)))
        assert client.response().text.endswith("abcdefgh")
        assert client.response().status == 200
    assert origin.seen(path)[0].trailers == [(b"X-Sum", b"8")]


def test_get_may_have_a_body(node: Node, origin: Origin, path: str) -> None:
    origin.on(path, reply(b"ok", "Cache-Control: max-age=60"))
    with node.connect() as client:
        assert client.get(path, body=b"why not").text == "ok"
        assert client.get(path).text == "ok"
    assert [seen.body for seen in origin.seen(path)] == [b"why not", b""]


def test_a_post_without_length_has_no_body(node: Node, origin: Origin, path: str) -> None:
    with node.connect() as client:
        assert client.get(path, method="POST").status == 200
        assert client.get(path, "Content-Length: 0", method="POST").status == 200
    assert [seen.body for seen in origin.seen(path)] == [b"", b""]
    assert origin.seen(path)[1]["content-length"] == "0"


class TestHead:
    """HEAD has a GET's head, no body, and leaves the connection usable."""

    @pytest.mark.parametrize(
        ("fields", "shown"),
        [("Content-Length: 1234\r\n", ["1234"]), ("", []), ("Transfer-Encoding: chunked\r\n", [])],
        ids=["length", "no-length", "chunked"],
    )
    def test_keep_alive_survives(self, node: Node, origin: Origin, path: str, fields: str, shown: list[str]) -> None:
        origin.on(path, raw(f"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n{fields}\r\n".encode()))
        with node.recording() as log, node.connect() as client:
            for _ in range(3):
                response = client.get(path, method="HEAD")
                assert (response.status, response.values("content-length")) == (200, shown)
                assert response.values("connection") == []
            assert client.get(path + "-after").status == 200
            lines = log.lines(4)
        assert [(line["method"], line["bytes_out"]) for line in lines[:3]] == [("HEAD", 0)] * 3

    def test_from_a_stored_get(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, reply(b"hello", "Cache-Control: max-age=60"))
        with node.connect() as client:
            client.get(path)
            response = client.get(path, method="HEAD")
            assert (response["content-length"], response.body) == ("5", b"")
            assert client.get(path).text == "hello"
        assert len(origin.seen(path)) == 1

    def test_is_not_stored_as_a_get(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, reply(b"hello", "Cache-Control: max-age=60"))
        with node.connect() as client:
            client.get(path, method="HEAD")
            assert client.get(path).text == "hello"

    def test_problems_have_no_body_either(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, raw(then="close"))
        with node.connect() as client:
            response = client.get(path, method="HEAD")
            assert (response.status, response["content-type"]) == (502, "application/problem+json")
            assert client.get(path + "-after").status == 200


class TestTrailers:
    """Fields behind a body that comes in chunks (RFC 9110 §6.5)."""

    def test_of_a_request_reach_the_origin(self, node: Node, origin: Origin, path: str) -> None:
        data = post_chunked(path, b"abc", fields="Trailer: X-Sum\r\n", trailers="X-Sum: 3\r\nX-Other: y\r\n")
        with node.connect() as client:
            assert client.send(data).response().status == 200
            assert client.get(path).status == 200
        seen = origin.seen(path)[0]
        assert (seen["trailer"], seen.trailers) == ("X-Sum", [(b"X-Sum", b"3"), (b"X-Other", b"y")])

    def test_of_a_response_reach_the_client(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, chunked(b"abc", fields=["Trailer: X-Sum"], trailers=["X-Sum: 3", "X-Other: y"]))
        with node.connect() as client:
            response = client.get(path, "TE: trailers")
            assert (response.text, response["trailer"]) == ("abc", "X-Sum")
            assert response.trailers == [(b"X-Sum", b"3"), (b"X-Other", b"y")]
            assert client.get(path).text == "abc"
        assert origin.seen(path)[0]["te"] == "trailers"

    def test_are_left_out_for_http_1_0(self, node: Node, origin: Origin, path: str) -> None:
        origin.on(path, chunked(b"abc", trailers=["X-Sum: 3"]))
        with node.connect() as client:
            client.send(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
            assert client.response().text == "abc"

    def test_that_are_forbidden_end_the_request(self, node: Node, origin: Origin, path: str) -> None:
        with node.recording() as log, node.connect() as client:
            client.send(post_chunked(path, b"abc", trailers="Host: other\r\n"))
            response = client.response()
            assert (response.status, response.problem["code"]) == (400, "forbidden_trailer")
            assert client.is_ended()
            (line,) = log.lines(1)
        assert line["outcome"] == "refused"
        assert not [seen for seen in origin.seen(path) if seen.complete]


class TestBrokenOff:
    """A response that the origin broke off never looks whole to a client."""

    @pytest.mark.parametrize(
        "begun",
        [
            b"Content-Length: 100\r\n\r\nhalf",
            b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf",
            b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense\r\n\r\n",
        ],
        ids=["length", "between-chunks", "in-a-chunk", "before-the-end", "bad-chunk"],
    )
    @pytest.mark.parametrize("version", ["1.1", "1.0"])
    def test_is_cut(self, node: Node, origin: Origin, path: str, begun: bytes, version: str) -> None:
        origin.on(path, raw(b"HTTP/1.1 200 OK\r\n" + begun, then="close"))
        with node.recording() as log, node.connect() as client:
            client.send(f"GET {path} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
            with pytest.raises((Cut, Broken)):
                client.response()
            (line,) = log.lines(1)
        assert (line["outcome"], line["status"], line["stage"]) == ("origin_error", 200, "streaming")
