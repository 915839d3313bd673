"""Messages on their way through the real node, byte by byte at both ends: what ends at the edge, what it adds, what
stays.
"""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.proxy.edges import Edge
from tests.support import Conversation, Received, Response, chunked, raw, reply, request

EDGE_OWN = {
    "traceparent",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
    "x-trace-id",
    "x-request-id",
}
EDGE_ANSWERS = {"via", "date", "x-cache", "cache-status", "x-trace-id", "traceresponse", "server-timing"}
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    with Edge(app={}, named={"host": "origin.internal:81"}) as started:
        yield started


def sent(edge: Edge, head: bytes, body: bytes = b"") -> Received:
    """The request that arrives at the origin when a client sends this one, for /app/…."""
    with edge.connect() as client:
        client.send(head + body)
        assert client.response(head.split(b" ")[0].decode()).status == 200
    return edge["app"].requests[-1]


def own(message: Received | Response, names: set[str]) -> list[tuple[bytes, bytes]]:
    """The fields that the edge did not write."""
    return [(name, value) for name, value in message.fields if name.lower().decode() not in names]


# --- to the origin


def test_fields_keep_their_order_case_lines_and_bytes(edge: Edge) -> None:
    lines = [b"hOST: Edge.Test:80", b"X-B: 2", b"x-b: 1", b"ACCEPT:*/*", b"X-Odd:   \xe9\xff  ", b"X-Empty:", b"X-B: 2"]
    seen = sent(edge, b"\r\n".join([b"GET /app/x?y=%20&z HTTP/1.1", *lines, b"", b""]))
    assert seen.start == b"GET /app/x?y=%20&z HTTP/1.1"
    assert own(seen, EDGE_OWN) == [
        (b"Host", b"Edge.Test:80"),
        (b"X-B", b"2"),
        (b"x-b", b"1"),
        (b"ACCEPT", b"*/*"),
        (b"X-Odd", b"\xe9\xff"),
        (b"X-Empty", b""),
        (b"X-B", b"2"),
    ]


def test_hop_by_hop_fields_and_those_that_connection_names_end_here(edge: Edge) -> None:
    fields = ["Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Proxy-Connection: x", "TE: gzip"]
    seen = sent(
        edge, request("/app/x", *fields, "X-End: 1", "Proxy-Authorization: x", "connection: x-hop2", "X-HOP2: y")
    )
    assert own(seen, EDGE_OWN) == [(b"Host", b"edge.test"), (b"X-End", b"1")]


def test_the_edge_says_who_asked_for_what_and_that_it_stood_between(edge: Edge) -> None:
    seen = sent(edge, request("/app/x", "X-Forwarded-For: 198.51.100.1", "Via: 1.0 far", host="Edge.Test:8080"))
    assert seen["via"] == "1.0 far, 1.1 edgeproxy"
    assert seen["x-forwarded-for"] == "198.51.100.1, 127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-host"] == "edge.test:8080"
    assert seen["forwarded"] == 'for=127.0.0.1;host="edge.test:8080";proto=http'


def test_a_client_of_1_0_is_named_as_such(edge: Edge) -> None:
    assert sent(edge, b"GET /app/x HTTP/1.0\r\n\r\n")["via"] == "1.0 edgeproxy"


def test_a_configured_host_is_sent_instead_of_the_clients(edge: Edge) -> None:
    edge["named"].on("/named/x", reply())
    assert edge.get("/named/x").status == 200
    seen = edge["named"].requests[-1]
    assert (seen["host"], seen["x-forwarded-host"]) == ("origin.internal:81", "edge.test")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"])
def test_methods_are_passed_on(edge: Edge, method: str) -> None:
    assert sent(edge, request("/app/method", method=method)).method == method


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_a_body_of_stated_length_arrives_as_it_is(edge: Edge, method: str) -> None:
    seen = sent(edge, request("/app/x", method=method, body=bytes(range(256)) * 400))
    assert seen.body == bytes(range(256)) * 400
    assert seen["content-length"] == str(256 * 400)


