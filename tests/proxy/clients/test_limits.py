"""What a client may ask for: exactly up to the limit, and a status that says which one it went over."""

from collections.abc import Callable, Iterator

import pytest

from tests.support import Cut, Node, Origin, pieces_of, reply, request, until

URI_BYTES = 512
HEADER_BYTES = 2048
HEADERS = 20
BODY_BYTES = 10_000
HOST_BYTES = len("Host") + len("edge.test") + 4
"""A field counts with its `: ` and its line end."""


@pytest.fixture(scope="module")
def node(origin: Origin) -> Iterator[Node]:
    """A node with low limits."""
    limits = {"uri_bytes": URI_BYTES, "header_bytes": HEADER_BYTES, "headers": HEADERS, "body_bytes": BODY_BYTES}
    with Node(origin.url, limits=limits) as started:
        yield started


def field_of(size: int, name: str = "X") -> str:
    return f"{name}: " + "y" * (size - len(name) - 4)


def post(path: str, body: bytes, *, chunked: bool, chunk: int = 1000) -> bytes:
    if not chunked:
        return request(path, method="POST", body=body)
    head = request(path, "Transfer-Encoding: chunked", method="POST")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces_of(body, chunk)) + b"0\r\n\r\n"


def assert_refused(node: Node, data: bytes, status: int, code: str, *, piece: int = 1 << 20) -> None:
    with node.recording() as log, node.connect() as client:
        response = client.send_in_pieces(pieces_of(data, piece)).response()
        assert (response.status, response.problem["code"]) == (status, code)
        assert response["connection"] == "close"
        assert client.is_ended()
        (line,) = log.lines(1)
    assert (line["outcome"], line["status"], line["error"]["type"]) == ("refused", status, code)
    assert line["trace_id"] == response.problem["trace_id"]