def test_a_body_in_chunks_arrives_in_chunks_with_its_trailers(edge: Edge) -> None:
    head = request(
        "/app/x", "Transfer-Encoding: chunked", "TE: trailers", "Connection: TE", "Trailer: X-Sum", method="PUT"
    )
    seen = sent(edge, head, b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\ntraceparent: x\r\nVia: x\r\n\r\n")
    assert seen.body == b"abcde"
    assert seen["transfer-encoding"] == "chunked"
    assert seen["trailer"] == "X-Sum"
    assert (seen["te"], seen["connection"]) == ("trailers", "TE")
    assert seen.trailers == [(b"X-Sum", b"5")]


# --- to the client


def test_response_fields_keep_their_order_case_lines_and_bytes(edge: Edge) -> None:
    lines = [b"sET-cookie: a=1, b", b"X-B: \xe9", b"Set-Cookie: c=2", b'ETag:"x"', b"x-b:", b"Set-Cookie: a=1, b"]
    edge["app"].on(
        "/app/fields", raw(b"\r\n".join([b"HTTP/1.1 299 Odd \xe9", *lines, b"content-length: 2", b"", b"ok"]))
    )
    response = edge.get("/app/fields")
    assert response.start == b"HTTP/1.1 299 Odd \xe9"
    assert own(response, EDGE_ANSWERS) == [
        (b"sET-cookie", b"a=1, b"),
        (b"X-B", b"\xe9"),
        (b"Set-Cookie", b"c=2"),
        (b"ETag", b'"x"'),
        (b"x-b", b""),
        (b"Set-Cookie", b"a=1, b"),
        (b"Content-Length", b"2"),
    ]


def test_response_fields_of_the_hop_end_here(edge: Edge) -> None:
    fields = ["Connection: X-Hop", "X-Hop: 1", "Keep-Alive: x", "Proxy-Authenticate: x", "Upgrade: h2c", "X-End: 1"]
    edge["app"].on("/app/hop", reply(b"ok", *fields))
    assert own(edge.get("/app/hop"), EDGE_ANSWERS) == [(b"X-End", b"1"), (b"Content-Length", b"2")]


def test_via_and_date_are_added(edge: Edge) -> None:
    edge["app"].on("/app/via", reply(b"ok", "Via: 1.1 far"))
    response = edge.get("/app/via")
    assert response["via"] == "1.1 far, 1.1 edgeproxy"
    assert response["date"].endswith(" GMT")
    edge["app"].on("/app/via", reply(b"ok", "Date: Sun, 06 Nov 1994 08:49:37 GMT"))
    assert edge.get("/app/via")["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_chunks_and_trailers_come_through(edge: Edge) -> None:
    trailers = ["X-Sum: 5", "traceresponse: x", "X-Trace-Id: x", "Connection: x"]
    edge["app"].on("/app/chunks", chunked(b"abc", b"de", fields=["Trailer: X-Sum"], trailers=trailers))
    response = edge.get("/app/chunks")
    assert (response.body, response["trailer"], response.trailers) == (b"abcde", "X-Sum", [(b"X-Sum", b"5")])


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
        b"HTTP/1.1 204 N\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_response_without_a_body_needs_no_length(edge: Edge, head: bytes) -> None:
    edge["app"].on("/app/none", raw(head))
    with edge.connect() as client:
        for _ in range(2):
            response = client.get("/app/none")
            assert response.start == head.partition(b"\r\n")[0]
            assert response.get("content-length") is None
            assert response.get("transfer-encoding") is None


def test_a_response_to_head_keeps_its_length(edge: Edge) -> None:
    edge["app"].on("/app/head", reply(b"hello"))
    with edge.connect() as client:
        assert client.get("/app/head", method="HEAD")["content-length"] == "5"
        assert client.get("/app/head").body == b"hello"


# --- 1xx


def test_interim_responses_come_through_in_their_order(edge: Edge) -> None:
    processing = b"HTTP/1.1 102 Processing\r\nX-Trace-Id: theirs\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
    edge["app"].on("/app/hints", raw(processing, INTERIM, INTERIM, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    response = edge.get("/app/hints")
    assert (response.status, response.body) == (200, b"ok")
    assert [interim.raw_head for interim in response.interim] == [b"HTTP/1.1 102 Processing\r\n\r\n", INTERIM, INTERIM]
    assert edge.record(response)["status"] == 200


def test_interim_responses_to_head_come_through_as_well(edge: Edge) -> None:
    edge["app"].on("/app/head-hints", raw(INTERIM, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
    with edge.connect() as client:
        for _ in range(2):
            response = client.get("/app/head-hints", method="HEAD")
            assert ([one.status for one in response.interim], response["content-length"]) == ([103], "5")
    first, second = edge["app"].seen("/app/head-hints")
    assert first.connection == second.connection


def test_a_client_of_1_0_gets_no_interim_response(edge: Edge) -> None:
    edge["app"].on("/app/old", raw(INTERIM, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    with edge.connect() as client:
        response = client.send(b"GET /app/old HTTP/1.0\r\n\r\n").response()
    assert (response.interim, response.body) == ([], b"ok")


def test_an_interim_response_arrives_before_the_final_one_is_made(edge: Edge) -> None:
    gate = threading.Event()

    def handle(talk: Conversation) -> None:
        talk.send(INTERIM)
        talk.wait(gate)
        reply(b"ok")(talk)

    edge["app"].on("/app/early-hints", handle)
    with edge.connect() as client:
        client.send(request("/app/early-hints"))
        assert client.head().status == 103
        gate.set()
        assert client.response().body == b"ok"


def test_an_expectation_is_the_origins_to_meet(edge: Edge) -> None:
    def handle(talk: Conversation) -> None:
        assert talk.request["expect"] == "100-continue"
        talk.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        reply(b"got " + talk.read_body())(talk)

    edge["app"].on("/app/continue", handle)
    with edge.connect() as client:
        client.send(request("/app/continue", "Expect: 100-continue", "Content-Length: 4", method="PUT"))
        assert client.head().status == 100
        assert client.send(b"data").response().body == b"got data"


def test_an_expectation_that_the_origin_refuses_costs_no_body(edge: Edge) -> None:
    def handle(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
        talk.close()

    edge["app"].on("/app/refused", handle)
    with edge.connect() as client:
        client.send(request("/app/refused", "Expect: 100-continue", "Content-Length: 4000000", method="PUT"))
        response = client.response()
        assert (response.status, response.body) == (417, b"no")
    assert edge.record(response)["bytes_in"] == 0


# --- answers before the upload is over


@pytest.mark.parametrize("framing", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("end", ["close", "keep"])
def test_an_early_answer_to_an_upload_reaches_the_client(edge: Edge, framing: str, end: str) -> None:
    """Who is told at once that a body is not wanted must get to see the answer, whether or not the origin reads on."""

    def handle(talk: Conversation) -> None:
        talk.receive(1000)
        talk.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")
        if end == "close":
            # Close as servers have to (RFC 9112 §9.6): a full close at once would reset the connection.
            talk.stream.sock.shutdown(socket.SHUT_WR)
        while talk.receive():
            pass

    edge["app"].on("/app/early", handle)
    body = b"x" * 65536
    piece = body if framing.startswith("Content") else b"10000\r\n%b\r\n" % body
    with edge.connect() as client:
        client.send(request("/app/early", framing, method="PUT"))
        stop = threading.Event()

        def upload() -> None:
            try:
                for _ in range(300):
                    if stop.is_set():
                        return
                    client.sock.sendall(piece)
            except OSError:
                return

        thread = threading.Thread(target=upload)
        thread.start()
        response = client.response()
        stop.set()
        thread.join()
    assert (response.status, response.body) == (413, b"too big")
    record = edge.record(response)
    assert (record["status"], record["outcome"]) == (413, "ok")
    assert edge.get("/app/after").status == 200


def test_an_upload_that_is_answered_while_it_goes_on_may_go_on(edge: Edge) -> None:
    def handle(talk: Conversation) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun")
        body = talk.read_body()
        talk.send(body[:5])

    edge["app"].on("/app/duplex", handle)
    with edge.connect() as client:
        client.send(request("/app/duplex", "Content-Length: 5", method="PUT"))
        head = client.head()
        assert client.stream.take(5) == b"begun"
        client.send(b"-done")
        assert client.stream.take(5) == b"-done"
        assert (head.status, head["connection"]) == (200, "close")  # nobody knew yet whether the rest would come
        assert client.is_ended()