@pytest.mark.parametrize("piece", [1 << 20, 100], ids=["whole", "in-pieces"])
class TestHead:
    """Request target and header fields."""

    def test_the_longest_target_is_served(self, node: Node, origin: Origin, path: str, piece: int) -> None:
        target = path.ljust(URI_BYTES, "x")
        with node.connect() as client:
            assert client.send_in_pieces(pieces_of(request(target), piece)).response().status == 200
        assert origin.seen(target)

    def test_a_byte_more_is_refused(self, node: Node, path: str, piece: int) -> None:
        assert_refused(node, request(path.ljust(URI_BYTES + 1, "x")), 414, "uri_too_long", piece=piece)

    def test_the_query_counts(self, node: Node, path: str, piece: int) -> None:
        assert_refused(node, request(f"{path}?{'x' * URI_BYTES}"), 414, "uri_too_long", piece=piece)

    def test_the_longest_header_is_served(self, node: Node, path: str, piece: int) -> None:
        data = request(path, field_of(HEADER_BYTES - HOST_BYTES))
        with node.connect() as client:
            assert client.send_in_pieces(pieces_of(data, piece)).response().status == 200

    def test_a_byte_more_of_header_is_refused(self, node: Node, path: str, piece: int) -> None:
        data = request(path, field_of(HEADER_BYTES - HOST_BYTES + 1))
        assert_refused(node, data, 431, "head_too_large", piece=piece)

    def test_many_small_fields_count_together(self, node: Node, path: str, piece: int) -> None:
        fields = [field_of(HEADER_BYTES // 10, f"X-{number}") for number in range(10)]
        assert_refused(node, request(path, *fields), 431, "head_too_large", piece=piece)

    def test_as_many_fields_as_allowed_are_served(self, node: Node, path: str, piece: int) -> None:
        data = request(path, *(f"X-{number}: y" for number in range(HEADERS - 1)))
        with node.connect() as client:
            assert client.send_in_pieces(pieces_of(data, piece)).response().status == 200

    def test_one_field_more_is_refused(self, node: Node, path: str, piece: int) -> None:
        data = request(path, *(f"X-{number}: y" for number in range(HEADERS)))
        assert_refused(node, data, 431, "too_many_headers", piece=piece)

    def test_the_same_field_again_counts(self, node: Node, path: str, piece: int) -> None:
        assert_refused(node, request(path, *["X: y"] * HEADERS), 431, "too_many_headers", piece=piece)

    def test_limits_hold_behind_other_requests(self, node: Node, origin: Origin, path: str, piece: int) -> None:
        origin.on(path, reply(b"hit", "Cache-Control: max-age=60"))
        data = request(path) * 100 + request(path, field_of(HEADER_BYTES))
        with node.connect() as client:
            client.send_in_pieces(pieces_of(data, piece))
            assert {client.response().status for _ in range(100)} == {200}
            assert client.response().status == 431
            assert client.is_ended()


class TestEndless:
    """What never ends is refused while it comes."""

    @pytest.mark.parametrize(
        ("begun", "more", "status"),
        [
            (b"GET /", b"x" * 100, 414),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"y" * 100, 431),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX", b"y" * 100, 431),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n" * 10, 431),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=", b"y" * 100, 431),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 100, 431),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10, 431),
            (
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"64\r\n" + b"z" * 100 + b"\r\n",
                413,
            ),
        ],
        ids=["target", "value", "name", "fields", "chunk-extension", "trailer", "trailers", "chunks"],
    )
    def test_it_is_refused(self, node: Node, begun: bytes, more: bytes, status: int) -> None:
        sent = 0
        with node.recording() as log, node.connect() as client:
            client.send(begun)
            client.sock.setblocking(False)

            def answered() -> bool:
                nonlocal sent
                try:
                    sent += client.sock.send(more)
                    return bool(client.sock.recv(1, 2))  # MSG_PEEK
                except BlockingIOError:
                    return False

            until(answered, "an answer")
            client.sock.settimeout(20)
            assert client.response().status == status
            assert log.lines(1)[0]["outcome"] == "refused"
        assert sent < 1_000_000

    def test_header_bytes_may_be_less_than_uri_bytes(self, start_node: Callable[..., Node], path: str) -> None:
        node = start_node(limits={"header_bytes": 1024, "uri_bytes": 8192})
        with node.connect() as client:
            assert client.get(path, field_of(1024 - HOST_BYTES)).status == 200
            assert client.get(path, field_of(1025 - HOST_BYTES)).status == 431


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
class TestBody:
    """Request bodies."""

    def test_the_longest_is_served(self, node: Node, origin: Origin, path: str, chunked: bool) -> None:
        with node.connect() as client:
            assert client.send(post(path, b"x" * BODY_BYTES, chunked=chunked)).response().status == 200
            assert client.get(path).status == 200
        assert len(origin.seen(path)[0].body) == BODY_BYTES

    def test_a_byte_more_is_refused(self, node: Node, origin: Origin, path: str, chunked: bool) -> None:
        assert_refused(node, post(path, b"x" * (BODY_BYTES + 1), chunked=chunked), 413, "body_too_large")
        assert not [seen for seen in origin.seen(path) if seen.complete]

    def test_the_answer_is_seen_by_a_client_in_the_middle_of_its_body(
        self, node: Node, path: str, chunked: bool
    ) -> None:
        with node.connect() as client:
            client.send(post(path, b"x" * 3_000_000, chunked=chunked, chunk=50_000))
            response = client.response()
            assert (response.status, response.problem["code"]) == (413, "body_too_large")
            assert client.is_ended()


def test_no_limit_for_bodies(start_node: Callable[..., Node], origin: Origin, path: str) -> None:
    node = start_node(limits={"body_bytes": 0})
    with node.connect() as client:
        for chunked in (False, True):
            assert client.send(post(path, b"x" * 3_000_000, chunked=chunked)).response().status == 200
    assert [len(seen.body) for seen in origin.seen(path)] == [3_000_000] * 2


class TestConnections:
    """How many clients a worker serves at a time."""

    def test_one_too_many_is_told_so(self, start_node: Callable[..., Node], path: str) -> None:
        node = start_node(limits={"connections": 3})
        clients = [node.connect() for _ in range(3)]
        for client in clients:
            assert client.get(path).status == 200
        with node.connect() as late:
            response = late.response()
            assert (response.status, response["connection"], response["retry-after"]) == (503, "close", "1")
            assert late.is_ended()
        clients[0].close()

        def has_room() -> bool:
            with node.connect() as client:
                try:
                    return client.get(path).status == 200
                except (Cut, OSError):
                    return False

        until(has_room, "room for one more")
        for client in clients[1:]:
            assert client.get(path).status == 200
            client.close()
